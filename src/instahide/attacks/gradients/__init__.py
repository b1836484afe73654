"""Gradient inversion: from what a participant sent of its training to what it trained on.

Nothing is imported here: the attacks stand in `dlg` and `inverting`, what they share beside them.
"""

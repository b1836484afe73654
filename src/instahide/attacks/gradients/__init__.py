"""Gradient inversion: attacks that recover training data from a participant's update.

The attacks are in `dlg` and `inverting`; the other modules are shared by both.
"""

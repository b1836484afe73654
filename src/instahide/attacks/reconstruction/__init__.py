"""The attack that broke the authors' challenge, in stages that can be used alone.

``features`` or ``encoder`` say which encodings share a private image, ``groups`` and
``assignment`` which images each one holds, ``coefficients`` how much of each, ``initialisation``
and ``recovery`` what they look like; ``attack`` goes round.
"""

"""Challenges like the authors': published encodings with a secret ground truth."""

"""Runs attacks on encodings with known ground truth, and reports what they recovered."""

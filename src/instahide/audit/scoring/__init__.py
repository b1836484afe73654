"""Scores of attacks against the ground truth."""

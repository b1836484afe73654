"""Checks of published encodings that need no keys."""

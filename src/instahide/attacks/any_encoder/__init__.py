"""Attacks that use nothing of an encoder but the encodings that it makes."""

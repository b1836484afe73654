"""Batches to train on: from private images, or from folders of encodings."""

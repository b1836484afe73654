"""Finds rows that show the same image, by content."""

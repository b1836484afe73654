"""Conversion of encodings to and from other formats, with a module for each format."""

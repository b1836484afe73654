"""Readers: files of many formats to rows of an `ImageTable`."""

"""Readers of image files, archives and arrays, which return an `ImageTable`."""

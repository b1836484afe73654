"""Encodings in the formats of others: one module a format, and the two ways."""

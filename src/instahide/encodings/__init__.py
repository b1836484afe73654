"""Encodings on disk: their format, publishing, verification, conversion, and the ledger."""

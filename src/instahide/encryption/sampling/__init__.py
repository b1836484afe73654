"""Draws partners and coefficients from the key stream."""

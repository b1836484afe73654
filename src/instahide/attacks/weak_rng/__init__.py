"""Attacks on keys that were drawn from general-purpose random generators."""

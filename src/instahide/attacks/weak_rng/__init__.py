"""Attacks on masks that were drawn from general-purpose random generators."""

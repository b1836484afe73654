"""Advice on settings: candidates are trained and attacked, and the best trade-offs are kept."""

"""Sampling of one-time keys from the key stream, and the pools of possible partners."""

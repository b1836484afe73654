"""Guarantees of noise beside differential privacy: error floors and reconstruction robustness.

docs/guarantees.md derives each of them and states what it assumes.
"""

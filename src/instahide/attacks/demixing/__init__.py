"""Demixing: a network, trained on many mixes with known images, recovers an image from a mix.

The attack is in `attack`, the shipped network in `network`.
"""

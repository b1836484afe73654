"""Training on encodings: loaders, networks, the training loop and prediction.

This module imports nothing, so that reading the settings of a run does not load PyTorch.
"""

"""Learning from encodings: the loader, the networks, the training loop and prediction.

Nothing is imported here, so that reading the settings of a run does not load PyTorch.
"""

"""A callback for PyTorch Lightning."""

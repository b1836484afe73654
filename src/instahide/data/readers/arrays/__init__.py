"""Readers of arrays and archives: NumPy, IDX and CIFAR."""

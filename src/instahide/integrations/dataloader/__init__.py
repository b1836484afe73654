"""A PyTorch `DataLoader` that gives encodings in place of images."""

"""From assigned encodings to the private images."""

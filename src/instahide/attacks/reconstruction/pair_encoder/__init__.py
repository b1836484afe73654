"""The network that tells which encodings share a private image."""

"""A PyTorch `DataLoader` that gives encodings in place of images."""

from instahide.integrations.dataloader.wrap import EncodingLoader, encode_loader

__all__ = ["EncodingLoader", "encode_loader"]

"""Encodings do not depend on PyTorch's default type, which a program sets for its network."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

from instahide import Encoder, Scheme, encode_loader, open_split
from instahide.encryption.encoder import Encoded
from instahide.encryption.keys import KeyStream

DEFAULTS = (torch.float64, torch.float16, torch.bfloat16)
IMAGES = open_split("digits").test.subset(np.arange(60))


@contextmanager
def default_dtype(dtype: torch.dtype) -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def encoded(kind: torch.dtype, default: torch.dtype) -> Encoded:
    with default_dtype(default):
        stream = KeyStream(fixed_key=bytes(32))
        encoder = Encoder(Scheme.inside(3, noise=0.1), IMAGES, dtype=kind, keys=stream)
        return encoder.encode(np.arange(len(IMAGES)))


@pytest.mark.parametrize("default", DEFAULTS)
@pytest.mark.parametrize("kind", [torch.float32, torch.float16, torch.bfloat16])
def test_encodings_of_a_table(kind: torch.dtype, default: torch.dtype) -> None:
    for found, expected in zip(encoded(kind, default), encoded(kind, torch.float32), strict=True):
        assert found.dtype == expected.dtype
        assert torch.equal(found, expected)


@pytest.mark.parametrize("default", DEFAULTS)
@pytest.mark.parametrize("kind", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
def test_encodings_of_a_loader(kind: torch.dtype, default: torch.dtype) -> None:
    """Without partners, an encoding is the image under a mask."""
    images = torch.from_numpy(IMAGES.normalized()).to(kind)
    loader = DataLoader(TensorDataset(images, torch.from_numpy(IMAGES.labels)), 30)
    with default_dtype(default):
        batches = list(encode_loader(loader, Scheme.inside(1), classes=10))
    found, labels = (torch.cat(parts) for parts in zip(*batches, strict=True))
    assert labels.argmax(1).tolist() == IMAGES.labels.tolist()
    torch.testing.assert_close(found.float().abs(), images.float().abs())

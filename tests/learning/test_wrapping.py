"""A wrapped loader: the user's own batches, encrypted, and nothing else changed."""

from __future__ import annotations

from itertools import chain

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

from instahide import Exposure, InstaHideError, Scheme, encode_loader
from instahide.encryption.exposure import ExposureLimitError


def items(count: int = 30, classes: int = 3) -> TensorDataset:
    images = torch.from_numpy(np.random.default_rng(0).normal(size=(count, 1, 4, 4)))
    return TensorDataset(images.float(), torch.arange(count) % classes)


def loader(count: int = 30, batch_size: int = 8, **more: object) -> DataLoader[object]:
    return DataLoader(items(count), batch_size, **more)  # type: ignore[arg-type]


@pytest.mark.parametrize("workers", [0, 2])
def test_batches_are_encrypted(workers: int) -> None:
    encoded = encode_loader(loader(num_workers=workers), Scheme.inside(4), classes=3)
    batches = list(encoded)
    assert [len(images) for images, _ in batches] == [8, 8, 8, 6]
    assert len(encoded) == 4
    for images, labels in batches:
        assert images.shape[1:] == (1, 4, 4)
        torch.testing.assert_close(labels.sum(1), torch.ones(len(labels)))
    assert encoded.exposure.counts.sum() == 4 * 30


def test_a_plain_scheme_changes_nothing() -> None:
    plain = list(loader())
    for ours, theirs in zip(encode_loader(loader(), Scheme.plain(), classes=3), plain, strict=True):
        torch.testing.assert_close(ours[0], theirs[0])
        assert torch.equal(ours[1].argmax(1), theirs[1])


def test_the_limit_ends_the_epoch() -> None:
    exposure = Exposure(30, limit=5)
    encoded = encode_loader(loader(), Scheme.inside(4), classes=3, exposure=exposure)
    with pytest.raises(ExposureLimitError):
        list(chain(encoded, encoded))
    assert exposure.counts.max() == 5


def test_wrapping_twice_is_refused() -> None:
    once = encode_loader(loader(), Scheme.inside(4), classes=3)
    with pytest.raises(InstaHideError, match=r"unwrapped"):
        encode_loader(once, Scheme.inside(4), classes=3)  # type: ignore[arg-type]

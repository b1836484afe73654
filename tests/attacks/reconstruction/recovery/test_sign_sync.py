"""One sign for each encoding is found from the images that encodings share."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from instahide.attacks.reconstruction.recovery.phase_retrieval import POOL
from instahide.attacks.reconstruction.recovery.sign_sync import synchronized_signs
from tests.attacks.reconstruction.planted import ENCODINGS, Planted


@pytest.fixture(scope="module")
def planted() -> Planted:
    return Planted()


@pytest.fixture
def flips() -> Tensor:
    generator = torch.Generator().manual_seed(3)
    return 1.0 - 2.0 * torch.randint(2, (ENCODINGS,), generator=generator)


def right(found: Tensor, flips: Tensor) -> float:
    """Share of the signs that undo the ``flips``, up to one sign for all."""
    return (1 + float((found * flips).mean().abs())) / 2


def synchronized(planted: Planted, signed: Tensor, flips: Tensor) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    regions = F.avg_pool2d(signed * flips[:, None, None, None], POOL)
    return synchronized_signs(regions, planted.mixes, generator)


@pytest.mark.parametrize("noise", [0.0, 1.0])
def test_planted_signs_are_found(planted: Planted, flips: Tensor, noise: float) -> None:
    generator = torch.Generator().manual_seed(1)
    size = planted.mixed.std()
    signed = planted.mixed + noise * size * torch.randn(planted.mixed.shape, generator=generator)
    found = synchronized(planted, signed, flips)
    assert found.abs().tolist() == [1] * ENCODINGS
    # Mixes whose two images cancel have nothing that a sign could be told by.
    assert right(found, flips) > 0.98


def test_signs_of_pixels_may_be_wrong_in_part(planted: Planted, flips: Tensor) -> None:
    generator = torch.Generator().manual_seed(1)
    wrong = torch.rand(planted.mixed.shape, generator=generator) < 0.3
    found = synchronized(planted, planted.mixed * (1.0 - 2.0 * wrong), flips)
    assert right(found, flips) > 0.97


def test_signs_for_which_all_encodings_are_bright_are_not_chosen(planted: Planted) -> None:
    """Bright encodings are alike, and so are dark ones that are negated, whatever they share."""
    detail = planted.images - planted.images.mean(dim=(1, 2, 3), keepdim=True)
    levels = torch.tensor([-1.0, 1.0]).repeat(len(detail) // 2)
    images = 0.5 * detail + levels[:, None, None, None]
    mixed = planted.mixes.mixed(images)
    bright = torch.where(mixed.mean(dim=(1, 2, 3)) < 0, -1.0, 1.0)
    assert right(bright, torch.ones(ENCODINGS)) < 0.7
    assert right(synchronized(planted, mixed, torch.ones(ENCODINGS)), torch.ones(ENCODINGS)) > 0.98
    assert right(synchronized(planted, mixed, bright), bright) > 0.98


def test_the_same_generator_gives_the_same_signs(planted: Planted, flips: Tensor) -> None:
    first, second = (synchronized(planted, planted.mixed, flips) for _ in range(2))
    assert torch.equal(first, second)

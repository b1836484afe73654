"""Images and moves that were planted in feature maps are found."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from instahide.attacks.reconstruction.cropped.assignment import (
    Placed,
    classes_of_members,
    fitted,
    place_images,
    strengths,
    unexplained,
)
from instahide.attacks.reconstruction.cropped.feature_maps import normalized
from instahide.attacks.reconstruction.recovery.moved_mixing import MovedMixing

IMAGES, COPIES, PADDING = 8, 30, 2


def planted(images: int = IMAGES, per_mix: int = 2) -> tuple[Tensor, Placed]:
    """Maps of encodings, and what is in them."""
    generator = torch.Generator().manual_seed(0)
    count = images * COPIES
    centres = normalized(torch.randn(images, 4, 16, 16, generator=generator))
    first = torch.arange(count) % images
    others = [(first + step) % images for step in range(1, per_mix)]
    turn = torch.from_numpy(np.random.default_rng(0).integers(1, images - 1, count))
    members = torch.stack([first, *[(other + turn - 1) % images for other in others]], dim=1)
    members[:, 1:] = torch.where(
        members[:, 1:] == first[:, None], (members[:, 1:] + 1) % images, members[:, 1:]
    )
    moves = torch.randint(-PADDING, PADDING + 1, (count, per_mix, 2), generator=generator)
    strong = 0.5 + torch.rand(count, per_mix, generator=generator)
    mixes = MovedMixing(members, strong, images, moves, PADDING)
    noise = torch.randn(count, 4, 16, 16, generator=generator) / 32
    maps = mixes.mixed(centres) + 0.8 * noise
    return maps, Placed(centres, members, moves, strong)


def rightly(found: Placed, truth: Placed) -> float:
    """Share of the planted images that were found in their encodings, moved as one expects.

    An image may be found in another frame: all of its moves are then off by the same.
    """
    images = len(truth.centres)
    hits = 0
    for image in range(images):
        rows, slots = (truth.members == image).nonzero(as_tuple=True)
        there = found.members[rows]
        best = int(there.flatten().mode().values)
        held = (there == best).any(dim=1)
        place = (there == best).int().argmax(dim=1)
        off = found.moves[rows, place] - truth.moves[rows, slots]
        hits += int((held & (off == off[held].mode(dim=0).values).all(dim=1)).sum())
    return hits / truth.members.numel()


@pytest.mark.slow
@pytest.mark.parametrize("told", [True, False])
def test_planted_images_are_found_with_their_moves(told: bool) -> None:
    maps, truth = planted()
    generator = torch.Generator().manual_seed(1)
    count = IMAGES if told else None
    found = place_images(normalized(maps), 2, PADDING, generator, count=count, labels=None)
    # Who is not told how many there are takes up to two more for images, which claim encodings.
    assert IMAGES <= len(found.centres) <= (IMAGES if told else IMAGES + 2)
    assert rightly(found, truth) > (0.9 if told else 0.75)
    assert found.moves.abs().max() <= PADDING


def test_images_are_found_in_their_own_frame() -> None:
    maps, truth = planted()
    generator = torch.Generator().manual_seed(1)
    found = place_images(normalized(maps), 2, PADDING, generator, count=IMAGES, labels=None)
    alike = normalized(found.centres).flatten(1) @ truth.centres.flatten(1).T
    assert (alike.amax(dim=0) > 0.8).sum() >= IMAGES - 1


def test_a_single_image_in_a_mix_is_found() -> None:
    maps, truth = planted(per_mix=1)
    generator = torch.Generator().manual_seed(1)
    found = place_images(normalized(maps), 1, PADDING, generator, count=IMAGES, labels=None)
    assert found.members.shape == (len(maps), 1)
    assert rightly(found, truth) > 0.95


def test_regression_and_strengths_undo_each_other() -> None:
    maps, truth = planted()
    centres = fitted(maps, truth, PADDING)
    alike = torch.cosine_similarity(centres.flatten(1), truth.centres.flatten(1), dim=1)
    assert alike.min() > 0.95
    found = strengths(maps, truth, PADDING)
    assert torch.corrcoef(torch.stack([found.flatten(), truth.strengths.flatten()]))[0, 1] > 0.9
    left = unexplained(maps, truth, PADDING)
    assert left.square().sum() < 0.6 * maps.square().sum()


def test_the_class_of_an_image_is_that_of_its_encodings() -> None:
    _, truth = planted()
    classes = torch.arange(IMAGES) % 3
    labels = torch.zeros(len(truth.members), 3)
    labels.scatter_(1, classes[truth.members], 0.5)
    found = classes_of_members(labels, truth.members, IMAGES)
    assert torch.equal(found.of, classes)
    assert torch.equal(found.present, labels > 0)

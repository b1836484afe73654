"""The published attack: its assignment and recovery of planted images, its loss by autograd."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from instahide.attacks.base import AssignedImages, EncodingObservation, ThreatModel
from instahide.attacks.baselines import carlini, carlini_assignment
from instahide.attacks.budget import Budget
from instahide.attacks.reconstruction.recovery.coefficients import weights
from instahide.data import ImageTable
from instahide.encryption.scheme import Scheme
from tests.attacks.conftest import natural
from tests.waiting import ticks

IMAGES, ENCODINGS = 6, 240


@pytest.fixture(scope="module")
def planted() -> tuple[Tensor, Tensor, Tensor]:
    """Images, members and coefficients of mixes of two, nothing public in them."""
    generator = np.random.default_rng(0)
    images = torch.from_numpy(ImageTable.from_arrays(natural(IMAGES, 5, 8)).normalized())
    first = np.arange(ENCODINGS) % IMAGES
    second = (first + generator.integers(1, IMAGES, ENCODINGS)) % IMAGES
    members = torch.from_numpy(np.stack([first, second], axis=1))
    coefficients = torch.from_numpy(generator.uniform(0.2, 0.6, (ENCODINGS, 2)).astype(np.float32))
    return images, members, coefficients


def encoded(images: Tensor, mixes: Tensor) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    mixed = torch.einsum("nm,mchw->nchw", mixes, images)
    return mixed * (torch.rand(mixed.shape, generator=generator) < 0.5).float().mul(2).sub(1)


def published_loss(images: Tensor, sizes: Tensor, mixes: Tensor) -> Tensor:
    """As their code has it: whichever sign of an encoding is nearer, and a bonus for colour."""
    mixed = mixes @ images
    up, down = sizes - mixed, -(sizes + mixed)
    error = torch.where(up.abs() < down.abs(), up, down)
    return error.square().mean() + 0.05 * (1 - images.abs()).mean()


def test_the_steps_are_those_of_adam_on_the_published_loss(
    planted: tuple[Tensor, Tensor, Tensor],
) -> None:
    images, members, coefficients = planted
    mixes = weights(members, coefficients, IMAGES)
    sizes = (carlini.UNIT * encoded(images, mixes).abs()).flatten(1)[:, :10]
    expected = torch.zeros(IMAGES, 10, requires_grad=True)
    optimiser = torch.optim.Adam([expected], lr=0.01)
    for _ in range(20):
        optimiser.zero_grad()
        # Adam does not mind that a mean over fewer pixels is larger.
        (published_loss(expected, sizes, mixes) * 10).backward()
        optimiser.step()
    found = carlini._descended(sizes, mixes, 20)
    torch.testing.assert_close(found, expected.detach(), atol=1e-4, rtol=1e-3)


def test_sizes_of_mixes_are_met(planted: tuple[Tensor, Tensor, Tensor]) -> None:
    images, members, coefficients = planted
    mixes = weights(members, coefficients, IMAGES)
    sizes = (carlini.UNIT * encoded(images, mixes).abs()).flatten(1)
    found = carlini._descended(sizes, mixes, 400)
    assert ((mixes @ found).abs() - sizes).square().mean() < 0.2 * sizes.square().mean()


def test_images_are_stretched_to_their_full_range(planted: tuple[Tensor, Tensor, Tensor]) -> None:
    images, members, coefficients = planted
    mixes = weights(members, coefficients, IMAGES)
    found = carlini.recovered_by_adam(encoded(images, mixes), mixes, steps=50)
    assert found.shape == images.shape
    torch.testing.assert_close(found.amin(dim=(1, 2, 3)), torch.full((IMAGES,), -1.0))
    torch.testing.assert_close(found.amax(dim=(1, 2, 3)), torch.full((IMAGES,), 1.0))


def test_pixels_whose_share_of_the_time_was_short_cut_the_attack_short(
    planted: tuple[Tensor, Tensor, Tensor],
) -> None:
    images, members, coefficients = planted
    mixes = weights(members, coefficients, IMAGES)
    for steps, short in ((2, False), (1000, True)):
        budget = Budget(200, clock=ticks())
        carlini.recovered_by_adam(encoded(images, mixes), mixes, steps, budget.part(50))
        assert (budget.left > 0, budget.cut_short) == (True, short)


def test_images_of_one_class_share_a_label_evenly() -> None:
    members = torch.tensor([[0, 1], [1, 2], [0, 2]] * 20)
    labels = torch.tensor([[0.6, 0.0], [0.4, 0.2], [0.1, 0.5]] * 20)
    found = carlini.their_coefficients(labels, members, 3)
    torch.testing.assert_close(found[:3], torch.tensor([[0.3, 0.3], [0.4, 0.2], [0.1, 0.5]]))


@pytest.mark.slow
def test_colours_are_learnt_from_shadow_images_and_come_nearer() -> None:
    shadow = ImageTable.from_arrays(natural(60, 7, 8))
    torch.manual_seed(0)
    network = carlini.learnt_colours(shadow, Scheme.inside(2), steps=60)
    seen = torch.rand(5, 3, 8, 8) * 2 - 1
    out = carlini.recoloured(seen, network)
    assert out.shape == seen.shape
    # Each pixel by itself: the network of one is that of all.
    alone = carlini.recoloured(seen[:, :, 2:3, 4:5], network)
    torch.testing.assert_close(out[:, :, 2:3, 4:5], alone)


@pytest.mark.slow
def test_it_goes_on_from_an_assignment(planted: tuple[Tensor, Tensor, Tensor]) -> None:
    images, members, coefficients = planted
    encodings = encoded(images, weights(members, coefficients, IMAGES))
    found = AssignedImages(images=images, assignment=members, coefficients=coefficients)
    labels = torch.zeros(ENCODINGS, 3).scatter_add(1, members % 3, coefficients)
    for seen, threat in ((labels, "soft"), (None, "none")):
        observation = EncodingObservation(
            Scheme.cross(4), (0.5,) * 3, (0.2,) * 3,
            ThreatModel(labels=threat, encodings_per_image=40),  # type: ignore[arg-type]
            encodings, seen,
        )  # fmt: skip
        published = carlini.recover_as_published(observation, found)
        assert published.assignment is found.assignment
        assert not torch.equal(published.images, images)


def shared(members: Tensor) -> Tensor:
    """(n, n) whether two encodings share an image, with a little noise."""
    there = torch.zeros(len(members), int(members.max()) + 1).scatter(1, members, 1.0)
    noise = torch.rand(len(members), len(members), generator=torch.Generator().manual_seed(0))
    return (there @ there.T).clamp(max=1) + 0.5 * noise


def soft_labels(members: Tensor, coefficients: Tensor) -> Tensor:
    """(n, m) with a class for every image."""
    empty = torch.zeros(len(members), int(members.max()) + 1)
    return empty.scatter_add(1, members, coefficients)


def test_their_assignment_is_right_and_reads_coefficients_from_labels() -> None:
    generator = np.random.default_rng(0)
    members = torch.from_numpy(
        np.stack([generator.permutation(20)[:2] for _ in range(1000)]).astype(np.int64)
    )
    coefficients = torch.from_numpy(generator.uniform(0.2, 0.6, (1000, 2)).astype(np.float32))
    found = carlini_assignment.assign_as_published(
        shared(members), soft_labels(members, coefficients), 20, torch.Generator().manual_seed(0)
    )
    assert found.images == 20
    # They give each image to 80 encodings where about 100 hold it.
    assert (found.members >= 0).float().mean() > 0.7
    held = weights(found.members, found.coefficients, 20)
    true = weights(members, coefficients, 20)
    # Which image of theirs is which of the planted ones.
    of = (held.T @ true).argmax(dim=1)
    assert sorted(of.tolist()) == list(range(20))
    torch.testing.assert_close(held, torch.where(held > 0, true[:, of], 0.0))


def test_two_images_of_one_class_have_half_its_label_each() -> None:
    near = torch.tensor([[9.0, 8.0], [8.0, 9.0], [7.0, 1.0], [1.0, 7.0]])
    labels = torch.tensor([[0.6, 0.0], [0.4, 0.0], [0.3, 0.0], [0.1, 0.5]])
    found = carlini_assignment._given(near, labels, given=3, telling=2)
    # The third is not among the three that are most like image 1, the fourth among those of 0.
    expected = torch.tensor([[0, 1], [0, 1], [0, -1], [1, -1]])
    assert torch.equal(found.members, expected)
    halves = torch.tensor([[0.3, 0.3], [0.2, 0.2], [0.15, 0.0], [0.1, 0.0]])
    torch.testing.assert_close(found.coefficients, halves)


def test_sets_are_kept_that_starts_agree_on_and_that_differ() -> None:
    agreed = [[0, 1, 2, 3], [1, 0, 2, 3], [1, 0, 3, 2]]
    alone, other = [4, 5, 6, 7], [0, 1, 8, 9]
    grown = torch.tensor([alone, *agreed, other])
    # Alone is taken only where there are too few; the last shares too much with the first.
    assert carlini_assignment._different(grown, core=2, small=1, count=1) == [1]
    assert carlini_assignment._different(grown, core=2, small=1, count=3) == [1, 0]


@pytest.mark.slow
def test_all_of_the_published_attack_gives_images(planted: tuple[Tensor, Tensor, Tensor]) -> None:
    images, members, coefficients = planted
    observation = EncodingObservation(
        Scheme.cross(4), (0.5,) * 3, (0.2,) * 3, ThreatModel(encodings_per_image=40),
        encoded(images, weights(members, coefficients, IMAGES)),
        soft_labels(members, coefficients),
    )  # fmt: skip
    found = carlini.attack_as_published(
        observation, shared(members), IMAGES, torch.Generator().manual_seed(0)
    )
    assert 1 <= len(found.images) <= IMAGES
    assert found.images.shape[1:] == images.shape[1:]
    mixes = weights(found.assignment, found.coefficients, len(found.images))
    expected = carlini.recovered_by_adam(observation.encodings, mixes)
    torch.testing.assert_close(found.images, expected)

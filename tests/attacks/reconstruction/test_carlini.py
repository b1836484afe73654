"""The published recovery: its loss against autograd, and what it makes of planted images."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from instahide.attacks.base import Observation, Reconstruction, ThreatModel
from instahide.attacks.reconstruction import carlini
from instahide.attacks.reconstruction.coefficients import weights
from instahide.encryption.scheme import Scheme
from instahide.images import ImageTable
from tests.attacks.conftest import natural

IMAGES, ENCODINGS = 6, 240


@pytest.fixture(scope="module")
def planted() -> tuple[Tensor, Tensor, Tensor]:
    """Images, members and coefficients of mixes of two, nothing public in them."""
    generator = np.random.default_rng(0)
    images = torch.from_numpy(ImageTable.from_arrays(natural(IMAGES, 5, 8)).normalised())
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


def test_images_of_one_class_share_a_label_evenly() -> None:
    members = torch.tensor([[0, 1], [1, 2], [0, 2]] * 20)
    labels = torch.tensor([[0.6, 0.0], [0.4, 0.2], [0.1, 0.5]] * 20)
    found = carlini.their_coefficients(labels, members, 3)
    torch.testing.assert_close(found[:3], torch.tensor([[0.3, 0.3], [0.4, 0.2], [0.1, 0.5]]))


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


def test_it_goes_on_from_an_assignment(planted: tuple[Tensor, Tensor, Tensor]) -> None:
    images, members, coefficients = planted
    encodings = encoded(images, weights(members, coefficients, IMAGES))
    found = Reconstruction(images=images, members=members, coefficients=coefficients)
    labels = torch.zeros(ENCODINGS, 3).scatter_add(1, members % 3, coefficients)
    for seen, threat in ((labels, "soft"), (None, "none")):
        observation = Observation(
            encodings, seen, Scheme.cross(4), (0.5,) * 3, (0.2,) * 3,
            ThreatModel(labels=threat, encodings_per_image=40),  # type: ignore[arg-type]
        )  # fmt: skip
        published = carlini.recover_as_published(observation, found)
        assert published.members is found.members
        assert published.images is not None
        assert not torch.equal(published.images, images)

"""Encodings whose keys are known, of images and of volumes."""

from __future__ import annotations

import numpy as np
import pytest

from instahide import ImageTable, Scheme
from instahide.encryption.augmentation import Augmentation
from instahide.encryption.kernels.reference import shift_and_flip
from instahide.encryption.known_keys import encode_with_known_keys, illustrate
from tests.scans import stains, volumes


@pytest.fixture(params=["channels", "volumes"])
def table(request: pytest.FixtureRequest) -> ImageTable:
    images, labels = stains(20) if request.param == "channels" else volumes(20)
    return ImageTable.from_arrays(images, labels, ["no", "yes"])


def test_the_keys_are_those_of_the_encodings(table: ImageTable) -> None:
    made = encode_with_known_keys(Scheme.inside(3), table, None, np.arange(20))
    images = table.normalized()[made.partners]
    mixes = np.einsum("nk,nk...->n...", made.coefficients.astype(np.float64), images)
    expected = np.where(made.negated, -mixes, mixes)
    np.testing.assert_allclose(made.encoded.images.numpy(), expected, atol=1e-4)
    assert 0.4 < made.negated.mean() < 0.6


@pytest.mark.parametrize("table", ["channels"], indirect=True)
def test_the_keys_say_how_images_were_moved(table: ImageTable) -> None:
    made = encode_with_known_keys(
        Scheme.inside(3), table, None, np.arange(20), Augmentation(padding=2, flip=True)
    )
    assert made.moves is not None
    assert set(np.unique(made.moves[..., :2])) == set(range(-2, 3))
    moved = np.stack(
        [
            [shift_and_flip(table.pixels[row], move) for row, move in zip(*mix, strict=True)]
            for mix in zip(made.partners, made.moves, strict=True)
        ]
    )
    places = (-1,) + (1,) * (moved.ndim - 3)
    images = moved * table.scale.reshape(places) + table.bias.reshape(places)
    mixes = np.einsum("nk,nk...->n...", made.coefficients.astype(np.float64), images)
    expected = np.where(made.negated, -mixes, mixes)
    np.testing.assert_allclose(made.encoded.images.numpy(), expected, atol=1e-4)


def test_an_illustration_shows_the_steps_of_an_encoding(table: ImageTable) -> None:
    steps = illustrate(Scheme.inside(3), table, None, np.arange(5))
    np.testing.assert_array_equal(steps.labels[:, 0], table.labels[:5])
    assert steps.labels.shape == (5, 3)
    mixes = np.einsum("nk,nk...->n...", steps.coefficients.astype(np.float64), steps.parts)
    np.testing.assert_allclose(steps.mixes, mixes, atol=1e-4)
    np.testing.assert_array_equal(
        steps.encodings, np.where(steps.negated, -steps.mixes, steps.mixes)
    )

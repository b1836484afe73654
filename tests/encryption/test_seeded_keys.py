"""Encodings of a public seed are encodings of the scheme, by its definition."""

from __future__ import annotations

import numpy as np
import pytest

from instahide.data import ImageTable, open_split
from instahide.encryption.scheme import Scheme
from instahide.encryption.seeded_keys import encode_with_seeded_keys
from instahide.errors import InstaHideError

IMAGES, COPIES = 30, 40


def tables() -> tuple[ImageTable, ImageTable]:
    train, test = open_split("digits", progress=False)
    return train.subset(slice(0, IMAGES)), test


@pytest.mark.parametrize(
    "scheme", [Scheme.cross(6), Scheme.cross(4, private_k=3), Scheme.inside(4), Scheme.mixup(3)]
)
def test_an_encoding_is_the_masked_sum_of_its_images(scheme: Scheme) -> None:
    images, pool = tables()
    public = pool if scheme.uses_public else None
    made = encode_with_seeded_keys(scheme, images, public, COPIES, 3)
    private, others = made.partners[:, : scheme.private_k], made.partners[:, scheme.private_k :]
    parts = np.concatenate([images.normalized()[private], pool.normalized()[others]], axis=1)
    mixes = np.einsum("nk,nkchw->nchw", made.coefficients, parts)
    expected = np.where(made.negated, -mixes, mixes)
    np.testing.assert_allclose(made.encoded.images.numpy(), expected, atol=1e-5)
    labels = np.zeros((len(mixes), 10), np.float32)
    for column in range(scheme.private_k):
        rows = np.arange(len(mixes)), images.labels[private[:, column]]
        np.add.at(labels, rows, made.coefficients[:, column])
    np.testing.assert_allclose(made.encoded.labels.numpy(), labels, atol=1e-6)


def test_keys_have_the_distribution_of_the_scheme() -> None:
    images, pool = tables()
    scheme = Scheme.cross(4)
    made = encode_with_seeded_keys(scheme, images, pool, COPIES, 1)
    assert np.bincount(made.partners[:, 0]).tolist() == [COPIES] * IMAGES
    assert (np.diff(made.partners[:, 0]) != 0).mean() > 0.8
    assert (made.partners[:, 0] != made.partners[:, 1]).all()
    assert scheme.meets_bounds(made.coefficients).all()
    mean = scheme.simulated_coefficients().mean(axis=0)
    np.testing.assert_allclose(made.coefficients.mean(axis=0), mean, atol=0.03)
    # 76,800 fair bits: beyond 0.01 from a half once in 10 million draws.
    assert abs(made.negated.mean() - 0.5) < 0.01
    bits = made.negated.reshape(len(made.negated), -1).astype(float)
    assert abs(np.corrcoef(bits.T)[np.triu_indices(64, 1)]).max() < 0.16


def test_a_seed_is_all_that_differs() -> None:
    images, pool = tables()
    made = [
        encode_with_seeded_keys(Scheme.cross(4), images, pool, 2, seed).encoded.images
        for seed in (1, 1, 2)
    ]
    assert (made[0] == made[1]).all()
    # Where all digits are black, all mixes are alike.
    assert (made[0].abs() != made[2].abs()).float().mean() > 0.6


def test_noise_is_refused() -> None:
    images, _ = tables()
    with pytest.raises(InstaHideError, match="bit for bit"):
        encode_with_seeded_keys(Scheme.inside(2, noise=0.5), images, None, 2, 1)

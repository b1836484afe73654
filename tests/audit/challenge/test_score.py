"""Scores of submissions: as scikit-image and a hand would compute them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from skimage.metrics import structural_similarity

from instahide.audit.challenge.challenge import ChallengeTruth
from instahide.audit.challenge.facts import SecretFacts
from instahide.audit.challenge.making import make_challenge
from instahide.audit.challenge.score import score_blank, score_decryptions
from instahide.data import ImageTable
from instahide.encryption.scheme import Scheme
from instahide.errors import InstaHideError
from tests.audit.challenge.examples import COPIES, IMAGES, SIDE, perfect


def test_a_perfect_submission(folders: tuple[Path, Path]) -> None:
    score = score_decryptions(perfect(folders[1]), ChallengeTruth.open(folders[1]))
    for value in (score.max_ssim, score.max_ssim_low, score.max_ssim_affine):
        assert value == pytest.approx(1, abs=1e-4)
    assert score.min_l2 == pytest.approx(0, abs=1e-9)
    # The other image of each mix is not shown: these images of noise have nothing in common.
    assert score.mean_ssim == pytest.approx(0.5, abs=0.05)
    assert score.mean_l2 == pytest.approx(score.max_l2 / 2)
    assert score.images_recovered == IMAGES


def flat_truth() -> ChallengeTruth:
    """Two grey images of 0.2 and of 0.6, in two encodings."""
    originals = np.stack([np.full((3, SIDE, SIDE), grey, np.float32) for grey in (0.2, 0.6)])
    private = np.array([[0, 1], [1, 0]])
    facts = SecretFacts.model_construct(mean=(0.0,) * 3, std=(1.0,) * 3)
    return ChallengeTruth(originals, private, facts)


def likeness(one: float, other: float) -> float:
    """SSIM of two flat images, by hand: the luminance term. In single precision it has 3 digits."""
    return (2 * one * other + 1e-4) / (one**2 + other**2 + 1e-4)


def test_figures_are_the_formulas_of_the_challenge() -> None:
    """The first decryption is one of its images, the second is between both of its images."""
    values = np.stack([np.full((SIDE, SIDE, 3), grey, np.float32) for grey in (0.2, 0.4)])
    score = score_decryptions(values, flat_truth())
    first = [1.0, likeness(0.2, 0.6)]
    second = [likeness(0.4, 0.6), likeness(0.4, 0.2)]
    assert score.max_ssim == pytest.approx((max(first) + max(second)) / 2, abs=1e-3)
    assert score.mean_ssim == pytest.approx(np.mean([first, second]), abs=1e-3)
    # Squared differences: 0 and 0.16 of the first decryption, 0.04 and 0.04 of the second.
    assert score.min_l2 == pytest.approx((0 + 0.04) / 2, abs=1e-6)
    assert score.max_l2 == pytest.approx((0.16 + 0.04) / 2, abs=1e-6)
    assert score.mean_l2 == pytest.approx((0.08 + 0.04) / 2, abs=1e-6)
    # The most similar image of the first is 0, of the second 1.
    assert score.max_ssim_per_image == pytest.approx(score.max_ssim)
    assert score.images_recovered == 0


def test_the_smaller_and_the_larger_are_taken_for_each_encoding() -> None:
    """Neither is the best nor the worst of all encodings."""
    values = np.stack([np.full((SIDE, SIDE, 3), grey, np.float32) for grey in (0.6, 0.6)])
    score = score_decryptions(values, flat_truth())
    assert score.max_ssim == pytest.approx(1, abs=1e-3)
    assert score.mean_ssim == pytest.approx((1 + likeness(0.2, 0.6)) / 2, abs=1e-3)
    assert (score.min_l2, score.max_l2) == pytest.approx((0, 0.16), abs=1e-6)


def test_figures_are_scikit_images_and_a_hands(folders: tuple[Path, Path]) -> None:
    kept = folders[1]
    truth = ChallengeTruth.open(kept)
    noise = np.random.default_rng(1).standard_normal((IMAGES * COPIES, SIDE, SIDE, 3))
    values = perfect(kept) + noise.astype(np.float32) * np.linspace(0, 1, len(noise))[
        :, None, None, None
    ].astype(np.float32)
    score = score_decryptions(values, truth)
    mean, std = np.asarray(truth.facts.mean), np.asarray(truth.facts.std)
    shown = np.clip(values * std + mean, 0, 1).astype(np.float32)
    real = np.clip(np.load(kept / "private.npy") * std + mean, 0, 1)
    both = np.array(
        [
            [
                structural_similarity(
                    image, real[row].astype(np.float32), channel_axis=2, data_range=1,
                    gaussian_weights=True, sigma=1.5, use_sample_covariance=False,
                )
                for row in rows
            ]
            for image, rows in zip(shown, truth.private, strict=True)
        ]
    )  # fmt: skip
    counted = truth.private[np.arange(len(both)), both.argmax(axis=1)]
    distance = np.square(shown[:, None] - real[truth.private]).mean(axis=(2, 3, 4))
    best = both.max(axis=1)
    assert score.max_ssim == pytest.approx(best.mean(), abs=1e-4)
    assert score.mean_ssim == pytest.approx(both.mean(), abs=1e-4)
    assert score.min_l2 == pytest.approx(distance.min(axis=1).mean(), rel=1e-4)
    assert score.mean_l2 == pytest.approx(distance.mean(), rel=1e-4)
    assert score.max_l2 == pytest.approx(distance.max(axis=1).mean(), rel=1e-4)
    per_image = [best[counted == row].mean() for row in np.unique(counted)]
    assert score.max_ssim_per_image == pytest.approx(np.mean(per_image), abs=1e-4)
    assert score.max_ssim_low < score.max_ssim < score.max_ssim_high


def test_only_the_affine_figure_forgives_brightness_and_sign(folders: tuple[Path, Path]) -> None:
    values = 0.5 - 0.3 * perfect(folders[1])
    score = score_decryptions(values, ChallengeTruth.open(folders[1]))
    assert score.max_ssim_affine > 0.99
    assert score.max_ssim < 0.5


@pytest.mark.parametrize("value", [-2.0, -0.5, 0.0, 0.4, 3.0])
def test_no_blank_submission_gets_more_than_the_blank_that_is_stated(
    folders: tuple[Path, Path], value: float
) -> None:
    truth = ChallengeTruth.open(folders[1])
    stated = score_blank(truth)
    shape = (IMAGES * COPIES, SIDE, SIDE, 3)
    submitted = np.full(shape, value, np.float32)
    score = score_decryptions(submitted, truth)
    assert score.images_recovered == stated.images_recovered == 0
    for name in ("max_ssim", "mean_ssim", "max_ssim_affine"):
        assert getattr(score, name) <= getattr(stated, name) + 1e-4
    for name in ("min_l2", "mean_l2", "max_l2"):
        assert getattr(score, name) >= getattr(stated, name) - 1e-6
    assert stated.mean_ssim > 0


def test_flat_images_are_not_recovered_by_flat_submissions(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    pixels = generator.integers(126, 131, (IMAGES, 3, SIDE, SIDE), dtype=np.uint8)
    flat = ImageTable.from_arrays(pixels, np.arange(IMAGES) % 3)
    kept = tmp_path / "kept"
    make_challenge(flat, None, tmp_path / "given", kept, encoder=Scheme.inside(2), copies=COPIES)
    truth = ChallengeTruth.open(kept)
    blank = np.zeros((IMAGES * COPIES, SIDE, SIDE, 3), np.float32)
    score = score_decryptions(blank, truth)
    # SSIM alone does not say so.
    assert score.max_ssim > 0.8
    assert score.images_recovered == 0
    exact = score_decryptions(perfect(kept), truth)
    assert exact.images_recovered == IMAGES


@pytest.mark.parametrize(
    "values",
    [
        np.zeros((IMAGES * COPIES, 3, SIDE, SIDE), np.float32),
        np.zeros((1, SIDE, SIDE, 3), np.float32),
    ],
    ids=["channels first", "too few"],
)
def test_another_shape_is_refused(folders: tuple[Path, Path], values: NDArray[Any]) -> None:
    with pytest.raises(InstaHideError, match="A submission to this challenge"):
        score_decryptions(values, ChallengeTruth.open(folders[1]))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_huge_values_give_finite_figures(folders: tuple[Path, Path], dtype: type) -> None:
    values = np.full((IMAGES * COPIES, SIDE, SIDE, 3), np.finfo(dtype).max, dtype)
    values[:, ::2] *= -1
    score = score_decryptions(values, ChallengeTruth.open(folders[1]))
    assert np.isfinite(list(vars(score).values())).all()
    assert score.images_recovered == 0

"""Coefficients from labels, from strengths and from recovered images."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from instahide.attacks.reconstruction.recovery.coefficients import (
    CoefficientDistribution,
    from_labels,
    from_recovery,
    weights,
)
from instahide.attacks.reconstruction.recovery.phase_retrieval import Recovery, refine
from instahide.attacks.reconstruction.recovery.sparse_mixing import SparseMixing
from instahide.encryption.scheme import Scheme
from tests.attacks.reconstruction.planted import IMAGES, Planted, correlation

DISTRIBUTION = CoefficientDistribution.of(Scheme.cross(4))


@pytest.fixture(scope="module")
def planted() -> Planted:
    return Planted()


def recovered(planted: Planted, coefficients: Tensor) -> tuple[Recovery, SparseMixing]:
    mixes = SparseMixing(planted.members, coefficients, IMAGES)
    return refine(planted.signed(), mixes, planted.images / planted.scale), mixes


def test_labels_give_coefficients_and_share_those_of_one_class() -> None:
    labels = torch.tensor([[0.4, 0.2, 0.0], [0.0, 0.0, 0.6]])
    found = from_labels(
        labels,
        torch.tensor([0, 1, 2, 2]),
        torch.tensor([[0, 1], [2, 3]]),
        torch.tensor([[0.5, 0.5], [0.3, 0.1]]),
    )
    torch.testing.assert_close(found, torch.tensor([[0.4, 0.2], [0.45, 0.15]]))


def test_weights_leave_out_missing_images() -> None:
    found = weights(torch.tensor([[0, 2], [1, -1]]), torch.tensor([[0.3, 0.2], [0.4, 0.9]]), 3)
    torch.testing.assert_close(found, torch.tensor([[0.3, 0.0, 0.2], [0.0, 0.4, 0.0]]))


def test_strengths_give_coefficients_that_go_with_the_real_ones(planted: Planted) -> None:
    generator = torch.Generator().manual_seed(0)
    noise = 1 + 0.3 * torch.randn(planted.coefficients.shape, generator=generator)
    guess = DISTRIBUTION.from_strengths(planted.coefficients.square() * noise.clamp(min=0.1))
    assert correlation(guess, planted.coefficients) > 0.8


def test_the_distribution_is_that_of_the_encoder() -> None:
    distribution = CoefficientDistribution.of(Scheme.cross(6))
    assert distribution.total == pytest.approx(2 * distribution.mean, rel=1e-5)
    values = torch.tensor([[0.3, 0.1], [0.9, 0.5]])
    ranked = distribution.matched(values).flatten()
    assert ranked.argsort().tolist() == values.flatten().argsort().tolist()
    assert ranked.min() == distribution.sorted[0]
    assert ranked.max() == distribution.sorted[-1]


@pytest.mark.parametrize(("copies", "least"), [(100, 0.95), (6, 0.8)])
def test_images_give_coefficients(copies: int, least: float) -> None:
    """From images that were recovered with equal coefficients, of many or few encodings."""
    planted = Planted(copies * IMAGES // 2)
    recovery, mixes = recovered(planted, torch.full_like(planted.coefficients, 0.35))
    found = from_recovery(recovery, mixes, mixes, DISTRIBUTION)
    assert correlation(found, planted.coefficients) > least
    assert float(found.mean()) == pytest.approx(DISTRIBUTION.mean, rel=0.01)


def test_an_encoding_does_not_confirm_its_own_coefficients(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    planted = Planted(6 * IMAGES // 2)
    generator = torch.Generator().manual_seed(1)
    wrong = planted.coefficients[torch.randperm(len(planted.coefficients), generator=generator)]
    recovery, mixes = recovered(planted, wrong)

    def confirmed() -> float:
        found = from_recovery(recovery, mixes, mixes, DISTRIBUTION)
        return correlation(found, wrong)

    without = confirmed()
    none = torch.zeros_like(mixes.coefficients)
    monkeypatch.setattr(SparseMixing, "leverages", lambda *_: none)
    assert without < confirmed() - 0.2


def test_members_that_changed_get_coefficients(planted: Planted) -> None:
    """The assignment can change after the images were recovered."""
    right = torch.full_like(planted.coefficients, 0.35)
    recovery, mixes = recovered(planted, right)
    turned = replace(mixes, members=planted.members.flip(1))
    found = from_recovery(recovery, mixes, turned, DISTRIBUTION)
    assert correlation(found, planted.coefficients.flip(1)) > 0.95
    other = planted.members.clone()
    other[:, 1] = (other[:, 1] + 1) % IMAGES
    stray = from_recovery(recovery, mixes, replace(mixes, members=other), DISTRIBUTION)
    assert stray[:, 1].mean() < 0.7 * stray[:, 0].mean()


def test_black_images_have_finite_coefficients(planted: Planted) -> None:
    recovery, mixes = recovered(planted, planted.coefficients)
    nothing = torch.zeros_like(recovery.images), torch.zeros_like(recovery.private)
    black = Recovery(nothing[0], nothing[1], nothing[1], recovery.noise)
    assert torch.isfinite(from_recovery(black, mixes, mixes, DISTRIBUTION)).all()

"""Recovery of images from encodings whose signs are known roughly."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from instahide.attacks.reconstruction.pair_encoder.filters import blur
from instahide.attacks.reconstruction.recovery import phase_retrieval
from instahide.attacks.reconstruction.recovery.phase_retrieval import (
    initial_images,
    public_share,
    recover,
    refine,
)
from instahide.attacks.reconstruction.recovery.sparse_mixing import SparseMixing
from tests.attacks.reconstruction.planted import IMAGES, Planted, likeness


@pytest.fixture(scope="module")
def planted() -> Planted:
    return Planted()


def shapes(found: Tensor, planted: Planted) -> float:
    """Mean likeness of images, without their brightness."""
    one, other = (
        images - images.mean(dim=(2, 3), keepdim=True) for images in (found, planted.images)
    )
    return float(likeness(one, other).mean())


def test_images_are_recovered_from_rough_signs(planted: Planted) -> None:
    generator = torch.Generator().manual_seed(0)
    encodings = planted.signed(wrong=0.35)
    start = initial_images(encodings, planted.mixes, generator)
    found = recover(encodings, planted.mixes, generator=generator)
    assert 0.5 < shapes(start, planted) < shapes(found.images, planted)
    assert shapes(found.images, planted) > 0.95


def test_a_blurred_start_is_refined_round_by_round(planted: Planted) -> None:
    start = blur(planted.images / planted.scale, 2.0)
    found = [
        shapes(refine(planted.signed(), planted.mixes, start, rounds).images, planted)
        for rounds in (0, 1, 12)
    ]
    assert found[0] == pytest.approx(shapes(start, planted))
    assert found[0] < found[1] < found[2]
    assert found[2] > 0.98


def test_useless_predictions_are_made_up_for_by_a_good_start(planted: Planted) -> None:
    start = blur(planted.images / planted.scale, 2.0)
    found = refine(planted.signed(wrong=0.5), planted.mixes, start)
    assert shapes(found.images, planted) > 0.95


@pytest.mark.parametrize("encodings", [600, 36])
def test_the_truth_stays(encodings: int) -> None:
    planted = Planted(encodings)
    found = refine(planted.signed(), planted.mixes, planted.images / planted.scale).images
    assert shapes(found, planted) > 0.95
    assert float((found * planted.images).sum()) > 0


def test_private_images_on_white_and_dark_public_ones() -> None:
    """The mean of public images is learned, wrong or missing as it may be at first."""
    planted = Planted(offset=1.5)
    start = blur(planted.images / planted.scale, 2.0)
    for public in (planted.public, torch.zeros(3)):
        found = refine(planted.signed(public=public), planted.mixes, start)
        assert shapes(found.images, planted) > 0.98
        assert (found.residue.mean(dim=(0, 2, 3)) < 0).all()
        brightness = found.images.mean(dim=(1, 2, 3)) * planted.scale
        assert float((brightness - planted.images.mean(dim=(1, 2, 3))).abs().mean()) < 0.5
    generator = torch.Generator().manual_seed(0)
    assert (
        shapes(recover(planted.signed(), planted.mixes, generator=generator).images, planted) > 0.95
    )


def test_the_parts_of_a_recovery_are_those_of_the_mix(planted: Planted) -> None:
    found = refine(planted.signed(), planted.mixes, planted.images / planted.scale)
    private, public = planted.mixed / planted.scale, (planted.mix - planted.mixed) / planted.scale
    for part, truth in ((found.private, private), (found.residue, public)):
        assert torch.cosine_similarity(part.flatten(1), truth.flatten(1)).mean() > 0.7
    assert found.noise.shape == (len(planted.members),)
    assert (found.noise > 0).all()


def test_an_encoding_does_not_confirm_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    """With few encodings of an image and rough signs, its own influence keeps errors alive."""
    planted = Planted(36)

    def found() -> float:
        images = initial_images(
            planted.signed(0.35), planted.mixes, torch.Generator().manual_seed(0)
        )
        return shapes(refine(planted.signed(0.35), planted.mixes, images).images, planted)

    removed = found()
    monkeypatch.setattr(phase_retrieval, "MOST_OWN", 0.0)
    assert removed > found() + 0.03


def test_the_fit_of_an_encoding_is_that_without_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """A changed encoding changes its own images, but not what its signs are estimated from."""
    planted = Planted(60)
    start = planted.images / planted.scale
    monkeypatch.setattr(phase_retrieval, "LAST_BLUR", 0.0)
    seen: list[Tensor] = []
    signed = phase_retrieval._Refinement._signed

    def spy(self: phase_retrieval._Refinement, rows: slice, others: Tensor) -> Tensor:
        seen.append(others)
        return signed(self, rows, others)

    monkeypatch.setattr(phase_retrieval._Refinement, "_signed", spy)
    encodings = planted.signed()
    sizes = encodings.sizes.clone()
    sizes[7] = sizes[7].flip(-1)
    for some in (encodings, replace(encodings, sizes=sizes)):
        refine(some, planted.mixes, start, 2)
    before, after = seen[1][7], seen[3][7]
    fit = planted.mixes.mixed(refine(encodings, planted.mixes, start, 1).images)[7]
    changed = planted.mixes.mixed(
        refine(replace(encodings, sizes=sizes), planted.mixes, start, 1).images
    )[7]
    assert float((before - after).norm()) < 0.5 * float((fit - changed).norm())


def test_blocks_change_nothing(planted: Planted, monkeypatch: pytest.MonkeyPatch) -> None:
    start = blur(planted.images / planted.scale, 2.0)
    whole = refine(planted.signed(), planted.mixes, start, 3)
    monkeypatch.setattr("instahide.attacks.reconstruction.recovery.sparse_mixing.ROWS", 250)
    parts = refine(planted.signed(), planted.mixes, start, 3)
    torch.testing.assert_close(parts.images, whole.images, atol=1e-3, rtol=1e-3)


def test_images_in_no_encoding_are_black_and_break_nothing(planted: Planted) -> None:
    mixes = SparseMixing(planted.members, planted.coefficients, IMAGES + 1)
    generator = torch.Generator().manual_seed(0)
    found = recover(planted.signed(), mixes, generator=generator)
    assert torch.isfinite(found.images).all()
    assert found.images[IMAGES].abs().max() < 1e-3
    assert shapes(found.images[:IMAGES], planted) > 0.95


def test_the_public_share_completes_the_private_coefficients() -> None:
    mixes = SparseMixing(torch.tensor([[0, 1], [1, -1]]), torch.tensor([[0.4, 0.8], [0.3, 0.9]]), 2)
    torch.testing.assert_close(public_share(mixes), torch.tensor([0.0, 0.7]))

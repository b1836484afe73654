"""Fusion and denoising: what is fused, and that a network learns to see what encodings share."""

from __future__ import annotations

from functools import cache

import pytest
import torch
from torch import Tensor

from instahide.attacks.base import AssignedImages, EncodingObservation, ThreatModel
from instahide.attacks.baselines import fusion_denoising
from instahide.attacks.budget import Budget
from instahide.attacks.reconstruction.pair_encoder.features import magnitudes
from instahide.attacks.shadow_encodings import ShadowBatch, shadow_batches
from instahide.data import open_split
from instahide.encryption.scheme import Scheme
from tests.waiting import ticks

SCHEME, COPIES = Scheme.inside(4), 12


@cache
def learnt() -> fusion_denoising.FusionDenoiser:
    torch.manual_seed(0)
    shadow = open_split("digits").train.subset(slice(0, 600))
    return fusion_denoising.learnt_denoiser(shadow, SCHEME, COPIES, steps=40)


@cache
def other() -> ShadowBatch:
    """Encodings of images that the network has not seen."""
    table = open_split("digits").test
    return next(shadow_batches(table, SCHEME, images=30, encodings=30 * COPIES))


def likeness(images: Tensor, wanted: Tensor) -> float:
    """Mean correlation, whatever the signs."""
    one, two = (x - x.mean(dim=(1, 2, 3), keepdim=True) for x in (images, wanted))
    return float(torch.cosine_similarity(one.flatten(1), two.flatten(1), dim=1).abs().mean())


@pytest.mark.slow
def test_a_schedule_of_fewer_steps_is_cut_short() -> None:
    shadow = open_split("digits").train.subset(slice(0, 100))
    for steps, short in ((3, False), (10_000, True)):
        budget, said = Budget(60, clock=ticks()), list[str]()
        fusion_denoising.learnt_denoiser(
            shadow, SCHEME, 3, steps, lambda what, share, said=said: said.append(what), budget
        )
        assert budget.cut_short == short == (len(said) < steps)


def test_encodings_with_most_of_an_image_are_fused() -> None:
    weights = torch.zeros(40, 2)
    weights[3:30, 0] = torch.linspace(0.6, 0.1, 27)
    weights[[1, 5], 1] = torch.tensor([0.2, 0.4])
    sizes = torch.arange(40.0)[:, None, None, None].expand(40, 1, 2, 2)
    chosen, shares = fusion_denoising.grouped(sizes, weights)
    assert chosen.shape == (2, fusion_denoising.FUSED, 1, 2, 2)
    assert chosen[0, :, 0, 0, 0].tolist() == list(range(3, 3 + fusion_denoising.FUSED))
    assert chosen[1, :2, 0, 0, 0].tolist() == [5, 1]
    # Of an image in two encodings no other counts.
    assert shares[1].tolist() == pytest.approx([0.4, 0.2] + [0.0] * (fusion_denoising.FUSED - 2))


def test_their_order_does_not_matter_nor_what_does_not_hold_the_image() -> None:
    torch.manual_seed(0)
    network = fusion_denoising.FusionDenoiser(1).eval()
    sizes, shares = torch.rand(2, 5, 1, 12, 12), torch.rand(2, 5)
    shares[:, 4] = 0
    shown = network(sizes, shares)
    order = torch.tensor([3, 0, 4, 2, 1])
    torch.testing.assert_close(network(sizes[:, order], shares[:, order]), shown)
    torch.testing.assert_close(network(sizes[:, :4], shares[:, :4]), shown)


@pytest.mark.slow
def test_it_learns_to_show_images_it_has_not_seen() -> None:
    """By about 0.9, where untrained it is at 0.4 and other digits are at 0.6."""
    batch = other()
    groups = fusion_denoising.grouped(magnitudes(batch.encodings), batch.coefficients)
    torch.manual_seed(0)
    untrained, trained = fusion_denoising.FusionDenoiser(1).eval(), learnt()
    with torch.inference_mode():
        before, shown = untrained(*groups), trained(*groups)
    assert likeness(shown, batch.images) > likeness(before, batch.images) + 0.2
    assert likeness(shown, batch.images) > likeness(shown, batch.images.roll(1, dims=0)) + 0.15


def test_it_goes_on_from_an_assignment() -> None:
    batch = other()
    coefficients, members = batch.coefficients.topk(2, dim=1)
    found = AssignedImages(
        images=torch.zeros_like(batch.images), assignment=members, coefficients=coefficients
    )
    observation = EncodingObservation(
        SCHEME, (0.5,), (0.2,), ThreatModel(labels="none", encodings_per_image=COPIES),
        batch.encodings,
    )  # fmt: skip
    fused = fusion_denoising.recover_by_fusion(observation, found, learnt())
    assert fused.assignment is members
    assert fused.confidence is None
    # Two of four private images each are enough to be better than a stranger.
    assert likeness(fused.images, batch.images) > likeness(
        fused.images, batch.images.roll(1, dims=0)
    )

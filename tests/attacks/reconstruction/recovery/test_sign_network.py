"""The shipped network predicts signs before the mask, up to one sign for each encoding."""

from __future__ import annotations

from dataclasses import replace
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from instahide.attacks.base import EncodingObservation, ThreatModel
from instahide.attacks.reconstruction.pair_encoder.filters import blur
from instahide.attacks.reconstruction.pair_encoder.network_file import load_network
from instahide.attacks.reconstruction.recovery.sign_network import (
    NATURAL_STD,
    SignNetwork,
    natural_mean,
    pixel_moments,
    predicted_signs,
    shipped_network,
)
from instahide.audit.ground_truth import GroundTruth, observe
from instahide.data import ImageTable
from instahide.encryption.scheme import Scheme
from instahide.errors import InstaHideError

WEIGHTS = Path(
    str(files("instahide.attacks.reconstruction.recovery") / "weights/sign_network.safetensors")
)
SHAPES = [(1, 28, 28), (3, 32, 32), (2, 16, 24), (5, 9, 7)]


def images(shape: tuple[int, int, int], count: int = 10) -> ImageTable:
    """Smooth images, whose channels are alike as those of photographs are."""
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(count, *shape, generator=generator)
    noise = 0.3 * noise + noise.mean(dim=1, keepdim=True)
    smooth = blur(noise, min(shape[1:]) / 8)
    pixels = 0.5 + 0.2 * smooth / smooth.std(dim=(1, 2, 3), keepdim=True)
    cut = (255 * pixels.clamp(0, 1)).to(torch.uint8)
    return ImageTable.from_arrays(cut.numpy(), np.arange(count) % 2)


def observed(
    shape: tuple[int, int, int], scheme: Scheme | None = None
) -> tuple[EncodingObservation, GroundTruth]:
    threat = ThreatModel(labels="none", public="none", encodings_per_image=6)
    return observe(images(shape), None, scheme or Scheme.inside(2), threat)


def mixes(truth: GroundTruth) -> Tensor:
    """(n, C, H, W) the mixes before the mask."""
    return torch.einsum("nk,nkchw->nchw", truth.coefficients, truth.images[truth.partners])


def cosines(signs: Tensor, truth: GroundTruth) -> Tensor:
    """(n,) cosine of each signed encoding with its mix, up to a sign."""
    before = mixes(truth)
    signed = before.abs() * signs
    return torch.cosine_similarity(signed.flatten(1), before.flatten(1), dim=1).abs()


@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 32, 32), (2, 32, 40)], ids=str)
def test_signs_are_right_up_to_one_for_each_encoding(shape: tuple[int, int, int]) -> None:
    observation, truth = observed(shape)
    signs = predicted_signs(observation, shipped_network())
    chance = cosines(torch.ones_like(signs), truth)
    assert cosines(signs, truth).mean() > chance.mean() + 0.1


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_the_mask_changes_no_prediction(shape: tuple[int, int, int]) -> None:
    observation, _ = observed(shape)
    generator = torch.Generator().manual_seed(0)
    flips = 1 - 2 * torch.randint(2, observation.encodings.shape, generator=generator)
    other = replace(observation, encodings=observation.encodings * flips)
    one, two = (predicted_signs(seen, shipped_network()) for seen in (observation, other))
    assert torch.equal(one, two)
    assert one.shape == observation.encodings.shape
    assert one.abs().max() <= 1


def test_an_encoding_is_predicted_alone_whatever_the_blocks(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    observation, _ = observed((3, 16, 16))
    whole = predicted_signs(observation, shipped_network())
    monkeypatch.setattr(
        "instahide.attacks.reconstruction.recovery.sign_network.BATCH", 7 * 3 * 16 * 16
    )
    torch.testing.assert_close(
        predicted_signs(observation, shipped_network()), whole, atol=2e-3, rtol=0
    )


def test_black_encodings_and_single_pixels_have_signs() -> None:
    observation, _ = observed((3, 16, 16))
    for encodings in (torch.zeros(2, 3, 16, 16), torch.ones(2, 3, 1, 1)):
        seen = replace(observation, encodings=encodings)
        assert torch.isfinite(predicted_signs(seen, shipped_network())).all()


def test_stated_moments_are_those_of_the_normalization() -> None:
    observation, _ = observed((3, 16, 16))
    mean, std = pixel_moments(observation)
    assert mean.tolist() == pytest.approx(list(observation.mean))
    assert std.tolist() == pytest.approx(list(observation.std))


@pytest.mark.parametrize("channels", [1, 2, 3])
def test_unstated_moments_are_those_of_photographs(channels: int) -> None:
    observation, truth = observed((channels, 32, 32))
    unstated = replace(observation, mean=(0.0,) * channels, std=(1.0,) * channels)
    assert unstated.encodings.abs().max() > 1
    mean, std = pixel_moments(unstated)
    torch.testing.assert_close(mean, natural_mean(channels))
    assert std.tolist() == pytest.approx([NATURAL_STD] * channels)
    signs = predicted_signs(unstated, shipped_network())
    assert cosines(signs, truth).mean() > cosines(torch.ones_like(signs), truth).mean() + 0.1


def test_pixels_from_0_to_1_without_normalization_keep_their_moments() -> None:
    observation, _ = observed((3, 16, 16))
    raw = replace(
        observation,
        mean=(0.0,) * 3,
        std=(1.0,) * 3,
        encodings=observation.encodings / observation.encodings.abs().max(),
    )
    mean, std = pixel_moments(raw)
    assert mean.tolist() == [0, 0, 0]
    assert std.tolist() == [1, 1, 1]


def test_the_shipped_weights_are_small() -> None:
    assert WEIGHTS.stat().st_size < 2_000_000
    parameters = sum(weight.numel() for weight in shipped_network().parameters())
    assert parameters == pytest.approx(260_000, rel=0.03)
    assert not shipped_network().training


@pytest.mark.parametrize("damage", [b"", b"nonsense", None])
def test_damaged_weights_are_refused(tmp_path: Path, damage: bytes | None) -> None:
    path = tmp_path / "weights.safetensors"
    path.write_bytes(WEIGHTS.read_bytes()[:-100] if damage is None else damage)
    with pytest.raises(InstaHideError, match="does not hold a sign network"):
        load_network(path, lambda _: SignNetwork(), "a sign network", "Install it again.")

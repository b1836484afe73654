"""Every stage alone, on data in which the answer is planted."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from instahide.attacks.reconstruction import confidence
from instahide.attacks.reconstruction.attack import RECOVERED
from instahide.attacks.reconstruction.pair_encoder import features
from instahide.attacks.reconstruction.pair_encoder.network import (
    PairEncoder,
    load_encoder,
    save_encoder,
    shipped_encoder,
)
from instahide.attacks.reconstruction.pair_encoder.training import train_pair_encoder
from instahide.attacks.reconstruction.recovery.phase_retrieval import Recovery
from instahide.attacks.shadow_encodings import shadow_batches
from instahide.data import ImageTable, open_split
from instahide.data.public.crops import PhotoCrops
from instahide.encryption.scheme import Scheme
from instahide.errors import InstaHideError
from tests.attacks.conftest import Steps, natural
from tests.attacks.reconstruction.planted import (
    ENCODINGS,
    IMAGES,
    Planted,
    likeness,
)

CONFIDENCE = "instahide.attacks.reconstruction.confidence"


@pytest.fixture(scope="module")
def planted() -> Planted:
    return Planted()


def test_features_of_encodings_that_share_an_image_are_more_alike(planted: Planted) -> None:
    found = features.edges_of_square(planted.encodings)
    alike = found @ found.T
    share = (planted.weights > 0).float() @ (planted.weights > 0).float().T > 0
    others = ~torch.eye(ENCODINGS, dtype=torch.bool)
    gap = alike[share & others].mean() - alike[~share].mean()
    assert gap > 10 * alike[~share].std() / (~share).sum().sqrt()


def test_an_image_is_sure_if_halves_and_all_encodings_give_it(
    planted: Planted, monkeypatch: pytest.MonkeyPatch
) -> None:
    turned = planted.images.clone()
    turned[..., ::2] *= -1
    halves = [planted.images.clone(), -planted.images]
    halves[1][2] = turned[2]
    images = planted.images.clone()
    images[1] = turned[1]

    def recover(*_: object, generator: torch.Generator) -> Recovery:
        return Recovery(halves.pop(), *[torch.zeros(1)] * 3)

    monkeypatch.setattr(f"{CONFIDENCE}.recover", recover)
    sure = confidence.confidence(planted.signed(), planted.mixes, images, torch.Generator())
    # 1: the halves give another image than all encodings do; 2: they do not agree.
    assert sure[[0, *range(3, IMAGES)]].min() > RECOVERED
    assert sure[1:3].max() < sure[0]


def test_neither_brightness_nor_contrast_nor_sign_makes_an_image_another(planted: Planted) -> None:
    other = 3 - 0.1 * planted.images
    assert confidence.likeness(planted.images, other) == pytest.approx(1, abs=1e-4)


def test_images_that_share_no_more_than_a_dark_half_are_not_alike(planted: Planted) -> None:
    generator = torch.Generator().manual_seed(0)
    first, second = 0.3 * torch.randn((2, 20, *planted.images.shape[1:]), generator=generator)
    for images in (first, second):
        images[..., :16] -= 1
    assert likeness(first, second).min() > 0.7
    assert confidence.likeness(first, second).max() < 0.5


def test_two_images_with_errors_of_their_own_tell_how_near_they_are(planted: Planted) -> None:
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn((2, *planted.images.shape), generator=generator)
    first, second = (planted.images + 0.5 * planted.images.std() * one for one in noise)
    between = confidence.likeness(first, second)
    itself = confidence.likeness(first, planted.images).square()
    assert float(between.mean()) == pytest.approx(float(itself.mean()), abs=0.05)


def test_structure_is_the_root_of_ssim(planted: Planted) -> None:
    from torchmetrics.functional.image import structural_similarity_index_measure

    generator = torch.Generator().manual_seed(0)
    centred = planted.images - planted.images.mean(dim=(2, 3), keepdim=True)
    one = centred / centred.square().mean(dim=(1, 2, 3), keepdim=True).sqrt()
    other = (one + 0.3 * torch.randn(one.shape, generator=generator)) / 1.09**0.5
    known = structural_similarity_index_measure(one, other, data_range=4.0, reduction="none")
    # The library leaves out the edges of images.
    found = confidence.structure(one, other).square()
    assert found.numpy() == pytest.approx(torch.as_tensor(known).numpy(), abs=0.03)


def test_flat_images_are_like_nothing() -> None:
    flat, other = torch.ones(2, 3, 8, 8), torch.randn(2, 3, 8, 8)
    assert confidence.likeness(flat, other).tolist() == [0, 0]
    assert confidence.likeness(flat, flat).tolist() == [0, 0]


@pytest.mark.slow
def test_the_encoder_learns_from_shadow_encodings_alone(tmp_path: Path) -> None:
    shadow = ImageTable.from_arrays(natural(100, 3, 16))
    batch = next(shadow_batches(shadow, Scheme.cross(6)))
    assert batch.encodings.shape == (192, 3, 16, 16)
    # 4 encodings an image, and a partner each: about one pair in twelve.
    assert 0.05 < batch.shares.float().mean() < 0.15
    assert batch.shares.diagonal().all()
    losses: list[float] = []

    def note(what: str, _: float) -> None:
        losses.append(float(what.split()[-1]))

    with torch.random.fork_rng():
        torch.manual_seed(0)
        encoder = train_pair_encoder(
            shadow,
            Scheme.cross(4),
            Steps(30),
            lambda what, _: losses.append(float(what.split()[-1])),
        )
    assert len(losses) == 30
    # The batches are new in each run. In 42 runs of 15 steps it fell by 0.05, deviation 0.02.
    assert losses[-1] < losses[0] + 0.05
    save_encoder(tmp_path / "encoder.safetensors", encoder)
    again = load_encoder(tmp_path / "encoder.safetensors")
    torch.testing.assert_close(again.features(batch.encodings), encoder.features(batch.encodings))


def test_no_shadow_image_is_changed_by_training() -> None:
    shadow = ImageTable.from_arrays(natural(60, 3, 16))
    before = shadow.pixels.copy()
    next(shadow_batches(shadow, Scheme.cross(4)))
    assert (shadow.pixels == before).all()


@pytest.mark.parametrize(
    "shape", [(3, 32, 32), (1, 28, 28), (1, 32, 32), (5, 20, 17), (3, 48, 16)], ids=str
)
def test_shipped_encoders_are_small(shape: tuple[int, int, int]) -> None:
    encoder = shipped_encoder(shape)
    assert encoder is not None
    assert sum(weight.numel() for weight in encoder.parameters()) < 25_000
    assert encoder.features(torch.randn(4, *shape)).norm(dim=1) == pytest.approx(1, abs=1e-4)


def test_there_is_no_encoder_for_tiny_images_and_many_channels() -> None:
    assert shipped_encoder((3, 15, 40)) is None
    assert shipped_encoder((9, 32, 32)) is None


@pytest.mark.parametrize("shape", [(1, 32), (3, 20), (5, 24)], ids=str)
def test_images_of_other_shapes_share_more_in_the_features_for_colors(
    shape: tuple[int, int],
) -> None:
    channels, side = shape
    crops = PhotoCrops.open("photos", (1 if channels == 1 else 3, side, side))
    pixels = crops.draw(np.random.default_rng(0).random((700, 4)))
    pixels = np.concatenate([pixels, pixels[:, ::-1]], axis=1)[:, :channels].copy()
    images, public = (ImageTable.from_arrays(part) for part in (pixels[:40], pixels[40:]))
    batch = next(shadow_batches(images, Scheme.cross(6), public=public, encodings=400))
    encoder = shipped_encoder((channels, side, side))
    assert encoder is not None
    assert apart(encoder.features(batch.encodings), batch.shares) > 1.1 * apart(
        features.edges_of_square(batch.encodings), batch.shares
    )


def test_digits_share_more_in_the_shipped_features_than_in_untrained_ones() -> None:
    """The encoder has learnt from photographs alone."""
    digits = open_split("mnist-5k").train.subset(slice(0, 40))
    public = ImageTable.from_arrays(natural(300, 4, 28)[:, :1])
    batch = next(shadow_batches(digits, Scheme.cross(4), public=public, encodings=400))
    encoder = shipped_encoder((1, 28, 28))
    assert encoder is not None
    assert apart(encoder.features(batch.encodings), batch.shares) > apart(
        features.edges_of_square(batch.encodings), batch.shares
    )


def apart(found: Tensor, shares: Tensor) -> float:
    """How far likeness is apart, in its own deviations."""
    likeness = found @ found.T
    others = ~torch.eye(len(found), dtype=torch.bool)
    strange = likeness[~shares]
    return float((likeness[shares & others].mean() - strange.mean()) / strange.std())


def test_a_damaged_encoder_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "encoder.safetensors"
    save_encoder(path, PairEncoder(1))
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(InstaHideError, match="does not hold a pair encoder"):
        load_encoder(path)

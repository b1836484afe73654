"""What is said of a normalization is compared with the values, whoever says it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from instahide import Encoder, ImageDataset, ImageTable, InstaHideError, Scheme, open_images
from instahide.data.normalization.channel_statistics import ChannelStatistics
from instahide.data.normalization.normalization import (
    Normalization,
    compose_normalizations,
    require_consistent_normalization,
    require_possible_moments,
    require_sign_balance,
    require_similar_spread,
)

RNG = np.random.default_rng(0)


def uniform(count: int = 60, channels: int = 3) -> NDArray[np.uint8]:
    return RNG.integers(0, 256, (count, channels, 8, 8), dtype=np.uint8)


def sparse(share: float) -> NDArray[np.uint8]:
    return ((RNG.random((300, 1, 28, 28)) < share) * 255).astype(np.uint8)


def bordered() -> NDArray[np.uint8]:
    """As X-rays are: dark, with a wide black border."""
    images = np.zeros((60, 1, 32, 32), np.uint8)
    images[:, :, 10:22, 10:22] = RNG.normal(60, 25, (60, 1, 12, 12)).clip(0, 255)
    return images


KINDS: dict[str, NDArray[np.uint8]] = {
    "uniform": uniform(),
    "dark": uniform() // 4,
    "bright": 255 - uniform() // 4,
    "bordered": bordered(),
    "mask": sparse(0.1),
    "sparse mask": sparse(0.001),
    "negative of a mask": 255 - sparse(0.01),
    "even channel": np.where(np.arange(3)[:, None, None] == 1, 128, uniform()).astype(np.uint8),
    "MNIST": open_images("mnist-5k").pixels[::5],
    "digits": open_images("digits").pixels,
}


def table(pixels: NDArray[np.uint8]) -> ImageTable:
    return ImageTable.from_arrays(pixels, np.arange(len(pixels)) % 2)


def floats(images: ImageTable) -> list[Any]:
    return list(zip(images.normalized(), images.labels.tolist(), strict=True))


def pool(shape: tuple[int, ...]) -> ImageTable:
    return ImageTable.from_arrays(RNG.integers(0, 256, (99, *shape), dtype=np.uint8))


@pytest.mark.parametrize("kind", KINDS)
def test_own_moments_always_pass(kind: str) -> None:
    images = table(KINDS[kind])
    given = ImageDataset(floats(images), mean=images.mean, std=images.std, classes="ab", workers=1)
    for private in (images, given):
        Encoder(Scheme.inside(4), private)
        Encoder(Scheme.cross(4), private, pool(images.shape))


@pytest.mark.parametrize("mean", [0.0, 0.002, 0.999, 1.0])
@pytest.mark.parametrize("kind", ["uniform", "MNIST", "digits", "mask"])
def test_a_mean_that_leaves_one_sign_is_refused(kind: str, mean: float) -> None:
    images = table(KINDS[kind])
    channels = images.shape[0]
    images = replace(images, mean=(mean,) * channels, std=(0.3,) * channels)
    for scheme in (Scheme.inside(4), Scheme.inside(2)):
        with pytest.raises(InstaHideError, match="mask would hide nothing"):
            Encoder(scheme, images)
    with pytest.raises(InstaHideError, match="one sign"):
        Encoder(Scheme.inside(4), ImageDataset(floats(images), classes="ab", workers=1))


@given(
    low=st.floats(0.05, 0.3),
    high=st.floats(0.6, 1),
    share=st.floats(0, 1),
    channel=st.integers(0, 2),
)
def test_the_share_of_the_rarer_sign_decides(
    low: float, high: float, share: float, channel: int
) -> None:
    values = np.random.default_rng(0).uniform(low, high, (40, 3, 6, 6)) - 0.5
    # This channel is ``share`` of the way from balanced to one sign.
    own = values[:, channel].mean()
    least = values[:, channel].min()
    values[:, channel] -= own + share * (least - own)
    seen = ChannelStatistics.of_values(values.astype(np.float32))
    part = (
        np.minimum(
            *(np.abs(values[:, channel][sign * values[:, channel] > 0]).sum() for sign in (1, -1))
        )
        / np.abs(values[:, channel]).sum()
    )
    assert seen.rarer_sign[channel] == pytest.approx(part, abs=1e-3)
    others = np.delete(seen.rarer_sign, channel).min() >= 0.05
    if part > 0.06 and others:
        require_sign_balance(seen)
    if part < 0.04:
        with pytest.raises(InstaHideError, match="one sign"):
            require_sign_balance(seen)


@pytest.mark.parametrize("kind", KINDS)
def test_counts_of_pixels_give_what_the_values_give(kind: str) -> None:
    images = table(KINDS[kind][:60])
    counted = ChannelStatistics.of_table(images)
    summed = ChannelStatistics.of_values(images.normalized())
    for name in ("low", "high", "magnitude", "rarer_sign", "rarer_values"):
        np.testing.assert_allclose(
            getattr(counted, name), getattr(summed, name), rtol=1e-3, atol=1e-4
        )


@given(
    mean=st.floats(0.2, 0.8), std=st.floats(0.1, 0.5),
    wrong=st.sampled_from(["255", "twice", "pixels", "plain", "stretched", "shrunk"]),
    kind=st.sampled_from(["uniform", "MNIST", "digits"]),
)  # fmt: skip
def test_values_that_the_moments_do_not_give_are_refused(
    mean: float, std: float, wrong: str, kind: str
) -> None:
    unit = KINDS[kind][:40] / np.float32(255)
    right = (unit - mean) / std
    stated = Normalization.of([mean], [std])
    require_consistent_normalization(ChannelStatistics.of_values(right), stated)
    for cast in (np.float16, np.float64):
        require_consistent_normalization(ChannelStatistics.of_values(right.astype(cast)), stated)
    values = {
        "255": (unit * 255 - mean) / std, "twice": (right - mean) / std, "pixels": unit * 255,
        "plain": unit, "stretched": right * 1.5, "shrunk": right * 0.15,
    }[wrong]  # fmt: skip
    with pytest.raises(InstaHideError, match="The values of the private images run from"):
        require_consistent_normalization(ChannelStatistics.of_values(values), stated)


def test_moments_of_pixels_to_255_are_recognised() -> None:
    mean, std = [123.675, 116.28, 103.53], [58.395, 57.12, 57.375]
    images = replace(table(uniform()), mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
    given = ImageDataset(floats(images), mean=mean, std=std, classes="ab", workers=1)
    assert given.normalization is not None
    np.testing.assert_allclose(given.normalization.mean, images.mean)
    np.testing.assert_allclose(given.normalization.std, images.std)


@given(st.lists(st.tuples(st.floats(-2, 2), st.floats(0.1, 3)), min_size=1, max_size=4))
def test_normalizations_are_composed(steps: list[tuple[float, float]]) -> None:
    values = np.linspace(0, 1, 9)
    known, expected = Normalization((0.0,), (1.0,)), values
    for mean, std in steps:
        known = compose_normalizations(known, Normalization((mean,) * 3, (std,) * 3))
        expected = (expected - mean) / std
    np.testing.assert_allclose((values - known.mean[0]) / known.std[0], expected, atol=1e-6)


@pytest.mark.parametrize("factor", [1e-3, 0.04, 25, 1000])
def test_magnitudes_far_apart_are_refused(factor: float) -> None:
    values = RNG.normal(size=(40, 3, 6, 6)).astype(np.float32)
    seen = ChannelStatistics.of_values(values)
    other = ChannelStatistics.of_values(values * np.float32(factor))
    require_similar_spread(seen, seen)
    with pytest.raises(InstaHideError, match="lost in a mix"):
        require_similar_spread(seen, other)
    images, public = (
        ImageDataset([(each, 0) for each in scaled], classes="ab", workers=1)
        for scaled in (values, values * np.float32(factor))
    )
    with pytest.raises(InstaHideError, match="lost in a mix"):
        Encoder(Scheme.cross(4), images, public)


@pytest.mark.parametrize("std", [1e-6, 1e-3, 100.0])
def test_deviations_of_another_order_are_refused(std: float) -> None:
    images = replace(table(uniform()), std=(std,) * 3)
    for scheme in (Scheme.inside(4), Scheme.plain(noise=0.5)):
        with pytest.raises(InstaHideError, match="must be between"):
            Encoder(scheme, images)
    with pytest.raises(InstaHideError):
        ImageDataset([(each.transpose(1, 2, 0), 0) for each in uniform()], mean=images.mean,
                     std=images.std, classes="ab", workers=1)  # fmt: skip


def test_moments_that_no_image_has_are_refused() -> None:
    for mean, std in ((0.002, 0.3), (0.999, 0.25), (0.5, 1.5)):
        with pytest.raises(InstaHideError, match="No images have"):
            require_possible_moments(Normalization((mean,), (std,)))
        with pytest.raises(InstaHideError):
            ImageDataset([(each.transpose(1, 2, 0), 0) for each in uniform()],
                         mean=(mean,) * 3, std=(std,) * 3, classes="ab", workers=1)  # fmt: skip
    for images in map(table, KINDS.values()):
        require_possible_moments(Normalization(images.mean, images.std))


@pytest.mark.parametrize(
    ("mean", "std"),
    [
        ([0.5], [0.5, 0.5]),
        ([], []),
        ([np.nan], [1]),
        ([0.5], [0]),
        ([0.5], [-1]),
        ([0.5], [np.inf]),
    ],
)
def test_moments_that_are_none_are_refused(mean: Any, std: Any) -> None:
    with pytest.raises(InstaHideError):
        Normalization.of(mean, std)

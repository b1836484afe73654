"""Noise on encodings: of the law that it says, from the key stream, and only where asked for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.stats import kstest, norm

from instahide.data import ImageDataset, ImageTable
from instahide.encryption import mixing
from instahide.encryption.batch_encoder import BatchEncoder, Normalization
from instahide.encryption.encoder import Encoder
from instahide.encryption.exposure import Exposure
from instahide.encryption.kernels.cuda import DeviceTables
from instahide.encryption.keys import KeyStream
from instahide.encryption.sampling import sampler
from instahide.encryption.scheme import Scheme
from instahide.errors import InstaHideError

KEY = bytes(range(32))
DEVIATION = 3.0
#: Of each statistical test here: the chance that it fails though all is well.
ERROR = 1e-7


def table(count: int = 40, seed: int = 0) -> ImageTable:
    generator = np.random.default_rng(seed)
    pixels = generator.integers(0, 256, (count, 3, 8, 8), np.uint8)
    return ImageTable.from_arrays(pixels, np.arange(count) % 3)


def fixed() -> KeyStream:
    return KeyStream(fixed_key=KEY)


def noisy(scheme: Scheme, deviation: float = DEVIATION) -> Scheme:
    return replace(scheme, noise=deviation)


def from_encoder(scheme: Scheme, epochs: int) -> NDArray[np.float32]:
    """(epochs, n, C, H, W)"""
    public = table() if scheme.public_k else None
    encoder = Encoder(scheme, table(), public, keys=fixed())
    made = []
    for _ in range(epochs):
        made.append(encoder.encode(np.arange(40)).images.numpy())
        encoder.next_epoch()
    return np.stack(made)


def from_batches(scheme: Scheme, epochs: int) -> NDArray[np.float32]:
    images = table()
    # Pictures of fetched batches are not known: public images are others.
    public = table(seed=1) if scheme.public_k else None
    moments = Normalization(images.mean, images.std)
    encoder = BatchEncoder(scheme, Exposure(40), public, moments=moments, keys=fixed())
    made = []
    for _ in range(epochs):
        plan = encoder.draw(np.arange(40), np.arange(40))
        wanted = np.concatenate([plan.targets, plan.extra_partners])
        encoded = encoder.encode(plan, images.normalized(wanted), images.labels[wanted], 3)
        made.append(encoded.images.numpy())
        encoder.next_epoch()
    return np.stack(made)


def from_device(scheme: Scheme, epochs: int) -> NDArray[np.float32]:
    """The path of a GPU, on the CPU."""
    public = table() if scheme.public_k else None
    encoder = Encoder(scheme, table(), public, keys=fixed())
    encoder._device_tables = DeviceTables(table(), public or table(), torch.device("cpu"))
    made = []
    for _ in range(epochs):
        made.append(encoder.encode(np.arange(40)).images.numpy())
        encoder.next_epoch()
    return np.stack(made)


@pytest.mark.parametrize("made", [from_encoder, from_batches, from_device])
@pytest.mark.parametrize("scheme", [Scheme.inside(4), Scheme.cross(4), Scheme.mixup(2)])
def test_what_noise_adds_is_normal_and_independent(
    made: Callable[[Scheme, int], NDArray[np.float32]], scheme: Scheme
) -> None:
    added = made(noisy(scheme), 3).astype(float) - made(scheme, 3)
    assert kstest(added.ravel() / DEVIATION, "norm").pvalue > ERROR
    # Sums of products of m independent pairs are close to normal with variance m.
    standard = (added / DEVIATION).reshape(3 * 40, -1)
    bound = norm.isf(ERROR / 2)
    for one, other in [
        (standard[:-1], standard[1:]),  # Neighbouring images.
        (standard[:40], standard[40:80]),  # The same image in two epochs.
        (standard[:, :-1], standard[:, 1:]),  # Neighbouring pixels.
        (standard[:, :96], standard[:, 96:]),  # The two halves of a draw by Box and Muller.
    ]:
        assert abs((one * other).sum()) < 1.1 * bound * np.sqrt(one.size)


def test_noise_does_not_repeat_between_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mixing, "NOISE_AT_ONCE", 3 * 192)
    added = from_encoder(noisy(Scheme.inside(4)), 1) - from_encoder(Scheme.inside(4), 1)
    rows = np.round(added[0].reshape(40, -1), 2)
    assert len(np.unique(rows, axis=0)) == 40
    assert kstest(added.ravel() / DEVIATION, "norm").pvalue > ERROR


def test_without_noise_nothing_is_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sampler, "noise", lambda *_: pytest.fail("drawn"))
    from_encoder(Scheme.inside(4), 1)
    with pytest.raises(pytest.fail.Exception):
        from_encoder(noisy(Scheme.inside(4)), 1)


def test_keys_of_a_mix_are_the_same_with_noise() -> None:
    """Noise has bytes of its own: whoever adds it changes nothing else."""
    with_noise, without = (
        Encoder(scheme, table(), keys=fixed()).encode(np.arange(40)).labels
        for scheme in (noisy(Scheme.inside(4)), Scheme.inside(4))
    )
    assert torch.equal(with_noise, without)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_only_the_sum_is_rounded(dtype: torch.dtype) -> None:
    scheme = noisy(Scheme.inside(4))
    exact = Encoder(scheme, table(), keys=fixed()).encode(np.arange(40)).images
    rounded = Encoder(scheme, table(), keys=fixed(), dtype=dtype).encode(np.arange(40)).images
    assert rounded.dtype is dtype
    # From float64 in one step or in two: now and then a last bit.
    spacing = torch.finfo(dtype).eps * exact.abs().clamp(min=2**-14)
    assert ((rounded.float() - exact).abs() <= spacing).all()


def test_float_images_beyond_black_and_white_are_clipped() -> None:
    images = table(100)
    # Item 1 is none of those that are looked at beforehand.
    wild = [
        ((100 if number == 1 else 1) * image, number % 3)
        for number, image in enumerate(images.normalized())
    ]
    items = ImageDataset(wild, mean=images.mean, std=images.std, classes="abc", workers=1)
    scheme = Scheme.plain(noise=1e-3)
    encoded = Encoder(scheme, items).encode(np.arange(6)).images.numpy()
    mean, std = (np.array(each)[:, None, None] for each in (images.mean, images.std))
    assert (encoded > -mean / std - 0.01).all()
    assert (encoded < (1 - mean) / std + 0.01).all()
    assert np.abs(Encoder(Scheme.plain(), items).encode(np.arange(6)).images).max() > 50


def test_images_of_unknown_range_get_no_noise() -> None:
    floats = [(image, number % 3) for number, image in enumerate(table(6).normalized())]
    items = ImageDataset(floats, classes=("a", "b", "c"), workers=1)
    with pytest.raises(InstaHideError, match="guarantee of noise"):
        Encoder(noisy(Scheme.inside(2)), items)
    with pytest.raises(InstaHideError, match="guarantee of noise"):
        BatchEncoder(noisy(Scheme.inside(2)), Exposure(6))


@pytest.mark.parametrize("deviation", [-1.0, 1e-7, 1e7, float("inf"), float("nan")])
def test_deviations_that_are_none_or_out_of_range(deviation: float) -> None:
    with pytest.raises(InstaHideError, match="is out of range"):
        Scheme.inside(4, noise=deviation)


def test_a_scheme_with_noise_survives_json() -> None:
    scheme = Scheme.cross(4, noise=2.5)
    assert Scheme.from_json(scheme.to_json()) == scheme
    assert scheme.query().noise == 2.5
    assert Scheme.plain(noise=1.0).is_plain is False
    assert Scheme.plain().is_plain


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_noise_on_a_gpu_is_that_on_a_cpu() -> None:
    on_gpu, on_cpu = (
        Encoder(noisy(Scheme.inside(4)), table(), keys=fixed(), device=device)
        .encode(np.arange(40))
        .images
        for device in ("cuda", "cpu")
    )
    assert on_gpu.is_cuda
    torch.testing.assert_close(on_gpu.cpu(), on_cpu, rtol=0, atol=1e-5)

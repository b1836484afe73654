"""Kernels: every one of them is the reference, to the rounding of its number format."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numba import njit
from numpy.typing import NDArray

from instahide.data import ImageTable
from instahide.data.pixels import _EXTREMES
from instahide.encryption.augmentation import Augmentation
from instahide.encryption.encoder import Encoder
from instahide.encryption.exposure import Exposure
from instahide.encryption.kernels import _intrinsics, cpu, cuda, reference
from instahide.encryption.keys import KeyStream, OneTimeKeys
from instahide.encryption.sampling import sampler
from instahide.encryption.scheme import Scheme
from instahide.errors import InstaHideError
from tests.waiting import LIMIT

#: A kernel is compiled for each of these: every k once, both types of pixels.
KINDS = [(k, (np.uint8, np.uint16, np.float32, np.int16)[k % 4]) for k in range(1, 9)]

#: Unit roundoff of a number format.
ROUNDOFF = {torch.float32: 2.0**-24, torch.float16: 2.0**-11, torch.bfloat16: 2.0**-8}

Floats = NDArray[np.float32]
Arrays = tuple[NDArray[Any], NDArray[Any], OneTimeKeys, int, Floats, Floats]


def inputs(
    k: int,
    dtype: Any,
    *,
    private_k: int = 2,
    shape: tuple[int, int, int] = (3, 8, 8),
    count: int = 20,
    mask: bool = True,
    augmentation: Augmentation = Augmentation(),  # noqa: B008
    seed: int = 0,
) -> Arrays:
    """Arguments of `reference.encode`."""
    generator = np.random.default_rng(seed)
    private_k = min(private_k, k)
    scheme = Scheme(k=k, private_k=private_k, c1=1.0, c2=0.0, mask=mask)
    sizes = private_k + int(generator.integers(0, 6)), k - private_k + int(generator.integers(0, 6))
    if k == private_k and seed % 2:
        sizes = sizes[0], 0
    tables = [
        generator.normal(0, 3, (size, *shape)).astype(dtype)
        if dtype is np.float32
        else generator.integers(*_EXTREMES[np.dtype(dtype)], (size, *shape)).astype(dtype)
        for size in sizes
    ]
    keys = sampler.one_time_keys(
        KeyStream().next_block(), scheme, np.arange(count) % sizes[0], public=sizes[1],
        shape=shape, augmentation=augmentation, exposure=Exposure(sizes[0]),
    )  # fmt: skip
    scale = generator.uniform(0.001, 0.03, shape[0]).astype(np.float32)
    bias = generator.uniform(-3, 3, shape[0]).astype(np.float32)
    return tables[0], tables[1], keys, private_k, scale, bias


def bound(arrays: Arrays, dtype: torch.dtype = torch.float32) -> NDArray[np.float64]:
    """How far from the reference a kernel may be.

    A weight is rounded once, then k products are added to the bias in any order: k + 2 roundings,
    each of at most one unit of the sum of the terms' magnitudes. The reference weighs the bias by
    the sum of the coefficients, which is 1 but for k / 2 more units.
    """
    private, public, keys, private_k, scale, bias = arrays
    unmasked = OneTimeKeys(keys.partners, keys.coefficients, None, keys.moves)
    magnitude = reference.encode(
        np.abs(private.astype(float)),
        np.abs(public.astype(float)),
        unmasked,
        private_k,
        scale,
        np.abs(bias),
    )
    k = keys.partners.shape[1]
    exact = (1.5 * k + 3) * 2.0**-24 * magnitude
    own = 0 if dtype is torch.float32 else ROUNDOFF[dtype]
    # The smallest half-precision numbers are 2^-24 apart.
    return np.asarray(exact + own * (magnitude + exact) + (2.0**-25 if own else 0))


def assert_is_the_reference(out: torch.Tensor, arrays: Arrays) -> None:
    expected = reference.encode(*arrays)
    assert out.shape == expected.shape
    error = np.abs(out.double().numpy() - expected)
    assert (error <= bound(arrays, out.dtype)).all()


def on_cpu(arrays: Arrays, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    private, public, keys, private_k, scale, bias = arrays
    # Not a number: whatever is not written shows.
    shape = (len(keys.partners), *private.shape[1:])
    out = torch.full(shape, torch.nan, dtype=dtype)
    cpu.encode(private, public, keys, private_k, scale, bias, out)
    return out


AUGMENTATIONS = st.builds(Augmentation, st.sampled_from([0, 1, 4, 50, 127]), st.booleans())
SHAPES = st.tuples(st.sampled_from([1, 3]), st.integers(1, 40), st.integers(1, 40))


@pytest.mark.slow
@given(
    kind=st.sampled_from(KINDS),
    private_k=st.integers(1, 8),
    shape=SHAPES,
    count=st.integers(1, 12),
    mask=st.booleans(),
    augmentation=AUGMENTATIONS,
    out=st.sampled_from(list(ROUNDOFF)),
    seed=st.integers(0, 2**32),
)
@settings(max_examples=200, deadline=None)
def test_the_cpu_kernel_is_the_reference(
    kind: tuple[int, Any],
    private_k: int,
    shape: tuple[int, int, int],
    count: int,
    mask: bool,
    augmentation: Augmentation,
    out: torch.dtype,
    seed: int,
) -> None:
    arrays = inputs(
        *kind, private_k=private_k, shape=shape, count=count, mask=mask, augmentation=augmentation,
        seed=seed,
    )  # fmt: skip
    assert_is_the_reference(on_cpu(arrays, out), arrays)


@given(
    k=st.integers(1, 8),
    private_k=st.integers(1, 8),
    shape=SHAPES,
    count=st.integers(1, 12),
    mask=st.booleans(),
    augmentation=AUGMENTATIONS,
    out=st.sampled_from(list(ROUNDOFF)),
    seed=st.integers(0, 2**32),
)
@settings(max_examples=100, deadline=None)
def test_the_device_kernel_is_the_reference(
    k: int,
    private_k: int,
    shape: tuple[int, int, int],
    count: int,
    mask: bool,
    augmentation: Augmentation,
    out: torch.dtype,
    seed: int,
) -> None:
    arrays = inputs(
        k, np.uint8, private_k=private_k, shape=shape, count=count, mask=mask,
        augmentation=augmentation, seed=seed,
    )  # fmt: skip
    private, public = tables(arrays)
    # The table's own scale and bias, which differ from the drawn ones by a rounding.
    arrays = (*arrays[:4], private.scale, private.bias)
    assert_is_the_reference(on_device(arrays, (private, public), "cpu", out), arrays)


def tables(arrays: Arrays) -> tuple[ImageTable, ImageTable]:
    """The arrays as tables; the public one with a normalization of its own, not to be used."""
    private, public, _, _, scale, bias = arrays
    std = 1 / (255 * scale.astype(np.float64))
    mean = np.clip(-bias.astype(np.float64) * std, 0, 1)
    channels = len(scale)
    return (
        ImageTable(private, np.zeros(len(private), np.int64), (), tuple(mean), tuple(std)),
        ImageTable(
            public, np.zeros(len(public), np.int64), (), (0.9,) * channels, (7.0,) * channels
        ),
    )


def on_device(
    arrays: Arrays, both: tuple[ImageTable, ImageTable], device: str, dtype: torch.dtype
) -> torch.Tensor:
    keys, private_k = arrays[2], arrays[3]
    shape = (len(keys.partners), *arrays[0].shape[1:])
    out = torch.full(shape, torch.nan, dtype=dtype, device=device)
    cuda.DeviceTables(*both, torch.device(device)).encode(keys, private_k, out)
    return out.cpu()


@pytest.mark.parametrize("rest", [-1, 0, 1, 37])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_more_mixes_than_a_worker_takes(rest: int, dtype: torch.dtype) -> None:
    arrays = inputs(4, np.uint8, count=3 * 128 + rest, augmentation=Augmentation(2, True))
    assert_is_the_reference(on_cpu(arrays, dtype), arrays)


def test_more_mixes_than_a_device_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda, "CHUNK", 8)
    arrays = inputs(4, np.uint8, count=21, augmentation=Augmentation(2, True))
    both = tables(arrays)
    arrays = (*arrays[:4], both[0].scale, both[0].bias)
    assert_is_the_reference(on_device(arrays, both, "cpu", torch.float32), arrays)


def test_both_kernels_turn_the_same_signs() -> None:
    arrays = inputs(4, np.uint8, count=50)
    both = tables(arrays)
    arrays = (*arrays[:4], both[0].scale, both[0].bias)
    device, host = on_device(arrays, both, "cpu", torch.float32), on_cpu(arrays)
    clear = np.abs(reference.encode(*arrays)) > 2 * bound(arrays)
    assert clear.mean() > 0.99
    np.testing.assert_array_equal(np.signbit(device)[clear], np.signbit(host)[clear])


def test_memory_mapped_pixels(tmp_path: Path) -> None:
    arrays = inputs(4, np.uint8, count=30)
    for name, pixels in zip(("private", "public"), arrays[:2], strict=True):
        np.save(tmp_path / f"{name}.npy", pixels)
    private, public = (
        np.load(tmp_path / f"{name}.npy", mmap_mode="r") for name in ("private", "public")
    )
    assert_is_the_reference(on_cpu((private, public, *arrays[2:])), arrays)


def test_rows_that_are_not_next_to_each_other() -> None:
    # Every second image of a larger table, as a subset has them.
    arrays = inputs(4, np.uint8, count=30, augmentation=Augmentation(1, True))
    spaced = np.zeros((2 * len(arrays[0]), *arrays[0].shape[1:]), np.uint8)
    spaced[::2] = arrays[0]
    assert_is_the_reference(on_cpu((spaced[::2], *arrays[1:])), arrays)


def with_mask_bit(word: int, bit: int, height: int, width: int) -> OneTimeKeys:
    """One mix of image 0 alone, whose mask has one set bit in the middle of three channels."""
    masks = np.zeros((1, 3, -(-height * width // 32)), np.uint32)
    masks[0, 1, word] = np.uint32(1) << np.uint32(bit)
    partners, ones = np.zeros((1, 1), np.int64), np.ones((1, 1), np.float32)
    return OneTimeKeys(partners, ones, masks, None)


@pytest.mark.parametrize("size", [(5, 9), (8, 8)])
def test_bit_b_of_word_w_turns_pixel_32_w_plus_b(size: tuple[int, int]) -> None:
    height, width = size
    pixels = np.full((1, 3, height, width), 10, np.uint8)
    scale, bias = np.ones(3, np.float32), np.zeros(3, np.float32)
    for place in range(height * width):
        expected = np.full((3, height * width), 10.0)
        expected[1, place] = -10
        keys = with_mask_bit(*divmod(place, 32), height, width)
        arrays = (pixels, pixels[:0], keys, 1, scale, bias)
        table = ImageTable(pixels, np.zeros(1, np.int64), (), (0.0,) * 3, (1 / 255,) * 3)
        found = [
            reference.encode(*arrays),
            on_cpu(arrays).numpy(),
            on_device(arrays, (table, table.subset(slice(0))), "cpu", torch.float32).numpy(),
        ]
        for encoding in found:
            np.testing.assert_allclose(encoding.reshape(3, -1), expected, rtol=1e-6)


def test_bits_past_the_last_pixel_turn_nothing() -> None:
    pixels = np.full((1, 3, 5, 9), 10, np.uint8)
    keys = with_mask_bit(1, 45 - 32, 5, 9)
    arrays = (pixels, pixels[:0], keys, 1, np.ones(3, np.float32), np.zeros(3, np.float32))
    assert (on_cpu(arrays) == 10).all()
    assert (reference.encode(*arrays) == 10).all()


def by_hand(image: NDArray[Any], down: int, right: int, mirrored: int) -> NDArray[Any]:
    """Pixel by pixel: mirrored first, then moved."""
    height, width = image.shape[1:]
    out = np.zeros_like(image)
    for y in range(height):
        for x in range(width):
            row, column = y - down, x - right
            if 0 <= row < height and 0 <= column < width:
                out[:, y, x] = image[:, row, width - 1 - column if mirrored else column]
    return out


@given(
    size=st.tuples(st.integers(1, 6), st.integers(1, 6)),
    move=st.tuples(st.integers(-127, 127) | st.integers(-3, 3), st.integers(-127, 127)),
    mirrored=st.integers(0, 1),
)
@settings(max_examples=100)
def test_every_kernel_moves_an_image_alike(
    size: tuple[int, int], move: tuple[int, int], mirrored: int
) -> None:
    image = np.arange(1, 3 * size[0] * size[1] + 1, dtype=np.uint8).reshape(3, *size)
    # As they come from the key stream: in signed bytes.
    signed = np.array([*move, mirrored], np.int8)
    expected = by_hand(image, *move, mirrored)
    np.testing.assert_array_equal(reference.shift_and_flip(image, signed), expected)
    on_torch = cuda.shift_and_flip(torch.from_numpy(image)[None], torch.from_numpy(signed)[None])
    np.testing.assert_array_equal(on_torch[0], expected)


@pytest.mark.parametrize("right", [-127, -20, -9, -8, -7, -1, 0, 1, 7, 8, 9, 20, 127])
@pytest.mark.parametrize("down", [-3, -1, 0, 1])
@pytest.mark.parametrize("mirrored", [0, 1])
@pytest.mark.parametrize("width", [8, 2 * _intrinsics.LANES + 5])
def test_a_move_beyond_the_image_writes_nowhere_else(
    right: int, down: int, mirrored: int, width: int
) -> None:
    # The plane lies in the middle of larger arrays, of which the target must stay as it was but
    # for the room of a line on both sides.
    height, to = 2, 700
    table = np.arange(400, dtype=np.uint8)
    around = np.full(2000, 77, np.uint8)
    move = np.array([down, right, mirrored], np.int8)
    cpu._copy_shifted(table, 100, move, around, to, (height, width), np.uint8(0))
    plane = table[100 : 100 + height * width].reshape(1, height, width)
    expected = by_hand(plane, down, right, mirrored)
    np.testing.assert_array_equal(around[to : to + height * width], expected.ravel())
    around[to - width : to + (height + 1) * width] = 77
    assert (around == 77).all()


def test_the_reference_at_a_glance() -> None:
    # 0.75 * (2 * 2 - 1) + 0.25 * (2 * 10 - 1) = 7, and the sign of the second value turns.
    private, public = np.full((1, 1, 1, 2), 2, np.uint8), np.full((1, 1, 1, 2), 10, np.uint8)
    keys = OneTimeKeys(
        np.zeros((1, 2), np.int64),
        np.array([[0.75, 0.25]], np.float32),
        np.full((1, 1, 1), 2, np.uint32),
        None,
    )
    scale, bias = np.full(1, 2, np.float32), np.full(1, -1, np.float32)
    encoding = reference.encode(private, public, keys, 1, scale, bias)
    assert encoding.ravel().tolist() == [7.0, -7.0]


def test_the_largest_image_size_and_move() -> None:
    # Beyond a signed byte: 200 pixels, moved by 127.
    pixels = np.random.default_rng(0).integers(0, 256, (3, 1, 200, 150), np.uint8)
    keys = OneTimeKeys(
        np.array([[0, 1], [2, 0]]),
        np.full((2, 2), 0.5, np.float32),
        None,
        np.array([[[127, -127, 1], [-127, 127, 0]], [[100, 100, 0], [-64, -64, 1]]], np.int8),
    )
    arrays = (pixels, pixels[:0], keys, 2, np.array([0.01], np.float32), np.array([-1], np.float32))
    assert_is_the_reference(on_cpu(arrays), arrays)


def test_memory_is_asked_for_and_what_is_not_there_does_no_harm() -> None:
    @njit
    def ask(array: Any, place: Any) -> None:
        _intrinsics.prefetch(array, place)  # type: ignore[call-arg]

    for place in (0, 63, 64, 2**40, 2**62):
        ask(np.zeros(64, np.uint8), np.uintp(place))
    ask(np.zeros(0, np.uint8), np.uintp(0))
    assert all("llvm.prefetch" in code for code in ask.inspect_llvm().values())


@pytest.mark.slow
def test_a_compiled_kernel_is_kept_for_the_next_process() -> None:
    on_cpu(inputs(4, np.uint8, augmentation=Augmentation(1)))
    program = (
        "import runpy, numpy as np; from instahide.encryption.kernels import cpu; "
        f"test = runpy.run_path({__file__!r}); "
        "test['on_cpu'](test['inputs'](4, np.uint8, augmentation=test['Augmentation'](1))); "
        "stats = cpu._encode_mixes.stats; "
        "print(stats.cache_hits.total(), stats.cache_misses.total())"
    )

    def hits_and_misses() -> list[str]:
        return subprocess.run(
            [sys.executable, "-c", program],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
            capture_output=True,
            text=True,
            check=True,
            timeout=LIMIT,
        ).stdout.split()

    # Again, if another process has just written its own version of the cache's index.
    assert ["1", "0"] in (hits_and_misses() for _ in range(3))


def test_a_cpu_never_holds_tables_as_a_device() -> None:
    table = ImageTable.from_arrays(np.zeros((2, 4, 4), np.uint8))
    assert not cuda.fits(torch.device("cpu"), table)


@pytest.mark.parametrize("padding", [-1, 128])
def test_a_padding_that_no_move_holds_is_refused(padding: int) -> None:
    with pytest.raises(InstaHideError, match="out of range"):
        Augmentation(padding)
    assert not Augmentation()
    assert Augmentation(flip=True)
    assert Augmentation(127)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("dtype", list(ROUNDOFF))
@pytest.mark.parametrize("augmentation", [Augmentation(), Augmentation(4, True)])
def test_a_gpu_encodes_as_the_reference(augmentation: Augmentation, dtype: torch.dtype) -> None:
    arrays = inputs(4, np.uint8, shape=(3, 32, 32), count=5_000, augmentation=augmentation)
    both = tables(arrays)
    arrays = (*arrays[:4], both[0].scale, both[0].bias)
    assert_is_the_reference(on_device(arrays, both, "cuda", dtype), arrays)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_an_encoder_on_a_gpu_is_the_one_on_a_cpu() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (300, 3, 8, 8), np.uint8)
    images, key = ImageTable.from_arrays(pixels, np.arange(300) % 3), bytes(range(32))
    encoded = [
        Encoder(Scheme.inside(4), images, keys=KeyStream(fixed_key=key), device=device).encode(
            np.arange(300)
        )
        for device in ("cuda", "cpu")
    ]
    assert encoded[0].images.is_cuda
    assert encoded[0].labels.is_cuda
    torch.testing.assert_close(encoded[0].images.cpu(), encoded[1].images, atol=1e-5, rtol=0)
    assert torch.equal(encoded[0].labels.cpu(), encoded[1].labels)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int16, np.float32])
@pytest.mark.parametrize("size", [(6, 7), (5, 6, 7)])
def test_images_and_volumes_of_every_type_are_encoded_as_the_reference(
    dtype: Any, size: tuple[int, ...]
) -> None:
    """With moves, whose new pixels have the lowest value; a volume is mixed plane by plane."""
    low = 20 if np.dtype(dtype).kind == "u" else -20
    pixels = np.random.default_rng(0).integers(low, low + 200, (6, 2, *size)).astype(dtype)
    table = ImageTable.from_arrays(pixels, np.arange(6) % 2, value_range=(low, low + 220))
    scheme, augmentation = Scheme.inside(3), Augmentation(2, True)
    indices, streams = np.arange(6), [KeyStream("a", fixed_key=bytes(32)) for _ in range(2)]
    encoder = Encoder(scheme, table, keys=streams[0], augmentation=augmentation)
    found = encoder.encode(indices).images.numpy()
    keys = sampler.one_time_keys(
        streams[1].next_block(), scheme, indices, public=0, shape=table.shape,
        augmentation=augmentation, exposure=Exposure(6),
    )  # fmt: skip
    depth = 1 if len(size) == 2 else size[0]
    planes = pixels.reshape(6, 2 * depth, *size[-2:])
    moments = np.repeat(table.scale, depth), np.repeat(table.bias, depth)
    expected = reference.encode(planes, planes[:0], keys, 3, *moments, black=low)
    np.testing.assert_allclose(found.reshape(expected.shape), expected, rtol=0, atol=2e-5)
    on_torch = torch.empty(expected.shape)
    cuda.DeviceTables(table, table.subset(slice(0, 0)), torch.device("cpu")).encode(
        keys, 3, on_torch
    )
    np.testing.assert_allclose(on_torch.numpy(), expected, rtol=0, atol=2e-5)


@pytest.mark.parametrize("size", [(8, 8), (4, 8), (5, 8), (33, 1)])
def test_encodings_past_the_caches_are_the_same_bits(size: tuple[int, int]) -> None:
    """Memory that begins with a cache line is written past them, other memory is not."""
    private, public, keys, private_k, scale, bias = inputs(4, np.uint8, shape=(3, *size))
    shape = (len(keys.partners), 3, *size)
    memory = torch.full((math.prod(shape) + 32,), torch.nan)
    found = []
    for start in (0, 1):
        first = (-memory.data_ptr() % 64) // 4 + start
        out = memory[first : first + math.prod(shape)].view(shape)
        cpu.encode(private, public, keys, private_k, scale, bias, out)
        found.append(out.clone())
    assert torch.equal(*found)
    assert not found[0].isnan().any()


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int16, np.float32])
@pytest.mark.parametrize("size", [(6, 7), (3, 6, 7)])
def test_public_images_are_mixed_into_every_type_as_the_reference_says(
    dtype: Any, size: tuple[int, ...]
) -> None:
    """8-bit public images among private ones of another type and range; noise adds to the same."""
    low = 20 if np.dtype(dtype).kind == "u" else -20
    generator = np.random.default_rng(1)
    pixels = generator.integers(low, low + 200, (6, 2, *size)).astype(dtype)
    table = ImageTable.from_arrays(pixels, np.arange(6) % 2, value_range=(low, low + 220))
    public = ImageTable.from_arrays(generator.integers(0, 256, (5, 2, *size), np.uint8))
    indices = np.arange(6)

    def encoded(noise: float) -> NDArray[np.float32]:
        keys = KeyStream("a", fixed_key=bytes(32))
        encoder = Encoder(Scheme.cross(4, noise=noise), table, public, keys=keys)
        return encoder.encode(indices).images.numpy()

    keys = sampler.one_time_keys(
        KeyStream("a", fixed_key=bytes(32)).next_block(), Scheme.cross(4), indices, public=5,
        shape=table.shape, augmentation=Augmentation(), exposure=Exposure(6),
    )  # fmt: skip
    like = public.with_pixels_like(table)
    depth = math.prod(size[:-2])
    planes = (part.reshape(len(part), 2 * depth, *size[-2:]) for part in (pixels, like.pixels))
    moments = np.repeat(table.scale, depth), np.repeat(table.bias, depth)
    expected = reference.encode(*planes, keys, 2, *moments).reshape(6, 2, *size)
    np.testing.assert_allclose(encoded(0), expected, rtol=0, atol=2e-5)
    # Ten deviations of the noise: further off once in 10^20 values.
    np.testing.assert_allclose(encoded(1e-4), expected, rtol=0, atol=1e-3 + 2e-5)

"""Values on disk: how far off they may be, and what happens to files that are not what they say."""

from __future__ import annotations

import hashlib
import json
import struct
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from torch import Tensor

from instahide import InstaHideError, Scheme
from instahide.encodings.manifest import Manifest, Shard, Values
from instahide.encodings.shards import (
    dequantize,
    magnitudes,
    max_quantization_error,
    quantize,
    read_shard,
    write_shard,
)
from tests.encodings.conftest import manifest_of, private_images

NAME = "0123456789abcdef.safetensors"
LARGEST_HALF = 65504.0


def off(values: Values, images: Tensor, max_abs: float) -> float:
    """The greatest error of what comes back."""
    back = dequantize(quantize(images, values, max_abs), max_abs)
    return float((back.double() - images.double()).abs().max())


@st.composite
def values_within(draw: st.DrawFn) -> tuple[Tensor, float]:
    max_abs = draw(st.floats(0.5, LARGEST_HALF))
    share = st.floats(-1, 1) | st.sampled_from([-1.0, 1.0, 0.0, 2**-20, 1 - 2**-12])
    shares = draw(arrays.arrays(np.float64, st.integers(1, 20), elements=share))
    # Rounded to float32, some would exceed max_abs.
    images = np.clip((shares * max_abs).astype(np.float32), -max_abs, max_abs).astype(np.float32)
    return torch.from_numpy(images), max_abs


@pytest.mark.parametrize("values", get_args(Values))
@given(within=values_within())
def test_no_value_is_further_off_than_is_said(values: Values, within: tuple[Tensor, float]) -> None:
    images, max_abs = within
    assert off(values, images, max_abs) <= max_quantization_error(values, max_abs)


def test_the_worst_error_is_not_much_worse_than_what_happens() -> None:
    images = torch.linspace(-3, 3, 200_001)
    assert off("float32", images, 3.0) == max_quantization_error("float32", 3.0) == 0
    assert off("uint8", images, 3.0) > 0.99 * max_quantization_error("uint8", 3.0)
    # float16 has steps of the size of the value: the worst is next to a power of two.
    assert off("float16", images, 2.0 + 2**-8) > 0.0
    assert max_quantization_error("float16", 3.0) < 0.002


def test_float16_at_its_ends() -> None:
    ends = torch.tensor([LARGEST_HALF, -LARGEST_HALF, 2**-14, 2**-24, 2**-25, 2**-26, 0.0])
    assert quantize(ends, "float16", LARGEST_HALF).isfinite().all()
    assert off("float16", ends, LARGEST_HALF) <= max_quantization_error("float16", LARGEST_HALF)
    # Next to 0 a small max_abs does not make the steps smaller.
    tiny = torch.tensor([2**-25 * 1.5, 2**-26, -(2**-25)])
    assert off("float16", tiny, 1e-6) <= max_quantization_error("float16", 1e-6)


def test_bytes_stand_for_127_steps_on_either_side() -> None:
    steps = torch.arange(-127, 128).float()
    stored = quantize(steps * 2 / 127, "uint8", 2.0)
    assert stored.tolist() == list(range(1, 256))
    assert quantize(torch.tensor([-0.0, 0.0]), "uint8", 2.0).tolist() == [128, 128]


@pytest.mark.parametrize("values", get_args(Values))
@given(within=values_within())
def test_a_mask_leaves_magnitudes_as_they_are(values: Values, within: tuple[Tensor, float]) -> None:
    images, max_abs = within
    ours, theirs = (magnitudes(quantize(each, values, max_abs)) for each in (images, -images))
    assert torch.equal(ours, theirs)


def described(path: Path, encodings: int = 2, **facts: Any) -> tuple[Shard, Manifest]:
    """A manifest that says of ``path`` what its bytes are."""
    content = path.read_bytes()
    shard = Shard.model_construct(
        name=NAME, encodings=encodings, bytes=len(content),
        sha256=hashlib.sha256(content).hexdigest(),
    )  # fmt: skip
    return shard, manifest_of(private_images(12), Scheme.inside(2), **facts)


@pytest.mark.parametrize("values", get_args(Values))
def test_what_is_written_is_read_from_the_file_itself(tmp_path: Path, values: Values) -> None:
    images, labels = torch.randn(5, 1, 6, 6), torch.rand(5, 3)
    stored = quantize(images, values, 4.0)
    shard = write_shard(tmp_path / NAME, NAME, stored, labels)
    assert shard == described(tmp_path / NAME, 5)[0]
    manifest = described(tmp_path / NAME, values=values)[1]
    read = read_shard(tmp_path / NAME, shard, manifest, "here")
    assert torch.equal(read.images, stored)
    assert torch.equal(read.labels, labels)
    assert str(tmp_path / NAME) in Path("/proc/self/maps").read_text()


def tensor(dtype: str, shape: list[int], start: int, end: int) -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}


IMAGES, LABELS = tensor("F16", [2, 1, 6, 6], 24, 168), tensor("F32", [2, 3], 0, 24)


def content(header: object, *, length: int | None = None, data: int = 168) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + bytes(data)


def test_the_files_below_would_be_read_but_for_their_faults(tmp_path: Path) -> None:
    (tmp_path / NAME).write_bytes(content({"images": IMAGES, "labels": LABELS}))
    images, labels = read_shard(tmp_path / NAME, *described(tmp_path / NAME), "here")
    assert (tuple(images.shape), tuple(labels.shape)) == ((2, 1, 6, 6), (2, 3))


HOSTILE = {
    "empty": b"",
    "short": b"abc",
    "no header": content({}, length=2**63),
    "a header beyond the file": content({}, length=10_000),
    "a list": content([]),
    "deep": content(b"[" * 5000),
    "no text": content(b"\xff" * 50),
    "zeros": content(bytes(100)),
    "no tensors": content({}, data=0),
    "no labels": content({"images": tensor("F16", [2, 1, 6, 6], 0, 144)}, data=144),
    "offsets beyond the file": content({"images": tensor("F16", [2, 1, 6, 6], 24, 10**9)}),
    "offsets below 0": content({"images": tensor("F16", [2, 1, 6, 6], -24, 120)}),
    "backwards": content({"images": tensor("F16", [2, 1, 6, 6], 168, 24), "labels": LABELS}),
    "overlapping": content({"images": tensor("F16", [2, 1, 6, 6], 0, 144), "labels": LABELS}),
    "a gap": content({"images": IMAGES, "labels": tensor("F32", [2, 3], 4, 28)}),
    "data left over": content({"images": IMAGES, "labels": LABELS}, data=200),
    "another tensor": content(
        {"images": IMAGES, "labels": LABELS, "keys": tensor("U8", [4], 168, 172)}, data=172
    ),
    "bfloat16": content({"images": {**IMAGES, "dtype": "BF16"}, "labels": LABELS}),
    "4-bit": content({"images": tensor("F4", [2, 144], 24, 168), "labels": LABELS}),
    "no dtype": content({"images": {**IMAGES, "dtype": "P8"}, "labels": LABELS}),
    "int labels": content({"images": IMAGES, "labels": {**LABELS, "dtype": "I32"}}),
    "another shape": content({"images": {**IMAGES, "shape": [2, 6, 6, 1]}, "labels": LABELS}),
    "flat": content({"images": {**IMAGES, "shape": [72]}, "labels": LABELS}),
    "nothing inside": content(
        {"images": tensor("F16", [0, 1, 6, 6], 0, 0), "labels": tensor("F32", [42], 0, 168)}
    ),
    "huge": content({"images": {**IMAGES, "shape": [2**40, 2**40]}, "labels": LABELS}),
    "huge and nothing": content(
        {"images": tensor("F16", [2**62, 0], 0, 0), "labels": tensor("F32", [42], 0, 168)}
    ),
}


@pytest.mark.parametrize("hostile", HOSTILE)
def test_a_hostile_file_is_refused(tmp_path: Path, hostile: str) -> None:
    (tmp_path / NAME).write_bytes(HOSTILE[hostile])
    with pytest.raises(InstaHideError, match=f"Shard {NAME} of here is damaged"):
        read_shard(tmp_path / NAME, *described(tmp_path / NAME), "here")


@settings(deadline=None)
@given(st.data())
def test_no_header_crashes_the_reader(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    path = tmp_path_factory.getbasetemp() / NAME
    whole = bytearray(content({"images": IMAGES, "labels": LABELS}))
    header = len(whole) - 168
    for _ in range(data.draw(st.integers(1, 3))):
        whole[data.draw(st.integers(0, header - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(whole)
    try:
        images, labels = read_shard(path, *described(path), "here")
    except InstaHideError:
        return
    assert (tuple(images.shape), tuple(labels.shape)) == ((2, 1, 6, 6), (2, 3))


def test_a_file_that_is_gone_or_shorter_is_explained(tmp_path: Path) -> None:
    (tmp_path / NAME).write_bytes(content({"images": IMAGES, "labels": LABELS}))
    told = described(tmp_path / NAME)
    (tmp_path / NAME).write_bytes((tmp_path / NAME).read_bytes()[:-1])
    with pytest.raises(InstaHideError, match="it has not"):
        read_shard(tmp_path / NAME, *told, "here")
    (tmp_path / NAME).unlink()
    with pytest.raises(InstaHideError, match="No such file"):
        read_shard(tmp_path / NAME, *told, "here")

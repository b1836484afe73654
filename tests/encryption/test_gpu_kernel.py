"""The GPU kernel without a GPU: Triton interprets it on the CPU, and compiles it for GPUs."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from instahide.data import ImageTable
from instahide.encryption.augmentation import Augmentation
from instahide.encryption.exposure import Exposure
from instahide.encryption.kernels import cuda, reference
from instahide.encryption.keys import KeyStream, OneTimeKeys
from instahide.encryption.sampling import sampler
from instahide.encryption.scheme import Scheme
from instahide.errors import InstaHideError
from tests.encryption.test_kernels import (
    AUGMENTATIONS,
    KINDS,
    ROUNDOFF,
    SHAPES,
    bound,
    inputs,
    tables,
)
from tests.waiting import LIMIT

pytest.importorskip("triton")
#: As tests/conftest.py sets it where there is no GPU.
interpreted = pytest.mark.skipif("TRITON_INTERPRET" not in os.environ, reason="there is a GPU")
KERNEL = "instahide.encryption.kernels._encode_triton"
CPU = torch.device("cpu")


def fused(
    both: tuple[ImageTable, ImageTable], keys: OneTimeKeys, private_k: int, out: torch.Tensor
) -> torch.Tensor:
    cuda.DeviceTables(*both, CPU)._fused(cuda.DeviceKeys(keys, CPU), private_k, out)
    return out


@pytest.mark.slow
@interpreted
@given(
    kind=st.sampled_from(KINDS),
    private_k=st.integers(1, 4),
    shape=SHAPES,
    mask=st.booleans(),
    augmentation=AUGMENTATIONS,
    dtype=st.sampled_from(list(ROUNDOFF)),
    seed=st.integers(0, 1000),
)
@settings(max_examples=40)
def test_the_kernel_is_the_reference(
    kind: tuple[int, Any],
    private_k: int,
    shape: tuple[int, int, int],
    mask: bool,
    augmentation: Augmentation,
    dtype: torch.dtype,
    seed: int,
) -> None:
    arrays = inputs(
        *kind, private_k=private_k, shape=shape, count=3, mask=mask, augmentation=augmentation,
        seed=seed,
    )  # fmt: skip
    both = tables(arrays)
    arrays = (*arrays[:4], both[0].scale, both[0].bias)
    # Not a number: whatever is not written shows.
    out = fused(both, arrays[2], arrays[3], torch.full((3, *shape), torch.nan, dtype=dtype))
    error = np.abs(out.double().numpy() - reference.encode(*arrays))
    # Triton's interpreter truncates where a GPU rounds to the nearest bfloat16.
    assert (error <= bound(arrays, dtype) * (2 if dtype is torch.bfloat16 else 1)).all()


@interpreted
@pytest.mark.parametrize("size", [(40, 70), (5, 6, 7)])
def test_planes_above_a_block_and_volumes_with_black_that_comes_in(size: tuple[int, ...]) -> None:
    pixels = np.random.default_rng(0).integers(-20, 180, (4, 2, *size)).astype(np.int16)
    table = ImageTable.from_arrays(pixels, np.arange(4) % 2, value_range=(-20, 200))
    keys = sampler.one_time_keys(
        KeyStream().next_block(), Scheme.inside(3), np.arange(4), public=0, shape=table.shape,
        augmentation=Augmentation(2, True), exposure=Exposure(4),
    )  # fmt: skip
    depth = 1 if len(size) == 2 else size[0]
    planes = pixels.reshape(4, 2 * depth, *size[-2:])
    moments = np.repeat(table.scale, depth), np.repeat(table.bias, depth)
    expected = reference.encode(planes, planes[:0], keys, 3, *moments, black=-20)
    found = fused((table, table.subset(slice(0, 0))), keys, 3, torch.empty(planes.shape))
    np.testing.assert_allclose(found.numpy(), expected, rtol=0, atol=2e-5)


@interpreted
def test_a_kernel_that_forgets_a_mask_is_refused_on_its_first_use(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (10, 3, 8, 8), np.uint8)
    table = ImageTable.from_arrays(pixels, np.arange(10) % 2)
    device = cuda.DeviceTables(table, table.subset(slice(0, 0)), CPU)
    device.require_right_kernel()
    kernel = importlib.import_module(KERNEL)
    right = kernel.encode

    def forgetful(tables: Any, keys: Any, *rest: Any) -> None:
        partners, coefficients, masks, moves = keys
        masks[3, 1, 1] = 0
        right(tables, (partners, coefficients, masks, moves), *rest)
        masks[3, 1, 1] = -1

    monkeypatch.setattr(kernel, "encode", forgetful)
    with pytest.raises(InstaHideError, match="wrong encodings on cpu"):
        device.require_right_kernel()


@pytest.mark.slow
def test_the_kernel_compiles_for_gpus_that_pytorch_supports() -> None:
    program = f"""
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from {KERNEL} import BLOCK, _encode

for generation in (75, 80, 90, 100):
    for pixel, value in (("u8", "fp32"), ("u16", "fp16"), ("i16", "bf16"), ("fp32", "fp32")):
        types = dict.fromkeys(_encode.arg_names, "constexpr") | dict.fromkeys(
            ("planes", "height", "width", "words"), "i32"
        )
        types |= dict(private="*" + pixel, public="*" + pixel, partners="*i64", masks="*i32")
        types |= dict(coefficients="*fp32", moves="*i8", scale="*fp32", bias="*fp32")
        types |= dict(out="*" + value, black="fp32")
        for flag in (False, True):
            constants = dict(k=4, private_k=2, masked=flag, moved=flag, block=BLOCK)
            made = triton.compile(
                ASTSource(_encode, types, constants), target=GPUTarget("cuda", generation, 32)
            )
            print(generation, len(made.asm["cubin"]))
"""
    # Triton warns of a default that will change; the kernel is launched with one of its own.
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    environment |= {"PYTHONPATH": os.pathsep.join(sys.path), "TRITON_DEFAULT_FP_FUSION": "1"}
    result = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True,
        check=True, timeout=LIMIT,
    )  # fmt: skip
    sizes = [line.split() for line in result.stdout.splitlines()]
    assert [size[0] for size in sizes] == [
        str(made) for made in (75, 80, 90, 100) for _ in range(8)
    ]
    assert all(int(size[1]) > 1000 for size in sizes)

"""The encoding on a GPU in one pass: pixels are read once, masks as packed bits.

Imported where Triton is installed, as it is beside every PyTorch for CUDA on Linux.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

#: Values of a plane that a program computes at a time.
BLOCK = 1024


@triton.jit  # type: ignore[untyped-decorator]
def _encode(  # type: ignore[no-untyped-def]
    private, public, partners, coefficients, masks, moves, scale, bias, out,
    planes, height, width, words, black,
    k: tl.constexpr, private_k: tl.constexpr, masked: tl.constexpr, moved: tl.constexpr,
    block: tl.constexpr,
):  # fmt: skip
    """Compute ``block`` values of one plane of one mix."""
    row = tl.program_id(0).to(tl.int64)
    mix, plane = row // planes, row % planes
    size = height * width
    at = tl.program_id(1) * block + tl.arange(0, block)
    inside = at < size
    total = tl.zeros([block], tl.float32) + tl.load(bias + plane)
    for slot in tl.static_range(k):
        table = private if slot < private_k else public
        begin = table + (tl.load(partners + mix * k + slot) * planes + plane) * size
        weight = tl.load(coefficients + mix * k + slot) * tl.load(scale + plane)
        if moved:
            move = moves + (mix * k + slot) * 3
            y = at // width - tl.load(move).to(tl.int32)
            x = at % width - tl.load(move + 1).to(tl.int32)
            there = inside & (y >= 0) & (y < height) & (x >= 0) & (x < width)
            x = tl.where(tl.load(move + 2) != 0, width - 1 - x, x)
            value = tl.load(begin + y * width + x, there, 0).to(tl.float32)
            value = tl.where(there, value, black)
        else:
            value = tl.load(begin + at, inside, 0).to(tl.float32)
        total += weight * value
    if masked:
        bits = tl.load(masks + row * words + at // 32, inside, 0) >> (at % 32)
        # The sign bit of a number, flipped or kept.
        total = (total.to(tl.int32, bitcast=True) ^ (bits << 31)).to(tl.float32, bitcast=True)
    tl.store(out + row * size + at, total, inside)


def encode(
    tables: tuple[Tensor, Tensor],
    keys: tuple[Tensor, Tensor, Tensor | None, Tensor | None],
    private_k: int,
    normalization: tuple[Tensor, Tensor],
    out: Tensor,
    black: float,
) -> None:
    """Write the encodings to ``out`` (n, C, H, W) float32, float16 or bfloat16.

    All tensors are contiguous and on one device.

    Args:
        tables: the private (N, C, H, W) and the public (P, C, H, W) pixels, of one type.
        keys: partners (n, k) int64, coefficients (n, k) float32, masks (n, C, words) int32 or None,
            and moves (n, k, 3) int8 or None.
        private_k: private columns of the partners.
        normalization: scale (C,) and bias (C,).
        out: the encodings.
        black: the pixel that comes in where an image is moved.
    """
    partners, coefficients, masks, moves = keys
    count, planes, height, width = out.shape
    if not out.numel():
        return
    grid = count * planes, triton.cdiv(height * width, BLOCK)
    # What a kernel never reads must still be memory.
    private, public = tables[0], tables[1] if len(tables[1]) else tables[0]
    with torch.cuda.device(out.device) if out.is_cuda else torch.device("cpu"):
        _encode[grid](
            private, public, partners, coefficients, out if masks is None else masks,
            out if moves is None else moves, *normalization, out, planes, height, width,
            0 if masks is None else masks.shape[2], float(black), partners.shape[1], private_k,
            masks is not None, moves is not None, BLOCK, enable_fp_fusion=True,
        )  # fmt: skip

"""The encoding on a GPU, where images are stored as pixels.

Keys come from the same stream as on the CPU, so masks and coefficients are the same bits. One
Triton kernel reads every pixel once; where Triton is not installed, plain PyTorch operations do the
same with several passes over float copies. Nothing here needs a GPU to be imported, and both also
run on the CPU, where they are tested.
"""

from __future__ import annotations

import math
from functools import cached_property
from importlib.util import find_spec

import numpy as np
import torch
from torch import Tensor

from instahide.data import ImageTable
from instahide.encryption.keys import WORD_BITS, OneTimeKeys
from instahide.errors import InstaHideError

#: Mixes that are computed at a time: the device holds k float copies of this many images.
CHUNK = 4096
#: Share of the free memory that images may take.
_SHARE = 0.5


def fits(device: torch.device, *tables: ImageTable) -> bool:
    """Whether ``device`` is a CUDA device with enough memory for the tables and for training."""
    if device.type != "cuda":
        return False
    free, _ = torch.cuda.mem_get_info(device)
    return sum(table.pixels.nbytes for table in tables) < _SHARE * free


class DeviceKeys:
    """One-time keys as tensors on a device; `OneTimeKeys` says what they are."""

    def __init__(self, keys: OneTimeKeys, device: torch.device) -> None:
        self.partners = torch.from_numpy(keys.partners).to(device).contiguous()
        self.coefficients = torch.from_numpy(keys.coefficients).to(device).contiguous()
        # PyTorch shifts no unsigned words.
        masks = None if keys.masks is None else torch.from_numpy(keys.masks.view("<i4"))
        self.masks = None if masks is None else masks.to(device).contiguous()
        moves = None if keys.moves is None else torch.from_numpy(keys.moves)
        self.moves = None if moves is None else moves.to(device).contiguous()


class DeviceTables:
    """Private and public pixels on one device, under one normalization.

    Args:
        private: the private images.
        public: the public images; their own normalization is not used.
        device: where to keep them.
    """

    def __init__(self, private: ImageTable, public: ImageTable, device: torch.device) -> None:
        self._device = device
        self._private = torch.tensor(private.pixels, device=device).flatten(1, -3)
        self._public = torch.tensor(public.pixels, device=device).flatten(1, -3)
        depth = math.prod(private.shape[1:-2])
        scale, bias = (np.repeat(each, depth) for each in (private.scale, private.bias))
        self._scale = torch.tensor(scale, device=device)
        self._bias = torch.tensor(bias, device=device)
        self._black = private.black

    def encode(self, keys: OneTimeKeys, private_k: int, out: Tensor) -> None:
        """Write the encodings, of the tables' shape, to ``out``, which is on the same device.

        Raises:
            InstaHideError: the GPU kernel is wrong on this device.
        """
        encode = self._fused if self._has_kernel else self._in_passes
        encode(DeviceKeys(keys, self._device), private_k, out.flatten(1, -3))

    @cached_property
    def _has_kernel(self) -> bool:
        """Whether there is a GPU kernel for this device; it is checked once."""
        if self._device.type != "cuda" or find_spec("triton") is None:
            return False
        self.require_right_kernel()
        return True

    def require_right_kernel(self) -> None:
        """Check the GPU kernel on this device: a wrong mask would go unnoticed.

        Raises:
            InstaHideError: it computes other encodings than `_in_passes`.
        """
        generator = np.random.default_rng(0)
        words = -(-math.prod(self._private.shape[2:]) // WORD_BITS)
        keys = DeviceKeys(
            OneTimeKeys(
                generator.integers(0, len(self._private), (8, 3)),
                generator.dirichlet(np.ones(3), 8).astype(np.float32),
                generator.integers(0, 1 << 32, (8, self._private.shape[1], words), np.uint32),
                generator.integers(0, 2, (8, 3, 3), np.int8),
            ),
            self._device,
        )
        shape = (8, *self._private.shape[1:])
        found, expected = (
            torch.full(shape, torch.nan, dtype=torch.float32, device=self._device) for _ in range(2)
        )
        self._fused(keys, 3, found)
        self._in_passes(keys, 3, expected)
        if not torch.allclose(found, expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max())):
            raise InstaHideError(
                f"The GPU kernel computes wrong encodings on {self._device}.",
                "Set `device=cpu`, and report it with the versions of your GPU driver and Triton.",
            )

    def _fused(self, keys: DeviceKeys, private_k: int, out: Tensor) -> None:
        from instahide.encryption.kernels import _encode_triton

        _encode_triton.encode(
            (self._private, self._public),
            (keys.partners, keys.coefficients, keys.masks, keys.moves),
            private_k,
            (self._scale, self._bias),
            out,
            self._black,
        )

    def _in_passes(self, keys: DeviceKeys, private_k: int, out: Tensor) -> None:
        for start in range(0, len(out), CHUNK):
            part = slice(start, start + CHUNK)
            mixed = torch.zeros(out[part].shape, dtype=torch.float32, device=self._device)
            for slot in range(keys.partners.shape[1]):
                table = self._private if slot < private_k else self._public
                images = _gathered(table, keys.partners[part, slot])
                if keys.moves is not None:
                    # PyTorch gathers no uint16.
                    images = shift_and_flip(images.float(), keys.moves[part, slot], self._black)
                mixed += keys.coefficients[part, slot, None, None, None] * images
            mixed = mixed * self._scale[:, None, None] + self._bias[:, None, None]
            if keys.masks is not None:
                apply_masks(mixed, keys.masks[part])
            out[part] = mixed


def _gathered(table: Tensor, rows: Tensor) -> Tensor:
    """The images ``rows`` of ``table``, of its type."""
    if table.dtype == torch.uint16:
        # PyTorch 2.7 has no indexing for this type.
        return table.view(torch.int16)[rows].view(torch.uint16)
    return table[rows]


def shift_and_flip(images: Tensor, moves: Tensor, black: float = 0) -> Tensor:
    """(n, C, H, W) mirrored and shifted by ``moves`` (n, 3), black coming in."""
    height, width = images.shape[2:]
    down, right, mirrored = moves.long().unbind(1)
    rows = torch.arange(height, device=images.device) - down[:, None]
    columns = torch.arange(width, device=images.device) - right[:, None]
    inside = ((rows >= 0) & (rows < height))[:, :, None] & ((columns >= 0) & (columns < width))[
        :, None, :
    ]
    columns = torch.where(mirrored[:, None] == 1, width - 1 - columns, columns)
    at = rows.clamp(0, height - 1)[:, :, None] * width + columns.clamp(0, width - 1)[:, None, :]
    at = torch.where(inside, at, 0).flatten(1)[:, None].expand(-1, images.shape[1], -1)
    gathered = images.flatten(2).gather(2, at).view_as(images)
    return torch.where(inside[:, None], gathered, black)


def apply_masks(values: Tensor, masks: Tensor) -> None:
    """XOR the sign bits of ``values`` (n, C, H, W) float32 with ``masks`` (n, C, words) int32."""
    shifts = torch.arange(WORD_BITS - 1, -1, -1, device=values.device, dtype=torch.int32)
    # Shift bit b of a word to the top, and keep only that bit.
    signs = (masks[..., None] << shifts) & torch.iinfo(torch.int32).min
    flat = values.flatten(2).view(torch.int32)
    flat ^= signs.flatten(2)[..., : flat.shape[2]]

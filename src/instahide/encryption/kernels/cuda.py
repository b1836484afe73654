"""The encoding on a GPU, in plain torch operations; images are stored there as 8-bit pixels.

Keys come from the same stream as on the CPU, so masks and coefficients are the same bits. Nothing
here needs a GPU to be imported, and every operation also runs on the CPU, where it is tested.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from instahide.data import ImageTable
from instahide.encryption.keys import WORD_BITS, OneTimeKeys

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
        self._scale = torch.tensor(scale, device=device)[:, None, None]
        self._bias = torch.tensor(bias, device=device)[:, None, None]
        self._black = private.black

    def encode(self, keys: OneTimeKeys, private_k: int, out: Tensor) -> None:
        """Write the encodings, of the tables' shape, to ``out``, which is on the same device."""
        out = out.flatten(1, -3)
        partners = torch.from_numpy(keys.partners).to(self._device)
        coefficients = torch.from_numpy(keys.coefficients).to(self._device)
        masks = None if keys.masks is None else torch.from_numpy(keys.masks.view("<i4"))
        moves = None if keys.moves is None else torch.from_numpy(keys.moves)
        for start in range(0, len(out), CHUNK):
            part = slice(start, start + CHUNK)
            mixed = torch.zeros(out[part].shape, device=self._device)
            for slot in range(partners.shape[1]):
                table = self._private if slot < private_k else self._public
                images = table[partners[part, slot]]
                if moves is not None:
                    # PyTorch gathers no uint16.
                    images = shift_and_flip(
                        images.float(), moves[part, slot].to(self._device), self._black
                    )
                mixed += coefficients[part, slot, None, None, None] * images
            mixed = mixed * self._scale + self._bias
            if masks is not None:
                apply_masks(mixed, masks[part].to(self._device))
            out[part] = mixed


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

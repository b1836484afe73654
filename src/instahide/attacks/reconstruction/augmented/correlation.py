"""Similarities of feature maps under all shifts, by the fast Fourier transform."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from instahide.attacks.reconstruction.neighbours import blocks


class Shifted(NamedTuple):
    """The best shift of each pair: ``similarities`` (s, n), ``shifts`` (s, n, 2) int8."""

    similarities: Tensor
    shifts: Tensor


class Spectra:
    """Spectra of feature maps, padded so that shifts of at most ``reach`` do not wrap around.

    Args:
        maps: (n, c, H, W) feature maps.
        reach: largest shift in each direction, in pixels.
    """

    def __init__(self, maps: Tensor, reach: int) -> None:
        self.reach = reach
        self._size = tuple(_fast(side + reach) for side in maps.shape[2:])
        # Frequency first, for one matrix product of all pairs at each frequency.
        self.values = torch.fft.rfft2(maps, s=self._size).flatten(2).permute(2, 0, 1).contiguous()

    def __len__(self) -> int:
        return self.values.shape[1]

    def best(self, others: Spectra) -> Shifted:
        """For each of these maps, the best shift of each of the ``others`` (n maps).

        A shift of (y, x) means that the other map is this one, moved down by y and right by x.
        """
        similarities = torch.empty(len(self), len(others), device=self.values.device)
        shifts = torch.empty(*similarities.shape, 2, dtype=torch.int8, device=similarities.device)
        lags = torch.arange(-self.reach, self.reach + 1, device=similarities.device)
        bins = len(self.values)
        for rows in blocks(len(self), 2 * bins * min(len(others), 256)):
            for columns in blocks(len(others), 2 * bins * (rows.stop - rows.start)):
                product = self.values[:, rows].conj() @ others.values[:, columns].mT
                maps = torch.fft.irfft2(
                    product.permute(1, 2, 0).unflatten(2, (self._size[0], -1)), s=self._size
                )
                near = maps[..., lags[:, None], lags].flatten(2)
                best = near.max(dim=2)
                similarities[rows, columns] = best.values
                places = torch.stack(
                    [best.indices // len(lags) - self.reach, best.indices % len(lags) - self.reach],
                    dim=2,
                )
                shifts[rows, columns] = places.to(torch.int8)
        return Shifted(similarities, shifts)


def _fast(size: int) -> int:
    """The least size from ``size`` on that is a product of 2, 3 and 5."""
    left = size
    for factor in (2, 3, 5):
        while left % factor == 0:
            left //= factor
    return size if left == 1 else _fast(size + 1)

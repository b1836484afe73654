"""Synchronization of the signs of encodings, each of which is known up to one sign.

Two encodings that share an image are similar up to their signs. The signs for which the private
images explain most of all encodings are found by power iteration on the similarities, weighted by
what the coefficients say about each pair (as in angular synchronization, Singer 2011). Pairs that
share nothing count as well: the signs for which all encodings are bright would make these similar,
too.
"""

from __future__ import annotations

import torch
from torch import Tensor

from instahide.attacks.reconstruction.recovery.sparse_mixing import SparseMixing

#: Ridge penalty of the images, relative to the mean energy of their coefficients.
RIDGE = 0.3
#: Random starts, iterations of each, and rounds in which wrong signs are then flipped.
STARTS, ITERATIONS, FLIPS = 12, 40, 40
#: Steps of conjugate gradients in each iteration, and to compare starts.
STEPS, LAST_STEPS = 2, 10
#: Share of the last vector that is added in power iteration, against oscillation.
MOMENTUM = 0.1


def synchronized_signs(signed: Tensor, mixes: SparseMixing, generator: torch.Generator) -> Tensor:
    """(n,) -1 or 1 for each encoding; all signs can be wrong at once.

    Args:
        signed: (n, C, h, w) encodings, each right up to its sign, at a low resolution.
        mixes: coefficients of the images in the encodings.
        generator: generator of the random starts.
    """
    similarities = _Similarities(signed, mixes)
    found = [similarities.settled(generator) for _ in range(STARTS)]
    return max(found, key=similarities.explained)


class _Similarities:
    """The (n, n) similarities of encodings, without their diagonal; only products are computed."""

    def __init__(self, signed: Tensor, mixes: SparseMixing) -> None:
        self.mixes, self.noise = mixes, signed.square().sum(dim=(1, 2, 3)).clamp(min=1e-12)
        self.values = signed / self.noise.sqrt()[:, None, None, None]
        self.noise = self.noise / self.noise.mean()
        even = torch.ones_like(self.noise)
        self.ridge = RIDGE * float(mixes.energies(even).mean())
        leverages = mixes.leverages(self.noise, self.ridge)
        self.own = (leverages * mixes.coefficients).sum(dim=1)

    def explained(self, signs: Tensor) -> float:
        """The part of all encodings that images explain with these ``signs`` (n,)."""
        images = self.values.new_zeros(self.mixes.images, *self.values.shape[1:])
        return float(signs @ self._applied(signs, images, LAST_STEPS)[0])

    def settled(self, generator: torch.Generator) -> Tensor:
        """(n,) signs from a random start."""
        vector = torch.randn(len(self.values), generator=generator).to(self.values)
        images = self.values.new_zeros(self.mixes.images, *self.values.shape[1:])
        for _ in range(ITERATIONS):
            product, images = self._applied(vector, images)
            vector = product + MOMENTUM * vector
            scale = vector.square().mean().sqrt().clamp(min=1e-12)
            vector, images = vector / scale, images / scale
        signs = torch.where(vector < 0, -1.0, 1.0)
        for _ in range(FLIPS):
            product, images = self._applied(signs, images)
            gain = product * signs
            if gain.min() >= 0:
                break
            # Half of them at a time: encodings that share an image must not flip together.
            signs = torch.where(gain <= gain[gain < 0].median(), -signs, signs)
        return signs

    def _applied(self, signs: Tensor, images: Tensor, steps: int = STEPS) -> tuple[Tensor, Tensor]:
        """(n,) product of the similarities and ``signs``, and the images that explain these.

        Args:
            signs: (n,) signs.
            images: (m, C, h, w) images for similar signs.
            steps: steps of conjugate gradients.
        """
        root = self.noise.sqrt()
        sums = self.mixes.summed(self.values, signs / root)
        images = self.mixes.solved(sums, self.noise, self.ridge, images, steps)
        along = [self._along(images, rows) for rows in self.mixes.blocks]
        return torch.cat(along) / root - self.own * signs, images

    def _along(self, images: Tensor, rows: slice) -> Tensor:
        """(r,) inner products of the encodings ``rows`` with the mixes of ``images`` in them."""
        mixed = self.mixes.mixed(images, rows).flatten(1)
        found: Tensor = torch.linalg.vecdot(self.values[rows].flatten(1), mixed)
        return found

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
#: Values of the images of all starts that are computed together, which is faster while they stay in
#: the cache.
AT_ONCE = 1 << 16
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
    starts = [torch.randn(len(signed), generator=generator) for _ in range(STARTS)]
    at_once = max(1, AT_ONCE // (mixes.images * signed[0].numel()))
    together = torch.split(torch.stack(starts, dim=1).to(signed), at_once, dim=1)
    found = [similarities.settled(part) for part in together]
    best = torch.cat([similarities.explained(signs) for signs in found]).argmax()
    return torch.cat(found, dim=1)[:, best]


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

    def explained(self, signs: Tensor) -> Tensor:
        """(s,) the part of all encodings that images explain with each of ``signs`` (n, s)."""
        product, _ = self._applied(signs, self._no_images(signs), LAST_STEPS)
        return (signs * product).sum(dim=0)

    def settled(self, vectors: Tensor) -> Tensor:
        """(n, s) signs, from each of the random ``vectors`` (n, s)."""
        images = self._no_images(vectors)
        for _ in range(ITERATIONS):
            product, images = self._applied(vectors, images)
            vectors = product + MOMENTUM * vectors
            scale = vectors.square().mean(dim=0).sqrt().clamp(min=1e-12)
            vectors, images = vectors / scale, images / scale[:, None, None, None]
        signs = torch.where(vectors < 0, -1.0, 1.0)
        for _ in range(FLIPS):
            product, images = self._applied(signs, images)
            gain = product * signs
            if gain.min() >= 0:
                break
            # Half of them at a time: encodings that share an image must not flip together.
            half = gain.masked_fill(gain >= 0, torch.nan).nanmedian(dim=0).values
            signs = torch.where(gain <= half, -signs, signs)
        return signs

    def _no_images(self, signs: Tensor) -> Tensor:
        return self.values.new_zeros(self.mixes.images, signs.shape[1], *self.values.shape[1:])

    def _applied(self, signs: Tensor, images: Tensor, steps: int = STEPS) -> tuple[Tensor, Tensor]:
        """(n, s) products of the similarities and ``signs``, and the images that explain these.

        Args:
            signs: (n, s) signs.
            images: (m, s, C, h, w) images for similar signs.
            steps: steps of conjugate gradients.
        """
        root = self.noise.sqrt()[:, None]
        sums = [self.mixes.summed(self.values, factors) for factors in (signs / root).unbind(1)]
        together = torch.stack(sums, dim=1)
        # The starts are further channels, which mixing leaves apart.
        flat = self.mixes.solved(
            together.flatten(1, 2), self.noise, self.ridge, images.flatten(1, 2), steps
        )
        along = [self._along(flat, rows) for rows in self.mixes.blocks]
        return torch.cat(along) / root - self.own[:, None] * signs, flat.reshape(together.shape)

    def _along(self, images: Tensor, rows: slice) -> Tensor:
        """(r, s) inner products of the encodings ``rows`` with the mixes of ``images`` in them."""
        values = self.values[rows].flatten(1)
        mixed = self.mixes.mixed(images, rows).reshape(len(values), -1, values.shape[1])
        found: Tensor = torch.linalg.vecdot(mixed, values[:, None])
        return found

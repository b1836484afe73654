"""Phase retrieval: private images from |sum of lambda_j x_j|, by expectation-maximisation.

Every value of an encoding is a linear measurement whose sign is lost. The first images come from
signs that a network predicts, see `predicted_signs`. Then the E-step computes the expected signs
for the current images and these predictions. The M-step is one ridge regression for all pixels,
because the weights are the same for every pixel. The contribution of public images is their mean,
and smooth noise, which is predicted from the neighbors of each pixel.

If images were moved before they were mixed (`MovedMixing`), black came in at their borders. All
coefficients of a mix add up to 1. An encoding is therefore black plus the mix of images relative to
black, and these are 0 outside.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import torch
from torch import Tensor
from torch.nn import functional as F

from instahide.attacks.base import EncodingObservation
from instahide.attacks.reconstruction.pair_encoder.features import magnitudes, root_mean_square
from instahide.attacks.reconstruction.pair_encoder.filters import blur, from_neighbours
from instahide.attacks.reconstruction.recovery.moved_mixing import windows
from instahide.attacks.reconstruction.recovery.sign_network import (
    natural_mean,
    pixel_moments,
    predicted_signs,
    shipped_network,
)
from instahide.attacks.reconstruction.recovery.sign_sync import synchronized_signs
from instahide.attacks.reconstruction.recovery.sparse_mixing import SparseMixing

#: Side of the blocks of pixels whose mean is used to synchronize signs, which are those of regions.
POOL = 4
#: Number of public images whose mean is computed.
MOST_PUBLIC = 2000
#: Ridge penalty of the first images, relative to the mean energy of their coefficients, and steps
#: of conjugate gradients.
FIRST_RIDGE, FIRST_STEPS = 0.02, 30
#: Iterations of `refine`, ridge penalty for encodings of mean square 1, and steps in each.
ITERATIONS, RIDGE, STEPS = 12, 0.2, 5
#: Blur in pixels for the average of neighbors, and blur of the images in every iteration.
NEIGHBOURS, LAST_BLUR = 0.8, 0.3
#: Largest influence of an encoding on its own fit that is removed.
MOST_OWN = 0.5
#: Weight of the predicted signs in every iteration, less than 1 because the residue is predicted
#: from the same smoothness; and factor of these signs, so that none is certain.
PREDICTED, SURE = 0.3, 0.97
#: How much of a pixel's residue its neighbors predict: at first, and at most.
FIRST_SLOPE, MOST_SLOPE = 0.9, 0.98
#: Lower bounds of the noise variance relative to an encoding's energy: of white noise, and of the
#: noise that remains after the prediction from neighbors.
LEAST_WHITE, LEAST_NOISE = 0.3, 0.05


@dataclass(frozen=True, eq=False)
class SignedEncodings:
    """Encodings whose signs are known roughly, up to one sign for each.

    Attributes:
        sizes: (n, C, H, W) `magnitudes`.
        signs: (n, C, H, W) expected signs, see `predicted_signs`.
        public: (C,) mean of the public images, on the scale of ``sizes``.
        black: () or (C, 1, 1) what comes in at the borders of moved images, on the same scale.
        coverage: () or (H, W) probability that a pixel is not from outside of a moved image.
    """

    sizes: Tensor
    signs: Tensor
    public: Tensor
    black: Tensor = field(default_factory=lambda: torch.zeros(()))
    coverage: Tensor = field(default_factory=lambda: torch.ones(()))

    def values(self, rows: slice) -> Tensor:
        """(r, C, H, W) expected values of the encodings ``rows``, each right up to its sign."""
        return self.sizes[rows] * self.signs[rows].to(self.sizes)

    def __getitem__(self, rows: slice) -> SignedEncodings:
        return replace(self, sizes=self.sizes[rows], signs=self.signs[rows])


def signed_encodings(observation: EncodingObservation) -> SignedEncodings:
    """The encodings of ``observation``, with the signs that the shipped network predicts."""
    encodings = observation.encodings
    network = shipped_network().to(encodings.device)
    mean, std = pixel_moments(observation)
    if observation.public is None:
        public = (natural_mean(len(mean)) - mean) / std
    else:
        some = observation.public.subset(slice(0, MOST_PUBLIC)).normalized()
        public = torch.from_numpy(some).mean(dim=(0, 2, 3))
    scale = root_mean_square(encodings).clamp(min=1e-12)
    signs = predicted_signs(observation, network)
    signed = SignedEncodings(magnitudes(encodings), signs, public.to(encodings) / scale)
    padding = observation.augmentation.padding
    if not padding:
        return signed
    black = (-mean / std).to(encodings)[:, None, None] / scale
    return replace(signed, black=black, coverage=coverage(encodings, padding))


def coverage(images: Tensor, padding: int) -> Tensor:
    """(H, W) probability that a pixel of moved ``images`` (..., H, W) is not from outside."""
    whole = torch.ones(1, 1, *images.shape[-2:]).to(images)
    return windows(whole, padding).mean(dim=(0, 1, 2, 3))


@dataclass(frozen=True, eq=False)
class Recovery:
    """Recovered images, and what they say about the signs of the encodings.

    Attributes:
        images: (m, C, H, W) private images.
        private: (n, C, H, W) private part of each encoding, from signs that were estimated without
            the influence of this encoding on the images. As ``residue`` it is relative to black.
        residue: (n, C, H, W) public part of each encoding.
        noise: (n,) variance of the errors of both.
    """

    images: Tensor
    private: Tensor
    residue: Tensor
    noise: Tensor


def recover(
    encodings: SignedEncodings, mixes: SparseMixing, *, generator: torch.Generator
) -> Recovery:
    """Recover the private images.

    Args:
        encodings: the encodings, and their predicted signs.
        mixes: coefficients of the images in the encodings.
        generator: generator of the random starts.
    """
    return refine(encodings, mixes, initial_images(encodings, mixes, generator))


def initial_images(
    encodings: SignedEncodings, mixes: SparseMixing, generator: torch.Generator
) -> Tensor:
    """(m, C, H, W) images by least squares, from encodings with synchronized signs."""
    pooled = [F.avg_pool2d(encodings.values(r), POOL, ceil_mode=True) for r in mixes.blocks]
    signs = synchronized_signs(torch.cat(pooled), mixes.coarse(POOL), generator)
    share, even = public_share(mixes), torch.ones_like(signs)
    ridge = FIRST_RIDGE * float(mixes.energies(even).mean())
    mean = (encodings.public[:, None, None] - encodings.black) * encodings.coverage

    def private(rows: slice, turn: Tensor) -> Tensor:
        signed = encodings.values(rows) * _spread(turn[rows])
        return signed - encodings.black - _spread(share[rows]) * mean

    def fitted(turn: Tensor) -> tuple[float, Tensor]:
        sums = torch.zeros(mixes.images, *encodings.sizes.shape[1:]).to(encodings.sizes)
        for rows in mixes.blocks:
            mixes.add(sums, private(rows, turn), rows)
        images = mixes.solved(sums, even, ridge, torch.zeros_like(sums), FIRST_STEPS)
        left = (private(rows, turn) - mixes.mixed(images, rows) for rows in mixes.blocks)
        return sum(float(error.square().sum()) for error in left), images

    # All signs can be wrong at once, which changes what public images look like.
    return min((fitted(signs), fitted(-signs)), key=lambda fit: fit[0])[1] + encodings.black


def refine(
    encodings: SignedEncodings, mixes: SparseMixing, images: Tensor, iterations: int = ITERATIONS
) -> Recovery:
    """Improve ``images`` (m, C, H, W) by EM that also estimates the public part of every encoding.

    An encoding's own influence on the images is removed before its signs are estimated. Otherwise
    it would confirm itself, which matters if there are few encodings of an image.
    """
    refinement = _Refinement(encodings, mixes, images)
    for _ in range(iterations):
        refinement.step()
    return refinement.recovery()


class _Refinement:
    """The state of `refine`. It works on blocks of encodings, to save memory.

    Attributes:
        images: (m, C, H, W) images, relative to black.
        private: (n, C, H, W) private part of each encoding, relative to black.
        residue: (n, C, H, W) public part of each encoding, relative to black.
        noise: (n,) variance of the errors of both.
        own: (n,) influence of each encoding on its own private part.
        share: (n, 1, 1, 1) or (n, 1, H, W) weight of the mean public image in each encoding.
        mean: (C, 1, 1) mean of the public images, relative to black.
        slope: how much of a pixel's residue its neighbors predict.
    """

    def __init__(self, encodings: SignedEncodings, mixes: SparseMixing, images: Tensor) -> None:
        self.encodings, self.mixes, self.images = encodings, mixes, images - encodings.black
        self.share = _spread(public_share(mixes)) * encodings.coverage
        self.mean, self.slope = encodings.public[:, None, None] - encodings.black, FIRST_SLOPE
        self.residue = (self.share * self.mean).expand_as(encodings.sizes).clone()
        self.private = torch.zeros_like(encodings.sizes)
        self.noise = _white(encodings, mixes, self.images)
        self.own = torch.zeros_like(self.noise)

    def step(self) -> None:
        """One E-step for all encodings, and the M-step."""
        sums, moments = torch.zeros_like(self.images), _Moments()
        for rows in self.mixes.blocks:
            self._expect(rows, moments)
            self.mixes.add(sums, self.private[rows] / _spread(self.noise[rows]), rows)
        self.mean, self.slope = moments.mean, moments.slope
        solved = self.mixes.solved(sums, self.noise, RIDGE, self.images, STEPS)
        self.images = blur(solved, LAST_BLUR)
        leverages = self.mixes.leverages(self.noise, RIDGE)
        self.own = (leverages * self.mixes.coefficients).sum(dim=1).clamp(max=MOST_OWN)

    def recovery(self) -> Recovery:
        """The result so far."""
        images = self.images + self.encodings.black
        return Recovery(images, self.private, self.residue, self.noise)

    def _expect(self, rows: slice, moments: _Moments) -> None:
        """The E-step for one block of encodings."""
        sizes = self.encodings.sizes[rows]
        own, share = _spread(self.own[rows]), self.share[rows]
        others = (self.mixes.mixed(self.images, rows) - own * self.private[rows]) / (1 - own)
        others += self.encodings.black
        signed = self._signed(rows, others)
        public = signed - others
        around = from_neighbours(public - share * self.mean, NEIGHBOURS)
        moments.add(public, share, public - share * self.mean, around)
        guess = share * self.mean + self.slope * around
        self.residue[rows] = 0.5 * self.residue[rows] + 0.5 * guess
        unsure = sizes.square() - signed.square()
        noise = ((public - self.residue[rows]).square() + unsure).mean(dim=(1, 2, 3))
        noise = 0.5 * self.noise[rows] + 0.5 * noise
        self.noise[rows] = noise.maximum(LEAST_NOISE * _energy(sizes))
        self.private[rows] = signed - self.residue[rows] - self.encodings.black

    def _signed(self, rows: slice, others: Tensor) -> Tensor:
        """Expected encodings, from images recovered from the ``others`` and predicted signs."""
        sizes, signs = self.encodings.sizes[rows], self.encodings.signs[rows].to(others)
        # The network's prediction is right up to one sign for each encoding.
        turned = torch.where((sizes * signs * others).sum(dim=(1, 2, 3)) < 0, -1.0, 1.0)
        known = sizes * (others + self.residue[rows]) / _spread(self.noise[rows])
        predicted = (SURE * signs).atanh() * _spread(turned)
        return sizes * (known + PREDICTED * predicted).tanh()


class _Moments:
    """Sums over all encodings, for the mean of public images and the slope of their neighbors."""

    def __init__(self) -> None:
        self._public, self._shares = torch.zeros(()), torch.zeros(())
        self._product, self._square = torch.zeros(()), torch.zeros(())

    def add(self, public: Tensor, share: Tensor, rest: Tensor, around: Tensor) -> None:
        """Add a block: public parts, weights of their mean, what neighbors predict of the rest."""
        self._public = (share * public).mean(dim=(2, 3)).sum(dim=0) + self._public.to(public)
        self._shares = share.square().mean(dim=(1, 2, 3)).sum() + self._shares.to(public)
        self._product = (rest * around).sum() + self._product.to(public)
        self._square = around.square().sum() + self._square.to(public)

    @property
    def mean(self) -> Tensor:
        """(C, 1, 1) mean of the public images, by least squares."""
        return (self._public / self._shares.clamp(min=1e-12))[:, None, None]

    @property
    def slope(self) -> float:
        """The slope by least squares."""
        return float((self._product / self._square.clamp(min=1e-12)).clamp(0, MOST_SLOPE))


def public_share(mixes: SparseMixing) -> Tensor:
    """(n,) sum of the public coefficients of each encoding: all coefficients add up to 1."""
    return (1 - mixes.private_shares).clamp(min=0)


def _spread(values: Tensor) -> Tensor:
    """(n, 1, 1, 1) one value for each encoding."""
    return values[:, None, None, None]


def _energy(sizes: Tensor) -> Tensor:
    """(n,) mean square of each encoding."""
    return sizes.square().mean(dim=(1, 2, 3))


def _white(encodings: SignedEncodings, mixes: SparseMixing, images: Tensor) -> Tensor:
    """(n,) energy of each encoding that ``images``, relative to black, do not explain."""
    energy = torch.cat([_energy(encodings.sizes[rows]) for rows in mixes.blocks])
    known = [_energy(mixes.mixed(images, rows) + encodings.black) for rows in mixes.blocks]
    return (energy - torch.cat(known)).maximum(LEAST_WHITE * energy)

"""DP-InstaHide: the mean of k images with Laplace noise, without a mask.

Borgnia et al., "DP-InstaHide: Provably Defusing Poisoning and Backdoor Attacks with Differentially
Private Data Augmentations" (arXiv:2103.02079), average k images and add Laplace noise. Mixing makes
the guarantee stronger in two ways: an image has a share of 1/k in a mix, and an attacker who does
not know which images are in a mix is uncertain whether an image is there. The second holds only
while partners and labels are secret; encodings of this library have public labels. Therefore
`DPInstaHide.epsilon` uses the first alone, and `secret_partners_epsilon` states both.

Two data sets are neighbors if they differ in the pixels of one image. Pixels lie from 0 to 1 before
the normalization, so that a normalized image moves by at most D = H W sum_c 1 / std_c in L1.

- *One encoding with the image.* Its mean moves by at most D / k in L1. With Laplace noise of scale
  b, the density ratio is at most exp(D / (k b)): epsilon_1 = D / (k b), with delta = 0.
- *All encodings, partners known.* With the partners given, encodings are independent, and those
  without the image do not change. m encodings with the image have epsilon = m epsilon_1. An image
  is in its own T encodings, and in a binomial number of others.
- *Partners secret.* An encoding of another image has the image as a partner with probability
  q = (k - 1) / (N - 1). Its density is (1 - q) A + q B with the image, and (1 - q) A + q B' with
  the neighbor. B <= e B' for e = exp(epsilon_1), and B <= e A: replace the image in the mix by one
  that is not in it. If B > B', then B - B' <= (e - 1) ((1 - q) A + q B'), which holds with equality
  at the smallest A and B' and is easier for larger ones. So the density ratio is at most
  1 + q (e - 1), whose logarithm is the epsilon of this encoding. The T encodings of the image
  itself have epsilon_1 each.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from instahide.encryption.encoders.base import (
    EncoderDefaults,
    EncoderInput,
    Encodings,
    Published,
    Setting,
)
from instahide.encryption.encoders.secret_random import SecretRandom
from instahide.encryption.privacy import max_partner_count
from instahide.encryption.scheme import MOST_IMAGES
from instahide.errors import SchemeError

#: Images whose mixes are computed at a time.
_AT_ONCE = 256


@dataclass(frozen=True)
class DPInstaHide(EncoderDefaults):
    """The mean of an image and k - 1 other private images, with Laplace noise on every value.

    Attributes:
        k: images in a mix.
        noise: scale of the Laplace noise, in units of normalized images.

    Raises:
        SchemeError: a value is out of range.

    Examples:
        >>> from instahide.encryption.encoders.base import Published
        >>> from instahide.encryption.encoders.rivals.dp_instahide import DPInstaHide
        >>> one_value = Published(images=100, shape=(1, 1, 1), std=(1.0,), copies=1)
        >>> DPInstaHide(k=1, noise=0.5).epsilon(one_value, delta=1e-5)
        2.0
    """

    k: int = 4
    noise: float = 0.5

    name: ClassVar[str] = "dp-instahide"
    title: ClassVar[str] = "Means of k images with Laplace noise (DP-InstaHide)"
    paper: ClassVar[str] = "Borgnia et al., DP-InstaHide, 2021 (arXiv:2103.02079)"
    search_values: ClassVar[Mapping[str, tuple[Setting, ...]]] = {
        "k": (4, 2),
        "noise": (0.5, 1.0, 0.25, 2.0),
    }

    @property
    def private_k(self) -> int:  # type: ignore[override]
        """All k images are private."""
        return self.k

    def __post_init__(self) -> None:
        if not 1 <= self.k <= MOST_IMAGES or not 0 <= self.noise < math.inf:
            raise SchemeError(
                f"k = {self.k} and noise = {self.noise} describe no mix.",
                "Use k=4, and a finite scale of noise such as 0.5.",
            )

    def encode(
        self, source: EncoderInput, rows: NDArray[np.int64], key: None, random: SecretRandom
    ) -> Encodings:
        """Mix the private images ``rows`` with partners that differ from them and each other.

        Raises:
            SchemeError: there are fewer than k private images.
        """
        if len(source.private) < self.k:
            raise SchemeError(
                f"A mix is of {self.k} images, and there are {len(source.private)}.",
                "Give more images, or use a smaller k.",
            )
        mixed = random.partners(rows, self.k, len(source.private))
        shares = np.full(mixed.shape, 1 / self.k, np.float32)
        parts = [
            source.images(part.reshape(-1)).reshape(*part.shape, *source.private.shape).mean(dim=1)
            for part in np.array_split(mixed, max(1, -(-len(mixed) // _AT_ONCE)))
        ]
        images = torch.cat(parts).double()
        noise = torch.from_numpy(random.laplace(tuple(images.shape), self.noise))
        return Encodings((images + noise).float(), source.labels(mixed, shares), mixed, shares)

    def network_input(self, images: Tensor, key: None, random: SecretRandom) -> Tensor:
        """The images themselves: networks also classify plain images."""
        return images

    def epsilon(self, published: Published, delta: float) -> float:
        """For known labels and partners: see the head of this module."""
        others = max_partner_count(published.copies * (self.k - 1), delta)
        return (published.copies + others) * self._of_one_encoding(published)

    def secret_partners_epsilon(self, published: Published) -> float:
        """Epsilon (delta = 0) if labels and partners were secret, which no publication here does.

        Raises:
            SchemeError: there are fewer than k images.
        """
        images, copies, one = published.images, published.copies, self._of_one_encoding(published)
        if images < self.k:
            raise SchemeError(
                f"A mix is of {self.k} images, and there are {images}.", "Use a smaller k."
            )
        if self.k == 1:
            return copies * one
        chance = (self.k - 1) / (images - 1)
        return copies * one + copies * (images - 1) * _amplified(one, chance)

    def _of_one_encoding(self, published: Published) -> float:
        values = math.prod(published.shape[1:])
        moved = sum(values / deviation for deviation in published.std)
        return moved / (self.k * self.noise) if self.noise else math.inf


def _amplified(epsilon: float, chance: float) -> float:
    """log(1 + chance (exp(epsilon) - 1)), also where exp(epsilon) overflows."""
    if epsilon > 500:
        return epsilon + math.log(chance + (1 - chance) * math.exp(-epsilon))
    return math.log1p(chance * math.expm1(epsilon))

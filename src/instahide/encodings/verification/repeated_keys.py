"""Detection of repeated mixes: equal |x| and labels mean that a key was used twice.

Mixes of two images differ by one coefficient only, and of many mixes of the same two images, some
have the same coefficient by chance, to the precision of storage. Two such mixes count if their
masks are equal, too, or if they are not the only ones and their labels show the coefficients.
"""

from __future__ import annotations

import hashlib

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from instahide.data.labels import Task
from instahide.encodings.manifest import Manifest
from instahide.encodings.shards import magnitudes
from instahide.encryption.scheme import Scheme

#: Encodings with fewer values are not compared: mixes may agree by chance.
LEAST_VALUES = 32
#: Labels have 24 bits: those of two mixes of the same two images agree by chance once in 10 million
#: times. So many such pairs are not reported.
BY_CHANCE = 1
#: A label this near to 0 or 1 may be the rounded sum of two coefficients.
ROUNDING = 1e-5


class RepeatedMixes:
    """Counts the mixes that were seen before, over all encodings of a folder.

    Constant encodings are ignored: mixes of empty images are equal whatever the keys. So are plain
    copies (k = 1), and what other encoders make, which may repeat themselves.

    Args:
        manifest: manifest of the folder.
    """

    def __init__(self, manifest: Manifest) -> None:
        self._task = manifest.task
        self._scheme = manifest.encryption() if manifest.of_scheme else Scheme.plain()
        self._certain, self._likely = _Seen(), _Seen()

    def see(self, images: Tensor, labels: Tensor) -> None:
        """Note stored ``images`` (n, C, H, W) and ``labels`` (n, c)."""
        sizes = magnitudes(images)
        if self._scheme.k == 1 or sizes[0].numel() < LEAST_VALUES:
            return
        varied = ~(sizes == sizes[..., :1, :1]).flatten(1).all(dim=1)
        if self._scheme.k > 2:
            self._certain.add(sizes[varied], labels[varied])
            return
        if self._scheme.mask:
            self._certain.add(images[varied], labels[varied])
        shown = varied & _show_coefficients(labels, self._task)
        self._likely.add(sizes[shown], labels[shown])

    def count(self) -> int:
        """The number of mixes that were there before."""
        likely = self._likely.repeated()
        return max(self._certain.repeated(), likely if likely > BY_CHANCE else 0)


def _show_coefficients(labels: Tensor, task: Task) -> Tensor:
    """(n,) whether mixes of the same two images have these ``labels`` only with one coefficient.

    Two images of the same class have the same label in every mix. Measured values do not tell
    whether those of the two images differ.
    """
    if task == "regression":
        return torch.zeros(len(labels), dtype=torch.bool)
    return ((labels > ROUNDING) & (labels < 1 - ROUNDING)).any(dim=1)


class _Seen:
    """Hashes of mixes."""

    def __init__(self) -> None:
        self._hashes = [np.empty(0, np.uint64)]

    def add(self, images: Tensor, labels: Tensor) -> None:
        rows = zip(images.numpy(), labels.numpy(), strict=True)
        digests = [_digest(image.tobytes() + label.tobytes()) for image, label in rows]
        found: NDArray[np.uint64] = np.frombuffer(b"".join(digests), np.uint64)
        self._hashes.append(found)

    def repeated(self) -> int:
        together = np.concatenate(self._hashes)
        return len(together) - len(np.unique(together))


def _digest(content: bytes) -> bytes:
    return hashlib.blake2b(content, digest_size=8).digest()

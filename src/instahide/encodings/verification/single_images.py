"""Detection of encodings that show a single picture, from the encodings alone.

A mix of a picture with itself is that picture, whatever the coefficients: its encoding shows the
picture's values but for the signs. There are two criteria. All values are those of 8-bit pixels
under the folder's normalization, which is not so by chance for a mix of different pictures. And two
such encodings have equal magnitudes, whatever their masks, although their labels differ. If the
labels are equal too, they may be mixes of the same images with similar coefficients.

Noise moves values, and hides both criteria unless it is as small as the rounding of stored values.
To allow for more would take mixes of pictures with few grey levels for single ones. So a folder
with noise is searched for pictures that lack it.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from instahide.data.labels import Task
from instahide.encodings.manifest import NOISE_DEVIATIONS, Manifest

#: Parts of an image whose mean magnitudes are compared before the values themselves.
_PARTS = 16
#: Number of values of each encoding that are checked first.
_FIRST = 64
#: Number of encodings with similar mean magnitudes with which one is compared.
_NEIGHBOURS = 4
#: Labels change with coefficients: labels that differ by more do not belong to equal mixes.
_LABELS_APART = 0.02
#: The largest change of a value by noise that is allowed for, about a rounding of float32.
_MOST_NOISE = 1e-5
#: A rounding of float32, relative to the largest value: coefficients sum to 1 only nearly.
_ROUNDING = 2e-6
#: Probability, over a whole folder, that a mix of different pictures is taken for a single one.
_CHANCE = 1e-9

#: Returns the magnitudes (values,) of an encoding by its number.
Look = Callable[[int], NDArray[np.float32]]


class SingleImages:
    """Collects the encodings of a folder, and finds those that show a single picture.

    Args:
        manifest: manifest of the folder.
    """

    def __init__(self, manifest: Manifest) -> None:
        scheme = manifest.encryption() if manifest.of_scheme else None
        #: Not without mixing, where every encoding shows one, nor for other encoders.
        self.applies = scheme is not None and scheme.k > 1
        noise = 0.0 if scheme is None else NOISE_DEVIATIONS * scheme.noise
        self._noise = noise if noise <= _MOST_NOISE else 0.0
        self._manifest = manifest
        self._of_pixels: list[int] = []
        self._means: list[NDArray[np.float32]] = []
        self._labels: list[NDArray[np.float32]] = []
        self._numbers: list[NDArray[np.int64]] = []

    def see(self, first: int, images: NDArray[np.float32], labels: NDArray[np.float32]) -> None:
        """Add decoded encodings ``images`` (n, C, H, W) with ``labels`` (n, classes).

        They are numbered from ``first`` on.
        """
        values = np.abs(images)
        channels = values.reshape(*values.shape[:2], math.prod(values.shape[2:]))
        flat = (channels == channels[:, :, :1]).all(axis=(1, 2))
        numbers = first + np.flatnonzero(~flat)
        if not self.applies or not len(numbers):
            return
        values = values[~flat]
        self._of_pixels += numbers[self._are_pixels(values)].tolist()
        rows = values.reshape(len(values), -1)
        parts = np.array_split(rows, min(_PARTS, rows.shape[1]), axis=1)
        means = np.stack([part.mean(axis=1, dtype=np.float64) for part in parts], axis=1)
        self._means.append(means.astype(np.float32))
        self._labels.append(labels[~flat])
        self._numbers.append(numbers)

    def found(self, look: Look | None) -> set[int]:
        """The numbers of all encodings that show a single picture.

        Args:
            look: returns earlier encodings, to compare them in full; None compares none.
        """
        return set(self._of_pixels) | (set() if look is None else self._twins(look))

    def _are_pixels(self, values: NDArray[np.float32]) -> NDArray[np.bool]:
        """(n,) whether all ``values`` (n, C, ...) are those of whole pixels, and not by chance."""
        count, channels = values.shape[:2]
        rows = values.reshape(count, channels, -1)
        step = -(-rows.shape[2] // _FIRST)
        found = np.zeros(count, bool)
        for row in np.flatnonzero(self._fit(rows[:, :, ::step]).all(axis=(1, 2))):
            found[row] = self._fit(rows[row][None]).all() and self._is_no_chance(rows[row])
        return found

    def _fit(self, values: NDArray[np.float32]) -> NDArray[np.bool]:
        """Whether each of ``values`` (n, C, m), or its negative, is that of a whole pixel."""
        mean, std = (
            np.asarray(moment)[:, None] for moment in (self._manifest.mean, self._manifest.std)
        )
        low, high = self._manifest.value_range
        tolerance = (high - low) * std * self._tolerance(values)
        fits = np.zeros(values.shape, bool)
        for sign in (1, -1):
            pixels = low + (high - low) * (sign * values * std + mean)
            nearest = np.clip(np.rint(pixels), low, high)
            np.logical_or(fits, np.abs(pixels - nearest) <= tolerance, out=fits)
        return fits

    def _is_no_chance(self, values: NDArray[np.float32]) -> bool:
        """Whether it is improbable that all ``values`` (C, m) fit by chance.

        Black and white are ignored, because they also occur in mixes of black and white. A mix of
        different pictures has other values as well.
        """
        logarithm, between = 0.0, 0
        moments = zip(self._manifest.mean, self._manifest.std, strict=True)
        levels = self._manifest.value_range[1] - self._manifest.value_range[0]
        for channel, (mean, std) in zip(values, moments, strict=True):
            share = 4 * levels * std * self._tolerance(channel)
            ends = np.abs(np.array([-mean / std, (1 - mean) / std]))[:, None]
            inner = (np.abs(channel - ends) > 2 * self._tolerance(channel)).all(axis=0)
            # Equal ones are one stroke of luck; they may differ by their rounding.
            _, first = np.unique(np.rint(levels * std * channel), return_index=True)
            inside = inner[first]
            logarithm += float(np.log(np.minimum(1, share[first[inside]])).sum())
            between += int(inside.sum())
        return between == 0 or logarithm < math.log(_CHANCE / max(1, len(self._manifest)))

    def _tolerance(self, values: NDArray[np.float32]) -> NDArray[np.float32] | NDArray[np.float64]:
        """How far stored ``values`` may be from those of a picture, by storage and by noise."""
        most = self._manifest.max_abs * _ROUNDING + self._noise
        if self._manifest.values == "float16":
            return values * (2.0**-11 * 1.01) + most
        return np.full(values.shape, self._manifest.max_quantization_error + most)

    def _twins(self, look: Look) -> set[int]:
        if not self._means:
            return set()
        means, numbers = np.concatenate(self._means), np.concatenate(self._numbers)
        labels = _comparable(np.concatenate(self._labels), self._manifest.task)
        rounding = self._manifest.max_quantization_error + self._manifest.max_abs * _ROUNDING
        limit = 2 * (rounding + self._noise)
        order = np.argsort(means[:, 0], kind="stable")
        found = set()
        for apart in range(1, _NEIGHBOURS + 1):
            first, second = order[:-apart], order[apart:]
            close = (np.abs(means[first] - means[second]) <= limit).all(axis=1)
            close &= np.abs(labels[first] - labels[second]).max(axis=1) > _LABELS_APART
            for one, other in zip(numbers[first[close]], numbers[second[close]], strict=True):
                if np.abs(look(int(one)) - look(int(other))).max() <= limit:
                    found |= {int(one), int(other)}
        return found


def _comparable(labels: NDArray[np.float32], task: Task) -> NDArray[np.float32]:
    """``labels`` (n, columns), of which any two that differ by `_LABELS_APART` are of other mixes.

    Unknown findings are equal to each other and differ from all others. Measured values are shares
    of the range that the column has.
    """
    if task == "multi-label":
        return np.where(np.isnan(labels), np.float32(-1), labels)
    if task == "regression":
        low, high = labels.min(axis=0), labels.max(axis=0)
        shares: NDArray[np.float32] = (labels - low) / np.where(high > low, high - low, 1)
        return shares
    return labels

"""Detection of encodings without the noise or the mask that their manifest claims.

Noise of standard deviation sigma makes the mean square of n values at least sigma^2, whatever the
mixes are, but for a relative deviation of sqrt(2 / n). A mask makes the signs of two values
independent, so that the products of signs of m pairs sum to 0, but for a deviation of sqrt(m);
neighboring pixels of images nearly always have the same sign.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from instahide.encodings.manifest import Manifest

#: Standard deviations by which a sum may differ from its expectation. Sound encodings differ by
#: more once in 30 million folders (Hoeffding's inequality), or less often.
DEVIATIONS = 6.0


class ClaimedProtection:
    """Collects the encodings of a folder, and says what they lack.

    Other encoders than schemes claim neither noise nor a mask.

    Args:
        manifest: manifest of the folder.
    """

    def __init__(self, manifest: Manifest) -> None:
        scheme = manifest.encryption() if manifest.of_scheme else None
        self._noise = 0.0 if scheme is None else scheme.noise
        self._masked = scheme is not None and scheme.mask
        self._error = manifest.max_quantization_error
        self._squares, self._values = 0.0, 0
        self._products, self._pairs = 0, 0

    def see(self, images: NDArray[np.float32]) -> None:
        """Add decoded encodings ``images`` (n, C, H, W) or (n, C, D, H, W)."""
        if self._noise:
            flat = images.reshape(-1)
            self._squares += float(np.square(flat, dtype=np.float64).sum())
            self._values += flat.size
        if self._masked:
            # Neighbors in pairs that have no value in common.
            width = images.shape[-1] // 2 * 2
            products = np.sign(images[..., :width:2]) * np.sign(images[..., 1:width:2])
            self._products += int(products.sum(dtype=np.float64))
            self._pairs += int(np.count_nonzero(products))

    def problems(self) -> list[str]:
        """A sentence for each protection that is claimed and not there."""
        found = []
        if self._lacks_noise():
            found.append(
                f"The encodings do not have noise of standard deviation {self._noise:g}, so that "
                "nothing that the folder says of privacy holds."
            )
        if self._lacks_mask():
            found.append(
                "The signs of neighboring values agree too often: the encodings have no mask, "
                "although the folder says so."
            )
        return found

    def _lacks_noise(self) -> bool:
        if not self._values:
            return False
        least = 1 - DEVIATIONS * math.sqrt(2 / self._values)
        # Storage changes a root mean square by at most its largest error.
        floor = self._noise * math.sqrt(max(0.0, least)) - self._error
        return floor > 0 and math.sqrt(self._squares / self._values) < floor

    def _lacks_mask(self) -> bool:
        return abs(self._products) > DEVIATIONS * math.sqrt(self._pairs)

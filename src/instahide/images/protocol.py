"""What an encoder needs of images, whether they are a table or somebody's own data set."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from instahide.images.table import Rows


@runtime_checkable
class Images(Protocol):
    """Images of one shape with labels, fetched by number and normalised by one affine map.

    The normalised value of a pixel that `rows` gives is ``pixel * scale + bias``, per channel.
    """

    def __len__(self) -> int: ...

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W) of every image."""
        ...

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names by number."""
        ...

    @property
    def mean(self) -> tuple[float, ...]:
        """Per channel, of pixel / 255: what public images are normalised with as well."""
        ...

    @property
    def std(self) -> tuple[float, ...]:
        """Per channel, of pixel / 255: what public images are normalised with as well."""
        ...

    @property
    def scale(self) -> NDArray[np.float32]:
        """(C,) factor from a fetched pixel to its normalised value."""
        ...

    @property
    def bias(self) -> NDArray[np.float32]:
        """(C,) normalised value of a fetched 0."""
        ...

    def rows(self, indices: NDArray[np.int64]) -> Rows:
        """The images that ``indices`` (n, k) names."""
        ...

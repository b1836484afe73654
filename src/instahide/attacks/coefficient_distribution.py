"""The law of a scheme's coefficients, as anybody can simulate it: the scheme is public."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from instahide.encryption.scheme import Scheme

#: Mixes that are simulated. Means are known to about 0.002 then.
DRAWS = 20_000


def simulate_coefficients(scheme: Scheme) -> NDArray[np.float64]:
    """(n, k) coefficients that meet the scheme's bounds, the same ones every time."""
    generator = np.random.default_rng(0)
    normal = scheme.coefficient_distribution == "half-normal"
    draw = generator.standard_normal if normal else generator.standard_exponential
    raw = np.abs(draw((DRAWS, scheme.k)))
    shares = raw / raw.sum(axis=1, keepdims=True)
    return np.asarray(shares[scheme.meets_bounds(shares)])

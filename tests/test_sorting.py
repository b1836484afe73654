"""Sorting by counting gives the order that NumPy's sort gives."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from instahide.sorting import ascending

words = st.sampled_from(["<u2", "<u4", "<u8", ">u4"]).flatmap(
    lambda kind: arrays(np.dtype(kind), st.integers(0, 40))
)


@given(words)
def test_it_is_numpys_stable_order(words: NDArray[Any]) -> None:
    assert ascending(words).tolist() == np.argsort(words, kind="stable").tolist()


@pytest.mark.parametrize("kind", ["<u4", "<u8"])
def test_many_words_with_ties(kind: str) -> None:
    words = np.random.default_rng(3).integers(0, 2**31, 100_000).astype(kind)
    words[::7] = words[0]
    assert np.array_equal(ascending(words), np.argsort(words, kind="stable"))

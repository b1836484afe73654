"""Compiled loops: each is its definition. That the laws follow is tested of `sampler`."""

from __future__ import annotations

import math

import numpy as np
from hypothesis import assume, given, reject, settings
from hypothesis import strategies as st

from instahide.encryption.sampling import _sampler_numba
from instahide.encryption.scheme import Scheme
from instahide.errors import InstaHideError

WORD = st.integers(0, 2**64 - 1)
WORDS = st.lists(WORD, max_size=12)


def fraction(word: int) -> float:
    return (word >> 11) / 2**53


@given(words=WORDS)
@settings(deadline=None)
def test_chances_have_a_logarithm(words: list[int]) -> None:
    found = _sampler_numba.positive_uniforms(np.array(words, np.uint64))
    assert found.tolist() == [1 - fraction(word) for word in words]
    assert np.isfinite(np.log(found)).all()


@given(
    radii=st.lists(st.floats(0, 8.5), max_size=12),
    words=st.lists(WORD | st.sampled_from([0, 2**63, 2**64 - 1]), min_size=12, max_size=12),
)
@settings(deadline=None)
def test_two_normals_are_a_radius_turned(radii: list[float], words: list[int]) -> None:
    radius = np.array(radii)
    angle = 2 * math.pi * np.array([fraction(word) - 0.5 for word in words[: len(radii)]])
    found = _sampler_numba.normals(-np.square(radius) / 2, np.array(words[: len(radii)], np.uint64))
    expected = np.concatenate([radius * np.cos(angle), radius * np.sin(angle)])
    np.testing.assert_allclose(found, expected, rtol=0, atol=2e-14)


@given(
    private_k=st.integers(1, 4),
    public_k=st.integers(0, 3),
    c1=st.floats(0.6, 1),
    c2=st.floats(0, 0.5),
    own=st.floats(0, 0.3),
    count=st.integers(0, 40),
    seed=st.integers(0, 99),
    just=st.sampled_from(["met", "missed", "neither"]),
)
@settings(deadline=None)
def test_bounded_shares_are_those_shares_that_meet_the_bounds(
    private_k: int,
    public_k: int,
    c1: float,
    c2: float,
    own: float,
    count: int,
    seed: int,
    just: str,
) -> None:
    k = private_k + public_k
    raw = np.random.default_rng(seed).exponential(size=(k, count))
    shares = (raw * (1 / raw.sum(axis=0))).astype(np.float32).T
    if just != "neither" and count:
        largest = float(shares.max())
        c1 = largest if just == "met" else float(np.nextafter(largest, 0))
    assume(c1 * k > 1.1 and c2 <= private_k * c1 and own <= c1)
    try:
        scheme = Scheme(k=k, private_k=private_k, c1=c1, c2=c2, min_self_coefficient=own)
    except InstaHideError:  # too few draws meet these bounds
        reject()
    least = c2 if public_k else 0.0
    found = _sampler_numba.normalize_within_bounds(raw.reshape(-1), k, private_k, c1, least, own)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, shares[scheme.meets_bounds(shares)])


def test_shares_of_nothing_meet_no_bounds() -> None:
    # Every word of a mix would have to be below 2^11, but a draw must not end in an error then.
    assert len(_sampler_numba.normalize_within_bounds(np.zeros(8), 4, 4, 1.0, 0.0, 0.0)) == 0


@given(data=st.data(), bounds=st.lists(st.integers(1, 2**62), max_size=4), count=st.integers(0, 5))
@settings(deadline=None)
def test_below_is_a_product_and_names_the_words_to_draw_again(
    data: st.DataObject, bounds: list[int], count: int
) -> None:
    size = len(bounds) * count
    words = data.draw(st.lists(st.integers(0, 2**64 - 1), min_size=size, max_size=size))
    drawn, again = _sampler_numba.below(np.array(words, np.uint64), np.array(bounds, np.uint64))
    products = [word * bounds[at // count] for at, word in enumerate(words)]
    assert drawn.reshape(-1).tolist() == [product >> 64 for product in products]
    unfair = [2**64 % bounds[at // count] for at in range(size)]
    assert again.tolist() == [at for at in range(size) if products[at] % 2**64 < unfair[at]]


@given(data=st.data(), k=st.integers(1, 7), count=st.integers(0, 5))
@settings(deadline=None)
def test_a_rank_counts_what_is_still_free(data: st.DataObject, k: int, count: int) -> None:
    private_k = data.draw(st.integers(1, k))
    sizes = private_k + data.draw(st.integers(0, 3)), k - private_k + data.draw(st.integers(0, 3))
    first = data.draw(st.lists(st.integers(0, sizes[0] - 1), min_size=count, max_size=count))
    left = [
        sizes[0] - slot if slot < private_k else sizes[1] - slot + private_k for slot in range(k)
    ]
    ranks = [
        data.draw(st.lists(st.integers(0, free - 1), min_size=count, max_size=count))
        for free in left[1:]
    ]
    found = _sampler_numba.partners(
        np.array(first, np.int64), np.array(ranks, np.int64).reshape(k - 1, count), private_k
    )
    assert found.shape == (count, k)
    for mix in range(count):
        private, public = list(range(sizes[0])), list(range(sizes[1]))
        expected = [private.pop(first[mix])]
        for slot in range(1, k):
            free = private if slot < private_k else public
            expected.append(free.pop(ranks[slot - 1][mix]))
        assert found[mix].tolist() == expected


@given(padding=st.integers(0, 127), data=st.data())
@settings(deadline=None)
def test_a_number_tells_all_three_parts_of_a_move(padding: int, data: st.DataObject) -> None:
    side = range(-padding, padding + 1)
    every = [(down, right, flip) for flip in (0, 1) for right in side for down in side]
    numbers = data.draw(st.lists(st.integers(0, len(every) - 1), max_size=8))
    found = _sampler_numba.moves(np.array(numbers, np.int64), padding)
    assert found.reshape(-1, 3).tolist() == [list(every[number]) for number in numbers]


@given(words=WORDS)
@settings(deadline=None)
def test_a_permutation_takes_what_each_word_tells_of_what_is_left(words: list[int]) -> None:
    left, expected = list(range(len(words))), []
    for at in reversed(range(len(words))):
        other = words[at] % (at + 1)
        left[at], left[other] = left[other], left[at]
        expected.insert(0, left.pop())
    assert _sampler_numba.permutation(np.array(words, np.uint64)).tolist() == expected

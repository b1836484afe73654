"""Compiled loops: each is its definition. That the laws follow is tested of `draws`."""

from __future__ import annotations

import math

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from instahide.encryption import laws
from instahide.encryption.scheme import Scheme

WORDS = st.lists(st.integers(0, 2**64 - 1), max_size=12)


def fraction(word: int) -> float:
    return (word >> 11) / 2**53


@given(words=WORDS, turn=st.sampled_from([math.pi / 2, 2 * math.pi]))
@settings(deadline=None)
def test_half_of_the_words_are_chances_and_half_are_angles(words: list[int], turn: float) -> None:
    half = len(words) // 2
    chances, halves = laws.polar(np.array(words[: 2 * half], np.uint64), turn)
    assert chances.tolist() == [1 - fraction(word) for word in words[:half]]
    assert halves.tolist() == [fraction(word) * (turn / 2) for word in words[half : 2 * half]]


@given(
    radii=st.lists(st.floats(0, 8.5), min_size=1, max_size=8),
    angles=st.lists(st.floats(-math.pi + 1e-6, math.pi - 1e-6), min_size=8, max_size=8),
)
@settings(deadline=None)
def test_two_normals_are_a_radius_turned(radii: list[float], angles: list[float]) -> None:
    radius, angle = np.array(radii), np.array(angles[: len(radii)])
    found = laws.normals(-np.square(radius) / 2, np.tan(angle / 2))
    expected = np.concatenate([radius * np.cos(angle), radius * np.sin(angle)])
    # Near a half turn the tangent is large: its last digits count for more.
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-9)


@given(k=st.integers(1, 6), count=st.integers(0, 5), seed=st.integers(0, 99))
@settings(deadline=None)
def test_shares_are_of_the_sum_over_slots(k: int, count: int, seed: int) -> None:
    raw = np.random.default_rng(seed).exponential(size=(k, count))
    found = laws.shares(raw.reshape(-1), k)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, raw / raw.sum(axis=0), rtol=2**-23)


def test_shares_of_nothing_meet_no_bounds() -> None:
    # Every word of a mix would have to be below 2^11, but a draw must not end in an error then.
    found = laws.shares(np.zeros(8), 4).T
    assert np.isnan(found).all()
    assert not Scheme.inside(4, c1=1.0).meets_bounds(found).any()


@given(rows=st.lists(st.tuples(st.integers(0, 9), WORDS), max_size=4))
@settings(deadline=None)
def test_beyond_names_every_word_above_the_last_of_its_row(
    rows: list[tuple[int, list[int]]],
) -> None:
    count = min((len(words) for _, words in rows), default=0)
    # Some just at the last, some just above it.
    table = np.array([[last + word % 2 for word in words[:count]] for last, words in rows])
    last = np.array([last for last, _ in rows], np.uint64)
    flat = table.astype(np.uint64).reshape(-1)
    expected = [at for at, word in enumerate(flat.tolist()) if word > last[at // max(1, count)]]
    assert laws.beyond(flat, last).tolist() == expected


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
    found = laws.partners(
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
    found = laws.moves(np.array(numbers, np.int64), padding)
    assert found.reshape(-1, 3).tolist() == [list(every[number]) for number in numbers]

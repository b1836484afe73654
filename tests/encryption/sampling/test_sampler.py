"""Draws: every part of a one-time key follows its law exactly.

Tests of chance draw fresh keys in every run and fail only at a p-value below `ALPHA`, one in ten
million. A run takes some 150 p-values, so that a right implementation fails once in 60,000 runs.
What they are meant to find (a bias of a few per cent, a shared byte) has p-values far below that.
"""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import stats

from instahide.encryption.augmentation import Augmentation
from instahide.encryption.exposure import Exposure
from instahide.encryption.keys import Block, KeyStream, OneTimeKeys, Purpose
from instahide.encryption.sampling import sampler
from instahide.encryption.scheme import CoefficientDistribution, Scheme

#: Probability that one p-value fails a test without a fault.
ALPHA = 1e-7


def block() -> Block:
    return KeyStream().next_block()


def uniform(counts: NDArray[np.int64]) -> bool:
    """Whether ``counts`` may come from equally likely cells (chi-square at `ALPHA`)."""
    return bool(stats.chisquare(counts.ravel()).pvalue > ALPHA)


class Scripted(Block):
    """A block that hands out given words."""

    def __init__(self, words: list[int]) -> None:
        self.left = list(words)

    def words(self, purpose: Purpose, count: int) -> NDArray[np.uint64]:
        taken, self.left = self.left[:count], self.left[count:]
        return np.array(taken, np.uint64)


@given(
    k=st.integers(1, 8),
    private_k=st.integers(1, 8),
    spare=st.tuples(st.integers(0, 3), st.integers(0, 3)),
    count=st.integers(0, 200),
)
@settings(max_examples=150, deadline=None)
def test_a_mix_never_holds_an_image_twice(
    k: int, private_k: int, spare: tuple[int, int], count: int
) -> None:
    # Down to as many images as slots, private and public.
    private_k = min(private_k, k)
    scheme = Scheme(k=k, private_k=private_k, c1=1.0, c2=0.0)
    private, public = private_k + spare[0], k - private_k + spare[1]
    indices = np.arange(count) % private
    chosen = sampler.partners(block(), scheme, indices, private=private, public=public)
    assert chosen.shape == (count, k)
    np.testing.assert_array_equal(chosen[:, 0], indices)
    for part, bound in ((chosen[:, :private_k], private), (chosen[:, private_k:], public)):
        assert ((part >= 0) & (part < bound)).all()
        assert (np.diff(np.sort(part, axis=1), axis=1) > 0).all()


@pytest.mark.parametrize(("private_k", "private"), [(2, 5), (3, 6), (4, 5)])
def test_private_partners_are_uniform_over_all_sets(private_k: int, private: int) -> None:
    # Ordered sets: every slot is uniform, and so is every pair of slots.
    scheme = Scheme.inside(private_k)
    image = 2
    indices = np.full(40_000, image)
    chosen = sampler.partners(block(), scheme, indices, private=private, public=0)[:, 1:]
    code = (chosen * private ** np.arange(private_k - 1)).sum(axis=1)
    found, counts = np.unique(code, return_counts=True)
    others = private - 1
    assert len(found) == np.prod([others - slot for slot in range(private_k - 1)])
    assert uniform(counts)


def test_public_partners_are_uniform_over_all_sets() -> None:
    scheme = Scheme.cross(5)
    chosen = sampler.partners(block(), scheme, np.zeros(40_000, np.int64), private=9, public=5)[
        :, 2:
    ]
    found, counts = np.unique((chosen * 5 ** np.arange(3)).sum(axis=1), return_counts=True)
    assert len(found) == 5 * 4 * 3
    assert uniform(counts)


def test_an_image_is_not_used_the_same_number_of_times_as_every_other() -> None:
    # k permutations would use each exactly k times; independent partners are binomial.
    count, k = 2_000, 4
    indices = np.arange(count)
    chosen = sampler.partners(block(), Scheme.inside(k), indices, private=count, public=0)
    uses = np.bincount(chosen[:, 1:].ravel(), minlength=count)
    spread = ((uses - (k - 1)) ** 2).sum() / (k - 1)
    low, high = stats.chi2(count - 1).ppf([ALPHA / 2, 1 - ALPHA / 2])
    assert low < spread < high


def test_the_whole_public_pool_is_reached_in_an_epoch() -> None:
    # 4 public slots of 6,000 mixes in a pool of 1,000: one is missed with probability
    # 1000 * exp(-24) < 1e-7.
    scheme = Scheme.cross(6)
    chosen = sampler.partners(block(), scheme, np.arange(6_000), private=6_000, public=1_000)
    counts = np.bincount(chosen[:, 2:].ravel(), minlength=1_000)
    assert counts.min() > 0
    assert uniform(counts)


@given(bound=st.integers(1, 2**62), data=st.data())
@settings(max_examples=100, deadline=None)
def test_below_takes_the_upper_half_of_the_product_of_word_and_bound(
    bound: int, data: st.DataObject
) -> None:
    words = data.draw(st.lists(st.integers(0, 2**64 - 1), max_size=20))
    taken = [word for word in words if word * bound % 2**64 >= 2**64 % bound]
    found = sampler.uniform_integers(Scripted(taken), Purpose.PARTNERS, len(taken), bound)
    assert found.tolist() == [word * bound >> 64 for word in taken]


@pytest.mark.parametrize("bound", [3, 5, 6, 10, 1_000, 2**62 - 1, 2**62])
def test_below_gives_every_integer_equally_many_words(bound: int) -> None:
    """The words of an integer are neighbors; all have as many as the last one that is taken."""
    each = 2**64 // bound
    for integer in (0, 1, bound // 2, bound - 1):
        first = -(-integer * 2**64 // bound)
        end = -(-(integer + 1) * 2**64 // bound)
        edges = [first, first + 1, end - 1]
        taken = [word for word in edges if word * bound % 2**64 >= 2**64 % bound]
        # All words of an integer but one are taken if it has one more than each.
        assert end - first - (len(edges) - len(taken)) == each
        scripted = Scripted([*edges, *[2**63 + 12_345] * 9])
        found = sampler.uniform_integers(scripted, Purpose.PARTNERS, len(edges), bound)
        again = len(edges) - len(taken)
        assert found.tolist().count(integer) >= len(taken)
        assert len(scripted.left) == 9 - again


def test_below_is_uniform() -> None:
    assert uniform(
        np.bincount(sampler.uniform_integers(block(), Purpose.PARTNERS, 70_000, 7), minlength=7)
    )


def test_uniforms_are_multiples_of_two_to_the_minus_53_below_one() -> None:
    edges = sampler.uniforms(Scripted([0, 2**64 - 1, 2**11 - 1, 2**11]), Purpose.CROPS, 4)
    assert edges.tolist() == [0, 1 - 2.0**-53, 0, 2.0**-53]
    assert stats.kstest(sampler.uniforms(block(), Purpose.CROPS, 50_000), "uniform").pvalue > ALPHA


SCHEMES = [
    Scheme.inside(4),
    Scheme.cross(4),
    Scheme.cross(6, coefficient_distribution="dirichlet"),
    Scheme.inside(3, c1=0.4, coefficient_distribution="dirichlet"),
    Scheme.cross(4, c1=0.35, c2=0.55),
    Scheme.cross(4).query(0.5),
    Scheme.inside(4).query(0.4),
]


@pytest.mark.parametrize("scheme", [*SCHEMES, Scheme.inside(1), Scheme.inside(2, c1=0.7)])
def test_coefficients_keep_their_bounds_exactly(scheme: Scheme) -> None:
    found = sampler.coefficients(block(), scheme, 20_000)
    assert found.shape == (20_000, scheme.k)
    assert found.dtype == np.float32
    exact = found.astype(np.float64)
    assert exact.min() >= 0
    assert exact.max() <= scheme.c1
    assert exact[:, 0].min() >= scheme.min_self_coefficient
    if scheme.public_k:
        assert exact[:, : scheme.private_k].sum(axis=1).min() >= scheme.c2
    # Each of the k shares is off by half a unit at most.
    assert np.abs(exact.sum(axis=1) - 1).max() <= scheme.k * 2.0**-25


def by_rejection(scheme: Scheme, count: int) -> NDArray[np.float64]:
    """(count, k) by the definition, one after the other."""
    generator = np.random.default_rng()
    kept: list[NDArray[np.float64]] = []
    while len(kept) < count:
        raw = (
            np.abs(generator.normal(size=scheme.k))
            if scheme.coefficient_distribution == "half-normal"
            else generator.dirichlet(np.ones(scheme.k))
        )
        shares = raw / raw.sum()
        if shares[0] < scheme.min_self_coefficient:
            continue
        if max(shares) <= scheme.c1 and sum(shares[: scheme.private_k]) >= scheme.c2:
            kept.append(shares)
    return np.array(kept)


@pytest.mark.slow
@pytest.mark.parametrize("scheme", SCHEMES)
def test_coefficients_follow_the_law_given_the_bounds(scheme: Scheme) -> None:
    # Two samples: order statistics, single slots and the private sum.
    ours = sampler.coefficients(block(), scheme, 20_000).astype(np.float64)
    theirs = by_rejection(scheme, 5_000)
    sides = [
        np.hstack([np.sort(rows, axis=1), rows, rows[:, : scheme.private_k].sum(1, keepdims=True)])
        for rows in (ours, theirs)
    ]
    if not scheme.public_k:
        sides = [side[:, :-1] for side in sides]
    for one, other in zip(sides[0].T, sides[1].T, strict=True):
        assert stats.ks_2samp(one, other, method="asymp").pvalue > ALPHA


@pytest.mark.parametrize("k", [2, 4, 7])
def test_unbounded_dirichlet_shares_are_beta(k: int) -> None:
    found = sampler.coefficients(
        block(), Scheme.inside(k, c1=1.0, coefficient_distribution="dirichlet"), 20_000
    )
    for slot in range(k):
        assert stats.kstest(found[:, slot].astype(float), stats.beta(1, k - 1).cdf).pvalue > ALPHA


def test_the_half_normal_law_is_drawn_from_half_normals() -> None:
    found = sampler._normals(block(), Purpose.COEFFICIENTS, 40_001)
    assert len(found) == 40_001
    assert stats.kstest(found, stats.norm.cdf).pvalue > ALPHA
    assert stats.kstest(np.abs(found), stats.halfnorm.cdf).pvalue > ALPHA
    # The two of a pair share a radius, and are independent all the same.
    first, second = found[:20_000], found[20_001:40_001]
    assert stats.pearsonr(first**2, second**2).pvalue > ALPHA
    x, y = (np.floor(8 * stats.norm.cdf(part)).astype(int) for part in (first, second))
    assert uniform(np.bincount(8 * x + y, minlength=64))


def chance(words: list[int]) -> Fraction:
    """The uniform number in (0, 1] of these ``words``, each of which refines the one before."""
    first, *more = words
    left = 2**64 - 1 - first
    if left >= 2**44:
        return Fraction((left >> 11) + 1, 2**53)
    return (left + chance(more)) / 2**64


LAST = 2**64 - 1
WORD = st.integers(0, LAST) | st.integers(LAST - 2**45, LAST) | st.just(LAST)


@given(st.lists(st.lists(WORD, min_size=6, max_size=6), min_size=1, max_size=5))
@example([[LAST, LAST, LAST, 0, 0, 0]])
@settings(deadline=None)
def test_a_small_uniform_number_has_the_bits_of_more_words(numbers: list[list[int]]) -> None:
    # The words of each round are drawn together, for those numbers that are still small.
    numbers = [[*words, 0] for words in numbers]
    drawn = [words[0] for words in numbers]
    small = numbers
    for at in range(6):
        small = [words for words in small if words[at] > LAST - 2**44]
        drawn += [words[at + 1] for words in small]
    found = sampler.exponentials(Scripted(drawn), Purpose.NOISE, len(numbers))
    expected = [-math.log(chance(words)) for words in numbers]
    np.testing.assert_allclose(found, expected, rtol=1e-15, atol=2**-53)


def test_noise_has_no_largest_value() -> None:
    """Who sees noise beyond a largest value around one image would know that it is another."""
    deviations = 0.0
    for words in range(1, 5):
        script = Scripted([LAST, 2**63, *[LAST] * words, 0])
        further = float(np.abs(sampler.noise(script, (2,), 1.0)).max())
        assert further**2 == pytest.approx(2 * 64 * (words + 1) * math.log(2), rel=1e-12)
        assert further > deviations + 1
        deviations = further


@pytest.mark.parametrize("law", ["half-normal", "dirichlet"])
def test_the_slots_of_coefficients_are_exchangeable(law: CoefficientDistribution) -> None:
    # No slot is favoured where none is bounded by itself.
    found = sampler.coefficients(block(), Scheme.inside(5, coefficient_distribution=law), 30_000)
    assert uniform(np.bincount(found.argmax(axis=1), minlength=5))


def bits(words: NDArray[np.uint32]) -> NDArray[np.uint8]:
    """(n, 32 * words) of each image, channel after channel."""
    return np.unpackbits(words.view(np.uint8).reshape(len(words), -1), axis=1, bitorder="little")


def mask_bits(stream: KeyStream, count: int = 2_000) -> NDArray[np.uint8]:
    return bits(sampler.masks(stream.next_block(), count, (1, 8, 8)))


def test_masks_have_the_shape_that_they_say() -> None:
    assert sampler.masks(block(), 5, (3, 7, 9)).shape == (5, 3, 2)
    assert sampler.masks(block(), 1, (1, 1, 1)).shape == (1, 1, 1)
    assert sampler.masks(block(), 0, (1, 8, 8)).shape == (0, 1, 2)
    assert sampler.masks(block(), 5, (3, 7, 9)).dtype == np.uint32


def test_masks_are_balanced() -> None:
    found = mask_bits(KeyStream(), 20_000)
    # Every pixel for itself, corrected for their number, and every image.
    for sums, size in ((found.sum(axis=0), 20_000), (found.sum(axis=1, dtype=np.int64), 64)):
        rarest = np.abs(sums - size / 2).max()
        p_value = 2 * stats.binom(size, 0.5).cdf(size / 2 - rarest) * len(sums)
        assert p_value > ALPHA


def test_masks_are_independent_across_pixels() -> None:
    # 64 x 63 / 2 correlations of 20,000 images: each is normal with deviation 20,000^-1/2.
    found = 1 - 2 * mask_bits(KeyStream(), 20_000).astype(np.float64)
    correlation = (found.T @ found / len(found))[np.triu_indices(64, 1)]
    limit = stats.norm.isf(ALPHA / 2 / len(correlation)) / np.sqrt(len(found))
    assert np.abs(correlation).max() < limit


def test_mask_bytes_are_uniform() -> None:
    words = sampler.masks(block(), 4_000, (1, 8, 8))
    assert uniform(np.bincount(words.view(np.uint8).ravel(), minlength=256))


@pytest.mark.parametrize("which", ["images", "blocks", "epochs", "participants", "streams"])
def test_masks_are_independent_across(which: str) -> None:
    key = KeyStream("a")
    first = mask_bits(key)
    if which == "images":
        second = np.roll(first, 1, axis=0)
    elif which == "blocks":
        second = mask_bits(key)
    elif which == "epochs":
        key.next_epoch()
        second = mask_bits(key)
    elif which == "participants":
        root = np.random.default_rng().bytes(32)
        first, second = (mask_bits(KeyStream(name, fixed_key=root)) for name in ("1", "2"))
    else:
        second = mask_bits(KeyStream("a"))
    agreeing = int((first == second).sum())
    assert stats.binomtest(agreeing, first.size).pvalue > ALPHA


@pytest.mark.parametrize(("padding", "flip"), [(4, True), (2, False), (0, True), (127, True)])
def test_moves_are_uniform_and_in_range(padding: int, flip: bool) -> None:
    found = sampler.augmentation_moves(block(), (10_000, 3), Augmentation(padding, flip))
    assert found.shape == (10_000, 3, 3)
    assert found.dtype == np.int8
    down, right, mirrored = found.reshape(-1, 3).astype(np.int64).T
    for shift in (down, right):
        assert (np.abs(shift) <= padding).all()
        assert padding == 0 or uniform(np.bincount(shift + padding, minlength=2 * padding + 1))
    assert set(mirrored) == ({0, 1} if flip else {0})
    assert not flip or uniform(np.bincount(mirrored))
    if 0 < padding < 10:
        side = 2 * padding + 1
        cells = ((down + padding) * side + right + padding) * 2 + mirrored
        assert uniform(np.unique(cells, return_counts=True)[1]), "and independent of each other"


@pytest.mark.parametrize("count", [0, 1, 2, 1_000])
def test_an_order_is_a_permutation(count: int) -> None:
    np.testing.assert_array_equal(np.sort(sampler.permutation(block(), count)), np.arange(count))


def test_every_order_is_equally_likely() -> None:
    stream = KeyStream()
    orders = [tuple(sampler.permutation(stream.next_block(), 4)) for _ in range(4_800)]
    found, counts = np.unique(orders, axis=0, return_counts=True)
    assert len(found) == 24
    assert uniform(counts)


def keys_of(scheme: Scheme, augmentation: Augmentation, stream: KeyStream) -> OneTimeKeys:
    return sampler.one_time_keys(
        stream.next_block(), scheme, np.arange(6), public=5, shape=(3, 5, 7),
        augmentation=augmentation, exposure=Exposure(9),
    )  # fmt: skip


def test_one_time_keys_are_all_their_parts() -> None:
    scheme, augmentation = Scheme.cross(4), Augmentation(2, True)

    def stream() -> KeyStream:
        return KeyStream(fixed_key=bytes(32))

    found = keys_of(scheme, augmentation, stream())
    apart: dict[str, Any] = {
        "partners": sampler.partners(
            stream().next_block(), scheme, np.arange(6), private=9, public=5
        ),
        "coefficients": sampler.coefficients(stream().next_block(), scheme, 6),
        "masks": sampler.masks(stream().next_block(), 6, (3, 5, 7)),
        "moves": sampler.augmentation_moves(stream().next_block(), (6, 4), augmentation),
    }
    # Each purpose has bytes of its own: what is drawn beside it changes nothing.
    for name, part in apart.items():
        np.testing.assert_array_equal(getattr(found, name), part)


def test_what_a_scheme_does_not_use_is_not_drawn() -> None:
    bare = keys_of(Scheme.mixup(4), Augmentation(), KeyStream())
    assert bare.masks is None
    assert bare.moves is None

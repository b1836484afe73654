"""A mix never holds one picture twice, and what a picture went into is counted by picture."""

from __future__ import annotations

import contextlib
import copy
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import stats

from instahide import Encoder, ImageDataset, ImageTable, InstaHideError, Scheme
from instahide.data import PhotoCrops
from instahide.data.image_source import ImageSource, hashes_of
from instahide.encryption.exposure import Exposure
from instahide.encryption.keys import Block, KeyStream, Purpose
from instahide.encryption.known_keys import encode_with_known_keys
from instahide.encryption.sampling import sampler
from instahide.encryption.sampling.partner_pools import (
    ContentIds,
    PartnerPools,
    known_partner_pools,
    pools_of_tables,
)
from instahide.errors import ExposureLimitError

#: Chance that one p-value below fails a right implementation; there are some thirty of them a run.
ALPHA = 1e-8


def pictures(ids: list[int] | NDArray[np.int64], side: int = 4) -> NDArray[np.uint8]:
    """(N, 1, side, side): one picture for each number."""
    return np.stack(
        [np.random.default_rng(one).integers(0, 256, (1, side, side), np.uint8) for one in ids]
    )


def table(ids: list[int] | NDArray[np.int64]) -> ImageTable:
    return ImageTable.from_arrays(pictures(ids), np.arange(len(ids)) % 2, ["a", "b"])


def pool(ids: list[int] | NDArray[np.int64]) -> ImageTable:
    return ImageTable.from_arrays(pictures(ids))


duplicated = st.lists(st.integers(0, 9), min_size=2, max_size=25)


@pytest.mark.slow
@given(
    private=duplicated,
    public=duplicated,
    k=st.integers(1, 6),
    private_k=st.integers(1, 6),
    seed=st.integers(0, 99),
)
@settings(max_examples=80, deadline=None)
def test_a_mix_never_holds_a_picture_twice_and_counts_are_those_of_pictures(
    private: list[int], public: list[int], k: int, private_k: int, seed: int
) -> None:
    private_k = min(private_k, k)
    cross = private_k < k
    scheme = Scheme(k=k, private_k=private_k, c1=1.0, c2=0.0)
    images, others = table(private), pool(public) if cross else None
    both = len(set(private) & set(public))
    enough = len(set(private)) >= private_k and (
        not cross or len(set(public)) - min(both, private_k) >= k - private_k
    )
    generator = np.random.default_rng(seed)
    rows = generator.integers(0, len(private), 40)
    if not enough:
        with pytest.raises(
            InstaHideError,
            match=r"different pictures|different private pictures|private images|needs .* public",
        ):
            Encoder(scheme, images, others)
        return
    found = encode_with_known_keys(scheme, images, others, rows)
    names = np.concatenate(
        [np.asarray(private)[found.partners[:, :private_k]],
         np.asarray(public)[found.partners[:, private_k:]]], axis=1
    )  # fmt: skip
    assert (found.partners[:, 0] == rows).all()
    assert all(len(set(mix)) == k for mix in names.tolist())
    # An independent count, by name; a private picture counts in the place of a public one, too.
    exposure = Exposure(len(private))
    encoder = Encoder(scheme, images, others, exposure=exposure)
    rows, shares = found.partners[:, :private_k], found.coefficients[:, :private_k]
    if encoder.pools is not None:
        rows, shares = encoder.pools.counted(found.partners, found.coefficients, private_k)
    exposure.record(rows, shares)
    holds = [names == one for one in private]
    assert exposure.counts.tolist() == [int(each.any(axis=1).sum()) for each in holds]
    squares = [float(np.square(found.coefficients[each]).sum()) for each in holds]
    np.testing.assert_allclose(exposure.squares, squares, rtol=1e-5, atol=1e-6)
    assert encoder.exposure is exposure


@pytest.mark.parametrize("private_k", [2, 3])
def test_partners_are_uniform_over_the_rows_that_are_allowed(private_k: int) -> None:
    # Sequentially: each from the rows of pictures that are not yet in the mix.
    ids = np.array([0, 1, 0, 2, 2, 2, 3, 0])
    pools = PartnerPools.of(ids, np.empty(0, np.int64))
    scheme = Scheme(k=private_k, private_k=private_k, c1=1.0, c2=0.0)
    count = 200_000
    for first in (0, 1, 3):
        drawn = sampler.partners(
            KeyStream().next_block(), scheme, np.full(count, first), private=8, public=0,
            pools=pools,
        )  # fmt: skip
        expected: dict[tuple[int, ...], float] = {(first,): 1.0}
        for _ in range(private_k - 1):
            expected = {
                (*rows, row): chance / len(allowed)
                for rows, chance in expected.items()
                for allowed in [[row for row in range(8) if ids[row] not in ids[list(rows)]]]
                for row in allowed
            }
        keys = list(expected)
        seen = dict.fromkeys(keys, 0)
        for mix, number in zip(*np.unique(drawn, axis=0, return_counts=True), strict=True):
            seen[tuple(mix.tolist())] += int(number)
        chances = np.array([expected[key] for key in keys])
        assert stats.chisquare([seen[key] for key in keys], count * chances).pvalue > ALPHA


def test_public_partners_are_uniform_over_the_rows_that_are_allowed() -> None:
    private, public = np.array([0, 1, 1, 2]), np.array([5, 1, 1, 6, 0, 6, 7])
    pools, scheme, count = PartnerPools.of(private, public), Scheme.cross(3), 200_000
    drawn = sampler.partners(
        KeyStream().next_block(), scheme, np.full(count, 3), private=4, public=7, pools=pools
    )
    for partner in range(3):
        given_it = drawn[drawn[:, 1] == partner, 2]
        allowed = np.flatnonzero(~np.isin(public, [private[3], private[partner]]))
        counts = np.bincount(given_it, minlength=7)
        assert counts.sum() == counts[allowed].sum()
        assert stats.chisquare(counts[allowed]).pvalue > ALPHA
    assert stats.chisquare(np.bincount(drawn[:, 1], minlength=4)[:3]).pvalue > ALPHA


@given(
    private_k=st.integers(1, 4), public_k=st.integers(0, 4), spare=st.integers(0, 5),
    count=st.integers(0, 60),
)  # fmt: skip
@settings(max_examples=60, deadline=None)
def test_without_duplicates_the_words_give_the_partners_that_they_always_gave(
    private_k: int, public_k: int, spare: int, count: int
) -> None:
    scheme = Scheme(k=private_k + public_k, private_k=private_k, c1=1.0, c2=0.0)
    private, public = private_k + spare, public_k + spare
    pools = PartnerPools.of(np.arange(private), private + np.arange(public))
    key, indices = b"k" * 32, np.arange(count) % private
    plain, apart = (
        sampler.partners(KeyStream(fixed_key=key).next_block(), scheme, indices, private=private,
                       public=public, pools=which)
        for which in (None, pools)
    )  # fmt: skip
    np.testing.assert_array_equal(plain, apart)


class Scripted(Block):
    """A block that hands out given words."""

    def __init__(self, words: list[int]) -> None:
        self.left = list(words)

    def words(self, purpose: Purpose, count: int) -> NDArray[np.uint64]:
        taken, self.left = self.left[:count], self.left[count:]
        return np.array(taken, np.uint64)


def test_words_beyond_the_last_whole_multiple_of_what_is_left_are_drawn_again() -> None:
    # Three rows are left beside image 0. 3 * 0 has the only lower half below 2^64 mod 3 = 1.
    pools = PartnerPools.of(np.array([0, 1, 0, 2, 1]), np.empty(0, np.int64))
    scheme = Scheme(k=2, private_k=2, c1=1.0, c2=0.0)
    block = Scripted([0, 2**64 - 1, 0, 0, 1])
    drawn = sampler.partners(block, scheme, np.array([0, 0]), private=5, public=0, pools=pools)
    # Beside picture 0 lie the rows 1, 4 and 3, in this order; 3 (2^64 - 1) has the upper half 2.
    assert drawn.tolist() == [[0, 1], [0, 3]]
    assert block.left == []


def test_an_encoding_never_shows_a_picture_alone() -> None:
    images = table(np.repeat(np.arange(12), 10))
    values = np.abs(images.normalized())
    encoder = Encoder(Scheme.inside(2), images)
    for _ in range(20):
        found = encoder.encode(encoder.permutation()).images.abs().numpy()
        nearest = np.abs(found[:, None] - values[None, ::10]).max(axis=(2, 3, 4)).min(axis=1)
        assert (nearest > 1e-3).all()


def test_too_few_pictures_are_refused_and_counted() -> None:
    with pytest.raises(InstaHideError, match="the 40 images have 3"):
        Encoder(Scheme.inside(4), table(np.arange(40) % 3))
    with pytest.raises(InstaHideError, match="the 30 public images show 3, of which 2 are private"):
        Encoder(Scheme.cross(4), table([0, 1, 4, 5]), pool([0, 1, 9] * 10))


class Items:
    """A data set with float items, whose transform is random."""

    def __init__(self, ids: list[int]) -> None:
        self.ids = ids
        self.random = np.random.default_rng(3)

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> tuple[NDArray[np.float32], int]:
        image = pictures([self.ids[index]])[0].astype(np.float32) / 255
        image = (image - 0.5) / 0.25
        return (image[:, :, ::-1] if self.random.random() < 0.5 else image).copy(), index % 2


class Bare:
    """Somebody's own `ImageSource`, which says nothing of pictures."""

    def __init__(self, images: ImageSource) -> None:
        self._images = images

    def __getattr__(self, name: str) -> Any:
        if name in ("content_hashes", "content_ids", "pixel_hashes"):
            raise AttributeError(name)
        return getattr(self._images, name)

    def __len__(self) -> int:
        return len(self._images)


def test_data_sets_of_all_kinds_find_the_same_pictures() -> None:
    ids = [0, 1, 2, 0, 1, 5]
    data = ImageDataset(Items(ids), mean=[0.5], std=[0.25], classes=["a", "b"])
    assert data.content_ids.tolist() == [0, 1, 2, 0, 1, 3]
    images = table(ids)
    assert images.content_ids.tolist() == [0, 1, 2, 0, 1, 3]
    bare: Any = Bare(images)
    np.testing.assert_array_equal(hashes_of(bare), images.content_hashes)
    part = images.subset(np.array([3, 0, 5]))
    assert part.content_ids.tolist() == [0, 0, 1]


def test_a_public_image_that_a_float_data_set_holds_is_kept_out_of_its_mixes() -> None:
    class Plain(Items):
        def __getitem__(self, index: int) -> tuple[NDArray[np.float32], int]:
            self.random = np.random.default_rng(5)
            return super().__getitem__(index)

    data = ImageDataset(Plain([0, 1, 2, 3]), mean=[0.5], std=[0.25], classes=["a", "b"])
    flips = np.random.default_rng(5).random() < 0.5
    public = pictures([1, 7, 8, 9])
    others = ImageTable.from_arrays(public[:, :, :, ::-1].copy() if flips else public)
    pools = known_partner_pools(ContentIds.of(data), others)
    assert pools is not None
    assert pools.pictures == (4, 4, 1)


@pytest.mark.parametrize("limit", [None, 9])
def test_private_images_in_the_pool_are_counted_and_limited(limit: int | None) -> None:
    # Each picture has pixels of its own, which show in which encodings it is.
    count = 12
    pixels = np.zeros((count, 1, count, 4), np.uint8)
    for one in range(count):
        pixels[one, 0, one] = np.random.default_rng(one).integers(100, 256, 4)
    images, others = ImageTable.from_arrays(pixels, np.arange(count) % 2), pixels[:8]
    exposure = Exposure(count, limit=limit)
    encoder = Encoder(
        Scheme(k=4, private_k=2, c1=1.0, c2=0.0, mask=False), images,
        ImageTable.from_arrays(others).normalized_like(images), exposure=exposure,
    )  # fmt: skip
    shown = np.zeros(count, int)
    black = -images.mean[0] / images.std[0]
    with contextlib.suppress(ExposureLimitError):
        for _ in range(20):
            found = encoder.encode(encoder.permutation()).images.numpy()
            shown += (np.abs(found - black).max(axis=(1, 3)) > 1e-4).sum(axis=0)
    assert shown.sum() > 3 * count
    assert (exposure.counts >= shown).all()
    # Coefficients near 0 are hardly to be seen.
    assert (exposure.counts - shown).sum() <= 0.05 * shown.sum() + 2
    assert limit is None or exposure.counts.max() <= limit


def test_new_crops_are_looked_at_in_every_epoch() -> None:
    # One photograph that is as large as a patch: all its crops are one picture.
    photo = np.random.default_rng(0).integers(0, 256, (4, 4, 1), np.uint8)
    with pytest.raises(InstaHideError, match="public images show 1"):
        Encoder(Scheme.cross(4), table([0, 1, 2]), PhotoCrops((photo,), 4, 4))


def test_the_limit_is_one_of_pictures() -> None:
    images = table(np.repeat(np.arange(6), 10))
    exposure = Exposure(60, limit=7)
    encoder = Encoder(Scheme.inside(2), images, exposure=exposure)
    made = 0
    with contextlib.suppress(ExposureLimitError):
        while True:
            made += len(encoder.encode(encoder.permutation()).images)
    assert exposure.counts.max() == 7
    assert (exposure.counts.reshape(6, 10) == exposure.counts[::10, None]).all()
    assert exposure.counts[::10].sum() == 2 * made


@pytest.mark.parametrize(
    "public",
    [
        np.arange(12),  # The pool is the private images.
        np.r_[np.arange(4), np.arange(50, 70)],
        np.r_[np.zeros(9, int), np.arange(1, 4), np.full(20, 50), np.arange(60, 70)],
    ],
)
def test_draws_from_the_public_pool_are_foretold_and_never_too_few(
    public: NDArray[np.int64],
) -> None:
    scheme, images = Scheme(k=4, private_k=2, c1=1.0, c2=0.0), table([*range(12), 0, 0])
    pools = pools_of_tables(images, pool(public))
    assert pools is not None
    foretold = pools.public_draws(scheme)
    assert pools.private_in_public == (foretold > 0).sum() > 0
    encoder, epochs = Encoder(scheme, images, pool(public)), 400
    for _ in range(epochs):
        encoder.encode(np.arange(14))
    _, first = np.unique(images.content_ids, return_index=True)
    drawn = encoder.exposure.counts[first].sum() / (14 * epochs) - scheme.private_k
    # What is left for chance is five standard deviations.
    assert drawn - 5 / np.sqrt(14 * epochs) < foretold.sum() <= scheme.public_k + 1e-9
    assert foretold.sum() < 4 * drawn


def test_nothing_is_foretold_to_be_drawn_from_a_pool_of_other_pictures() -> None:
    pools = pools_of_tables(table([0, 0, 1, 2]), pool([7, 8, 9]))
    assert pools is not None
    assert (pools.private_in_public, pools.public_draws(Scheme.cross(3)).sum()) == (0, 0)
    assert pools_of_tables(table([0, 1, 2]), pool([7, 8, 9])) is None
    assert pools_of_tables(table([0, 1, 2]), None) is None


def test_a_picture_twice_in_a_mix_is_added_before_it_is_squared() -> None:
    exposure = Exposure(3)
    exposure.record(np.array([[0, 1], [2, 2]]), np.array([[0.5, 0.5], [0.25, 0.75]], np.float32))
    assert exposure.group(np.array([0, 0, 1])).tolist() == [0, 0, 1]
    # Nobody remembers that they were in one mix, so they are counted as if they had been.
    np.testing.assert_allclose(exposure.squares, [1.0, 1.0, 1.0])
    exposure.record(np.array([[0, 1]]), np.array([[0.5, 0.5]], np.float32))
    np.testing.assert_allclose(exposure.squares, [2.0, 2.0, 1.0])
    assert exposure.counts.tolist() == [3, 3, 1]


def test_a_copied_encoder_counts_by_picture() -> None:
    encoder = copy.copy(Encoder(Scheme.inside(2), table([0, 0, 1, 1, 2])))
    encoder.encode(np.arange(5))
    counts = encoder.exposure.counts
    assert counts[0] == counts[1]
    assert counts[2] == counts[3]
    assert counts[[0, 2, 4]].sum() == 10

"""How often images go out, and the limit on it."""

from __future__ import annotations

import contextlib
import copy
import os
import pickle
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch.distributed as dist
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import stats
from torch import Tensor, nn

from instahide import (
    EncodedLoader,
    Encoder,
    ImageTable,
    InstaHideError,
    Scheme,
    predict_encrypted,
)
from instahide.encryption.augmentation import Augmentation
from instahide.encryption.exposure import Exposure, ExposureView, within_limit
from instahide.encryption.keys import KeyStream
from instahide.encryption.sampling import sampler
from instahide.errors import ExposureLimitError


def table(count: int) -> ImageTable:
    generator = np.random.default_rng(0)
    return ImageTable.from_arrays(
        generator.integers(0, 256, (count, 1, 4, 4), dtype=np.uint8), np.arange(count) % 2
    )


def fitting_by_definition(rows: NDArray[np.int64], counts: NDArray[np.int64], limit: int) -> int:
    counts = counts.copy()
    for number, mix in enumerate(rows):
        counts[mix] += 1
        if (counts > limit).any():
            return number
    return len(rows)


@st.composite
def mixes(draw: st.DrawFn) -> tuple[NDArray[np.int64], NDArray[np.int64], int]:
    images = draw(st.integers(2, 6))
    size = draw(st.integers(1, images))
    rows = draw(st.lists(st.permutations(range(images)), max_size=8))
    limit = draw(st.integers(1, 6))
    counts = draw(st.lists(st.integers(0, limit), min_size=images, max_size=images))
    chosen = np.array([row[:size] for row in rows], np.int64).reshape(-1, size)
    return chosen, np.array(counts), limit


def until_refused(encoder: Encoder, size: int) -> Iterator[Tensor]:
    """Blocks of encodings, until an image would pass its limit."""
    with contextlib.suppress(ExposureLimitError):
        while True:
            yield encoder.encode(encoder.permutation()[:size]).images


def pickled(exposure: Exposure) -> Exposure:
    return pickle.loads(pickle.dumps(exposure))  # type: ignore[no-any-return]  # noqa: S301


@given(mixes())
def test_as_many_mixes_fit_as_the_definition_says(
    case: tuple[NDArray[np.int64], NDArray[np.int64], int],
) -> None:
    assert within_limit(*case) == fitting_by_definition(*case)


@pytest.mark.parametrize("scheme", [Scheme.inside(4), Scheme.cross(2), Scheme.inside(1, c1=1.0)])
def test_no_image_passes_its_limit_and_all_that_could_go_out_did(scheme: Scheme) -> None:
    encoder = Encoder(scheme, table(30), exposure=Exposure(30, limit=7))
    made, asked = 0, encoder.permutation()[:5]
    with contextlib.suppress(ExposureLimitError):
        while True:
            made += len(encoder.encode(asked).images)
            asked = encoder.permutation()[:5]
    counts = encoder.exposure.counts
    assert counts.max() == 7
    # A block that meets the limit ends there: nothing is counted that is not delivered.
    assert counts.sum() == made * scheme.private_k
    # Refused is only what could not begin: its own image, or too many others, were at the limit.
    assert counts[asked[0]] == 7 or (counts < 7).sum() < scheme.private_k


def test_the_limit_holds_between_threads() -> None:
    encoder = Encoder(Scheme.inside(3), table(40), exposure=Exposure(40, limit=50))

    def work(_: int) -> None:
        list(until_refused(encoder, 40))

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(4)))
    assert encoder.exposure.counts.max() == 50


def test_an_image_at_its_limit_is_left_out_and_the_others_are_drawn_evenly() -> None:
    exposure = Exposure(12, limit=10_000)
    exposure.counts[[3, 7]] = 10_000
    keys = sampler.one_time_keys(
        KeyStream().next_block(), Scheme.inside(2), np.zeros(9_000, np.int64), public=0,
        shape=(1, 4, 4), augmentation=Augmentation(), exposure=exposure,
    )  # fmt: skip
    counts = np.bincount(keys.partners[:, 1], minlength=12)
    assert counts[[0, 3, 7]].tolist() == [0, 0, 0]
    # One in a million runs fails by chance.
    assert stats.chisquare(np.delete(counts, [0, 3, 7])).pvalue > 1e-6


def test_squares_are_the_coefficients_own() -> None:
    exposure = Exposure(20)
    keys = sampler.one_time_keys(
        KeyStream().next_block(), Scheme.cross(4), np.arange(20), public=9,
        shape=(1, 4, 4), augmentation=Augmentation(), exposure=exposure,
    )  # fmt: skip
    expected = np.zeros(20)
    for row, weights in zip(keys.partners, keys.coefficients, strict=True):
        expected[row[:2]] += weights[:2].astype(float) ** 2
    np.testing.assert_allclose(exposure.squares, expected, rtol=1e-12)
    np.testing.assert_array_equal(exposure.counts, np.bincount(keys.partners[:, :2].ravel()))


MIX = np.array([[0, 1]]), np.array([[0.5, 0.5]], np.float32)


@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy, lambda e: copy.deepcopy([e])[0]])
def test_a_copy_in_the_process_shares_the_counts(
    duplicate: Callable[[Exposure], Exposure],
) -> None:
    exposure = Exposure(5, limit=3)
    other = duplicate(exposure)
    assert [each.record(*MIX) for each in (exposure, other, exposure, other)] == [1, 1, 1, 0]
    assert exposure.counts.tolist() == other.counts.tolist() == [3, 3, 0, 0, 0]


@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy])
def test_encoders_that_were_copied_keep_to_one_limit(
    duplicate: Callable[[Encoder], Encoder],
) -> None:
    encoder = Encoder(Scheme.inside(1, c1=1.0), table(5), exposure=Exposure(5, limit=3))
    other = duplicate(encoder)
    for each in (encoder, other, encoder):
        each.encode(np.arange(5))
    with pytest.raises(ExposureLimitError):
        other.encode(np.arange(5))


def test_with_a_limit_it_goes_to_no_other_process() -> None:
    exposure = Exposure(5, limit=3)
    with pytest.raises(InstaHideError, match="one process"):
        pickle.dumps(exposure)
    with pytest.raises(InstaHideError, match="one process"):
        pickle.dumps(Encoder(Scheme.inside(2), table(5), exposure=exposure))
    child = os.fork()
    if child == 0:
        try:
            exposure.record(*MIX)
        except InstaHideError:
            os._exit(7)
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
    assert exposure.record(*MIX) == 1


def test_without_a_limit_a_pickled_copy_goes_on_from_the_counts() -> None:
    exposure = Exposure(5)
    exposure.record(*MIX)
    exposure.group(np.array([0, 0, 1, 2, 3]))
    other = pickled(exposure)
    assert other.counts.tolist() == exposure.counts.tolist() == [2, 2, 0, 0, 0]
    assert other.squares.tolist() == exposure.squares.tolist()
    other.record(np.array([[1, 2]]), MIX[1])
    # The same groups; and from here on each for itself.
    assert other.counts.tolist() == [3, 3, 1, 0, 0]
    assert exposure.counts.tolist() == [2, 2, 0, 0, 0]


class SameImage(Exposure):
    """All rows are one image, so that no mix of two of them stays within a limit of 1."""

    def record(self, rows: NDArray[np.int64], coefficients: NDArray[np.float32]) -> int:
        return within_limit(np.zeros_like(rows), self.counts, 1)


def test_copies_of_one_image_that_never_fit_end_the_work() -> None:
    encoder = Encoder(Scheme.inside(2), table(30), exposure=SameImage(30, limit=1))
    with pytest.raises(ExposureLimitError):
        encoder.encode(np.arange(5))


def test_a_limit_of_none_at_all_is_refused() -> None:
    with pytest.raises(InstaHideError, match="limit of encodings per image"):
        Exposure(5, limit=0)


def test_a_part_counts_in_the_whole() -> None:
    whole = Exposure(6, limit=2)
    part = ExposureView(whole, np.asarray([1, 4, 5]))
    assert (part.images, part.limit, part.exhausted()) == (3, 2, None)
    weights = np.full((2, 2), 0.5, np.float32)
    assert part.record(np.asarray([[0, 1], [1, 2]]), weights) == 2
    np.testing.assert_array_equal(whole.counts, [0, 1, 0, 0, 2, 1])
    np.testing.assert_array_equal(part.counts, [1, 2, 1])
    np.testing.assert_allclose(part.squares, [0.25, 0.5, 0.25])
    spent = part.exhausted()
    assert spent is not None
    np.testing.assert_array_equal(spent, [False, True, False])
    assert part.record(np.asarray([[0, 2], [0, 1]]), weights) == 1
    np.testing.assert_array_equal(whole.counts, [0, 2, 0, 0, 2, 2])


def test_images_beyond_a_part_do_not_spend_it() -> None:
    whole = Exposure(6, limit=1)
    whole.record(np.asarray([[0, 1]]), np.full((1, 2), 0.5, np.float32))
    assert ExposureView(whole, np.asarray([2, 3])).exhausted() is None
    with pytest.raises(TypeError, match="cannot be copied"):
        pickle.dumps(ExposureView(whole, np.asarray([2, 3])))


@pytest.mark.parametrize("launched", [False, True])
def test_no_encoder_takes_a_limit_of_each_process_for_itself(
    launched: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = table(8)
    scheme, limited = Scheme.inside(2), Exposure(8, limit=9)
    if launched:
        monkeypatch.setenv("WORLD_SIZE", "2")
    else:
        monkeypatch.setattr(dist, "is_initialized", lambda: True)
        monkeypatch.setattr(dist, "get_world_size", lambda: 2)
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 2))
    encoder = Encoder(scheme, images, exposure=limited)
    for use in (
        lambda: encoder.encode(np.arange(8)),
        lambda: next(iter(EncodedLoader(encoder, 4))),
        lambda: predict_encrypted(model, scheme, images, exposure=limited),
    ):
        with pytest.raises(InstaHideError, match="2 processes would each"):
            use()
    assert not limited.counts.any()
    Encoder(scheme, images, exposure=Exposure(8)).encode(np.arange(8))

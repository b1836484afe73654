"""Groups of a table: images that are to be protected together, by names that are never kept."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from instahide import Encoder, ImageTable, InstaHideError, Scheme
from instahide.data.duplicates.group_hash import group_hashes
from instahide.data.image_source import has_repeats, keys_of
from instahide.data.sources import _resized

SECRET = "Miller, Anna 1961-03-04"


def table(count: int, side: int = 8) -> ImageTable:
    pixels = np.random.default_rng(0).integers(0, 256, (count, 1, side, side), np.uint8)
    return ImageTable.from_arrays(pixels, np.arange(count))


def named(count: int, each: int) -> list[str]:
    return [f"{SECRET} {row // each}" for row in range(count)]


@given(st.lists(st.sampled_from(["", "a", "b", "A", "ä", "a b", "7"]), max_size=30))
def test_equal_names_have_equal_hashes_and_an_empty_name_has_none(names: list[str]) -> None:
    hashes = group_hashes(names, len(names))
    assert hashes.shape == (len(names), 2)
    for one, left in zip(names, hashes, strict=True):
        assert left.any() == bool(one)
        for other, right in zip(names, hashes, strict=True):
            assert (left == right).all() == (one == other)


@pytest.mark.parametrize(
    ("names", "others"),
    [
        (["7", " a ", "", "e\u0301"], [7, "a", None, "é"]),
        (["7", "8", "", ""], np.asarray([7, 8, np.nan, np.nan], object)),
        (["a", "b", "c", "d"], np.asarray(["a", "b", "c", "d"])),
        (["0", "1", "2", "3"], lambda row: row),
        (["0", "1", "2", "3"], np.arange(4)),
    ],
)
def test_one_name_may_be_written_in_several_ways(names: list[str], others: Any) -> None:
    assert (group_hashes(names, 4) == group_hashes(others, 4)).all()


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (["a"] * 3, "4 images but the groups of 3"),
        (["a"] * 5, "4 images but the groups of 5"),
        ("abcd", "one text"),
        (["a", "b", "c", 1.5], "group of image 3 is a float"),
        (["a", "b", True, "d"], "group of image 2 is a bool"),
        (["a", b"b", "c", "d"], "group of image 1 is a bytes"),
        (["a", ["x"], "c", "d"], "group of image 1 is a list"),
    ],
)
def test_what_are_no_names_of_all_images_is_refused(wrong: Any, message: str) -> None:
    with pytest.raises(InstaHideError, match=message):
        table(4).grouped(wrong)


def test_no_message_and_no_file_holds_a_name(tmp_path: Path) -> None:
    grouped = table(6).grouped(named(6, 2))
    grouped.save(tmp_path / "table")
    written = b"".join(path.read_bytes() for path in (tmp_path / "table").iterdir())
    assert SECRET.encode() not in written
    assert b"Miller" not in written
    assert "Miller" not in repr(grouped)
    with pytest.raises(InstaHideError) as refused:
        grouped.grouped(named(6, 2))
    assert "Miller" not in str(refused.value)
    with pytest.raises(InstaHideError) as refused:
        Encoder(Scheme.inside(4), grouped)
    assert "Miller" not in str(refused.value)


def test_groups_stay_through_all_that_is_done_with_a_table(tmp_path: Path) -> None:
    grouped = table(6).grouped(named(6, 2))
    expected = [0, 0, 1, 1, 2, 2]
    grouped.save(tmp_path / "table")
    kept = {
        "saved": ImageTable.load(tmp_path / "table"),
        "subset": grouped.subset(np.arange(6)),
        "measured": grouped.measured(),
        "normalized": grouped.normalized_like(grouped),
        "same pixels": grouped.with_pixels_like(grouped),
        "other pixels": grouped.with_pixels_like(
            ImageTable.from_arrays(np.zeros((1, 1, 8, 8), np.uint16), value_range=(0, 4095))
        ),
    }
    for how, one in kept.items():
        assert one.content_ids.tolist() == expected, how
        assert (keys_of(one)[:, -1] == keys_of(grouped)[:, -1]).all(), how
        assert has_repeats(one), how
    assert grouped.subset(np.array([1, 2])).content_ids.tolist() == [0, 1]
    assert not has_repeats(grouped.subset(np.array([0, 2, 4])))


def test_images_of_no_group_are_each_their_own() -> None:
    grouped = table(4).grouped(["", "a", "a", ""])
    assert grouped.content_ids.tolist() == [0, 1, 1, 2]
    assert grouped.group_ids is not None
    assert grouped.group_ids.tolist() == [0, 1, 1, 2]
    assert table(4).group_ids is None


def test_a_picture_in_two_groups_joins_them() -> None:
    images = table(4)
    pixels = images.pixels.copy()
    pixels[2] = pixels[1]
    joined = replace(images, pixels=pixels).grouped(["a", "a", "b", "b"])
    assert joined.content_ids.tolist() == [0, 0, 0, 0]
    assert joined.group_ids is not None
    assert joined.group_ids.tolist() == [0, 0, 1, 1]


def test_a_mix_never_holds_two_images_of_a_group() -> None:
    names = np.random.default_rng(1).integers(0, 20, 60)
    grouped = table(60).grouped(names)
    encoder = Encoder(Scheme.inside(4), grouped)
    counts = np.zeros(20, np.int64)
    for _ in range(20):
        present = encoder.encode(encoder.permutation()).labels.numpy() > 0
        groups = [names[row] for row in map(np.flatnonzero, present)]
        assert all(len(row) == 4 for row in groups)
        assert all(len(set(row)) == 4 for row in groups)
        for row in groups:
            counts[row] += 1
    # As many as encodings that hold any image of the group.
    assert (encoder.exposure.counts == counts[names]).all()


def test_too_few_groups_are_refused() -> None:
    with pytest.raises(InstaHideError, match="4 private images of different pictures and groups"):
        Encoder(Scheme.inside(4), table(12).grouped(named(12, 4)))


def test_resizing_keeps_groups_and_sources() -> None:
    """An encoding at one size exposes the patient at every size."""
    whole = table(6, side=12)
    sources = whole.content_hashes[::-1, None].copy()
    grouped = replace(whole, sources=sources).grouped(named(6, 2))
    small = _resized(grouped, 6)
    assert small.shape == (1, 6, 6)
    assert small.sources is not None
    assert (small.sources[:, 0] == whole.content_hashes).all()
    assert (small.sources[:, 1] == sources[:, 0]).all()
    assert (small.groups == grouped.groups).all()


def test_damaged_groups_are_refused(tmp_path: Path) -> None:
    grouped = table(4).grouped(["a", "a", "b", "b"])
    grouped.save(tmp_path / "table")
    for wrong in (np.zeros((3, 2), np.uint64), np.zeros((4, 2), np.int64)):
        np.save(tmp_path / "table" / "groups.npy", wrong)
        with pytest.raises(InstaHideError, match="not a readable image table"):
            ImageTable.load(tmp_path / "table")
    (tmp_path / "table" / "groups.npy").unlink()
    with pytest.raises(InstaHideError, match="not a readable image table"):
        ImageTable.load(tmp_path / "table")

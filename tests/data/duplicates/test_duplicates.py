"""A modification time is not content; code points are not a name; a row is its picture."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from instahide import ImageTable, InstaHideError, open_images
from instahide.data.class_names import require_distinct_names
from instahide.data.duplicates.content_hash import (
    connected_ids,
    content_hashes,
    duplicate_ids,
    merge_ids,
)
from instahide.data.duplicates.source_hash import jpeg_hash


def folder_of(root: Path, count: int = 6) -> Path:
    generator = np.random.default_rng(1)
    for number in range(count):
        place = root / ("cat", "dog")[number % 2] / f"{number}.bmp"
        place.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(generator.integers(0, 256, (8, 8), np.uint8)).save(place)
    return root


def opened(folder: Path, size: int | None = None) -> ImageTable:
    return open_images(folder, size=size, progress=False)


@pytest.mark.parametrize("how", ["in place", "renamed", "copied"])
def test_a_file_replaced_by_one_of_equal_size_and_time_is_read_anew(
    tmp_path: Path, how: str
) -> None:
    folder = folder_of(tmp_path / "images")
    before = opened(folder)
    path, other = folder / "cat" / "0.bmp", tmp_path / "other.bmp"
    status = path.stat()
    Image.fromarray(np.full((8, 8), 77, np.uint8)).save(other)
    assert other.stat().st_size == status.st_size
    os.utime(other, ns=(status.st_atime_ns, status.st_mtime_ns))
    if how == "in place":
        path.write_bytes(other.read_bytes())
    elif how == "renamed":
        other.replace(path)
    else:
        shutil.copy2(other, path)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    after = opened(folder)
    assert (after.pixels[0] == 77).all()
    assert (before.pixels[1:] == after.pixels[1:]).all()


def test_a_decode_in_the_cache_keeps_its_sources_whole_or_not_at_all(
    tmp_path: Path, cache: Path
) -> None:
    folder = folder_of(tmp_path / "images")
    first, second = opened(folder, 4), opened(folder, 4)
    assert first.sources is not None
    assert second.sources is not None
    np.testing.assert_array_equal(first.sources, second.sources)
    native = opened(folder)
    np.testing.assert_array_equal(first.sources[:, 0], native.content_hashes)
    (kept,) = {
        path
        for path in cache.rglob("sources.npy")
        if np.load(path.parent / "pixels.npy").shape[-1] == 4
    }
    kept.unlink()
    again = opened(folder, 4)
    assert again.sources is not None
    np.testing.assert_array_equal(first.sources, again.sources)


@pytest.mark.parametrize(
    ("one", "other"),
    [("cat", "Cat"), ("caf\u00e9", "cafe\u0301"), ("cat", " cat"), ("a b", "a\u00a0b"),
     ("stra\u00dfe", "STRASSE"), ("\ufb01sh", "fish")],
)  # fmt: skip
def test_class_names_that_people_read_alike_are_refused(
    tmp_path: Path, one: str, other: str
) -> None:
    with pytest.raises(InstaHideError, match="differ only in case"):
        require_distinct_names([one, "eel", other])
    require_distinct_names([one, one, "eel"])
    for name in (one, other):
        (tmp_path / "images" / name).mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.zeros((8, 8), np.uint8)).save(tmp_path / "images" / name / "0.png")
    if len(list((tmp_path / "images").iterdir())) == 2:
        with pytest.raises(InstaHideError, match="differ only in case"):
            opened(tmp_path / "images")


def test_pictures_by_content() -> None:
    generator = np.random.default_rng(0)
    pixels = generator.integers(0, 256, (2_000, 1, 4, 4), np.uint8)
    pixels[1_500:] = pixels[:500]
    ids = duplicate_ids(content_hashes(pixels))
    assert ids.tolist() == [*range(1_500), *range(500)]
    # Grey in three channels is the same grey; another shape or type is another picture.
    grey = np.repeat(pixels[:50], 3, axis=1)
    np.testing.assert_array_equal(content_hashes(grey), content_hashes(pixels[:50]))
    grey[3, 1, 2, 2] ^= 1
    assert (content_hashes(grey) != content_hashes(pixels[:50])).any(axis=1).tolist().count(
        True
    ) == 1
    wide = pixels[:50].reshape(50, 1, 2, 8)
    assert not (content_hashes(wide) == content_hashes(pixels[:50])).all(axis=1).any()
    floats = pixels[:50].astype(np.float32)
    assert not (content_hashes(floats) == content_hashes(pixels[:50])).all(axis=1).any()
    floats[0, 0, 0, 0], again = 0.0, floats.copy()
    again[0, 0, 0, 0] = -0.0
    np.testing.assert_array_equal(content_hashes(floats), content_hashes(again))


@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 3, 3), (3, 5, 7), (1, 28, 28)])
def test_rows_compared_by_a_few_values_first_are_those_of_full_hashes(
    shape: tuple[int, int, int],
) -> None:
    generator = np.random.default_rng(0)
    pixels = generator.integers(0, 3, (500, *shape), np.uint8)
    pixels[300:400] = pixels[100:200]
    # Equal where it is looked at first.
    pixels[400:] = pixels[:100]
    pixels[400:, 0, 0, 0] += 1
    pixels.flags.writeable = False
    table = ImageTable.from_arrays(pixels)
    expected = duplicate_ids(content_hashes(pixels))
    assert table.content_ids.tolist() == expected.tolist()
    assert table.subset(slice(0, 0)).content_ids.tolist() == []


def test_groups_are_joined_by_whatever_they_share() -> None:
    first, second = np.array([0, 0, 2, 3, 4]), np.array([0, 1, 1, 3, 4])
    assert merge_ids(first, second).tolist() == [0, 0, 0, 1, 2]
    rows, groups = np.array([0, 1, 1, 2, 4]), np.array([5, 5, 7, 7, 9])
    assert connected_ids(rows, groups, 5).tolist() == [0, 0, 0, 1, 2]
    unknown = np.zeros((3, 2), np.uint64)
    assert duplicate_ids(unknown).tolist() == [0, 1, 2]


def test_the_data_of_a_jpeg_end_a_search_for_its_metadata(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(path, comment=b"one")
    plain = tmp_path / "b.jpg"
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(plain)
    other = tmp_path / "c.jpg"
    Image.fromarray(np.full((8, 8), 99, np.uint8)).save(other)
    digests = []
    for each in (path, plain, other):
        with each.open("rb") as file:
            digests.append(jpeg_hash(file))
            assert file.tell() == 0
    assert digests[0] == digests[1] != digests[2]
    # Whatever the file holds, it ends.
    broken = tmp_path / "d.jpg"
    broken.write_bytes(b"\xff\xd8\xff\xe0\x00\x00\xff\xda")
    with broken.open("rb") as file:
        assert len(jpeg_hash(file)) == 16

"""The ledger counts a source image, whatever its size, crop, file name or format."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from instahide import Encoder, ImageTable, Scheme
from instahide.data import open_images, sources
from instahide.encodings.ledger.ledger import Ledger
from instahide.errors import ExposureLimitError


def pictures(count: int, side: int = 20, channels: int = 3) -> NDArray[np.uint8]:
    """Smooth pictures, no two alike at any size: (count, side, side, channels)."""
    generator = np.random.default_rng(7)
    coarse = generator.integers(0, 256, (count, 4, 4, 3), np.uint8)
    images = [
        np.asarray(Image.fromarray(one).resize((side, side), Image.Resampling.BICUBIC))
        for one in coarse
    ]
    return np.stack(images)[..., :channels]


def folder_of(root: Path, images: NDArray[np.uint8], suffix: str, **how: Any) -> Path:
    """A folder of two classes, in a file format, under names that say nothing."""
    for number, image in enumerate(images):
        place = root / "ab"[number % 2] / f"{number:03}{suffix}"
        place.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image.squeeze()).save(place, **how)
    return root


def in_order(table: ImageTable) -> ImageTable:
    """Rows of `folder_of`, which lists classes one after the other, by number."""
    count = len(table)
    order = np.concatenate([np.arange(0, count, 2), np.arange(1, count, 2)])
    return table.subset(np.argsort(order))


def publish(ledger: Ledger, table: ImageTable) -> None:
    """Each image goes out once, alone."""
    rows = np.arange(len(table))[:, None]
    assert ledger.account(table).record(rows, np.ones(rows.shape, np.float32)) == len(table)


@pytest.mark.parametrize("channels", [1, 3])
def test_sizes_names_and_formats_are_one_image(tmp_path: Path, path: Path, channels: int) -> None:
    images = pictures(6, channels=channels)
    labels = np.arange(6) % 2
    np.savez(tmp_path / "all.npz", images=images.squeeze(), labels=labels)
    np.savez(tmp_path / "half.npz", images=images[:3].squeeze(), labels=labels[:3])
    with Ledger.open(path) as ledger:
        done = 0
        for suffix in (".png", ".bmp", ".tiff"):
            folder = folder_of(tmp_path / suffix[1:], images, suffix)
            for size in (16, 15, None, 8):
                publish(ledger, in_order(open_images(folder, size=size, progress=False)))
                done += 1
        for size in (16, 15, None, 9):
            publish(ledger, open_images(tmp_path / "all.npz", size=size, progress=False))
            done += 1
        half = open_images(tmp_path / "half.npz", size=11, progress=False)
        publish(ledger, half)
        assert ledger.account(half).counts.tolist() == [done + 1] * 3
        whole = open_images(tmp_path / "all.npz", progress=False)
        assert ledger.account(whole).counts.tolist() == [done + 1] * 3 + [done] * 3
        assert ledger.totals(whole).counts.tolist().count(done) == 3


def test_a_jpeg_is_one_image_at_all_sizes_and_without_its_metadata(
    tmp_path: Path, path: Path
) -> None:
    # Large enough to be decoded at a part of its size, which differs from size to size.
    images = pictures(4, side=200)
    plain = folder_of(tmp_path / "plain", images, ".jpg", quality=90)
    noted = folder_of(tmp_path / "noted", images, ".JPEG", quality=90, comment=b"a comment",
                      dpi=(300, 300))  # fmt: skip
    exif = Image.Exif()
    exif[0x010E] = "a description"
    told = folder_of(tmp_path / "told", images, ".jpg", quality=90, exif=exif)
    with Ledger.open(path) as ledger:
        for folder in (plain, noted, told):
            for size in (16, 15, 90, None):
                publish(ledger, open_images(folder, size=size, progress=False))
        assert ledger.account(open_images(plain, size=33, progress=False)).counts.tolist() == (
            [12] * 4
        )


def test_a_rendition_that_went_out_first_counts_for_its_source(path: Path) -> None:
    images = pictures(3).transpose(0, 3, 1, 2)
    source = ImageTable.from_arrays(images, np.arange(3) % 2)
    small = resized_to(source, 16)
    bare = ImageTable.from_arrays(small.pixels, small.labels)
    with Ledger.open(path) as ledger:
        publish(ledger, bare)
        publish(ledger, resized_to(source, 12))
        # Nobody knows yet that one is of the other.
        assert ledger.account(bare).counts.tolist() == [1] * 3
        assert ledger.account(small).counts.tolist() == [2] * 3
        account = ledger.account(bare)
        assert account.counts.tolist() == [2] * 3
        publish(ledger, bare)
        publish(ledger, source)
        assert account.counts.tolist() == ledger.account(source).counts.tolist() == [4] * 3
    with Ledger.open(path) as ledger:
        assert ledger.account(resized_to(source, 7)).counts.tolist() == [4] * 3


def test_the_ledger_tells_without_an_account_which_rows_are_one_image(path: Path) -> None:
    """`Ledger.pictures` finds what an account counts together, and enters nothing."""
    source = ImageTable.from_arrays(pictures(4).transpose(0, 3, 1, 2), np.arange(4) % 2)
    sizes = [resized_to(source, 16), resized_to(source, 12)]
    # Eight pictures of their own, of which two each were made from sizes of one source.
    made_from = np.concatenate([small.content_hashes for small in sizes])[:, None]
    pixels = pictures(12)[4:].transpose(0, 3, 1, 2)
    rows = ImageTable.from_arrays(pixels, np.arange(8) % 2, None, made_from)
    with Ledger.open(path) as ledger:
        assert ledger.pictures(rows).tolist() == list(range(8))
        for small in sizes:
            publish(ledger, small)
        known = len(ledger.totals().counts)
        assert ledger.pictures(rows).tolist() == [0, 1, 2, 3, 0, 1, 2, 3]
        assert len(ledger.totals().counts) == known
        assert ledger.account(rows).pictures().tolist() == [0, 1, 2, 3, 0, 1, 2, 3]


def test_an_account_hears_of_a_source_that_another_finds(path: Path) -> None:
    source = ImageTable.from_arrays(pictures(3).transpose(0, 3, 1, 2), np.arange(3) % 2)
    small = resized_to(source, 16)
    bare = ImageTable.from_arrays(small.pixels, small.labels)
    with Ledger.open(path) as one, Ledger.open(path) as two:
        before = one.account(bare)
        two.account(small)
        before.record(np.array([[0, 1]]), np.ones((1, 2), np.float32))
        assert two.account(source).counts.tolist() == [1, 1, 0]
        assert before.counts.tolist() == [1, 1, 0]


def test_two_sources_that_a_size_makes_equal_both_count(path: Path) -> None:
    images = np.zeros((2, 1, 4, 4), np.uint8)
    images[0, 0, 0, 0] = images[1, 0, 3, 3] = 200
    source = ImageTable.from_arrays(images, np.array([0, 1]))
    tiny = resized_to(source, 1)
    assert tiny.content_ids.tolist() == [0, 0]
    with Ledger.open(path) as ledger:
        account = ledger.account(tiny)
        account.record(np.array([[0]]), np.ones((1, 1), np.float32))
        assert account.counts.tolist() == [1, 1]
        assert ledger.account(source).counts.tolist() == [1, 1]
        # At a size at which they differ they are counted apart.
        ledger.account(source).record(np.array([[0]]), np.ones((1, 1), np.float32))
        assert ledger.account(source).counts.tolist() == [2, 1]
        # A mix of both shows each once at that size, with the sum of the coefficients.
        account.record(np.array([[0, 1]]), np.full((1, 2), 0.5, np.float32))
        assert ledger.account(source).counts.tolist() == [3, 2]
        np.testing.assert_allclose(ledger.account(source).squares, [3, 2])


def test_limits_hold_for_the_source(path: Path) -> None:
    source = ImageTable.from_arrays(pictures(6).transpose(0, 3, 1, 2), np.arange(6) % 2)
    with Ledger.open(path) as ledger:
        for size in (16, 15, 14, 13):
            account = ledger.account(resized_to(source, size), limit=5)
            encoder = Encoder(Scheme.inside(2), resized_to(source, size), exposure=account)
            with contextlib.suppress(ExposureLimitError):
                while True:
                    encoder.encode(encoder.permutation())
        assert ledger.account(source).counts.max() == 5


def resized_to(table: ImageTable, size: int) -> ImageTable:
    return sources._resized(table, size)

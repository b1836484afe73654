"""Folders of class folders: decoding, caching, and files that lie."""

from __future__ import annotations

import os
import shutil
import stat
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from instahide.data import cache_folder, open_images, open_split, open_test
from instahide.data.readers import image_folder
from instahide.errors import InstaHideError


def quiet(source: Path, **options: object) -> object:
    return open_images(source, progress=False, **options)


def test_pixels_are_those_that_pillow_decodes_in_the_order_of_names(class_folders):
    table = quiet(class_folders)
    files = sorted((class_folders / "cat").iterdir()) + sorted((class_folders / "dog").iterdir())
    expected = [np.asarray(Image.open(path).convert("RGB")) for path in files]
    assert table.classes == ("cat", "dog")
    assert table.labels.tolist() == [0] * 6 + [1] * 6
    np.testing.assert_array_equal(table.pixels, np.stack(expected).transpose(0, 3, 1, 2))


def test_all_grey_files_make_a_table_of_one_channel_and_one_colour_file_makes_three(class_folders):
    for path in class_folders.rglob("*.*"):
        Image.open(path).convert("L").save(path)
    assert quiet(class_folders).shape == (1, 20, 24)
    Image.new("RGB", (24, 20), "red").save(class_folders / "cat" / "red.png")
    assert quiet(class_folders).shape == (3, 20, 24)


def test_sixteen_bit_grey_keeps_all_its_bits(class_folders):
    values = (np.arange(480, dtype=np.uint16) * 136).reshape(20, 24)
    for path in class_folders.rglob("*.*"):
        path.unlink()
        Image.fromarray(values).save(path.with_suffix(".png"))
    np.testing.assert_array_equal(quiet(class_folders).pixels[0, 0], values)


def test_a_photograph_held_upright_by_its_exif_tag_is_turned(class_folders):
    exif = Image.Exif()
    exif[0x0112] = 6
    for path in class_folders.rglob("*.*"):
        Image.open(path).convert("RGB").save(path, exif=exif)
    assert quiet(class_folders).shape == (3, 24, 20)


def test_the_second_opening_decodes_nothing(class_folders, monkeypatch):
    first = quiet(class_folders)

    def fail(*_: object, **__: object) -> None:
        raise AssertionError("decoded again")

    monkeypatch.setattr(image_folder, "read_image", fail)
    second = quiet(class_folders)
    np.testing.assert_array_equal(first.pixels, second.pixels)
    assert (second.mean, second.std) == (first.mean, first.std)
    assert isinstance(second.pixels, np.memmap)


def test_a_changed_folder_is_decoded_again_and_its_old_images_leave_the_cache(class_folders, cache):
    quiet(class_folders)
    (class_folders / "cat" / "02.png").unlink()
    assert len(quiet(class_folders)) == 11
    assert len(list(cache.glob("*/*/pixels.npy"))) == 1


def test_images_of_a_folder_that_is_gone_leave_the_cache(class_folders, cache, tmp_path):
    quiet(class_folders)
    quiet(class_folders, size=8)
    other = shutil.copytree(class_folders, tmp_path / "other")
    shutil.rmtree(class_folders)
    found = quiet(other)
    assert len(list(cache.glob("*/*/pixels.npy"))) == 1
    np.testing.assert_array_equal(quiet(other).pixels, found.pixels)


def test_a_damaged_cache_is_made_again(class_folders, cache):
    expected = np.array(quiet(class_folders).pixels)
    (pixels,) = cache.glob("*/*/pixels.npy")
    pixels.write_bytes(pixels.read_bytes()[:200])
    np.testing.assert_array_equal(quiet(class_folders).pixels, expected)


def test_nobody_else_may_look_into_the_cache(cache):
    assert stat.S_IMODE(cache_folder().stat().st_mode) == 0o700
    assert cache_folder() == cache


def test_a_cache_that_cannot_be_made_is_named_with_its_variable(class_folders, monkeypatch):
    monkeypatch.setenv("INSTAHIDE_CACHE", "/proc/nowhere")
    with pytest.raises(InstaHideError, match="INSTAHIDE_CACHE"):
        quiet(class_folders)


def test_sizes_that_differ_are_refused_with_both_files_and_the_remedy(class_folders):
    Image.new("RGB", (30, 20)).save(class_folders / "dog" / "wide.png")
    with pytest.raises(InstaHideError, match=r"00\.jpg is 24 x 20.*wide\.png is 30 x 20.*size="):
        quiet(class_folders)
    assert quiet(class_folders, size=16).shape == (3, 16, 16)


def test_size_keeps_the_centre_and_the_aspect(class_folders):
    for path in class_folders.rglob("*.*"):
        path.unlink()
    picture = np.zeros((20, 60, 3), np.uint8)
    picture[:, 20:40] = 255
    for name in ("cat", "dog"):
        Image.fromarray(picture).save(class_folders / name / "stripe.png")
    assert quiet(class_folders, size=10).pixels[0, :, :, 1:-1].min() > 250


def truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:300])


def not_an_image(path: Path) -> None:
    path.write_text("This is a letter, not a picture.")


def empty(path: Path) -> None:
    path.write_bytes(b"")


def bomb(path: Path) -> None:
    """A PNG of a few bytes that says it has 40,000 x 40,000 pixels."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return len(body).to_bytes(4, "big") + kind + body + zlib.crc32(kind + body).to_bytes(4)

    size = (40_000).to_bytes(4, "big")
    header = chunk(b"IHDR", size + size + b"\x08\x00\x00\x00\x00")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"\0")))


@pytest.mark.parametrize("spoil", [truncated, not_an_image, empty, bomb])
def test_a_bad_file_is_named_or_skipped_and_counted(class_folders, spoil):
    spoil(class_folders / "cat" / "02.png")
    with pytest.raises(InstaHideError, match=r"cat/02\.png is not a readable.*skip_bad=True"):
        quiet(class_folders)
    with pytest.warns(UserWarning, match="Skipped 1 of 12 files"):
        table = quiet(class_folders, skip_bad=True)
    assert len(table) == 11
    # What was skipped once is not silently missing from a later, stricter opening.
    with pytest.raises(InstaHideError, match=r"02\.png"):
        quiet(class_folders)


def test_nothing_stays_behind_when_decoding_fails(class_folders, cache):
    truncated(class_folders / "dog" / "11.png")
    with pytest.raises(InstaHideError):
        quiet(class_folders)
    assert not [path for path in cache.rglob("*") if path.is_file()]


def test_nothing_readable_at_all(class_folders):
    for path in class_folders.rglob("*.*"):
        empty(path)
    with pytest.warns(UserWarning, match="Skipped 12"), pytest.raises(InstaHideError, match="read"):
        quiet(class_folders, skip_bad=True)


def test_folders_that_hold_no_classes_or_no_images(tmp_path):
    lonely = tmp_path / "lonely"
    with pytest.raises(InstaHideError, match="There is no"):
        quiet(lonely)
    lonely.mkdir()
    with pytest.raises(InstaHideError, match="no class folders"):
        quiet(lonely)
    (lonely / "cat").mkdir()
    with pytest.raises(InstaHideError, match=r"cat holds no image files"):
        quiet(lonely)


def test_an_unreadable_folder_is_named(class_folders, monkeypatch):
    # As root may read everything, the refusal is the system's words in another mouth.
    def refuse(path: Path) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "iterdir", refuse)
    with pytest.raises(InstaHideError, match=r"Cannot read .*animals \(Permission denied\)"):
        quiet(class_folders)


def test_a_class_folder_that_cannot_be_listed_is_not_taken_for_an_empty_one(
    class_folders, monkeypatch
):
    scan = os.scandir

    def refuse(path: object) -> object:
        if str(path).endswith("dog"):
            raise PermissionError(13, "Permission denied", str(path))
        return scan(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(InstaHideError, match="Permission denied"):
        quiet(class_folders)


def test_train_and_test_folders_are_kept_apart(class_folders, tmp_path):
    root = tmp_path / "both"
    root.mkdir()
    class_folders.rename(root / "train")
    (root / "val" / "dog").mkdir(parents=True)
    Image.new("RGB", (24, 20), "blue").save(root / "val" / "dog" / "blue.png")
    split = open_split(root, progress=False)
    assert (len(split.train), len(split.test)) == (12, 1)
    assert split.test.labels.tolist() == [1]
    assert split.test.classes == ("cat", "dog")
    assert (split.test.mean, split.test.std) == (split.train.mean, split.train.std)
    assert len(quiet(root)) == 12
    (root / "val" / "cow").mkdir()
    with pytest.raises(InstaHideError, match="the class 'cow'"):
        open_split(root, progress=False)


def test_a_plain_folder_is_split_by_class_without_overlap(class_folders):
    split = open_split(class_folders, test_share=0.34, progress=False)
    assert np.bincount(split.train.labels).tolist() == [4, 4]
    assert np.bincount(split.test.labels).tolist() == [2, 2]
    rows = np.concatenate([split.train.pixels, split.test.pixels]).reshape(12, -1)
    everything = quiet(class_folders).pixels.reshape(12, -1)
    assert {row.tobytes() for row in rows} == {row.tobytes() for row in everything}


def test_one_class_cannot_be_trained_on(class_folders):
    for path in (class_folders / "dog").iterdir():
        path.rename(class_folders / "cat" / path.name)
    (class_folders / "dog").rmdir()
    with pytest.raises(InstaHideError, match="one class"):
        open_split(class_folders, progress=False)


def test_grey_training_and_colour_test_images_are_refused(class_folders, tmp_path):
    root = tmp_path / "both"
    root.mkdir()
    class_folders.rename(root / "train")
    for name in ("cat", "dog"):
        (root / "test" / name).mkdir(parents=True)
        Image.new("L", (24, 20), 3).save(root / "test" / name / "grey.png")
    with pytest.raises(InstaHideError, match=r"3 channels.*1 channel\b"):
        open_split(root, progress=False)


def test_a_full_disk_leaves_no_table_and_names_the_cache(class_folders, cache, monkeypatch):
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "save", full)
    with pytest.raises(InstaHideError, match=r"No space left on device.*INSTAHIDE_CACHE"):
        quiet(class_folders)
    assert not [path for path in cache.rglob("*") if path.is_file()]


def test_a_large_but_possible_picture_is_taken_for_a_bomb_without_a_decode(
    class_folders, monkeypatch
):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 400)
    with pytest.raises(InstaHideError, match="bomb"):
        quiet(class_folders)


def test_float_pixels_beside_8_bit_pixels_are_refused(class_folders):
    pytest.importorskip("tifffile")
    Image.fromarray(np.ones((20, 24), np.float32)).save(class_folders / "cat" / "depth.tif")
    with pytest.raises(InstaHideError, match=r"depth\.tif is float32 of 1 x 20 x 24"):
        quiet(class_folders)


@pytest.mark.parametrize("parts", [True, False])
def test_images_to_test_on_are_the_test_images_where_there_are_any(class_folders, tmp_path, parts):
    source = class_folders
    if parts:
        source = tmp_path / "both"
        source.mkdir()
        class_folders.rename(source / "train")
        (source / "test" / "dog").mkdir(parents=True)
        next((source / "train" / "dog").iterdir()).rename(source / "test" / "dog" / "one.png")
    found = open_test(source, progress=False)
    # The classes of training, also where one has no test image.
    assert found.classes == ("cat", "dog")
    assert found.labels.tolist() == ([1] if parts else [0] * 6 + [1] * 6)


def test_images_to_test_on_from_arrays_and_built_in_sets(tmp_path):
    split = open_split("digits")
    np.savez(
        tmp_path / "both.npz",
        x_train=split.train.pixels, y_train=split.train.labels,
        x_test=split.test.pixels, y_test=split.test.labels,
    )  # fmt: skip
    for source in ("digits", tmp_path / "both.npz"):
        np.testing.assert_array_equal(open_test(source).pixels, split.test.pixels)

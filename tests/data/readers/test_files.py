"""NumPy and IDX files, written here as others write them."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from instahide.data import open_images, open_split
from instahide.data.readers.arrays.idx import read_array
from instahide.errors import InstaHideError

RNG = np.random.default_rng(1)
PIXELS = RNG.integers(0, 256, (20, 6, 5), np.uint8)
LABELS = np.arange(20) % 4


def idx(array: np.ndarray) -> bytes:
    head = struct.pack(">HBB", 0, 8, array.ndim) + struct.pack(f">{array.ndim}I", *array.shape)
    return head + array.astype(np.uint8).tobytes()


def write(path: Path, content: bytes) -> Path:
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return path


@pytest.fixture(params=["", ".gz"])
def family(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    folder = tmp_path / "mnist"
    folder.mkdir()
    for part, rows in (("train", slice(0, 16)), ("t10k", slice(16, 20))):
        write(folder / f"{part}-images-idx3-ubyte{request.param}", idx(PIXELS[rows]))
        write(folder / f"{part}-labels-idx1-ubyte{request.param}", idx(LABELS[rows]))
    return folder


def test_idx_folder_is_a_split(family):
    split = open_split(family)
    np.testing.assert_array_equal(split.train.pixels[:, 0], PIXELS[:16])
    np.testing.assert_array_equal(split.test.pixels[:, 0], PIXELS[16:])
    np.testing.assert_array_equal(split.test.labels, LABELS[16:])
    assert split.train.classes == split.test.classes == ("0", "1", "2", "3")
    assert split.test.mean == split.train.mean
    assert len(open_images(family)) == 16


def test_an_idx_file_finds_the_labels_beside_it(family):
    (images,) = family.glob("t10k-images*")
    np.testing.assert_array_equal(open_images(images).labels, LABELS[16:])
    next(family.glob("t10k-labels*")).unlink()
    with pytest.raises(InstaHideError, match=r"no labels beside it.*t10k-labels-idx1-ubyte"):
        open_images(images)


def test_an_unpacked_file_beside_its_packed_self_is_one_data_set(tmp_path):
    for suffix in ("", ".gz"):
        write(tmp_path / f"train-images-idx3-ubyte{suffix}", idx(PIXELS))
        write(tmp_path / f"train-labels-idx1-ubyte{suffix}", idx(LABELS))
    assert len(open_images(tmp_path)) == 20


def test_two_training_files_are_not_taken_for_a_split(tmp_path):
    for name in ("letters-train", "digits-train"):
        write(tmp_path / f"{name}-images-idx3-ubyte", idx(PIXELS))
    with pytest.raises(InstaHideError, match="several data sets"):
        open_images(tmp_path)


@given(arrays.arrays(np.uint8, st.tuples(*[st.integers(0, 6)] * 3)))
def test_idx_round_trip(tmp_path_factory, array):
    path = write(tmp_path_factory.mktemp("idx") / "x-idx3-ubyte", idx(array))
    np.testing.assert_array_equal(read_array(path, 3), array)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        idx(PIXELS)[:10],
        idx(PIXELS)[:-1],
        idx(PIXELS) + b"\0",
        idx(LABELS),
        struct.pack(">HBB3I", 0, 0x0D, 3, 1, 1, 1) + bytes(4),
        struct.pack(">HBB3I", 0, 8, 3, 2**31, 2**31, 2**31),
    ],
    ids=["empty", "header", "short", "long", "labels", "floats", "huge"],
)
@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_damaged_idx_files_are_named(tmp_path, content, suffix):
    images = write(tmp_path / f"train-images-idx3-ubyte{suffix}", content)
    write(tmp_path / "train-labels-idx1-ubyte", idx(LABELS))
    with pytest.raises(InstaHideError, match=r"images-idx3-ubyte.* is not a readable IDX"):
        open_images(images)


def test_a_truncated_gzip_is_named(family):
    (images,) = family.glob("train-images*")
    images.write_bytes(images.read_bytes()[:-20])
    with pytest.raises(InstaHideError, match="train-images"):
        open_split(family)


@pytest.mark.parametrize(
    ("images", "labels"), [("images", "labels"), ("x", "y"), ("data", "labels")]
)
def test_npz_with_images_and_labels(tmp_path, images, labels):
    path = tmp_path / "set.npz"
    np.savez(path, **{images: PIXELS, labels: LABELS})
    table = open_images(path)
    np.testing.assert_array_equal(table.pixels[:, 0], PIXELS)
    split = open_split(path, test_share=0.2)
    assert (len(split.train), len(split.test)) == (16, 4)


@pytest.mark.parametrize("names", ["x_{}|y_{}", "{}_images|{}_labels"])
def test_npz_in_two_parts_as_keras_and_medmnist_name_them(tmp_path, names):
    images, labels = names.split("|")
    path = tmp_path / "set.npz"
    np.savez(
        path,
        **{
            images.format("train"): PIXELS[:16],
            labels.format("train"): LABELS[:16, None],
            images.format("test"): PIXELS[16:],
            labels.format("test"): LABELS[16:, None],
        },
    )
    split = open_split(path)
    assert (len(split.train), len(split.test)) == (16, 4)
    np.testing.assert_array_equal(split.test.labels, LABELS[16:])


@pytest.mark.parametrize(
    ("images", "labels"), [("images.npy", "labels.npy"), ("x_train.npy", "y_train.npy")]
)
def test_npy_is_mapped_and_finds_its_labels(tmp_path, images, labels):
    np.save(tmp_path / images, np.stack([PIXELS] * 3, axis=1))
    with pytest.raises(InstaHideError, match="no file of labels"):
        open_images(tmp_path / images)
    np.save(tmp_path / labels, LABELS)
    table = open_images(tmp_path / images)
    assert isinstance(table.pixels, np.memmap)
    np.testing.assert_array_equal(table.labels, LABELS)


class Payload:
    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (self.target,)


@pytest.mark.parametrize("suffix", [".npz", ".npy"])
def test_pickles_inside_numpy_files_are_never_run(tmp_path, suffix):
    target = tmp_path / "executed"
    hostile = np.asarray([Payload(target)], object)
    if suffix == ".npz":
        np.savez(tmp_path / "images.npz", images=hostile, labels=LABELS)
    else:
        np.save(tmp_path / "images.npy", hostile, allow_pickle=True)
        np.save(tmp_path / "labels.npy", LABELS)
    with pytest.raises(InstaHideError, match="not a readable NumPy file"):
        open_images(tmp_path / f"images{suffix}")
    assert not target.exists()


@pytest.mark.parametrize("suffix", [".npz", ".npy"])
def test_damaged_numpy_files_are_named(tmp_path, suffix):
    np.savez(tmp_path / "images.npz", images=PIXELS, labels=LABELS)
    np.save(tmp_path / "images.npy", PIXELS)
    np.save(tmp_path / "labels.npy", LABELS)
    path = tmp_path / f"images{suffix}"
    path.write_bytes(path.read_bytes()[:400])
    with pytest.raises(InstaHideError, match=rf"images\{suffix} is not a readable NumPy file"):
        open_images(path)


def test_images_of_64_bit_floats_are_refused_with_the_way_out(tmp_path):
    np.savez(tmp_path / "set.npz", images=PIXELS / 255, labels=LABELS)
    with pytest.raises(InstaHideError, match="float32 for 64-bit floats"):
        open_images(tmp_path / "set.npz")


def test_other_arrays_and_other_files_are_named(tmp_path):
    np.savez(tmp_path / "set.npz", weights=PIXELS)
    with pytest.raises(InstaHideError, match="holds weights"):
        open_images(tmp_path / "set.npz")
    (tmp_path / "set.csv").write_text("1,2")
    with pytest.raises(InstaHideError, match="is not supported"):
        open_images(tmp_path / "set.csv")


def test_arrays_are_resized_too(tmp_path):
    flat = np.full((4, 10, 6), 77, np.uint8)
    np.savez(tmp_path / "set.npz", images=flat, labels=[0, 1, 0, 1])
    table = open_images(tmp_path / "set.npz", size=4)
    np.testing.assert_array_equal(table.pixels, np.full((4, 1, 4, 4), 77))
    with pytest.raises(InstaHideError, match="size="):
        open_images(tmp_path / "set.npz", size=0)

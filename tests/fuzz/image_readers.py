"""Readers of images, with files that they accept."""

from __future__ import annotations

import functools
import os
import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from instahide import open_images, open_split
from instahide.data import ImageTable
from instahide.data.readers.image_file import decode_file
from tests.fuzz.making import Reader, new_folder, npy_bytes, small_table, some_bytes, written
from tests.fuzz.mutation import Seed
from tests.fuzz.packing import gzip_seed, npy_tokens, png_seed, tar_seed, zip_seed


@functools.cache
def image_seeds() -> list[Seed]:
    colour = Image.fromarray(some_bytes(20, 24, 3))
    grey, deep = colour.convert("L"), Image.fromarray(some_bytes(20, 24).astype(np.uint16) * 257)
    alpha, palette = colour.convert("RGBA"), colour.convert("P")
    exif = Image.Exif()
    exif[0x0112] = 6
    more = {"save_all": True, "append_images": [colour.rotate(90, expand=False)] * 2}
    png = [
        (colour, {}), (grey, {"transparency": 3}), (palette, {"transparency": 0}), (alpha, more),
        (deep, {}), (colour, {"exif": exif}), (colour.convert("1"), {}),
    ]  # fmt: skip
    seeds = [png_seed(_saved(image, "PNG", **options)) for image, options in png]
    others = [
        ("JPEG", colour, {}), ("JPEG", grey, {"progressive": True, "exif": exif}),
        ("JPEG", colour.convert("CMYK"), {}), ("GIF", palette, {}), ("GIF", palette, more),
        ("WEBP", colour, {}), ("WEBP", alpha, {"lossless": True}), ("WEBP", alpha, more),
        ("BMP", colour, {}), ("BMP", palette, {}), ("DIB", colour, {}), ("PPM", grey, {}),
        ("PPM", colour, {}), ("TIFF", colour, {}), ("TIFF", deep, {"compression": "tiff_lzw"}),
        ("TIFF", colour, {"compression": "jpeg"}), ("TIFF", colour.convert("1"),
        {"compression": "group4"}), ("TIFF", colour, more), ("TIFF", colour,
        {"compression": "tiff_adobe_deflate", "exif": exif}), ("TIFF", colour,
        {"compression": "packbits"}),
    ]  # fmt: skip
    seeds += [Seed((_saved(image, kind, **options),)) for kind, image, options in others]
    return [*seeds, Seed((b"P3 4 2 255 " + b"1 2 3 " * 8,)), Seed((b"P2 2 2 4095 1 2 3 4000",))]


def _saved(image: Image.Image, kind: str, **options: object) -> bytes:
    return written(lambda out: image.save(out, kind, **options))


@functools.cache
def npz_seeds() -> list[Seed]:
    images, labels = some_bytes(6, 8, 8), np.arange(6) % 2
    sets = [
        {"images.npy": images, "labels.npy": labels},
        {"x_train.npy": images, "y_train.npy": labels, "x_test.npy": images, "y_test.npy": labels},
        {"images.npy": images, "labels.npy": np.array(["cat", "dog"] * 3)},
        {"data.npy": np.asfortranarray(images), "labels.npy": labels.astype(">i2")[:, None]},
    ]
    return [
        zip_seed({name: npy_bytes(values) for name, values in members.items()}, compression)
        for members in sets
        for compression in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
    ]


@functools.cache
def npy_seeds() -> list[Seed]:
    images = Seed((npy_bytes(some_bytes(6, 8, 8)),), tokens=npy_tokens())
    labels = {"labels.npy": npy_bytes(np.arange(6) % 2)}
    return [Seed(images.parts, images.pack, images.tokens, labels)]


@functools.cache
def npy_label_seeds() -> list[Seed]:
    images = {"images.npy": npy_bytes(some_bytes(6, 8, 8))}
    values = (np.arange(6) % 2, np.array(["a", "b"] * 3), np.array([b"a", b"b"] * 3))
    return [Seed((npy_bytes(each),), tokens=npy_tokens(), beside=images) for each in values]


def _idx(values: np.ndarray) -> bytes:
    shape = b"".join(int(n).to_bytes(4, "big") for n in values.shape)
    return bytes([0, 0, 8, values.ndim]) + shape + values.astype(np.uint8).tobytes()


@functools.cache
def idx_seeds() -> list[Seed]:
    labels = {"labels-idx1-ubyte": _idx(np.arange(6) % 2)}
    return [Seed((_idx(some_bytes(6, 8, 8)),), beside=labels)]


@functools.cache
def idx_gz_seeds() -> list[Seed]:
    labels = {
        "labels-idx1-ubyte.gz": gzip_seed(_idx(np.arange(6) % 2)).pack((_idx(np.arange(6) % 2),))
    }
    packed = gzip_seed(_idx(some_bytes(6, 8, 8)))
    return [Seed(packed.parts, packed.pack, beside=labels)]


def _cifar() -> dict[str, bytes]:
    data = some_bytes(3, 3072)

    def dumped(value: object, protocol: int = 2) -> bytes:
        return pickle.dumps(value, protocol=protocol)

    from tests.data.readers.arrays.test_cifar import python2

    batch = python2({b"data": data, b"labels": [0, 1, 1], b"filenames": [b"a", b"b", b"c"]})
    files = {f"data_batch_{number}": batch for number in (1, 2)}
    meta = {b"label_names": [b"cat", b"dog"], b"n": 3, b"x": (1, 2.5, None, True)}
    return {**files, "test_batch": batch, "batches.meta": dumped(meta, 4)}


_PICKLE = (
    b"\x80\x04", b"(", b")", b"]", b"}", b"2", b"0", b"\x85", b"\x86", b"\x87", b"q\x00", b"h\x00",
    b"r\xff\xff\xff\x7f", b"\x94", b"\x93", b"R", b"b", b"cos\nsystem\n", b"s", b"u", b"a", b"e",
    b"N", b".", b"\x8b\xff\xff\xff\x7f", b"B\xff\xff\xff\x7f", b"\x8e" + b"\xff" * 8, b"I1\n",
    b"L99999L\n", b"P1\n", b"\x81", b"\x8f", b"\x97", b"Q", b"i", b"o",
)  # fmt: skip


@functools.cache
def cifar_seeds() -> list[Seed]:
    files = _cifar()
    texts = b"(dp0\nS'label_names'\np1\n(lp2\nS'cat'\naS'dog'\nas."
    metas = [files.pop("batches.meta"), texts, pickle.dumps({b"label_names": [b"a", b"b"]}, 3)]
    return [Seed((meta,), tokens=_PICKLE, beside=files) for meta in metas]


@functools.cache
def cifar_batch_seeds() -> list[Seed]:
    files = _cifar()
    batch = files.pop("test_batch")
    head, tail = batch[:120], batch[120:]
    return [Seed((head, tail), tokens=_PICKLE, beside=files)]


@functools.cache
def cifar_tar_seeds() -> list[Seed]:
    return [tar_seed(_cifar(), mode, _PICKLE) for mode in ("w:gz", "w")]


def _table_files() -> dict[str, bytes]:
    folder = new_folder() / "table"
    small_table().save(folder)
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def table_seeds(name: str) -> list[Seed]:
    files = _table_files()
    return [
        Seed((files.pop(name),), tokens=npy_tokens() if name.endswith("npy") else (), beside=files)
    ]


_NAMES = (
    b"train/", b"Testing/", b"_a/", b"val", b"../", b"./", b".hidden", b"__MACOSX/", b".png",
    b".jfif", b" -> ", b" -> ..", b" -> /nowhere", b"\xff\xfe", b"\x1b[2J", b"\n", b"batches.meta",
    b"images-idx3-ubyte", b"data_batch_1", b"test_batch", b"/", b"//", b"a" * 250, b"\x00", b"CON",
    b"\\", b"%2e%2e/", b"?", b"#",
)  # fmt: skip


@functools.cache
def name_seeds() -> list[Seed]:
    flat = b"a/0.png\na/1.png\nb/0.jpg\nb/c/1.png\nd/e -> ../a\nd/2.png"
    parts = b"train/a/0.png\ntrain/b/1.png\ntest/a/0.png\ntest/b/1.png"
    return [Seed((text,), tokens=_NAMES) for text in (flat, parts)]


@functools.cache
def _dot() -> bytes:
    return _saved(Image.fromarray(some_bytes(8, 8)), "PNG")


def _names(folder: Path) -> list[list[str]]:
    lines = (folder / "names.txt").read_bytes().split(b"\n")[:20]
    return [line.decode("utf-8", "surrogateescape").split(" -> ", 1) for line in lines]


def _read_folder(folder: Path) -> object:
    """Make a tree of files and links of the names, and read it."""
    for name, *target in _names(folder):
        path = Path(os.path.normpath(f"{folder}/tree/{name}"))
        if not path.is_relative_to(folder / "tree"):
            continue
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            if target:
                inside = Path(os.path.normpath(path.parent / target[0]))
                path.symlink_to(target[0] if inside.is_relative_to(folder) else "/nowhere")
            else:
                path.write_bytes(_dot())
        except (OSError, ValueError, RecursionError):  # Names that no file can have.
            continue
    return [
        opening(folder / "tree", skip_bad=True, progress=False)
        for opening in (open_images, open_split)
    ]


def _read_remote(folder: Path) -> object:
    """Put files of the names into a file system in memory, and fetch them."""
    import fsspec

    memory = fsspec.filesystem("memory")
    memory.store.clear()
    for name, *_ in _names(folder):
        memory.store[f"/tree/{name}"] = memory_file(memory, f"/tree/{name}")
    return open_images("memory://tree", skip_bad=True, progress=False)


def memory_file(memory: Any, path: str) -> Any:
    """A file of `fsspec`'s memory, under a name that it would not make itself."""
    from fsspec.implementations.memory import MemoryFile

    return MemoryFile(memory, path, _dot())


IMAGE_READERS: dict[str, Reader] = {
    "folder": Reader("names.txt", name_seeds, _read_folder, ("tree",)),
    "remote folder": Reader("names.txt", name_seeds, _read_remote),
    "image": Reader("i.png", image_seeds, lambda f: decode_file(f / "i.png")),
    "image, resized": Reader("i.png", image_seeds, lambda f: decode_file(f / "i.png", 8)),
    "npz": Reader("a.npz", npz_seeds, lambda f: open_images(f / "a.npz")),
    "npy": Reader("images.npy", npy_seeds, lambda f: open_images(f / "images.npy")),
    "npy labels": Reader("labels.npy", npy_label_seeds, lambda f: open_images(f / "images.npy")),
    "idx": Reader("images-idx3-ubyte", idx_seeds, lambda f: open_images(f / "images-idx3-ubyte")),
    "idx, packed": Reader(
        "images-idx3-ubyte.gz", idx_gz_seeds, lambda f: open_images(f / "images-idx3-ubyte.gz")
    ),
    "cifar names": Reader("batches.meta", cifar_seeds, open_images),
    "cifar batch": Reader("test_batch", cifar_batch_seeds, open_images),
    "cifar archive": Reader("c.tar.gz", cifar_tar_seeds, lambda f: open_images(f / "c.tar.gz")),
    "pool pixels": Reader("pixels.npy", lambda: table_seeds("pixels.npy"), ImageTable.load),
    "pool labels": Reader("labels.npy", lambda: table_seeds("labels.npy"), ImageTable.load),
    "pool facts": Reader("table.json", lambda: table_seeds("table.json"), ImageTable.load),
}

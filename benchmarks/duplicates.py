"""What it costs to find images that show one picture, and to keep them apart in every mix.

Encoding is timed in turns with random images that are all different, and with images of which each
is there ten times. Finding duplicates is compared with opening the images: PNG and JPEG files that
are resized, which are hashed while they are decoded, and IDX files packed with gzip.
"""

from __future__ import annotations

import gzip
import struct
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from benchmarks.measure import medians, quick, report
from benchmarks.workload import encode_epoch, random_table
from instahide.data import ImageTable
from instahide.data.duplicates.content_hash import duplicate_row_ids
from instahide.data.readers.arrays.idx import read_idx
from instahide.data.readers.image_file import decode_file
from instahide.encryption.encoder import Encoder
from instahide.encryption.scheme import Scheme

COPIES = 10
#: Of photographs, and what they are resized to.
WIDTH, HEIGHT, SIZE = 500, 375, 64


def repeated(table: ImageTable) -> ImageTable:
    """As many rows, of which each is there `COPIES` times, in random order."""
    rows = np.random.default_rng(1).permutation(np.arange(len(table)) % (len(table) // COPIES))
    return ImageTable.from_arrays(table.pixels[rows], table.labels, table.classes)


def encoding(images: int, rounds: int) -> dict[str, float]:
    """Seconds an epoch, without duplicates and with them."""
    table, public = random_table(images), random_table(images // 5, seed=1)
    twins, public_twins = repeated(table), repeated(public)
    inside, cross = Scheme.inside(4), Scheme.cross(4)
    encoders = {
        "inside": Encoder(inside, table),
        "inside_duplicates": Encoder(inside, twins),
        "cross": Encoder(cross, table, public),
        "cross_duplicates": Encoder(cross, twins, public_twins),
    }
    works = {name: partial(encode_epoch, encoder) for name, encoder in encoders.items()}
    return medians(works, rounds, settle=True)


def photographs(folder: Path, count: int) -> dict[str, list[Path]]:
    """Files of smooth random colour pictures, which compress as photographs do."""
    generator = np.random.default_rng(0)
    found: dict[str, list[Path]] = {"png": [], "jpeg": []}
    for number in range(count):
        coarse = Image.fromarray(generator.integers(0, 256, (24, 32, 3), np.uint8))
        image = np.asarray(coarse.resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC), np.int16)
        image = image + generator.integers(-6, 7, image.shape)
        for suffix, paths in found.items():
            paths.append(folder / f"{number}.{suffix}")
            Image.fromarray(np.clip(image, 0, 255).astype(np.uint8)).save(paths[-1])
    return found


def decoding(files: list[Path], rounds: int) -> float:
    """The share of time that hashes add to the decoding of ``files``."""

    def decode_all(hashed: bool) -> None:
        for path in files:
            decode_file(path, SIZE, hashed=hashed)

    found = medians(
        {"plain": partial(decode_all, False), "hashed": partial(decode_all, True)},
        rounds,
        clock=time.process_time,
    )
    return 100 * (found["hashed"] / found["plain"] - 1)


def write_idx(folder: Path, count: int) -> Path:
    """Files as of MNIST: pictures with much black, packed."""
    generator = np.random.default_rng(0)
    pixels = generator.integers(0, 256, (count, 28, 28), np.uint8)
    pixels[generator.random(pixels.shape) < 0.5] = 0
    pixels[:, :4] = pixels[:, -4:] = pixels[:, :, :4] = pixels[:, :, -4:] = 0
    images = folder / "train-images-idx3-ubyte.gz"
    _write(images, struct.pack(">IIII", 0x803, count, 28, 28), pixels)
    labels = np.arange(count, dtype=np.uint8) % 10
    _write(folder / "train-labels-idx1-ubyte.gz", struct.pack(">II", 0x801, count), labels)
    return images


def _write(path: Path, head: bytes, content: NDArray[np.uint8]) -> None:
    with gzip.open(path, "wb", compresslevel=6) as file:
        file.write(head + content.tobytes())


def idx(path: Path, rounds: int) -> float:
    """The share of time that finding duplicates adds to the opening of the file ``path``."""
    table = read_idx(path)
    works: dict[str, Callable[[], object]] = {
        "open": partial(read_idx, path),
        "find": partial(duplicate_row_ids, table.pixels),
    }
    found = medians(works, rounds, clock=time.process_time)
    # The clock of processes stands still over the shortest times.
    return 100 * found["find"] / max(found["open"], 1e-9)


def main() -> None:
    tiny = quick(__doc__)
    images, rounds, files = (2_000, 1, 4) if tiny else (50_000, 15, 60)
    seconds = encoding(images, rounds)
    with tempfile.TemporaryDirectory() as folder:
        shares = {
            name: decoding(paths, rounds)
            for name, paths in photographs(Path(folder), files).items()
        }
        shares["idx"] = idx(write_idx(Path(folder), images), min(rounds, 7))
    ratios = {name: seconds[f"{name}_duplicates"] / seconds[name] for name in ("inside", "cross")}
    rows = [
        (f"encoding with duplicates, {name} k=4", f"{x:.3f} times") for name, x in ratios.items()
    ]
    rows += [(f"finding duplicates, {name}", f"{x:.2f}% of opening") for name, x in shares.items()]
    figures = {f"encoding_{name}": ratio for name, ratio in ratios.items()}
    figures |= {f"opening_{name}": 1 + share / 100 for name, share in shares.items()}
    report(f"{images:,} images, each {COPIES} times", rows, figures)


if __name__ == "__main__":
    main()

"""What the ledger adds to the time of encrypting to disk, at a million images.

The same shards of 5,000 encodings are made in turns: counted by an account of a ledger, and counted
in memory alone. Two threads encode and two write float16 to synced files, as for an encrypted
folder; a part of the million images in every turn is enough to know the rate. What the threads that
encode wait for the ledger is measured by itself, for all shards: two private images go into every
encoding, and each shard is noted, then counted. The threads that write wait besides until that is
safe on the disk. Hashing is needed once a data set, whatever the number of copies, and stands
apart.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.measure import medians, quick, report
from benchmarks.memory import TILE, require_room
from benchmarks.workload import CLASSES, SHAPE, random_table
from instahide.encodings.identity import image_hashes
from instahide.encodings.ledger import Account, Ledger
from instahide.encryption.encoder import Encoded, Encoder
from instahide.encryption.exposure import Exposure
from instahide.encryption.scheme import Scheme
from instahide.images import ImageTable

SHARD = 5_000
PRIVATE = 2
#: Shards of every turn.
PART = 10
WRITERS = 2
FLOAT16 = torch.float16


def different_images(folder: Path, count: int) -> ImageTable:
    """``count`` memory-mapped images, no two the same: each begins with its number."""
    tile = random_table(min(TILE, count))
    pixels = np.lib.format.open_memmap(
        folder / "pixels.npy", mode="w+", dtype=np.uint8, shape=(count, *SHAPE)
    )
    for start in range(0, count, len(tile)):
        part = tile.pixels[: count - start].copy()
        numbers = np.arange(start, start + len(part), dtype="<u4").view(np.uint8)
        part[:, 0, 0, :4] = numbers.reshape(-1, 4)
        pixels[start : start + len(part)] = part
    pixels.flush()
    return ImageTable(pixels, np.arange(count) % CLASSES, tile.classes, tile.mean, tile.std)


def hash_all(images: ImageTable) -> float:
    """Seconds of hashing ``images``."""
    started = time.perf_counter()
    image_hashes(images, os.urandom(32))
    return time.perf_counter() - started


def count_all(account: Account, shards: list[NDArray[np.int64]]) -> dict[str, float]:
    """Seconds of noting ``shards`` and counting their mixes, and of waiting for the disk.

    The processor's time of the former, too: on a busy machine the difference is other people's.
    """
    generator = np.random.default_rng()
    seconds = {"counting": 0.0, "processor": 0.0, "syncing": 0.0}
    for number, rows in enumerate(shards):
        partners = generator.integers(0, account.images, (len(rows), PRIVATE - 1))
        mixes = np.column_stack([rows, partners])
        coefficients = generator.random(mixes.shape, np.float32)
        started, worked = time.perf_counter(), time.thread_time()
        account.pending("benchmark", str(number), rows)
        account.take(mixes, coefficients)
        counted = time.perf_counter()
        seconds["processor"] += time.thread_time() - worked
        account.sync()
        seconds["counting"] += counted - started
        seconds["syncing"] += time.perf_counter() - counted
    return seconds


def encrypt(encoder: Encoder, shards: list[NDArray[np.int64]], folder: Path) -> None:
    """Write the encodings of ``shards`` to synced files."""

    def noted() -> Iterator[NDArray[np.int64]]:
        for number, rows in enumerate(shards):
            if isinstance(encoder.exposure, Account):
                encoder.exposure.pending("benchmark", str(number), rows)
            yield rows

    def write(number: int, encoded: Encoded) -> None:
        if isinstance(encoder.exposure, Account):
            encoder.exposure.sync()
        with (folder / f"{number}.raw").open("wb") as file:
            file.write(encoded.images.numpy().data)
            file.flush()
            os.fsync(file.fileno())

    folder.mkdir()
    with ThreadPoolExecutor(WRITERS) as pool:
        written: deque[Future[None]] = deque()
        for number, encoded in enumerate(encoder.stream(noted())):
            written.append(pool.submit(write, number, encoded))
            if len(written) > WRITERS:
                written.popleft().result()
    shutil.rmtree(folder)


def measure(folder: Path, count: int, rounds: int) -> dict[str, float]:
    """Seconds for ``count`` images; the rate of encrypting is that of `PART` of them."""
    images, public = different_images(folder, count), random_table(min(TILE, count))
    order = np.random.default_rng(1).permutation(count)
    shards = [order[start : start + SHARD] for start in range(0, count, SHARD)]
    hashing = hash_all(images)
    with Ledger.open(folder / "ledger.sqlite") as ledger:
        account = ledger.account(images)
        account.begin("benchmark", 1)

        def work(exposure: Exposure) -> Callable[[], None]:
            encoder = Encoder(Scheme.cross(4), images, public, exposure=exposure, dtype=FLOAT16)
            return partial(encrypt, encoder, shards[:PART], folder / "encodings")

        seconds = medians(
            {"ledger": work(account), "memory": work(Exposure(count))}, rounds, settle=True
        )
        calls = count_all(account, shards)
        started = time.perf_counter()
    closing = time.perf_counter() - started
    encrypted = sum(len(rows) for rows in shards[:PART])
    return {
        "encrypting_seconds": seconds["memory"] * count / encrypted,
        "with_ledger_seconds": seconds["ledger"] * count / encrypted,
        "counting_seconds": calls["counting"] + closing,
        "counting_processor_seconds": calls["processor"],
        "syncing_seconds": calls["syncing"],
        "hashing_seconds": hashing,
    }


def main() -> None:
    count, rounds = (10_000, 2) if quick(__doc__) else (1_000_000, 15)
    with tempfile.TemporaryDirectory(prefix="instahide-benchmark-") as name:
        require_room(Path(name), 2 * count)
        figures = measure(Path(name), count, rounds)
    whole = figures["encrypting_seconds"]
    figures["slowdown"] = figures["with_ledger_seconds"] / whole
    figures["overhead_percent"] = 100 * figures["counting_seconds"] / whole
    figures["syncing_percent"] = 100 * figures["syncing_seconds"] / whole
    figures["hashing_percent"] = 100 * figures["hashing_seconds"] / whole
    rows = [
        ("encrypting to disk, counted in memory", f"{whole:,.1f} s"),
        ("encrypting to disk, counted in a ledger", f"{figures['with_ledger_seconds']:,.1f} s"),
        ("the second over the first", f"{figures['slowdown']:.3f}"),
        ("counting alone, closing the ledger included", f"{figures['counting_seconds']:.2f} s"),
        ("the same, of encrypting", f"{figures['overhead_percent']:.2f}%"),
        ("processor time in it", f"{figures['counting_processor_seconds']:.2f} s"),
        ("waiting for the disk, in threads that write", f"{figures['syncing_seconds']:.2f} s"),
        ("the same, of encrypting", f"{figures['syncing_percent']:.2f}%"),
        ("hashing, once for all copies", f"{figures['hashing_seconds']:.2f} s"),
        ("the same, of encrypting one copy", f"{figures['hashing_percent']:.1f}%"),
    ]
    report(f"The ledger of {count:,} images of 3 x 32 x 32, one encoding of each", rows, figures)


if __name__ == "__main__":
    main()

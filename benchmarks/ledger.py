"""What the ledger adds to the time of encrypting to disk, at a million images.

A ledger that knows a million images counts one encoding of each of them: two private images go
into every encoding, and shards are noted, a few at a time, then counted. That is what the threads
that encode wait for; those that write wait besides until it is safe on the disk. The time of
encrypting is that of `publish`, which `instahide encrypt` calls, with the counting in it; a part of
the million images is enough to know the rate. Hashing and entering the images is needed once a data
set, whatever the number of copies, and stands apart.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.measure import medians, quick, report
from benchmarks.memory import TILE, require_room
from benchmarks.publish import publish_once
from benchmarks.workload import CLASSES, SHAPE, random_table
from instahide.data import ImageTable
from instahide.encodings.ledger.account import LedgerAccount
from instahide.encodings.ledger.ledger import Ledger
from instahide.encodings.publish import NOTED, Publication, encodings_a_shard
from instahide.encryption.scheme import Scheme

PRIVATE = 2
#: Images that are published, over and over.
PART = 50_000


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


def count_all(account: LedgerAccount, shards: list[NDArray[np.int64]]) -> dict[str, float]:
    """Seconds of noting ``shards`` and counting their mixes, and of waiting for the disk.

    The processor's time of the former, too: on a busy machine the difference is other people's.
    """
    generator = np.random.default_rng()
    seconds = {"counting": 0.0, "processor": 0.0, "syncing": 0.0}
    account.begin("benchmark", 1)
    for number, rows in enumerate(shards):
        partners = generator.integers(0, account.images, (len(rows), PRIVATE - 1))
        mixes = np.column_stack([rows, partners])
        coefficients = generator.random(mixes.shape, np.float32)
        started, worked = time.perf_counter(), time.thread_time()
        if number % NOTED == 0:
            noted = shards[number : number + NOTED]
            account.pending("benchmark", {str(number + i): rows for i, rows in enumerate(noted)})
        account.record(mixes, coefficients)
        counted = time.perf_counter()
        seconds["processor"] += time.thread_time() - worked
        account.sync()
        seconds["counting"] += counted - started
        seconds["syncing"] += time.perf_counter() - counted
    return seconds


def counted(path: Path, images: ImageTable, shards: list[NDArray[np.int64]]) -> dict[str, float]:
    """As `count_all`, in a new ledger at ``path``, its closing included; and of entering them."""
    with Ledger.open(path) as ledger:
        started = time.perf_counter()
        account = ledger.account(images)
        entering = time.perf_counter() - started
        seconds = count_all(account, shards) | {"entering": entering}
        started, worked = time.perf_counter(), time.thread_time()
    seconds["counting"] += time.perf_counter() - started
    seconds["processor"] += time.thread_time() - worked
    return seconds


def measure(folder: Path, count: int, rounds: int) -> dict[str, float]:
    """Seconds for ``count`` images; the rate of encrypting is that of `PART` of them."""
    images, public = different_images(folder, count), random_table(min(TILE, count), seed=1)
    part = images.subset(slice(0, PART))
    publication = Publication(part, public, Scheme.cross(4), copies=1)
    size = encodings_a_shard(replace(publication, images=images).manifest())
    order = np.random.default_rng(1).permutation(count)
    shards = [order[start : start + size] for start in range(0, count, size)]
    with Ledger.open(folder / "publishing.sqlite") as ledger:
        ledger.account(images)
        publishing = partial(publish_once, publication, ledger, folder)
        seconds = medians({"publish": publishing}, rounds)["publish"] * count / len(part)
    counts = [counted(folder / f"{number}.sqlite", images, shards) for number in range(rounds)]
    calls = {name: statistics.median(one[name] for one in counts) for name in counts[0]}
    return {
        "encrypting_seconds": seconds,
        "counting_seconds": calls["counting"],
        "counting_processor_seconds": calls["processor"],
        "syncing_seconds": calls["syncing"],
        "entering_seconds": calls["entering"],
    }


def main() -> None:
    count, rounds = (10_000, 1) if quick(__doc__) else (1_000_000, 7)
    with tempfile.TemporaryDirectory(prefix="instahide-benchmark-") as name:
        # The table, and what is published: float16, nothing of which is removed before the end.
        require_room(Path(name), count + 2 * min(PART, count) * (rounds + 1))
        figures = measure(Path(name), count, rounds)
    whole = figures["encrypting_seconds"]
    figures["overhead_percent"] = 100 * figures["counting_seconds"] / whole
    figures["syncing_percent"] = 100 * figures["syncing_seconds"] / whole
    figures["entering_percent"] = 100 * figures["entering_seconds"] / whole
    rows = [
        ("encrypting to disk, counting included", f"{whole:,.1f} s"),
        ("counting alone, closing the ledger included", f"{figures['counting_seconds']:.2f} s"),
        ("the same, of encrypting", f"{figures['overhead_percent']:.2f}%"),
        ("processor time in it", f"{figures['counting_processor_seconds']:.2f} s"),
        ("waiting for the disk, in threads that write", f"{figures['syncing_seconds']:.2f} s"),
        ("the same, of encrypting", f"{figures['syncing_percent']:.2f}%"),
        ("hashing and entering, once for all copies", f"{figures['entering_seconds']:.2f} s"),
        ("the same, of encrypting one copy", f"{figures['entering_percent']:.1f}%"),
    ]
    report(f"The ledger of {count:,} images of 3 x 32 x 32, one encoding of each", rows, figures)


if __name__ == "__main__":
    main()

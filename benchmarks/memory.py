"""Memory of a process that encodes from a memory-mapped table of a million images.

A process of its own opens the table, encodes a part of an epoch and looks after every batch at its
anonymous memory: what it asked for itself. The pages of the mapped file are not in it, as the
system takes those back whenever it needs them. Linux only, as it reads /proc.
"""

from __future__ import annotations

import itertools
import json
import shutil
import tempfile
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np

from benchmarks.measure import quick, report
from benchmarks.workload import CLASSES, SHAPE, random_table
from instahide.data import ImageTable
from instahide.encryption.encoder import Encoder
from instahide.encryption.scheme import Scheme
from instahide.training.data.encoded_loader import EncodedLoader

BATCH = 128
#: Random images that the table repeats, each time with other values: no two are one picture.
TILE = 10_000


def write_table(folder: Path, count: int) -> None:
    """What `ImageTable.save` writes, without ever holding it in memory."""
    tile = random_table(min(TILE, count))
    pixels = np.lib.format.open_memmap(
        folder / "pixels.npy", mode="w+", dtype=np.uint8, shape=(count, *SHAPE)
    )
    for start in range(0, count, len(tile)):
        part = pixels[start : start + len(tile)]
        part[:] = tile.pixels[: len(part)] + np.uint8(start // len(tile))
    pixels.flush()
    np.save(folder / "labels.npy", np.arange(count) % CLASSES)
    facts = {
        "classes": tile.classes,
        "mean": tile.mean,
        "std": tile.std,
        "value_range": tile.value_range,
        "task": tile.task,
    }
    (folder / "table.json").write_text(json.dumps(facts))


def resident() -> tuple[float, float]:
    """Anonymous and total resident memory of this process, in MiB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    status = dict(line.split(":", 1) for line in lines)
    anonymous, total = (int(status[name].split()[0]) / 1024 for name in ("RssAnon", "VmRSS"))
    return anonymous, total


def measure(folder: Path, images: int) -> dict[str, float]:
    """Encode ``images`` of the table; runs in a fresh process, everything imported."""
    start, _ = resident()
    encoder = Encoder(Scheme.cross(4), ImageTable.load(folder), random_table(TILE, seed=1))
    after = [resident() for _ in itertools.islice(EncodedLoader(encoder, BATCH), images // BATCH)]
    return {
        "over_table_mib": max(anonymous for anonymous, _ in after) - start,
        "million_rss_mib": max(total for _, total in after),
        "start_mib": start,
    }


def main() -> None:
    tiny = quick(__doc__)
    count, images = (20_000, 2_560) if tiny else (1_000_000, 256_000)
    with tempfile.TemporaryDirectory(prefix="instahide-benchmark-") as name:
        folder = Path(name)
        require_room(folder, count)
        write_table(folder, count)
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as fresh:
            figures = fresh.submit(measure, folder, images).result()
    rows = [
        ("anonymous memory at the start, all imported", f"{figures['start_mib']:,.0f} MiB"),
        ("most anonymous memory above that", f"{figures['over_table_mib']:,.0f} MiB"),
        ("most resident memory, mapped pages included", f"{figures['million_rss_mib']:,.0f} MiB"),
    ]
    report(f"Encoding {images:,} of {count:,} memory-mapped images", rows, figures)


def require_room(folder: Path, count: int) -> None:
    needed = count * int(np.prod(SHAPE))
    if shutil.disk_usage(folder).free < 1.1 * needed:
        raise SystemExit(f"{folder.parent} has no room for {needed / 1e9:.1f} GB; set TMPDIR.")


if __name__ == "__main__":
    main()

"""Speed of encrypting a data set to disk, against the disk alone and against encoding alone.

The same 50,000 random images are published over and over, ledger and checksums included, each time
into a new folder. In turns with this as many bytes are written to files of the same size, each
synced; and the images are encoded in the same blocks, and dropped. The floor is the slower of the
two: to be as fast as it, all else must happen while the disk or the encoder is at work.
"""

from __future__ import annotations

import os
import tempfile
from functools import partial
from pathlib import Path

import numpy as np

from benchmarks.measure import medians, quick, report
from benchmarks.memory import require_room
from benchmarks.workload import consume, random_table
from instahide.encodings.ledger.ledger import Ledger
from instahide.encodings.publish import Publication, encodings_a_shard, publish, threads
from instahide.encryption.exposure import Exposure
from instahide.encryption.scheme import Scheme


def publish_once(publication: Publication, ledger: Ledger, room: Path) -> None:
    publish(publication, tempfile.mkdtemp(dir=room), ledger, engine=threads)


def write_once(publication: Publication, content: bytes, room: Path) -> None:
    """As many bytes, in files as large, one after the other."""
    manifest = publication.manifest()
    size = encodings_a_shard(manifest)
    folder = Path(tempfile.mkdtemp(dir=room))
    for start in range(0, manifest.total, size):
        count = min(size, manifest.total - start)
        with (folder / str(start)).open("wb") as file:
            file.write(memoryview(content)[: count * manifest.bytes_each])
            file.flush()
            os.fsync(file.fileno())


def encode_once(publication: Publication) -> None:
    """The encodings, in blocks of a shard; each is dropped."""
    images = len(publication.images)
    order = np.random.default_rng(0).permutation(images)
    size = encodings_a_shard(publication.manifest())
    blocks = [order[start : start + size] for start in range(0, images, size)]
    consume(publication.encoder(Exposure(images)).stream(blocks))


def measure(folder: Path, count: int, rounds: int) -> dict[str, float]:
    """Images a second."""
    publication = Publication(
        random_table(count), random_table(min(count, 10_000), seed=1), Scheme.cross(4), copies=1
    )
    manifest = publication.manifest()
    # Float16 twice; nothing is removed before the end, as that would take time as well.
    require_room(folder, 2 * 2 * count * (rounds + 1))
    content = os.urandom(manifest.bytes_each * min(encodings_a_shard(manifest), count))
    with Ledger.open(folder / "ledger.sqlite") as ledger:
        seconds = medians(
            {
                "publish": partial(publish_once, publication, ledger, folder),
                "disk": partial(write_once, publication, content, folder),
                "memory": partial(encode_once, publication),
            },
            rounds,
        )
    return {name: count / value for name, value in seconds.items()}


def main() -> None:
    tiny = quick(__doc__)
    with tempfile.TemporaryDirectory(prefix="instahide-benchmark-") as name:
        rates = measure(Path(name), 2_000 if tiny else 50_000, 1 if tiny else 7)
    floor = min(rates["disk"], rates["memory"])
    titles = {
        "publish": "encrypting to disk",
        "disk": "the disk alone",
        "memory": "encoding alone",
    }
    rows = [(title, f"{rates[name]:,.0f} images/s") for name, title in titles.items()]
    rows.append(("encrypting, of the slower of these", f"{rates['publish'] / floor:.0%}"))
    figures = {
        "share_of_floor": rates["publish"] / floor,
        "publish_images_per_second": rates["publish"],
        "disk_images_per_second": rates["disk"],
        "memory_images_per_second": rates["memory"],
    }
    report("Encrypting 3 x 32 x 32 images to disk as float16, cross k=4", rows, figures)


if __name__ == "__main__":
    main()

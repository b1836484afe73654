"""Speed of publishing on two Ray nodes of one core each, against one such node.

The nodes are of this machine, and each has one core for all its processes: the first one for the
command, the ledger and what coordinates the cluster as well. They share a disk, which two machines
do not, so shards go to memory (`/dev/shm`, 4 GB), and each folder is removed after its turn. The
second node comes and goes between the turns. The clock starts when a quarter of the encodings is
there: processes that begin, import and compile are left out.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median

import ray
from ray.cluster_utils import Cluster

from benchmarks.measure import on_core, quick, report
from benchmarks.workload import random_table
from instahide.encodings.ledger.ledger import Ledger
from instahide.encodings.publish import Publication, publish
from instahide.encodings.ray.engine import on_ray
from instahide.encryption.scheme import Scheme

MEMORY = Path("/dev/shm")  # noqa: S108
NODE = {"num_cpus": 1, "object_store_memory": 1 << 29}


class Clock:
    """The rate of what is finished after the first ``skipped`` encodings."""

    def __init__(self, skipped: int) -> None:
        self.skipped, self.encodings = skipped, 0
        self.started = self.ended = time.perf_counter()

    def advance(self, encodings: int) -> None:
        self.ended = time.perf_counter()
        if self.skipped > 0:
            self.skipped -= encodings
            self.started = self.ended
        else:
            self.encodings += encodings

    @property
    def rate(self) -> float:
        return self.encodings / (self.ended - self.started)


def measure_once(publication: Publication, room: Path) -> float:
    """Encodings a second."""
    clock = Clock(publication.manifest().total // 4)
    folder = Path(tempfile.mkdtemp(dir=room))
    with Ledger.open(folder / "ledger.sqlite") as ledger:
        publish(publication, folder / "out", ledger, engine=on_ray, progress=clock.advance)
    shutil.rmtree(folder)
    return clock.rate


@contextmanager
def connected() -> Iterator[Cluster]:
    """A cluster of one node."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    cluster = Cluster(initialize_head=True, head_node_args=NODE)
    try:
        ray.init(address=cluster.address, log_to_driver=False, logging_level="ERROR")
        yield cluster
    finally:
        ray.shutdown()
        cluster.shutdown()


def measure(publication: Publication, room: Path, rounds: int) -> dict[str, float]:
    """Median encodings a second of one node and of two."""
    first, second = sorted(os.sched_getaffinity(0))[:2]
    rates: dict[str, list[float]] = {"one": [], "two": []}
    with on_core(first), connected() as cluster:
        for _ in range(rounds):
            rates["one"].append(measure_once(publication, room))
            with on_core(second):
                other = cluster.add_node(**NODE)
            rates["two"].append(measure_once(publication, room))
            cluster.remove_node(other)
    return {name: median(values) for name, values in rates.items()}


def main() -> None:
    images, copies, rounds = (2_000, 4, 1) if quick(__doc__) else (50_000, 12, 3)
    publication = Publication(
        random_table(images), random_table(min(images, 10_000), seed=1), Scheme.cross(4), copies
    )
    with tempfile.TemporaryDirectory(prefix="instahide-benchmark-", dir=MEMORY) as name:
        rates = measure(publication, Path(name), rounds)
    gain = rates["two"] / rates["one"]
    rows = [
        ("one node of one core", f"{rates['one']:,.0f} encodings/s"),
        ("two of them", f"{rates['two']:,.0f} encodings/s"),
        ("two against one", f"{gain:.2f}"),
    ]
    figures = {
        "two_nodes_against_one": gain,
        "one_node_encodings_per_s": rates["one"],
        "two_nodes_encodings_per_s": rates["two"],
    }
    report("Publishing 3 x 32 x 32 images on Ray, float16, cross k=4", rows, figures)


if __name__ == "__main__":
    main()

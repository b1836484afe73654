"""Speed of publishing on two Ray nodes of one core each, against one such node.

The nodes are of this machine, each with processes that the system keeps to a core of its own. They
share a disk, which two machines do not, so shards go to memory (`/dev/shm`), and each folder is
removed after its turn. The second node comes and goes between the turns. The clock starts when a
quarter of the encodings is there: processes that begin, import and compile are left out.
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
from typing import Any

import ray
from ray.cluster_utils import Cluster

from benchmarks.measure import quick, report
from benchmarks.workload import random_table
from instahide.encodings.ledger import Ledger
from instahide.encodings.publish import Publication, publish
from instahide.encodings.ray_engine import on_ray
from instahide.encryption.scheme import Scheme

MEMORY = Path("/dev/shm")  # noqa: S108
STORE = 1 << 29


def add_node(cluster: Cluster, core: int) -> Any:
    """A node whose processes, all of them, have one core."""
    own = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        return cluster.add_node(num_cpus=1, object_store_memory=STORE)
    finally:
        os.sched_setaffinity(0, own)


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
    """A cluster whose only node coordinates and holds the ledger, but does not encrypt."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    head = {"num_cpus": 0, "object_store_memory": STORE}
    cluster = Cluster(initialize_head=True, head_node_args=head)
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
    with connected() as cluster:
        add_node(cluster, first)
        for _ in range(rounds):
            rates["one"].append(measure_once(publication, room))
            other = add_node(cluster, second)
            rates["two"].append(measure_once(publication, room))
            cluster.remove_node(other)
    return {name: median(values) for name, values in rates.items()}


def main() -> None:
    images, copies, rounds = (2_000, 4, 1) if quick(__doc__) else (50_000, 12, 3)
    publication = Publication(
        random_table(images), random_table(min(images, 10_000)), Scheme.cross(4), copies
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

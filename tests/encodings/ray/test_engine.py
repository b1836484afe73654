"""A Ray cluster publishes what one machine would, though nodes of it are killed.

The clusters are real: every node is a set of processes of its own.
"""

from __future__ import annotations

import gc
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from instahide.data import ImageTable, open_split
from instahide.encodings import publish as publishing
from instahide.encodings.folder import EncodedFolder
from instahide.encodings.ledger.ledger import Ledger
from instahide.encodings.manifest import Shard
from instahide.encodings.publish import Publication, publish
from instahide.encryption.scheme import Scheme
from instahide.errors import InstaHideError

ray = pytest.importorskip("ray")

from ray.cluster_utils import Cluster  # noqa: E402

from instahide.encodings.ray import engine  # noqa: E402
from instahide.encodings.ray.engine import AHEAD, on_ray  # noqa: E402
from tests.waiting import LIMIT  # noqa: E402

IMAGES, SHARD = 100, 400
SHAPE = (3, 32, 32)

#: Ray leaves /dev/null open where it starts the processes of a node.
pytestmark = pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")


@pytest.fixture(autouse=True)
def _quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")


@pytest.fixture
def head(monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    """A node of one processor, where programs that use Ray go."""
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    monkeypatch.setenv("RAY_ADDRESS", cluster.address)
    yield cluster
    ray.shutdown()
    cluster.shutdown()
    del cluster
    gc.collect()  # What Ray leaves open is noticed here, and not in a test of something else.


@pytest.fixture
def cluster(head: Cluster) -> Cluster:
    """Two nodes of one processor, both at work, and a connection to them."""
    head.add_node(num_cpus=1)
    head.wait_for_nodes()
    ray.init(log_to_driver=False, logging_level="ERROR")

    @ray.remote(num_cpus=1, scheduling_strategy="SPREAD")
    def loaded() -> str:
        import instahide.encodings.ray.engine  # noqa: F401

        time.sleep(0.2)
        return str(ray.get_runtime_context().get_node_id())

    at_work: set[str] = set()
    while len(at_work) < 2:
        at_work.update(ray.get([loaded.remote() for _ in range(4)], timeout=LIMIT))
    return head


@pytest.fixture(autouse=True)
def _small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    each = publication(Scheme.plain(), 1).manifest().bytes_each
    monkeypatch.setattr(publishing, "SHARD_BYTES", SHARD * each)


def publication(scheme: Scheme, copies: int) -> Publication:
    """Of images each of which is a class, so that labels show what was mixed."""
    pixels = np.random.default_rng().integers(0, 256, (2, IMAGES, *SHAPE), np.uint8)
    names = [str(number) for number in range(IMAGES)]
    images = ImageTable.from_arrays(pixels[0], np.arange(IMAGES), names)
    pool = ImageTable.from_arrays(pixels[1]) if scheme.public_k else None
    return Publication(images, pool, scheme, copies)


def weights(folder: EncodedFolder) -> NDArray[np.float32]:
    """(n, images) coefficients of the private images in every encoding."""
    shards = range(len(folder.manifest.shards))
    return np.concatenate([folder.shard(number).labels.numpy() for number in shards])


def different_encodings(folder: EncodedFolder) -> int:
    """Keys that were used twice would make the same of the same images; nothing else would."""
    shards = range(len(folder.manifest.shards))
    blocks = [folder.shard(number).images.numpy() for number in shards]
    return len({image.tobytes() for block in blocks for image in block})


def running(node: Any, title: bytes) -> list[int]:
    """Processes of a node whose title begins so."""
    raylet = node.all_processes["raylet"][0].process.pid
    children = Path(f"/proc/{raylet}/task/{raylet}/children").read_text().split()
    titles = {int(child): Path(f"/proc/{child}/cmdline").read_bytes() for child in children}
    return [child for child, found in titles.items() if found.startswith(title)]


def at_work(node: Any) -> list[int]:
    """Processes of a node that make a shard just now."""
    return running(node, b"ray::make_shard")


@pytest.mark.slow
def test_two_nodes_publish_every_copy_and_count_exactly(
    cluster: Cluster, ledger: Ledger, tmp_path: Path
) -> None:
    whole = publication(Scheme.inside(2), copies=120)
    (other,) = cluster.worker_nodes
    seen: set[int] = set()

    folder = publish(
        whole, tmp_path / "out", ledger, engine=on_ray,
        progress=lambda _: seen.update(at_work(other)),
    )  # fmt: skip

    assert seen, "the second node did nothing"
    assert folder.manifest.ended == "all"
    assert folder.verify() == []
    assert different_encodings(folder) == len(folder) == 120 * IMAGES
    account, mixed = ledger.account(whole.images), weights(folder)
    assert (account.counts == np.count_nonzero(mixed, axis=0)).all()
    assert account.squares == pytest.approx(np.square(mixed).sum(axis=0), rel=1e-4)
    assert account.remaining(folder.manifest.publication, set()).size == 0


@pytest.mark.slow
def test_nodes_write_to_s3_themselves(cluster: Cluster, ledger: Ledger, bucket: str) -> None:
    whole = publication(Scheme.inside(2), copies=12)
    folder = publish(whole, f"{bucket}/out", ledger, engine=on_ray)
    assert folder.manifest.ended == "all"
    assert folder.verify() == []
    assert different_encodings(folder) == len(folder) == 12 * IMAGES
    counts = np.count_nonzero(weights(folder), axis=0)
    assert (ledger.account(whole.images).counts == counts).all()


@pytest.mark.slow
def test_a_node_killed_in_the_middle_leaves_nothing_out(
    cluster: Cluster, ledger: Ledger, tmp_path: Path
) -> None:
    whole, copies = publication(Scheme.cross(2, private_k=1), copies=240), 240
    (other,) = cluster.worker_nodes
    stopped: list[int] = []
    finished_since = 0

    def progress(_: int) -> None:
        """Stop the other node in the middle of a shard; kill it three shards later."""
        nonlocal finished_since
        if stopped:
            finished_since += 1
        for worker in [] if stopped else at_work(other):
            os.kill(worker, signal.SIGSTOP)
            stopped.append(worker)
        if finished_since == 3:
            cluster.remove_node(other, allow_graceful=False)

    folder = publish(whole, tmp_path / "out", ledger, engine=on_ray, progress=progress)

    assert finished_since > 3
    assert folder.verify() == []
    mixed = weights(folder)
    assert (np.count_nonzero(mixed, axis=0) == copies).all()
    assert different_encodings(folder) == len(folder) == copies * IMAGES
    excess = ledger.account(whole.images).counts - copies
    assert (excess >= 0).all()
    assert excess.sum() <= 2 * AHEAD * SHARD


@pytest.mark.slow
def test_what_a_lost_worker_had_written_is_made_anew_and_removed(
    head: Cluster, ledger: Ledger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make, lost = engine.make_shard, tmp_path / "lost"

    def dying_once(*arguments: Any) -> Shard:
        shard = make(*arguments)
        if not lost.exists():
            lost.write_text(shard.name)
            os._exit(1)
        return shard

    monkeypatch.setattr(engine, "make_shard", dying_once)
    whole = publication(Scheme.plain(), copies=20)
    folder = publish(whole, tmp_path / "out", ledger, engine=on_ray)
    assert lost.read_text() not in {shard.name for shard in folder.manifest.shards}
    assert folder.verify() == []
    assert (weights(folder).sum(axis=0) == 20).all()
    assert ledger.account(whole.images).counts.sum() == 20 * IMAGES + SHARD


@pytest.mark.slow
def test_no_image_passes_its_limit_on_any_node(
    cluster: Cluster, ledger: Ledger, tmp_path: Path
) -> None:
    whole, limit = publication(Scheme.inside(2), copies=100), 120
    folder = publish(whole, tmp_path / "out", ledger, engine=on_ray, limit=limit)
    assert folder.manifest.ended == "limit"
    assert folder.verify() == []
    counts = ledger.account(whole.images).counts
    assert (counts == np.count_nonzero(weights(folder), axis=0)).all()
    assert counts.max() == limit
    assert len(folder) > 0.8 * IMAGES * limit / 2


@pytest.mark.slow
def test_it_gives_up_when_every_worker_dies(
    head: Cluster, ledger: Ledger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def dying(*_: object) -> None:
        os._exit(1)

    monkeypatch.setattr(engine, "make_shard", dying)
    monkeypatch.setattr(engine, "MOST_LOST", 1)
    whole = publication(Scheme.plain(), copies=20)
    with pytest.raises(InstaHideError, match="lost 2 shards") as refused:
        publish(whole, tmp_path / "out", ledger, engine=on_ray)
    assert "resume=True" in refused.value.remedy
    monkeypatch.undo()
    folder = publish(whole, tmp_path / "out", ledger, engine=publishing.threads, resume=True)
    assert len(folder) == 20 * IMAGES


@pytest.mark.slow
def test_it_ends_with_the_process_that_keeps_the_ledger(
    head: Cluster, ledger: Ledger, tmp_path: Path
) -> None:
    def kill(finished: int) -> None:
        for counter in running(head.head_node, b"ray::Counter") if finished else []:
            os.kill(counter, signal.SIGKILL)

    whole = publication(Scheme.plain(), copies=100)
    with pytest.raises(InstaHideError, match="keeps the ledger does not answer"):
        publish(whole, tmp_path / "out", ledger, engine=on_ray, progress=kill)
    folder = publish(whole, tmp_path / "out", ledger, engine=publishing.threads, resume=True)
    assert (weights(folder).sum(axis=0) == 100).all()
    assert (ledger.account(whole.images).counts >= 100).all()


def exposure_of_groups(folder: EncodedFolder) -> NDArray[np.int64]:
    """(groups,) encodings that an image of each pair of images is in."""
    mixed = weights(folder) > 0
    return np.count_nonzero(mixed.reshape(len(mixed), -1, 2).any(axis=2), axis=0)


@pytest.mark.slow
@pytest.mark.parametrize("kills", [0, 3])
def test_patients_are_counted_exactly_also_after_kills(
    head: Cluster, ledger: Ledger, tmp_path: Path, kills: int
) -> None:
    """Each pair of images is of one patient."""
    whole = publication(Scheme.inside(2), copies=40)
    patients = [f"patient {number // 2}" for number in range(IMAGES)]
    whole = replace(whole, images=whole.images.grouped(patients))
    killed: list[int] = []

    def progress(_: int) -> None:
        for worker in at_work(head.head_node)[:1] if len(killed) < kills else []:
            os.kill(worker, signal.SIGKILL)
            killed.append(worker)

    folder = publish(whole, tmp_path / "out", ledger, engine=on_ray, progress=progress)
    assert len(killed) == kills
    assert folder.verify() == []
    assert len(folder) == 40 * IMAGES
    counts = ledger.account(whole.images).counts.reshape(-1, 2)
    # Both images of a patient have the count of the patient, and no mix holds both.
    assert (counts[:, 0] == counts[:, 1]).all()
    mixed = (weights(folder) > 0).reshape(len(folder), -1, 2)
    assert not mixed.all(axis=2).any()
    excess = counts[:, 0] - exposure_of_groups(folder)
    assert (excess >= 0).all()
    # Lost shards were counted before they were lost; nothing else is counted too often.
    assert excess.sum() <= 2 * kills * AHEAD * SHARD
    assert kills or not excess.any()


@pytest.mark.slow
def test_a_table_of_labels_and_patients_is_encrypted_on_a_cluster(
    head: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("INSTAHIDE_LEDGER", str(tmp_path / "ledger.sqlite"))
    digits, rows = open_split("digits").train, ["file,patient,round,straight"]
    Path("scans").mkdir()
    for number in range(60):
        Image.fromarray(digits.pixels[number, 0]).save(f"scans/{number}.png")
        label = int(digits.labels[number])
        rows.append(
            f"{number}.png,p{number // 3},{int(label in (0, 6, 8, 9))},{int(label in (1, 4, 7))}"
        )
    Path("labels.csv").write_text("\n".join(rows))
    table = ["--labels", "labels.csv", "--image-column", "file", "--group-column", "patient"]
    columns = ["--label-columns", "round,straight", "--task", "multi-label"]
    done = instahide(
        "encrypt", "scans", *table, *columns, "--scheme", "inside", "--k", "2", "--copies", "4",
        "--out", "out", "--engine", "ray",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    folder = EncodedFolder.open(tmp_path / "out")
    assert len(folder) == 240
    assert folder.manifest.task == "multi-label"
    assert folder.manifest.classes == ("round", "straight")
    shown = instahide("ledger", "--data", "scans", *table, *columns, "--json")
    assert shown.returncode == 0, shown.stderr
    # An encoding shows two patients, each of whom counts once.
    figures = json.loads(shown.stdout)
    assert (figures["images"], figures["exposures"]) == (20, 2 * len(folder))


def instahide(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "instahide", *map(str, arguments)],
        capture_output=True, text=True, timeout=LIMIT, check=False,
    )  # fmt: skip


@pytest.mark.slow
def test_the_command_uses_a_cluster_that_runs(
    head: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = instahide("encrypt", "digits", "--copies", "2", "--out", "out", "--engine", "ray")
    assert done.returncode == 0, done.stderr
    assert len(EncodedFolder.open(tmp_path / "out")) == 2 * 1438
    assert "ray" not in done.stderr.lower()

    elsewhere = instahide("encrypt", "digits", "--out", "memory://out", "--engine", "ray")
    assert elsewhere.returncode == 2
    assert "does not find the manifest in memory://out" in elsewhere.stderr
    assert "all nodes share" in elsewhere.stderr


@pytest.mark.parametrize(
    ("address", "problem"),
    [("127.0.0.1:1", "No Ray cluster"), ("ray://127.0.0.1:1", "from outside")],
)
def test_an_address_of_no_use_is_refused_at_once(
    ledger: Ledger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, address: str, problem: str
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", address)
    whole = publication(Scheme.plain(), copies=1)
    with pytest.raises(InstaHideError, match=problem):
        publish(whole, tmp_path / "out", ledger, engine=on_ray)


def test_images_beyond_the_object_store_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = publication(Scheme.plain(), copies=1)
    rooms = [{"object_store_memory": room} for room in (1e9, 1e5)]
    monkeypatch.setattr(engine, "resources", lambda: rooms)
    with pytest.raises(InstaHideError, match=r"307\.2 kB.*100\.0 kB"):
        engine._shareable(whole)


def test_memory_mapped_images_go_out_as_arrays_that_can_be_shared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "resources", lambda: [{"object_store_memory": 1e9}])
    whole = publication(Scheme.cross(2, private_k=1), copies=1)
    whole.images.save(tmp_path / "table")
    mapped = Publication(ImageTable.load(tmp_path / "table"), whole.public, whole.method, 1)
    shared = engine._shareable(mapped)
    assert type(shared.images.pixels) is np.ndarray
    assert (shared.images.pixels == whole.images.pixels).all()

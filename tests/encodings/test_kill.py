"""`kill -9` at any moment: the folder is completed, nothing is uncounted, nothing repeated.

Every image is a class of its own, so that the labels of an encoding say which images are in it. All
images, public ones too, share their signs, so that those of a mix of them are known, and the mask
can be read. Where images have groups, groups are counted.
"""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file

from instahide.data import ImageTable, open_images
from instahide.encodings.folder import EncodedFolder
from instahide.encodings.ledger.ledger import Ledger
from instahide.encodings.publish import WRITERS
from instahide.encryption.encoder import BLOCKS_AHEAD
from tests.encodings.encrypter import Encrypter, encrypter, grouped
from tests.waiting import wait_until

IMAGES, SIDE = 40, 16
COPIES = 40
#: Encodings of a shard.
SIZE = 10
#: Two images of mine, so that partners are seen as well; or one of mine and a public one, so that
#: the encrypted image is known.
SCHEMES = {
    "inside": ["--scheme", "inside", "--k", "2"],
    "cross": ["--scheme", "cross", "--k", "2", "--private-k", "1"],
}
#: Shards that are drawn, made or written while the one before them is awaited.
IN_FLIGHT = BLOCKS_AHEAD + 1 + WRITERS + 1


@pytest.fixture(scope="module")
def processes() -> Iterator[Encrypter]:
    with encrypter() as started:
        yield started


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Images that are dark above and bright below, no two of them the same."""
    generator = np.random.default_rng(0)
    pixels = generator.integers(0, 60, (IMAGES + 500, 1, SIDE, SIDE), np.uint8)
    pixels[:, :, SIDE // 2 :] += 190
    np.savez(tmp_path / "images.npz", x=pixels[:IMAGES, 0], y=np.arange(IMAGES))
    ImageTable.from_arrays(pixels[IMAGES:]).save(tmp_path / "pool")
    return tmp_path / "images.npz"


@dataclass
class Trail:
    """What was ever seen on disk, and what the ledger says of it."""

    source: Path
    ledger: Path
    scheme: str
    #: How many images in turn are of one group.
    group: int = 0
    #: (IMAGES / group,) per shard file: in how many of its encodings an image or group is.
    seen: dict[str, NDArray[np.int64]] = field(default_factory=dict)
    #: Counted by the ledger, and never on disk.
    excess: int = 0

    def look(self, folder: Path) -> None:
        """Every whole file counts, whether or not the manifest names it."""
        for name in names(folder) - set(self.seen):
            present = load_file(folder / name)["labels"] > 0
            of_groups = present.reshape(len(present), -1, self.group or 1)
            # No mix holds two images of a group.
            assert bool((of_groups.sum(dim=2) <= 1).all())
            self.seen[name] = of_groups.any(dim=2).sum(dim=0).numpy()

    def require_exact(self, folder: Path) -> None:
        """Never below what reached the disk; above by what was in flight since the last look."""
        self.look(folder)
        units = IMAGES // (self.group or 1)
        true = np.sum([*self.seen.values(), np.zeros(units, np.int64)], axis=0)
        counted = self.counted()
        assert (counted >= true).all()
        excess = int((counted - true).sum())
        assert excess - self.excess <= IN_FLIGHT * SIZE * (2 if self.scheme == "inside" else 1)
        self.excess = excess

    def counted(self) -> NDArray[np.int64]:
        each = self.group or 1
        if not self.ledger.exists():
            return np.zeros(IMAGES // each, np.int64)
        with Ledger.open(self.ledger) as ledger:
            counts = ledger.account(grouped(open_images(str(self.source)), self.group)).counts
        assert (counts.reshape(-1, each) == counts[::each, None]).all()
        return counts[::each]


def begin(processes: Encrypter, trail: Trail, folder: Path) -> int:
    bytes_each = 2 * SIDE * SIDE + 4 * IMAGES
    return processes.start(
        *("encrypt", str(trail.source), "--out", str(folder), "--copies", str(COPIES)),
        *("--public", str(trail.source.parent / "pool")),
        *("--ledger", str(trail.ledger), *SCHEMES[trail.scheme], "--resume"),
        shard_bytes=SIZE * bytes_each,
        group=trail.group,
    )


def kill_until_done(processes: Encrypter, trail: Trail, folder: Path) -> int:
    """Begin, kill, begin again ... until the folder is finished; how many kills it took."""
    kills = 0
    while True:
        child = begin(processes, trail, folder)
        # Half of the kills from the start on, half once shards are written.
        if random.random() < 0.5:  # noqa: S311
            wait_for_news(folder)
        time.sleep(random.uniform(0, 0.5))  # noqa: S311
        os.kill(child, signal.SIGKILL)
        status = processes.status()
        assert status in (0, -signal.SIGKILL)
        trail.require_exact(folder)
        if status == 0:
            return kills
        kills += 1


def wait_for_news(folder: Path) -> None:
    """Until a shard is written or removed, or all of them are there."""
    before = names(folder)
    wait_until(lambda: names(folder) != before or len(before) >= IMAGES * COPIES / SIZE)


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.glob("[!.]*.safetensors")}


def require_complete(folder: Path, scheme: str) -> None:
    opened = EncodedFolder.open(folder)
    assert opened.manifest.ended == "all"
    assert opened.verify() == []
    assert names(folder) == {shard.name for shard in opened.manifest.shards}
    shards = [opened.shard(number) for number in range(len(opened.manifest.shards))]
    images = torch.cat([shard.images for shard in shards])
    present = torch.cat([shard.labels for shard in shards]) > 0
    assert len(images) == IMAGES * COPIES
    if scheme == "cross":
        assert (present.sum(dim=0) == COPIES).all()
    else:
        assert (present.sum(dim=1) == 2).all()
        assert (present.sum(dim=0) >= COPIES).all()
    require_different_masks(images)


def require_different_masks(images: torch.Tensor) -> None:
    """Any two of (n, 256) random signs differ in about 128 places, give or take 8."""
    signs = images.flatten(1).float().sign()
    product = signs @ signs.T
    product.fill_diagonal_(0)
    different = (signs.shape[1] - product.abs()) / 2
    assert bool((different.fill_diagonal_(128) > 128 - 8 * 8).all())


def work(processes: Encrypter, source: Path, scheme: str, kills: int, group: int = 0) -> int:
    """Encrypt into one folder after another until so many processes were killed."""
    trail = Trail(source, source.parent / "ledger.sqlite", scheme, group)
    done = folders = 0
    while done < kills:
        folder = source.parent / f"encoded-{folders}"
        done += kill_until_done(processes, trail, folder)
        require_complete(folder, scheme)
        folders += 1
    return done


@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_killed_encryption_resumes_to_its_end(
    processes: Encrypter, source: Path, scheme: str
) -> None:
    assert work(processes, source, scheme, 3) >= 3


@pytest.mark.slow
def test_groups_are_counted_exactly_over_kills(processes: Encrypter, source: Path) -> None:
    assert work(processes, source, "inside", 3, group=4) >= 3


@pytest.mark.slow
@pytest.mark.parametrize("scheme", SCHEMES)
def test_groups_are_counted_exactly_over_twenty_kills(
    processes: Encrypter, source: Path, scheme: str
) -> None:
    assert work(processes, source, scheme, 20, group=4) >= 20


@pytest.mark.slow
@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_hundred_kills(processes: Encrypter, source: Path, scheme: str) -> None:
    assert work(processes, source, scheme, 100) >= 100

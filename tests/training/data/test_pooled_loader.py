"""Reading folders of encodings: each once, in a new order, mixed, in bounded memory."""

from __future__ import annotations

import math
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from instahide.encodings.folder import EncodedFolder
from instahide.errors import InstaHideError
from instahide.training.data import pooled_loader
from instahide.training.data.pooled_loader import PooledLoader, folder_batches, prefetch
from tests.waiting import LIMIT

SHAPE = (1, 2, 2)
STRETCH, WINDOW = 5, 40
STEP = 2**-9

Write = Callable[..., EncodedFolder]


def numbered(numbers: Tensor) -> Tensor:
    """Images that hold their number, exactly so in float16 as well."""
    return (numbers.float() * STEP)[:, None, None, None].expand(-1, *SHAPE)


def numbers_of(images: Tensor) -> list[int]:
    assert images.dtype == torch.float32
    assert bool((images == images[:, :1, :1, :1]).all())
    return [round(value / STEP) for value in images[:, 0, 0, 0].tolist()]


def soft(numbers: Tensor, classes: int) -> Tensor:
    return F.one_hot(numbers % classes, classes).float() * 0.75


@pytest.fixture(autouse=True, scope="module")
def _small_windows() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pooled_loader, "STRETCH_VALUES", STRETCH * math.prod(SHAPE))
        patch.setattr(pooled_loader, "WINDOW_VALUES", WINDOW * math.prod(SHAPE))
        yield


@settings(max_examples=15, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 90), min_size=1, max_size=4),
    batch_size=st.integers(1, 70),
    shard=st.integers(20, 60),
    values=st.sampled_from(["float32", "float16"]),
)
def test_an_epoch_has_every_encoding_once_with_its_label(
    sizes: list[int],
    batch_size: int,
    shard: int,
    values: str,
    write_folder: Write,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    """Whatever the sizes of folders, shards and batches; all batches but the last are full."""
    folders, first = [], 0
    for size in sizes:
        numbers = torch.arange(first, first + size)
        images, labels = numbered(numbers), soft(numbers, 2)
        path = tmp_path_factory.mktemp("part")
        folders.append(write_folder(path, images, labels, shard=shard, values=values))
        first += size
    loader = PooledLoader(folders, batch_size)
    batches = list(loader)
    lengths = [len(batch.images) for batch in batches]
    assert len(loader) == len(batches)
    assert all(length == batch_size for length in lengths[:-1])
    numbers = [number for batch in batches for number in numbers_of(batch.images)]
    assert sorted(numbers) == list(range(first))
    labels = torch.cat([batch.labels for batch in batches])
    assert torch.equal(labels, soft(torch.tensor(numbers), 2))


def test_stored_bytes_become_numbers(write_folder: Write, tmp_path: Path) -> None:
    """Folders that store their values differently are read together."""
    images = torch.rand(30, *SHAPE) * 2 - 1
    labels = torch.zeros(30, 2)
    labels[:, 0] = torch.arange(30) / 30
    folders = [
        write_folder(tmp_path / values, images, labels, values=values)
        for values in ("uint8", "float16", "float32")
    ]
    for folder in folders:
        (batch,) = PooledLoader([folder], 30)
        order = batch.labels[:, 0].argsort()
        error = (batch.images[order] - images).abs().max().item()
        assert error <= folder.manifest.max_quantization_error
    assert sum(len(batch.images) for batch in PooledLoader(folders, 16)) == 90


def test_every_epoch_has_an_order_of_its_own(write_folder: Write, tmp_path: Path) -> None:
    numbers = torch.arange(200)
    loader = PooledLoader([write_folder(tmp_path / "a", numbered(numbers), soft(numbers, 2))], 64)
    orders = [[number for batch in loader for number in numbers_of(batch.images)] for _ in range(3)]
    assert orders[0] != orders[1] != orders[2] != orders[0]
    # An encoding is as likely at the start as at the end: the sum of 3 x 100 places. Neighbors move
    # together, so that its deviation is 1.33 times that of independent places.
    places = sum(order.index(number) for order in orders for number in range(100))
    assert abs(places - 300 * 99.5) < 8 * math.sqrt(300 * 200**2 / 12)


def test_batches_mix_the_folders(write_folder: Write, tmp_path: Path) -> None:
    """Where each participant has one class, a batch still has all of them."""
    folders = [
        write_folder(
            tmp_path / str(part),
            numbered(torch.arange(400)),
            soft(torch.full((400,), part), 3),
            ("a", "b", "c"),
        )
        for part in range(3)
    ]
    shares = torch.stack([batch.labels.sum(0) for batch in PooledLoader(folders, 40)]) / 40 / 0.75
    # A window is 8 stretches of 5 from 3 folders: its shares vary by 1/6, the mean of 30 by less.
    assert torch.allclose(shares.mean(0), torch.full((3,), 1 / 3))
    assert shares.std(0).max() < 0.3


def test_labels_are_matched_by_the_names_of_classes(write_folder: Write, tmp_path: Path) -> None:
    """The first folder's order, then what others add; a class that a folder lacks is zero."""
    first = write_folder(tmp_path / "a", numbered(torch.zeros(4)), torch.eye(2)[[0, 1, 0, 1]])
    other = write_folder(
        tmp_path / "b", numbered(torch.ones(3)), torch.eye(3), ("emu", "dog", "cat")
    )
    loader = PooledLoader([first, other], 7)
    assert loader.classes == ("cat", "dog", "emu")
    (batch,) = loader
    ours = batch.labels[batch.images[:, 0, 0, 0] == 0]
    theirs = batch.labels[batch.images[:, 0, 0, 0] > 0]
    assert ours.sum(0).tolist() == [2, 2, 0]
    assert sorted(theirs.tolist()) == [[0, 0, 1], [0, 1, 0], [1, 0, 0]]
    ((images, numbers),) = folder_batches(other, loader.classes)
    assert numbers.tolist() == [2, 1, 0]
    assert torch.equal(images, other.decoded(other.shard(0).images))


def test_memory_is_bounded_by_a_window(write_folder: Write, tmp_path: Path) -> None:
    numbers = torch.arange(1000)
    loader = PooledLoader([write_folder(tmp_path / "a", numbered(numbers), soft(numbers, 2))], 7)
    sizes = [len(window.images) for window in loader._windows()]
    assert sum(sizes) == 1000
    assert max(sizes) <= WINDOW + STRETCH + 7


@pytest.mark.parametrize("batch_size", [0, -1])
def test_an_empty_batch_is_refused(batch_size: int, write_folder: Write, tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "a", numbered(torch.arange(3)), torch.ones(3, 2) / 2)
    with pytest.raises(InstaHideError, match="batch"):
        PooledLoader([folder], batch_size)


def test_a_shard_that_was_changed_meanwhile_stops_the_epoch(
    write_folder: Write, tmp_path: Path
) -> None:
    """What goes wrong in the background is heard in front."""
    numbers = torch.arange(300)
    folder = write_folder(tmp_path / "a", numbered(numbers), soft(numbers, 2))
    loader = PooledLoader([folder], 16)
    last = tmp_path / "a" / folder.manifest.shards[-1].name
    last.write_bytes(last.read_bytes()[:-8])
    with pytest.raises(InstaHideError, match=r"Shard .* is damaged"):
        list(loader)


def test_who_stops_early_leaves_no_thread(write_folder: Write, tmp_path: Path) -> None:
    numbers = torch.arange(300)
    loader = PooledLoader([write_folder(tmp_path / "a", numbered(numbers), soft(numbers, 2))], 8)
    batches = iter(loader)
    next(batches)
    batches.close()  # type: ignore[attr-defined]
    assert not [thread for thread in threading.enumerate() if "reading" in thread.name]


def test_the_next_is_made_while_this_one_is_used() -> None:
    made = [threading.Event() for _ in range(3)]

    def items() -> Iterator[int]:
        for number, event in enumerate(made):
            event.set()
            yield number

    seen = []
    for number in prefetch(items()):
        assert all(event.wait(LIMIT) for event in made[: number + 2])
        seen.append(number)
    assert seen == [0, 1, 2]


COUNTING = """
import os, sys
from pathlib import Path
from instahide.encodings.folder import EncodedFolder
from instahide.training.data.pooled_loader import PooledLoader

def threads():
    return len(os.listdir("/proc/self/task"))

batches = iter(PooledLoader([EncodedFolder.open(sys.argv[1])], 10))
before = threads()
next(batches)
print(threads() - before)
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="threads are counted on Linux")
@pytest.mark.parametrize("values", ["float16", "uint8"])
def test_reading_starts_one_thread_and_none_of_pytorchs(
    values: str, write_folder: Write, tmp_path: Path
) -> None:
    """With a second team of its threads there, PyTorch's own sleep between operations."""
    # Enough values for PyTorch to share an operation among threads.
    count = 2**17 // math.prod(SHAPE)
    numbers = torch.arange(count) % 100
    write_folder(tmp_path / "a", numbered(numbers), soft(numbers, 2), shard=count, values=values)
    result = subprocess.run(
        [sys.executable, "-c", COUNTING, str(tmp_path / "a")],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "2"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert int(result.stdout) == 1

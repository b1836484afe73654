"""Shuffled batches from folders of encodings, in bounded memory."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import groupby
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from instahide.data.labels import output_columns
from instahide.encodings.folder import EncodedFolder
from instahide.encryption.buffer_pool import allocate
from instahide.encryption.encoder import Encoded
from instahide.errors import InstaHideError
from instahide.training.data.compatibility import class_union, require_poolable
from instahide.training.distributed.processes import ALONE, Processes

T = TypeVar("T")

#: Values of a stretch, which is read at once: enough for fast disk reads. Values of a window, in
#: which encodings are shuffled: enough to mix all folders, and few enough for memory.
STRETCH_VALUES, WINDOW_VALUES = 1 << 19, 1 << 25


class PooledLoader:
    """Batches of ``(images, soft_labels)``; each pass is an epoch with every encoding once.

    Shards are divided into stretches. Every epoch reads the stretches of all folders in a new
    random order, some dozens at a time, and shuffles the encodings in these. The next ones are read
    in the background while the current ones are used. With several processes, each reads its own
    part of every shard.

    Args:
        folders: folders of encodings, of one or more participants.
        batch_size: encodings in a batch; the last batch may be smaller.
        pin_memory: put the encodings into page-locked memory, for faster copies to a GPU.
        processes: the processes that train together.

    Attributes:
        classes: the names of the columns of the labels: the union of the folders' classes.

    Raises:
        InstaHideError: ``batch_size`` is below 1, or the folders cannot be pooled.
    """

    def __init__(
        self,
        folders: Sequence[EncodedFolder],
        batch_size: int,
        *,
        pin_memory: bool = False,
        processes: Processes = ALONE,
    ) -> None:
        if batch_size < 1:
            raise InstaHideError(
                f"batch_size = {batch_size} is below 1.", "Use a batch size of 1 or more."
            )
        require_poolable(folders)
        self.folders = tuple(folders)
        self.batch_size = batch_size
        self.pin_memory = pin_memory
        self.processes = processes
        self.classes = class_union(folders)
        self._columns = [
            np.asarray(output_columns(folder.manifest.classes, self.classes)) for folder in folders
        ]

    def __len__(self) -> int:
        """Batches in an epoch."""
        return -(-self._count() // self.batch_size)

    def __iter__(self) -> Iterator[Encoded]:
        for window in prefetch(self._windows()):
            for start in range(0, len(window.images), self.batch_size):
                part = slice(start, start + self.batch_size)
                yield Encoded(window.images[part], window.labels[part])

    def _windows(self) -> Iterator[Encoded]:
        """Shuffled encodings, in multiples of a batch except at the end."""
        # The order is not secret, because the reader has all encodings anyway: it needs no key.
        generator = np.random.default_rng()
        stretches = self._stretches()
        parts = max(
            1, -(-self._count() * math.prod(self.folders[0].manifest.shape) // WINDOW_VALUES)
        )
        windows = np.array_split(generator.permutation(stretches), parts)
        rest = self._empty(0)
        for number, window in enumerate(windows, start=1):
            images, labels = self._shuffled(window, rest, generator)
            left = len(images) % self.batch_size if number < parts else 0
            whole = len(images) - left
            yield Encoded(images[:whole], labels[:whole])
            rest = Encoded(_copied(images[whole:]), _copied(labels[whole:]))

    def _count(self) -> int:
        """Encodings that this process reads."""
        return sum(own_encodings(folder, self.processes) for folder in self.folders)

    def _stretches(self) -> NDArray[np.int64]:
        """(n, 4): folder, shard, first row and the row after the last."""
        length = max(1, STRETCH_VALUES // math.prod(self.folders[0].manifest.shape))
        return np.array(
            [
                (place, number, start, min(start + length, own.stop))
                for place, folder in enumerate(self.folders)
                for number, own in enumerate(_own_rows(folder, self.processes))
                for start in own[::length]
            ],
            np.int64,
        ).reshape(-1, 4)

    def _shuffled(
        self, stretches: NDArray[np.int64], rest: Encoded, generator: np.random.Generator
    ) -> Encoded:
        """The encodings of ``stretches`` and the ``rest`` of the window before, in random order."""
        left = len(rest.images)
        count = left + int((stretches[:, 3] - stretches[:, 2]).sum())
        places = generator.permutation(count)
        out = self._empty(count)
        # By NumPy, for the reason that `dequantize` gives.
        all_images, all_labels = out.images.numpy(), out.labels.numpy()
        all_images[places[:left]], all_labels[places[:left]] = map(Tensor.numpy, rest)
        first = left
        ordered = sorted(map(tuple, stretches.tolist()))
        for (folder, shard), group in groupby(ordered, key=lambda stretch: stretch[:2]):
            images, labels = self.folders[folder].shard(shard)
            for *_, start, stop in group:
                rows = places[first : first + stop - start]
                all_images[rows] = self.folders[folder].decoded(images[start:stop]).numpy()
                all_labels[rows[:, None], self._columns[folder]] = labels[start:stop].numpy()
                first += len(rows)
        return out

    def _empty(self, count: int) -> Encoded:
        """Memory for ``count`` encodings.

        A folder may lack some columns. Its images have a share of 0 of such a class; such a finding
        is unknown.
        """
        shape = (count, *self.folders[0].manifest.shape)
        images = allocate(shape, torch.float32, pin_memory=self.pin_memory)
        shape = (count, len(self.classes))
        labels = torch.empty(shape, dtype=torch.float32, pin_memory=self.pin_memory)
        classes = self.folders[0].manifest.task == "single-label"
        labels.numpy().fill(0 if classes else np.nan)
        return Encoded(images, labels)


def _copied(part: Tensor) -> Tensor:
    return torch.from_numpy(part.numpy().copy())


def prefetch(items: Iterator[T]) -> Iterator[T]:
    """``items``, each produced in the background while the previous one is used."""
    with ThreadPoolExecutor(1, thread_name_prefix="instahide-reading") as worker:
        coming = worker.submit(next, items, None)
        while (item := coming.result()) is not None:
            coming = worker.submit(next, items, None)
            yield item


def _own_rows(folder: EncodedFolder, processes: Processes) -> list[range]:
    """The rows of each shard that this process reads."""
    return [processes.share(shard.encodings) for shard in folder.manifest.shards]


def own_encodings(folder: EncodedFolder, processes: Processes) -> int:
    """Number of encodings of ``folder`` that this process reads."""
    return sum(map(len, _own_rows(folder, processes)))


def folder_batches(
    folder: EncodedFolder, classes: tuple[str, ...], size: int = 500, processes: Processes = ALONE
) -> Iterator[tuple[Tensor, Tensor]]:
    """The encodings of ``folder`` in order, with the number in ``classes`` of their largest label.

    With several processes, each gets its own part.

    Raises:
        InstaHideError: the folder has a class that is not in ``classes``.
    """
    numbers = torch.tensor(output_columns(folder.manifest.classes, classes))
    for shard, own in enumerate(_own_rows(folder, processes)):
        images, labels = folder.shard(shard)
        for start in own[::size]:
            rows = slice(start, min(start + size, own.stop))
            yield folder.decoded(images[rows]), numbers[labels[rows].argmax(1)]

"""The interface to the processes that train one network together.

Every process makes the same decisions from the same values, which `World.gathered` returned to all
of them, so that no process waits for one that took another branch.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from instahide.errors import InstaHideError

#: Encodings (n, C, H, W) and soft labels (n, classes).
Batch = tuple[Tensor, Tensor]
#: Tensors and facts, as `checkpoint.read` gives them.
Saved = tuple[Mapping[str, Tensor], Mapping[str, Any]]


class Batches(Protocol):
    """Encodings with soft labels; every pass is an epoch."""

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[Batch]: ...


class World:
    """A single process; `ddp.Ranks` is for several.

    Attributes:
        size: number of processes.
        rank: number of this process, from 0.
    """

    size = 1
    rank = 0

    @property
    def main(self) -> bool:
        """Whether this is the process that prints and writes."""
        return self.rank == 0

    @property
    def participant(self) -> str:
        """The name that is mixed into the keys of this process; empty for a single one."""
        return ""

    def together(self) -> AbstractContextManager[None]:
        """A context in which an error of one process is raised in all of them."""
        return nullcontext()

    def gathered(self, fact: Any) -> list[Any]:
        """The ``fact`` of each process, in the order of ranks; a value of JSON types."""
        return [fact]

    def share(self, count: int) -> range:
        """The part of ``range(count)`` for this process; sizes differ by at most 1."""
        return range(self.rank * count // self.size, (self.rank + 1) * count // self.size)

    def require(self, device: torch.device, precision: torch.dtype) -> None:
        """Check that the devices and precisions of all processes match.

        Args:
            device: device of this process.
            precision: type of its arithmetic.
        """

    def length(self, batches: Batches) -> int:
        """Number of steps of an epoch."""
        return len(batches)

    def steps(self, batches: Batches) -> Iterator[tuple[Tensor, Tensor, int]]:
        """The batches of one epoch, each with its number of encodings; 0 for a batch to skip."""
        for batch in batches:
            encodings, labels = usable(batch)
            yield encodings, labels, len(encodings)

    def replica(self, model: nn.Module) -> nn.Module:
        """A replica of ``model`` whose gradients are averaged over processes."""
        return model

    def average(self, model: nn.Module, images: int) -> None:
        """Average the buffers of ``model`` over processes, weighted by ``images``."""

    def copied(self, saved: Saved | None) -> Saved | None:
        """The value of ``saved`` in the main process."""
        return saved

    def facts(self) -> dict[str, Any]:
        """Entries of the results about the processes."""
        return {"world": {"size": 1}}


#: A single process.
ALONE = World()


def usable(batch: Batch) -> Batch:
    """``batch``, or an empty batch if it holds a single encoding.

    Batch normalization is undefined for a single encoding.
    """
    encodings, labels = batch
    return batch if len(encodings) > 1 else (encodings[:0], labels[:0])


def none_usable() -> InstaHideError:
    """The error for an epoch in which no batch was `usable`."""
    return InstaHideError(
        "Every batch holds a single encoding, which batch normalization cannot compare with any.",
        "Use a batch size of 2 or more, and at least two images.",
    )

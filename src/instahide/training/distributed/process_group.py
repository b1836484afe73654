"""The processes that train one network together, of which this is one.

Whatever they decide, each decides by itself from what `World.gathered` gave all of them: so they
never have to wait for one that went another way.
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
    """A process that trains alone; `ddp.Ranks` are several.

    Attributes:
        size: how many processes there are.
        rank: this one's number, from 0.
    """

    size = 1
    rank = 0

    @property
    def main(self) -> bool:
        """Whether this is the process that prints and writes."""
        return self.rank == 0

    @property
    def participant(self) -> str:
        """Whose keys this process draws; a process alone needs no name."""
        return ""

    def together(self) -> AbstractContextManager[None]:
        """A block in which what one process raises is raised in all of them."""
        return nullcontext()

    def gathered(self, fact: Any) -> list[Any]:
        """The ``fact`` of each process, in order; JSON, as others will see it."""
        return [fact]

    def share(self, count: int) -> range:
        """Which of ``count`` things in a row fall to this process; shares differ by one at most."""
        return range(self.rank * count // self.size, (self.rank + 1) * count // self.size)

    def require(self, device: torch.device, precision: torch.dtype) -> None:
        """Check that the processes can compute together.

        Args:
            device: where this one computes.
            precision: its arithmetic.
        """

    def length(self, batches: Batches) -> int:
        """Steps of an epoch."""
        return len(batches)

    def steps(self, batches: Batches) -> Iterator[tuple[Tensor, Tensor, int]]:
        """The batches of one epoch, each with the number of encodings in it; 0 if it is no use."""
        for batch in batches:
            encodings, labels = usable(batch)
            yield encodings, labels, len(encodings)

    def replica(self, model: nn.Module) -> nn.Module:
        """``model``, whose gradients are the mean over processes."""
        return model

    def average(self, model: nn.Module, images: int) -> None:
        """Give the buffers of ``model`` their mean over processes, weighted by ``images``."""

    def copied(self, saved: Saved | None) -> Saved | None:
        """What the main process has of ``saved``."""
        return saved

    def facts(self) -> dict[str, Any]:
        """What the results should say of the processes."""
        return {"world": {"size": 1}}


#: A process without others.
ALONE = World()


def usable(batch: Batch) -> Batch:
    """``batch``, or nothing of it if it is a single encoding.

    Batch normalization has nothing to compare a single one with.
    """
    encodings, labels = batch
    return batch if len(encodings) > 1 else (encodings[:0], labels[:0])


def none_usable() -> InstaHideError:
    """What to raise where no batch of an epoch was `usable`."""
    return InstaHideError(
        "Every batch holds a single encoding, which batch normalization cannot compare with any.",
        "Use a batch size of 2 or more, and at least two images.",
    )

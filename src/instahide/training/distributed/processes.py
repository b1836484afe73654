"""The processes that train one network together, and what they tell each other.

A launcher such as `torchrun` starts them, and Lightning Fabric connects them. Values are exchanged
as JSON, because ranks may belong to different institutions: nothing of another process is
unpickled. Each process decides from the values that `Processes.gather` returned to all of them, so
that no process waits for one that took another branch.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, Protocol

import torch
import torch.distributed as dist
from torch import Tensor

from instahide.errors import InstaHideError, problem_and_remedy

if TYPE_CHECKING:
    from lightning_fabric import Fabric

#: Encodings (n, C, H, W) and soft labels (n, classes).
Batch = tuple[Tensor, Tensor]
#: Tensors and facts, as `checkpoint.read` gives them.
Saved = tuple[Mapping[str, Tensor], Mapping[str, Any]]
#: Environment variables by which a launcher lets processes find each other.
LAUNCHED = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
#: The most bytes of a message.
MAX_MESSAGE = 1 << 26


class Batches(Protocol):
    """Encodings with soft labels; every pass is an epoch."""

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[Batch]: ...


class _SharedError(InstaHideError):
    """An error of one process, raised in all of them."""


class Processes:
    """The processes of a run, of which this is one. Use `launch`.

    Args:
        fabric: has joined the processes; None for a process that trains alone.

    Attributes:
        rank: number of this process, from 0.
        world_size: number of processes.
        in_step: whether all of them have ended the block of `fail_together`, or know why they did
            not.
    """

    rank = 0
    world_size = 1

    def __init__(self, fabric: Fabric | None = None) -> None:
        self.in_step = False
        if fabric is not None:
            self.rank, self.world_size = fabric.global_rank, fabric.world_size

    @property
    def main(self) -> bool:
        """Whether this is the process that prints and writes."""
        return self.rank == 0

    @property
    def participant(self) -> str:
        """The name that is mixed into the keys of this process; empty for a single one."""
        return f"rank-{self.rank}" if self.world_size > 1 else ""

    def share(self, count: int) -> range:
        """The part of ``range(count)`` for this process; sizes differ by at most 1."""
        rank, size = self.rank, self.world_size
        return range(rank * count // size, (rank + 1) * count // size)

    @contextmanager
    def fail_together(self) -> Iterator[None]:
        """A context in which an `InstaHideError` or `OSError` of one process is raised in all.

        Raises:
            InstaHideError: one of the processes failed, or has ended.
        """
        if self.world_size == 1:
            yield
            return
        self.in_step = False
        try:
            try:
                yield
                # A process may have failed after the last exchange of the others.
                self.gather(None)
            except _SharedError:
                raise
            except (InstaHideError, OSError) as error:
                self._exchange(None, problem_and_remedy(error))
        except _SharedError:
            self.in_step = True
            raise
        except RuntimeError as error:
            if not _is_disconnection(error):
                raise
            raise InstaHideError(
                "Another process of this run has ended, so that this one cannot go on.",
                "See its log; then start all of them again, with `resume=True`.",
            ) from error
        self.in_step = True

    def gather(self, value: Any) -> list[Any]:
        """The ``value`` (of JSON types) of each process, in the order of ranks.

        Raises:
            InstaHideError: a process has failed since the last exchange.
        """
        return [value] if self.world_size == 1 else self._exchange(value, None)

    def concatenated(self, own: Tensor) -> Tensor:
        """The rows of ``own`` (n, ...) of all processes, in the order of ranks; n may differ.

        Raises:
            InstaHideError: a process has failed since the last exchange.
        """
        if self.world_size == 1:
            return own
        counts = self.gather(len(own))
        padded = own.new_zeros((max(counts), *own.shape[1:]))
        padded[: len(own)] = own
        parts = self._gather_rows(padded)
        return torch.cat([part[:count] for part, count in zip(parts, counts, strict=True)])

    def require_same_arithmetic(self, device: torch.device, precision: torch.dtype) -> None:
        """Check that the processes compute on one kind of device, in one precision.

        Raises:
            InstaHideError: they do not, or two processes would share a GPU.
        """
        if self.world_size == 1:
            return
        gpu = device.index is None and int(os.environ.get("LOCAL_RANK", 0)) < (
            torch.cuda.device_count()
        )
        found = self.gather([device.type, str(precision), gpu])
        kinds = sorted({f"{where} in {how}" for where, how, _ in found})
        if len(kinds) > 1 or device.type not in ("cpu", "cuda"):
            raise InstaHideError(
                f"The processes compute on {' and '.join(kinds)}.",
                "Choose one `device=`, cpu or cuda, and one `precision=` for all.",
            )
        if device.type == "cuda" and not all(gpu for *_, gpu in found):
            raise InstaHideError(
                "Two processes cannot share a GPU.",
                "Start one for each GPU and leave `device=` out, or use `device='cpu'`.",
            )

    def length(self, batches: Batches) -> int:
        """Number of steps of an epoch: the largest number of batches of a process."""
        return int(max(self.gather(len(batches))))

    def steps(self, batches: Batches) -> Iterator[tuple[Tensor, Tensor, int]]:
        """The batches of one epoch, each with the number of encodings in this step of all.

        The number is 0 for a batch to skip. A process without further encodings continues with
        empty batches until all are done, so that networks, optimisers and averages stay equal.
        """
        if self.world_size == 1:
            for encodings, labels in map(usable, batches):
                yield encodings, labels, len(encodings)
            return
        rest, nothing = iter(batches), None
        for _ in range(self.length(batches)):
            batch = next(rest, nothing)
            if batch is None:
                raise InstaHideError("There is nothing to learn from.", "Give at least one image.")
            encodings, labels = usable(batch)
            nothing = encodings[:0], labels[:0]
            yield encodings, labels, sum(self.gather(len(encodings)))
        # A loader may report a reached limit after its last batch.
        next(rest, None)

    def broadcast(self, saved: Saved | None) -> Saved | None:
        """The value of ``saved`` in rank 0, which may be the only one with the file."""
        if self.world_size == 1:
            return saved
        tensors, facts = saved or ({}, None)
        outline = [
            (name, str(t.dtype).removeprefix("torch."), t.shape) for name, t in tensors.items()
        ]
        facts, outline = self.gather([facts, outline])[0]
        if facts is None:
            return None
        copies = {}
        for name, dtype, shape in outline:
            own = tensors[name] if self.main else torch.empty(shape, dtype=getattr(torch, dtype))
            dist.broadcast(own, 0)
            copies[name] = own
        return copies, facts

    def facts(self, device: torch.device) -> dict[str, Any]:
        """Entries of the results: the number of processes, and the backend of their gradients."""
        if self.world_size == 1:
            return {"world": {"size": 1}}
        backend = "nccl" if device.type == "cuda" else "gloo"
        return {"world": {"size": self.world_size, "backend": backend}}

    def _exchange(self, value: Any, error: tuple[str, str] | None) -> list[Any]:
        """Gather ``value``; an ``error`` is raised in all processes."""
        text = json.dumps([value, error]).encode()
        longest = int(max(self._gather_rows(torch.tensor([len(text)]))))
        if longest > MAX_MESSAGE:
            raise InstaHideError(
                f"A process of this run sends {longest:,} bytes of facts.",
                "Check that all of them run the same release of instahide.",
            )
        # JSON ignores the spaces after a text.
        padded = torch.frombuffer(bytearray(text.ljust(longest)), dtype=torch.uint8)
        messages = [json.loads(row.numpy().tobytes()) for row in self._gather_rows(padded)]
        errors = [error for _, error in messages]
        if any(errors):
            raise _shared(errors)
        return [value for value, _ in messages]

    def _gather_rows(self, own: Tensor) -> list[Tensor]:
        """``own`` of every process, in the order of ranks; all have the same shape."""
        rows = [torch.empty_like(own) for _ in range(self.world_size)]
        # `Fabric.all_gather` calls a deprecated function of PyTorch.
        dist.all_gather(rows, own)
        return rows


#: A process that trains alone.
ALONE = Processes()


@contextmanager
def launch() -> Iterator[Processes]:
    """A context with all processes that a launcher started; without a launcher, a single one.

    At the end the processes wait for each other, unless one of them failed, because a launcher ends
    all of them when the first one exits.

    Raises:
        InstaHideError: the processes cannot connect to each other.
    """
    if not all(name in os.environ for name in LAUNCHED) or os.environ["WORLD_SIZE"] == "1":
        yield ALONE
        return
    from instahide.training.fabric import make_fabric

    try:
        fabric = make_fabric(torch.device("cpu"), torch.float32, distributed=True)
    except (RuntimeError, ValueError) as error:
        raise InstaHideError(
            f"The processes of this run do not find each other ({error}).",
            "Check MASTER_ADDR and MASTER_PORT, or start them with `torchrun`.",
        ) from error
    processes = Processes(fabric)
    try:
        yield processes
    finally:
        if processes.in_step:
            # No tensor of Python: gloo's thread may release it while the interpreter ends.
            with suppress(RuntimeError):
                fabric.barrier()
        dist.destroy_process_group()


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


def _shared(errors: list[list[str] | None]) -> _SharedError:
    """The first of the ``errors``, with its rank unless all processes have the same error."""
    rank, (problem, remedy) = next((r, e) for r, e in enumerate(errors) if e)
    everywhere = all(error == errors[0] for error in errors)
    return _SharedError(problem if everywhere else f"Rank {rank}: {problem}", remedy)


def _is_disconnection(error: RuntimeError) -> bool:
    """Whether the error means that another process ended; gloo marks it only by its name."""
    return isinstance(error, dist.DistError) or "gloo" in str(error)

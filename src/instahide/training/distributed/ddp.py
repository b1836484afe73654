"""Training with several processes, by `DistributedDataParallel`.

A launcher such as `torchrun` starts the processes and sets their environment variables. Values are
exchanged as JSON through gloo on every device: no data of another process is unpickled, and an
error of one process reaches all others in their next exchange. On GPUs, gradients and batch
statistics are exchanged through nccl.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from instahide.errors import InstaHideError, problem_and_remedy
from instahide.training.distributed.process_group import ALONE, Batches, Saved, World, usable

#: Environment variables that a launcher sets.
LAUNCHED = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
#: Timeout of an exchange; other processes may have far more images to read. The death of a process
#: is noticed at once.
PATIENCE = timedelta(days=1)
#: Timeout of the barrier at the end.
PARTING = timedelta(seconds=3)
#: Bytes of a message that needs no second exchange, and the most bytes of a message.
SHORT, LONG = 256, 1 << 26


class AgreedError(InstaHideError):
    """An error of one process, raised in all of them."""


@contextmanager
def joined() -> Iterator[World]:
    """A context with all processes that a launcher started; without a launcher, a single one.

    At the end the processes wait for each other, unless one of them failed, because a launcher ends
    all of them when the first one exits.

    Raises:
        InstaHideError: the processes cannot connect to each other.
    """
    if not all(name in os.environ for name in LAUNCHED) or os.environ["WORLD_SIZE"] == "1":
        yield ALONE
        return
    try:
        dist.init_process_group("gloo")
    except (RuntimeError, ValueError) as error:
        raise InstaHideError(
            f"The processes of this run do not find each other ({error}).",
            "Check MASTER_ADDR and MASTER_PORT, or start them with `torchrun`.",
        ) from error
    ranks = Ranks()
    try:
        yield ranks
    finally:
        if ranks.in_step:
            with suppress(RuntimeError):
                dist.monitored_barrier(timeout=PARTING)
        dist.destroy_process_group()


class Ranks(World):
    """All processes of a run, of which this is one. Use `joined`.

    Attributes:
        in_step: whether all of them have ended the block of `together`, or know why they did not.
    """

    def __init__(self) -> None:
        self.in_step = False
        self.size = dist.get_world_size()
        self.rank = dist.get_rank()
        self._facts = self._gradients = dist.new_group(timeout=PATIENCE)
        self._local_rank = int(os.environ.get("LOCAL_RANK", 0))
        if self._local_rank < torch.cuda.device_count():
            torch.cuda.set_device(self._local_rank)

    @property
    def participant(self) -> str:
        """The name in the keys of this process, by its rank."""
        return f"rank-{self.rank}"

    @contextmanager
    def together(self) -> Iterator[None]:
        """As `World.together`, for errors that a user can put right, and for a process that died.

        Raises:
            AgreedError: one of the processes failed; it is raised in all of them.
            InstaHideError: another process has ended.
        """
        self.in_step = False
        try:
            try:
                yield
                # A process may have failed after the last exchange of the others.
                self.gathered(None)
            except AgreedError:
                raise
            except (InstaHideError, OSError) as error:
                self._exchange(None, problem_and_remedy(error))
        except AgreedError:
            self.in_step = True
            raise
        except RuntimeError as error:
            if not _lost(error):
                raise
            raise _alone() from error
        self.in_step = True

    def gathered(self, fact: Any) -> list[Any]:
        """As `World.gathered`.

        Raises:
            AgreedError: a process has failed since the last exchange.
        """
        return self._exchange(fact, None)

    def require(self, device: torch.device, precision: torch.dtype) -> None:
        """As `World.require`.

        Raises:
            InstaHideError: devices or precisions differ, or two processes would share a GPU.
        """
        gpu = device.index is None and self._local_rank < torch.cuda.device_count()
        found = self.gathered([device.type, str(precision), gpu])
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
        if device.type == "cuda":
            self._gradients = dist.new_group(timeout=PATIENCE, backend="nccl")

    def length(self, batches: Batches) -> int:
        """The largest number of batches of a process."""
        return int(max(self.gathered(len(batches))))

    def steps(self, batches: Batches) -> Iterator[tuple[Tensor, Tensor, int]]:
        """As `World.steps`, with the number of encodings in the batches of all processes.

        A process without further encodings continues with empty batches until all are done, so
        that networks, optimisers and averages stay equal.
        """
        rest, nothing = iter(batches), None
        for _ in range(self.length(batches)):
            batch = next(rest, nothing)
            if batch is None:
                raise InstaHideError("There is nothing to learn from.", "Give at least one image.")
            encodings, labels = usable(batch)
            nothing = encodings[:0], labels[:0]
            yield encodings, labels, sum(self.gathered(len(encodings)))

    def replica(self, model: nn.Module) -> nn.Module:
        """As `World.replica`; all processes get the weights of rank 0."""
        replica = DistributedDataParallel(
            model, process_group=self._gradients, gradient_as_bucket_view=True
        )
        # Rank 0's buffers would describe only its own images; `average` uses those of all.
        replica.broadcast_buffers = False
        return replica

    def average(self, model: nn.Module, images: int) -> None:
        """As `World.average`; also exact for counts."""
        buffers = list(model.buffers())
        if not buffers:
            return
        weight = torch.full((1,), images, dtype=torch.float64, device=buffers[0].device)
        flat = torch.cat([weight, *(images * buffer.double().flatten() for buffer in buffers)])
        dist.all_reduce(flat, group=self._gradients)
        parts = torch.split(flat[1:] / flat[0], [buffer.numel() for buffer in buffers])
        for buffer, part in zip(buffers, parts, strict=True):
            buffer.copy_(part.view_as(buffer))

    def copied(self, saved: Saved | None) -> Saved | None:
        """The value of ``saved`` in rank 0, which may be the only one with the file."""
        tensors, facts = saved or ({}, None)
        outline = [
            (name, str(t.dtype).removeprefix("torch."), t.shape) for name, t in tensors.items()
        ]
        facts, outline = self.gathered([facts, outline])[0]
        if facts is None:
            return None
        copies = {}
        for name, kind, shape in outline:
            own = tensors[name] if self.main else torch.empty(shape, dtype=getattr(torch, kind))
            dist.broadcast(own, 0, group=self._facts)
            copies[name] = own
        return copies, facts

    def facts(self) -> dict[str, Any]:
        """Number of processes, and the backend of their gradients."""
        return {"world": {"size": self.size, "backend": dist.get_backend(self._gradients)}}

    def _exchange(self, fact: Any, error: tuple[str, str] | None) -> list[Any]:
        texts = self._texts(json.dumps([fact, error]).encode())
        messages = [json.loads(text) for text in texts]
        errors = [error for _, error in messages]
        if any(errors):
            raise _agreed(errors)
        return [fact for fact, _ in messages]

    def _texts(self, own: bytes) -> list[bytes]:
        """The message of every process, in order; JSON padded with spaces."""
        head = len(own).to_bytes(8, "big")
        heads = self._rows((head + own)[:SHORT].ljust(SHORT))
        longest = max(int.from_bytes(row[:8], "big") for row in heads)
        if longest > LONG:
            raise InstaHideError(
                f"A process of this run sends {longest:,} bytes of facts.",
                "Check that all of them run the same release of instahide.",
            )
        if longest <= SHORT - 8:
            return [row[8:] for row in heads]
        return self._rows(own.ljust(longest))

    def _rows(self, own: bytes) -> list[bytes]:
        """``own`` of every process, in order; all have the same length."""
        mine = torch.frombuffer(bytearray(own), dtype=torch.uint8)
        rows = [torch.empty_like(mine) for _ in range(self.size)]
        dist.all_gather(rows, mine, group=self._facts)
        return [row.numpy().tobytes() for row in rows]


def _agreed(errors: list[list[str] | None]) -> AgreedError:
    """The first of the ``errors``, with its rank unless all processes have the same error."""
    rank, (problem, remedy) = next((r, e) for r, e in enumerate(errors) if e)
    everywhere = all(error == errors[0] for error in errors)
    return AgreedError(problem if everywhere else f"Rank {rank}: {problem}", remedy)


def _lost(error: RuntimeError) -> bool:
    """Whether the error means that another process ended; gloo marks it only by its name."""
    return isinstance(error, dist.DistError) or "gloo" in str(error)


def _alone() -> InstaHideError:
    return InstaHideError(
        "Another process of this run has ended, so that this one cannot go on.",
        "See its log; then start all of them again, with `resume=True`.",
    )

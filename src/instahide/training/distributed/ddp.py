"""Several processes that train one network: `DistributedDataParallel`, and what goes with it.

A launcher such as `torchrun` starts them and says by environment variables who they are. Facts
travel as JSON through gloo, whatever the device: nothing that another process sends is unpickled,
and a process that fails is heard by all others in their next exchange. Gradients and batch
statistics travel through nccl where the networks are on GPUs.
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

#: What a launcher sets, so that processes find each other.
LAUNCHED = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
#: How long a process waits for one that it has met, which may have far more images to read. That
#: one has died is noticed at once.
PATIENCE = timedelta(days=1)
#: How long it waits for the others when it leaves.
PARTING = timedelta(seconds=3)
#: Bytes of a message that needs no second exchange, and of one that is believed.
SHORT, LONG = 256, 1 << 26


class AgreedError(InstaHideError):
    """What one process could not do, raised in all of them."""


@contextmanager
def joined() -> Iterator[World]:
    """The processes that a launcher started together with this one; or this one alone.

    They leave the block together, if they are still in step with each other: a launcher ends all
    others when the first one leaves.

    Raises:
        InstaHideError: they do not find each other.
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
        """Every process has keys of its own."""
        return f"rank-{self.rank}"

    @contextmanager
    def together(self) -> Iterator[None]:
        """As `World.together`, for errors that a user can put right, and for a process that died.

        Raises:
            AgreedError: in all of them, where one of them failed.
            InstaHideError: another one is gone.
        """
        self.in_step = False
        try:
            try:
                yield
                # One may have failed after the others had nothing more to ask.
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
            AgreedError: a process has failed since the last time.
        """
        return self._exchange(fact, None)

    def require(self, device: torch.device, precision: torch.dtype) -> None:
        """As `World.require`.

        Raises:
            InstaHideError: they compute in different ways, or two would share a GPU.
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
        """As many steps as the process with most batches needs."""
        return int(max(self.gathered(len(batches))))

    def steps(self, batches: Batches) -> Iterator[tuple[Tensor, Tensor, int]]:
        """As `World.steps`, with the number of encodings in the batches of all processes.

        A process that has run out of encodings takes part with none until all have, so that their
        networks, optimisers and averages stay the same.
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
        """As `World.replica`; the weights become those of rank 0."""
        replica = DistributedDataParallel(
            model, process_group=self._gradients, gradient_as_bucket_view=True
        )
        # Rank 0's would describe its own images alone; `average` takes those of all.
        replica.broadcast_buffers = False
        return replica

    def average(self, model: nn.Module, images: int) -> None:
        """As `World.average`; exact for counts, too."""
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
        """What rank 0 has of ``saved``, which may lie on its machine alone."""
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
        """How many there are, and what their gradients travel through."""
        return {"world": {"size": self.size, "backend": dist.get_backend(self._gradients)}}

    def _exchange(self, fact: Any, error: tuple[str, str] | None) -> list[Any]:
        texts = self._texts(json.dumps([fact, error]).encode())
        messages = [json.loads(text) for text in texts]
        errors = [error for _, error in messages]
        if any(errors):
            raise _agreed(errors)
        return [fact for fact, _ in messages]

    def _texts(self, own: bytes) -> list[bytes]:
        """What every process sends, in order. Spaces behind it change no JSON."""
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
        """``own`` of every process, in order; all of one length."""
        mine = torch.frombuffer(bytearray(own), dtype=torch.uint8)
        rows = [torch.empty_like(mine) for _ in range(self.size)]
        dist.all_gather(rows, mine, group=self._facts)
        return [row.numpy().tobytes() for row in rows]


def _agreed(errors: list[list[str] | None]) -> AgreedError:
    """The first of the ``errors``; it says whose it is, unless all have it."""
    rank, (problem, remedy) = next((r, e) for r, e in enumerate(errors) if e)
    everywhere = all(error == errors[0] for error in errors)
    return AgreedError(problem if everywhere else f"Rank {rank}: {problem}", remedy)


def _lost(error: RuntimeError) -> bool:
    """Whether another process is gone. gloo has no type of error for it, only its own name."""
    return isinstance(error, dist.DistError) or "gloo" in str(error)


def _alone() -> InstaHideError:
    return InstaHideError(
        "Another process of this run has ended, so that this one cannot go on.",
        "See what it said; then start all of them again, with `resume=True`.",
    )

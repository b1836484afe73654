"""What each of several processes does in `test_ranks.py`; a launcher starts them.

``python -m tests.training.distributed.ranks FOLDER``: whatever the tests look at is written
into the folder.
"""

from __future__ import annotations

import random
import secrets
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from unittest.mock import patch

import numpy as np
import torch
from torch import Tensor, nn

from instahide.data import ImageTable
from instahide.encryption.encoder import Encoder
from instahide.encryption.scheme import Scheme
from instahide.errors import InstaHideError
from instahide.training.distributed.processes import ALONE, Batch, Processes, launch
from instahide.training.fabric import make_fabric
from instahide.training.losses import Loss
from instahide.training.models import build
from instahide.training.outputs import Outputs
from instahide.training.run_folder import RunFolder
from instahide.training.settings import TrainSettings
from instahide.training.training_loop import train
from instahide.training.training_state import average_buffers
from instahide.utils.atomic_write import write_json
from instahide.utils.tensor_file import write_tensors

#: Encodings in the batches of either rank: one has more, and the other's last is a single one.
SIZES = ([6, 6, 3], [6, 1])
nan = torch.tensor(torch.nan)
FINDINGS = Loss(Outputs("multi-label", 3))
#: A mask on every value and nothing else: the sign of an encoding shows its mask.
MASKED = Scheme(k=1, private_k=1, c1=1.0, c2=0.0)
IMAGES, SIDE = 8, 16


def batches_of(rank: int) -> list[Batch]:
    """The same in every process that asks."""
    generator = torch.Generator().manual_seed(rank)
    sizes = SIZES[rank]
    images = torch.randn(sum(sizes), 1, 8, 8, generator=generator).split(sizes)
    labels = torch.rand(sum(sizes), 3, generator=generator).split(sizes)
    return list(zip(images, labels, strict=True))


def together() -> list[Batch]:
    """What both ranks learn from in a step, as one batch; a single one is passed over."""
    ours, theirs = batches_of(0), batches_of(1)
    images, labels = (torch.cat(parts) for parts in zip(ours[0], theirs[0], strict=True))
    return [(images, labels), *ours[1:]]


def unknown(batches: list[Batch]) -> list[Batch]:
    """The same batches, where some findings are unknown, more in some images than in others."""
    return [
        (images, torch.where((labels < 0.5) & (images.mean((1, 2, 3)) < 0)[:, None], nan, labels))
        for images, labels in batches
    ]


def settings_of(model: str, epochs: int) -> TrainSettings:
    values = {"epochs": epochs, "ema": 0.9, "device": "cpu", "precision": "float32", "lr": 0.05}
    return TrainSettings.from_values({**values, "model": model})


def learnt(
    batches: list[Batch],
    settings: TrainSettings,
    processes: Processes = ALONE,
    folder: Path | None = None,
    loss: Loss | None = None,
) -> dict[str, Tensor]:
    """The network after training, and the mean losses of the epochs."""
    network = build(settings.model, 1, 3, sign_invariant=True, seed=0)
    run = RunFolder.open(folder, settings, resume=True) if folder and processes.main else None
    history = train(network, batches, settings, run=run, processes=processes, loss=loss)
    losses = torch.tensor([record.loss for record in history], dtype=torch.float64)
    return {**network.state_dict(), "losses": losses}


def stopped(folder: Path, processes: Processes) -> dict[str, Tensor]:
    """A run of four epochs that goes on after two: what it has then is rank 0's alone."""
    settings = settings_of("small", 4)

    def evaluate(_: nn.Module) -> dict[str, float]:
        done.append(1)
        if len(done) == 3:
            raise KeyboardInterrupt
        return {}

    done: list[int] = []
    run = RunFolder.open(folder / "run", settings) if processes.main else None
    network = build("small", 1, 3, sign_invariant=True, seed=0)
    with suppress(KeyboardInterrupt):
        train(
            network,
            batches_of(processes.rank),
            settings,
            evaluate=evaluate,
            run=run,
            processes=processes,
        )
    return learnt(batches_of(processes.rank), settings, processes, folder / "run")


def table() -> ImageTable:
    pixels = np.random.default_rng(0).integers(0, 256, (IMAGES, SIDE, SIDE), np.uint8)
    return ImageTable.from_arrays(pixels, np.arange(IMAGES) % 2)


def masks(encoder: Encoder) -> Tensor:
    """(2 * IMAGES, SIDE, SIDE) of two epochs of `table` under `MASKED`."""
    plain = torch.from_numpy(table().normalized())
    found = []
    for _ in range(2):
        encoder.next_epoch()
        found.append((encoder.encode(np.arange(IMAGES)).images * plain)[:, 0] > 0)
    return torch.cat(found)


def equally_seeded(make: Callable[[], Encoder]) -> Encoder:
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)
    return make()


def averaged(processes: Processes) -> list[float | str]:
    """Buffers of a network that differ, weighted 3 to 1; a count and an infinite value, too."""
    network = nn.BatchNorm1d(1)
    assert network.running_mean is not None
    network.running_mean.fill_(float(processes.rank))
    assert network.num_batches_tracked is not None
    network.num_batches_tracked.fill_(7 + 4 * processes.rank)
    fabric = make_fabric(torch.device("cpu"), torch.float32, distributed=True)
    average_buffers(fabric, network, [3, 1][processes.rank])
    network.register_buffer("mask", torch.tensor([-torch.inf]))
    before = [network.running_mean.item(), network.num_batches_tracked.item()]
    # A process without images has no weight.
    average_buffers(fabric, network, [1, 0][processes.rank])
    assert before == [network.running_mean.item(), network.num_batches_tracked.item()]
    return [*before, str(network.get_buffer("mask").item())]


def failed(processes: Processes, rank: int, *, waiting: bool) -> str:
    """What is raised where ``rank`` cannot go on, and the other waits in a step or is done."""
    try:
        with processes.fail_together():
            if processes.rank == rank:
                raise InstaHideError("It cannot.", "Try another.")
            if waiting:
                for _ in processes.steps(batches_of(0)):
                    pass
    except InstaHideError as error:
        return str(error)
    return "nothing"


def refused(processes: Processes, *devices: str) -> str:
    """What is said of computing on a device of each rank."""
    try:
        processes.require_same_arithmetic(torch.device(devices[processes.rank]), torch.float32)
    except InstaHideError as error:
        return error.problem
    return "nothing"


def main(folder: Path) -> None:
    with launch() as processes:
        own = batches_of(processes.rank)
        tensors = {
            f"{name}.{key}": value
            for name, state in {
                "group": learnt(own, settings_of("small-group", 2), processes),
                "batch": learnt(own, settings_of("small", 4), processes),
                "resumed": stopped(folder, processes),
                "unused": learnt(
                    own, settings_of("tests.training.models.factories:second_head", 2), processes
                ),
                "findings": learnt(
                    unknown(own), settings_of("small-group", 2), processes, loss=FINDINGS
                ),
            }.items()
            for key, value in state.items()
        }
        name = processes.participant
        encoder = equally_seeded(lambda: Encoder(MASKED, table(), participant=name))
        tensors["masks"] = masks(encoder)
        with patch.object(secrets, "token_bytes", bytes):
            encoder = Encoder(MASKED, table(), participant=name)
        tensors["masks of equal entropy"] = masks(encoder)
        facts = {
            "gathered": processes.gather([processes.rank, "x" * 1000 * processes.rank, 0.1]),
            "share": list(processes.share(7)),
            "concatenated": processes.concatenated(
                torch.full((2 - 2 * processes.rank, 3), 1.0)
            ).tolist(),
            "averaged": averaged(processes),
            "failed": [failed(processes, 1, waiting=True), failed(processes, 0, waiting=False)],
            "refused": {
                "cpu": refused(processes, "cpu", "cpu"),
                "others": refused(processes, "mps", "mps"),
                "different": refused(processes, "cuda", "cpu"),
                "one GPU": refused(processes, "cuda:0", "cuda:0"),
            },
            "world": processes.facts(torch.device("cpu"))["world"],
        }
    write_tensors(folder / f"rank-{processes.rank}.safetensors", tensors, {})
    write_json(folder / f"rank-{processes.rank}.json", facts)


if __name__ == "__main__":
    main(Path(sys.argv[1]))

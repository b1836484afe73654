"""The baseline: DP-SGD on plain images (Abadi et al., arXiv:1607.00133), by Opacus.

It protects by noise what InstaHide hides by mixing, and is here so that both can be compared.

Opacus draws its noise and its batches from PyTorch's generators, which whoever sees enough of them
can rebuild. Its secure mode needs ``torchcsprng``, which installs beside no current PyTorch. So the
generators are seeded by the operating system, anew in every round, and the guarantee is one against
those who cannot rebuild them.
"""

from __future__ import annotations

import fcntl
import math
import secrets
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import torch
from pydantic import Field, TypeAdapter
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from instahide.data import ImageTable
from instahide.errors import DamagedFileError
from instahide.integrations.flower.config import FederatedSettings
from instahide.integrations.flower.errors import RefusalError
from instahide.training.training_loop import learning_rate
from instahide.training.training_state import TrainingState
from instahide.utils.atomic_write import write_json
from instahide.utils.optional_deps import requires_extra

if TYPE_CHECKING:
    from opacus import PrivacyEngine

    from instahide.integrations.flower.client.participant import Participant

#: (noise, sampling rate, steps) of every part of the history.
Entry = tuple[
    Annotated[float, Field(gt=0, allow_inf_nan=False)],
    Annotated[float, Field(gt=0, le=1)],
    Annotated[int, Field(ge=1)],
]
_HISTORY = TypeAdapter(list[Entry])


def train_with_dp_sgd(
    network: nn.Module, images: ImageTable, node: Participant, number: int
) -> dict[str, float]:
    """Train ``network`` in place on plain ``images`` by DP-SGD for round ``number``.

    What it spends is in the node's file when training begins, and stays spent whatever happens.

    Args:
        network: with the weights that the server sent.
        images: all of the client's.
        node: whose settings and file of spent privacy are used.
        number: of the round, counted from 1.

    Returns:
        The mean ``loss`` of the round, and the ``epsilon`` spent in all rounds of all runs, at the
        run's `delta`.

    Raises:
        RefusalError: a network in which images meet in a batch, or the node's `max_epsilon`.
        InstaHideError: Opacus is not installed, or the file cannot be used.
    """
    settings = node.settings
    _require_apart(network, settings)
    with requires_extra("opacus", "dp"):
        from opacus import PrivacyEngine
    with warnings.catch_warnings():
        # That its secure mode is off is said above, and in the guide.
        warnings.filterwarnings("ignore", "Secure RNG turned off")
        engine = PrivacyEngine(accountant="rdp")
    state = TrainingState.start(network, settings.local)
    # As Opacus lays gradients out.
    network.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    loader = _loader(images, settings)
    planned = (settings.noise_multiplier, 1 / len(loader), len(loader) * settings.local_epochs)
    history = _spend(node, planned)
    loss = _epochs(engine, state, loader, settings, number)
    if not math.isfinite(loss):
        raise RefusalError("The loss is no finite number.", "Send other weights, or lower `lr`.")
    return {"loss": loss, "epsilon": epsilon_spent(history, settings.delta)}


def _spend(node: Participant, planned: Entry) -> list[Entry]:
    """Add ``planned`` steps to the node's file, if they may be taken; returns all of it."""
    file = history_file(node.ledger())
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.with_suffix(".lock").open("w") as lock:
        # Two runs may be served at once, and both count.
        fcntl.flock(lock, fcntl.LOCK_EX)
        history = added(read_history(file), planned)
        _require_epsilon(history, node)
        write_json(file, history)
    return history


def history_file(ledger: Path) -> Path:
    """The file, beside the node's ledger, of what DP-SGD has spent in all runs."""
    return ledger.with_name(f"{ledger.name}.dp-sgd.json")


def read_history(file: Path) -> list[Entry]:
    """What DP-SGD has spent until now, on any images of this node.

    Raises:
        DamagedFileError: the file is damaged: what was spent is not known.
    """
    if not file.exists():
        return []
    try:
        return _HISTORY.validate_json(file.read_bytes())
    except (OSError, ValueError) as error:
        raise DamagedFileError(
            f"{file} does not hold the history of DP-SGD.",
            "Restore it from a backup; without it nothing is known of what was spent.",
        ) from error


def added(history: list[Entry], entry: Entry) -> list[Entry]:
    """``history`` and ``entry``; steps under the same noise and rate are one."""
    if history and history[-1][:2] == entry[:2]:
        return [*history[:-1], (*entry[:2], history[-1][2] + entry[2])]
    return [*history, entry]


def epsilon_spent(history: list[Entry], delta: float) -> float:
    """The epsilon of ``history`` at ``delta``, by Opacus' accountant."""
    from opacus.accountants import RDPAccountant

    accountant = RDPAccountant()
    accountant.history = history
    return float(accountant.get_epsilon(delta))


def _require_epsilon(history: list[Entry], node: Participant) -> None:
    most = node.max_epsilon
    if most is not None and not epsilon_spent(history, node.delta) <= most:
        raise RefusalError(
            "This round of DP-SGD would bring this node above its `max-epsilon`.",
            "Start a run with more noise, or take this node out.",
        )


def _require_apart(network: nn.Module, settings: FederatedSettings) -> None:
    if any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in network.modules()):
        raise RefusalError(
            f"DP-SGD needs a network without batch normalization; `{settings.model}` has some.",
            'Say `model = "small-group"`.',
        )


def _loader(images: ImageTable, settings: FederatedSettings) -> DataLoader[tuple[Tensor, ...]]:
    data = TensorDataset(torch.from_numpy(images.normalized()), torch.from_numpy(images.labels))
    return DataLoader(data, settings.batch_size, generator=_generator())


def _generator() -> torch.Generator:
    # A fresh process has PyTorch's default seed, and so everybody's noise would be the same.
    return torch.Generator().manual_seed(secrets.randbits(63))


def _epochs(
    engine: PrivacyEngine,
    state: TrainingState,
    loader: DataLoader[tuple[Tensor, ...]],
    settings: FederatedSettings,
    number: int,
) -> float:
    """The local epochs of a round; returns the mean loss."""
    module, optimizer, batches = engine.make_private(
        module=state.model,
        optimizer=state.optimizer,
        data_loader=loader,
        noise_multiplier=settings.noise_multiplier,
        max_grad_norm=settings.max_grad_norm,
        noise_generator=_generator(),
    )
    local = settings.local
    step = (number - 1) * settings.local_epochs * len(batches)
    total, seen = torch.zeros((), device=state.device), 0
    module.train()
    for _ in range(settings.local_epochs):
        for images, labels in batches:
            rate = learning_rate(local, step, local.epochs * len(batches))
            for group in optimizer.param_groups:
                group["lr"] = rate
            loss = F.cross_entropy(
                module(images.to(state.device)), labels.to(state.device), reduction="sum"
            )
            optimizer.zero_grad()
            # A batch is as large as chance has it, and may be empty.
            (loss / max(1, len(images))).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            total += loss.detach()
            seen, step = seen + len(images), step + 1
    module.cleanup()
    return total.item() / max(1, seen)

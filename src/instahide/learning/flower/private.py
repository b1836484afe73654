"""The baseline: DP-SGD on plain images (Abadi et al., arXiv:1607.00133), by Opacus.

It protects by noise what InstaHide hides by mixing, and is here so that both can be compared.

Opacus draws its noise and its batches from PyTorch's generators, which whoever sees enough of them
can rebuild. Its secure mode needs ``torchcsprng``, which installs beside no current PyTorch. So the
generators are seeded by the operating system, anew in every round, and the guarantee is one against
those who cannot rebuild them.
"""

from __future__ import annotations

import secrets
import warnings
from typing import TYPE_CHECKING, cast

import torch
from flwr.app import MetricRecord, RecordDict
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from instahide.images import ImageTable
from instahide.images.optional import needing
from instahide.learning.flower.refusal import RefusalError
from instahide.learning.flower.settings import FederatedSettings
from instahide.learning.loop import learning_rate
from instahide.learning.state import TrainingState

if TYPE_CHECKING:
    from opacus import PrivacyEngine

#: Where a client remembers, in its Flower state, what it has spent.
MEMORY = "dp-sgd"


def learn_privately(
    network: nn.Module,
    images: ImageTable,
    settings: FederatedSettings,
    number: int,
    memory: RecordDict,
) -> dict[str, float]:
    """Train ``network`` in place on plain ``images`` by DP-SGD for round ``number``.

    Args:
        network: with the weights that the server sent.
        images: all of the client's.
        settings: of the run.
        number: of the round, counted from 1.
        memory: the client's state, in which the accountant's history goes on: plain numbers.

    Returns:
        The mean ``loss`` of the round, and the ``epsilon`` spent in all rounds, at `delta`.

    Raises:
        RefusalError: a network in which images meet in a batch.
        InstaHideError: Opacus is not installed.
    """
    _require_apart(network, settings)
    with needing("opacus", "dp"):
        from opacus import PrivacyEngine
    with warnings.catch_warnings():
        # That its secure mode is off is said above, and in the guide.
        warnings.filterwarnings("ignore", "Secure RNG turned off")
        engine = PrivacyEngine(accountant="rdp")
    state = TrainingState.start(network, settings.local)
    # As Opacus lays gradients out.
    network.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    loader = _loader(images, settings)
    engine.accountant.history = _history(memory, settings, number, 1 / len(loader))
    loss = _epochs(engine, state, loader, settings, number)
    history = engine.accountant.history
    memory[MEMORY] = MetricRecord(
        {
            name: [entry[place] for entry in history]
            for place, name in enumerate(("noise", "rate", "steps"))
        }
    )
    return {"loss": loss, "epsilon": engine.get_epsilon(settings.delta)}


def _require_apart(network: nn.Module, settings: FederatedSettings) -> None:
    if any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in network.modules()):
        raise RefusalError(
            f"DP-SGD needs a network without batch normalisation; `{settings.model}` has some.",
            'Say `model = "small-group"`.',
        )


def _loader(images: ImageTable, settings: FederatedSettings) -> DataLoader[tuple[Tensor, ...]]:
    data = TensorDataset(torch.from_numpy(images.normalised()), torch.from_numpy(images.labels))
    return DataLoader(data, settings.batch_size, generator=_generator())


def _generator() -> torch.Generator:
    # A fresh process has PyTorch's default seed, and so everybody's noise would be the same.
    return torch.Generator().manual_seed(secrets.randbits(63))


def _history(
    memory: RecordDict, settings: FederatedSettings, number: int, rate: float
) -> list[tuple[float, float, int]]:
    """(noise, sampling rate, steps) of the rounds before.

    A node that was started anew remembers nothing. It may have taken part in every round so far,
    and counts them all: epsilon is never too small.
    """
    if MEMORY in memory:
        record = cast(MetricRecord, memory[MEMORY])
        columns = (cast(list[float], record[name]) for name in ("noise", "rate", "steps"))
        return [(noise, rate, int(steps)) for noise, rate, steps in zip(*columns, strict=True)]
    steps = (number - 1) * settings.local_epochs * round(1 / rate)
    return [(settings.noise_multiplier, rate, steps)] if steps else []


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

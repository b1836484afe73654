"""The baseline: DP-SGD on plain images (Abadi et al., arXiv:1607.00133), by Opacus.

It protects images by noise instead of mixing, and serves as a comparison for InstaHide.

Opacus draws noise and batches from PyTorch's generators, whose state can be reconstructed from
enough outputs. Its secure mode needs ``torchcsprng``, which does not support current PyTorch. The
generators are therefore seeded by the operating system in every round, and the guarantee holds
against attackers who cannot reconstruct their state.
"""

from __future__ import annotations

import logging
import secrets
import warnings
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from instahide.data import ImageTable
from instahide.data.duplicates.content_hash import all_unique
from instahide.encodings.ledger.account import LedgerAccount
from instahide.encodings.ledger.dp_sgd_history import Entry, added, locked_history, read_history
from instahide.encodings.ledger.ledger import Ledger
from instahide.integrations.flower.config import FederatedSettings
from instahide.integrations.flower.errors import RefusalError
from instahide.training.losses import Loss
from instahide.training.schedule import learning_rate
from instahide.training.training_state import TrainingState
from instahide.utils.atomic_write import write_json
from instahide.utils.optional_deps import requires_extra

if TYPE_CHECKING:
    from opacus import PrivacyEngine
    from opacus.optimizers import DPOptimizer

    from instahide.integrations.flower.client.participant import Participant

_log = logging.getLogger(__name__)


def train_with_dp_sgd(
    network: nn.Module,
    images: ImageTable,
    participant: Participant,
    number: int,
    task_loss: Loss,
) -> dict[str, float]:
    """Train ``network`` in place on plain ``images`` by DP-SGD for round ``number``.

    The privacy loss is written to the participant's file before training begins, and counts even
    if training fails.

    Args:
        network: the network with the weights that the server sent.
        images: all images of the client.
        participant: the participant, with its settings and its file of privacy losses.
        number: number of the round, from 1.
        task_loss: the loss.

    Returns:
        The ``epsilon`` spent in all rounds of DP-SGD of all runs, at the run's `delta`. It does not
        count encodings of the same images. The loss is neither returned nor checked: it has no
        noise, and epsilon does not count it.

    Raises:
        RefusalError: the network has batch normalization, the images have groups or repeats, the
            participant has a `min_mse`, its `max_epsilon` would be exceeded or its images are in
            encodings, which this limit cannot count, or the noisy steps led to weights that are
            not finite.
        InstaHideError: Opacus is not installed, or the file or the ledger cannot be read or
            written.
    """
    settings = participant.settings
    _require_no_floor(participant)
    _require_apart(network, settings)
    _require_no_groups(images)
    with requires_extra("opacus", "dp"):
        from opacus import PrivacyEngine
    with warnings.catch_warnings():
        # The module docstring and the guide explain why the secure mode is off.
        warnings.filterwarnings("ignore", "Secure RNG turned off")
        engine = PrivacyEngine(accountant="rdp")
    state = TrainingState.start(network, settings.local)
    # The memory layout of Opacus' gradients.
    network.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    loader = _loader(images, settings)
    planned = (settings.noise_multiplier, 1 / len(loader), len(loader) * settings.local_epochs)
    history = _spend(participant, images, planned)
    _epochs(engine, state, loader, settings, number, task_loss)
    if not all(bool(weights.isfinite().all()) for weights in network.parameters()):
        raise RefusalError(
            "The weights after this round are not finite numbers.", "Send others, or lower `lr`."
        )
    return {"epsilon": epsilon_spent(history, settings.delta)}


def _spend(participant: Participant, images: ImageTable, planned: Entry) -> list[Entry]:
    """Add ``planned`` steps to the participant's file if its terms allow; returns the history."""
    # Two runs may train at the same time, and both count.
    with locked_history(participant.ledger()) as file:
        _require_countable(participant, images)
        history = added(read_history(file), planned)
        _require_epsilon(history, participant)
        write_json(file, history)
    return history


def _require_countable(participant: Participant, images: ImageTable) -> None:
    """Check by the ledger that DP-SGD's epsilon holds for each of ``images`` by itself."""
    with Ledger.open(participant.ledger()) as ledger:
        account = ledger.account(images)
        _require_no_repeats(account)
        loss = float(account.losses.max())
    participant.limits.require_no_encodings(loss)
    if loss > 0:
        _log.warning(
            "Images of this participant are also in encodings, which the epsilon of DP-SGD does "
            "not count."
        )


def epsilon_spent(history: list[Entry], delta: float) -> float:
    """The epsilon of ``history`` at ``delta``, by Opacus' accountant."""
    from opacus.accountants import RDPAccountant

    accountant = RDPAccountant()
    accountant.history = history
    return float(accountant.get_epsilon(delta))


def _require_epsilon(history: list[Entry], participant: Participant) -> None:
    most, delta = participant.limits.max_epsilon, participant.limits.delta
    if most is not None and not epsilon_spent(history, delta) <= most:
        raise RefusalError(
            "This round of DP-SGD would bring this participant above its `max-epsilon`.",
            "Start a run with more noise, or take this participant out.",
        )


def _require_no_floor(participant: Participant) -> None:
    if participant.limits.min_mse is not None:
        raise RefusalError(
            "DP-SGD has an epsilon, and no floor on the error of reconstructed images, so it "
            "cannot keep this participant's `min-mse`.",
            "Name `max-epsilon` in the node config instead, or start a run without DP-SGD.",
        )


def _require_apart(network: nn.Module, settings: FederatedSettings) -> None:
    if any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in network.modules()):
        raise RefusalError(
            f"DP-SGD needs a network without batch normalization; `{settings.model}` has some.",
            'Set `model = "small-group"`, which is for images; there is none for volumes.',
        )


def _require_no_groups(images: ImageTable) -> None:
    if images.groups is not None:
        raise RefusalError(
            "DP-SGD protects each image of this participant by itself, but its images have groups, "
            "each of which is to be protected as a whole.",
            "Leave `group-column` out of the node config, or take part in runs without `dp` only.",
        )


def _require_no_repeats(account: LedgerAccount) -> None:
    if not all_unique(account.pictures()):
        raise RefusalError(
            "DP-SGD protects each row of this participant's images by itself, but some rows show "
            "the same picture, or come from the same image by its ledger.",
            "Keep one row of each picture; `ImageTable.content_ids` and `LedgerAccount.pictures` "
            "number them. Or take part in runs without `dp` only.",
        )


def _loader(images: ImageTable, settings: FederatedSettings) -> DataLoader[tuple[Tensor, ...]]:
    data = TensorDataset(torch.from_numpy(images.normalized()), torch.from_numpy(images.labels))
    return DataLoader(data, settings.batch_size, generator=_generator())


def _generator() -> torch.Generator:
    # PyTorch's default seed is fixed: without a random one, all noise would be known.
    return torch.Generator().manual_seed(secrets.randbits(63))


def _epochs(
    engine: PrivacyEngine,
    state: TrainingState,
    loader: DataLoader[tuple[Tensor, ...]],
    settings: FederatedSettings,
    number: int,
    task_loss: Loss,
) -> None:
    """The local epochs of a round."""
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
    device = state.fabric.device
    module.train()
    for _ in range(settings.local_epochs):
        for images, labels in batches:
            rate = learning_rate(local, step, local.epochs * len(batches))
            for group in optimizer.param_groups:
                group["lr"] = rate
            loss, _ = task_loss(module(images.to(device)), labels.to(device))
            optimizer.zero_grad()
            # The size of a batch is random, and may be 0.
            (loss / max(1, len(images))).backward()  # type: ignore[no-untyped-call]
            _drop_infinite(optimizer)
            optimizer.step()
            step += 1
    module.cleanup()


def _drop_infinite(optimizer: DPOptimizer) -> None:
    """Replace the gradient of each image by 0 if it has a value that is not finite.

    Clipping would multiply it by 0, which makes the sum over all images NaN. A server could choose
    weights for which this happens with one image only, and would see whether it was in a batch.
    """
    gradients = optimizer.grad_samples
    finite = torch.stack([each.unsqueeze(-1).flatten(1).isfinite().all(1) for each in gradients])
    for each in gradients:
        each[~finite.all(0)] = 0

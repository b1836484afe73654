"""Shadow networks, which an attacker trains to learn how training images differ from others."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import dataclass

import numpy as np
from torch import nn
from torch.nn import functional as F
from torch.optim import SGD
from torch.optim.lr_scheduler import OneCycleLR

from instahide.attacks.budget import Budget
from instahide.data import ImageTable
from instahide.encryption.encoder import Encoded, Encoder
from instahide.encryption.scheme import Scheme

#: Trains a network on images as the victim did.
Train = Callable[[ImageTable], nn.Module]


@dataclass(frozen=True)
class Recipe:
    """The training of shadow networks, if the victim's training is unknown.

    Attributes:
        epochs: passes over the images, each under new keys.
        batch_size: largest number of encodings per step.
        learning_rate: peak of the one-cycle schedule.
    """

    epochs: int = 30
    batch_size: int = 64
    learning_rate: float = 0.05


def train_shadow_model(
    network: nn.Module,
    images: ImageTable,
    public: ImageTable | None,
    scheme: Scheme,
    recipe: Recipe,
    budget: Budget,
) -> nn.Module:
    """Train a network with the architecture of ``network`` and new weights on encodings.

    Args:
        network: network to copy; it is not changed.
        images: training images, encrypted under the attacker's own keys.
        public: public images, if the scheme uses them.
        scheme: scheme of the victim.
        recipe: settings of the training.
        budget: training stops when it ends.
    """
    model, device = _renewed(network).train(), next(network.parameters()).device
    steps = -(-len(images) // recipe.batch_size)
    optimiser = SGD(model.parameters(), momentum=0.9, nesterov=True, weight_decay=5e-4)
    schedule = OneCycleLR(optimiser, recipe.learning_rate, total_steps=recipe.epochs * steps)
    encoder = Encoder(scheme, images, public if scheme.public_k else None)
    for encoded in _batches(encoder, recipe.epochs, steps):
        if budget.over:
            break
        loss = F.cross_entropy(model(encoded.images.to(device)), encoded.labels.to(device))
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        schedule.step()
    return model.eval()


def _batches(encoder: Encoder, epochs: int, steps: int) -> Iterator[Encoded]:
    """Encodings of all images under new keys in each of ``epochs``, in ``steps`` batches."""
    for _ in range(epochs):
        encoder.next_epoch()
        # In batches of equal size, because a batch of one image has no batch statistics.
        yield from encoder.stream(np.array_split(encoder.permutation(), steps))


def _renewed(network: nn.Module) -> nn.Module:
    """A copy of ``network`` with new weights."""
    copy = deepcopy(network)
    for module in copy.modules():
        renew = getattr(module, "reset_parameters", None)
        if callable(renew):
            renew()
    return copy

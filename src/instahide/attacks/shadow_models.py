"""Shadow networks: what the attacker trains to learn how such a network treats what it has seen."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import dataclass

import numpy as np
from torch import nn
from torch.nn import functional as F
from torch.optim import SGD
from torch.optim.lr_scheduler import OneCycleLR

from instahide.attacks.base import Budget
from instahide.data import ImageTable
from instahide.encryption.encoder import Encoded, Encoder
from instahide.encryption.scheme import Scheme

#: Trains a network on images as the victim trained its own.
Train = Callable[[ImageTable], nn.Module]


@dataclass(frozen=True)
class Recipe:
    """How shadow networks are trained where nobody says how the victim's was.

    Attributes:
        epochs: over the images, each time under new keys.
        batch_size: encodings in a step, at most.
        learning_rate: at the height of its one cycle.
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
    """A network of the architecture of ``network``, from new weights, trained on encodings.

    Args:
        network: stays as it is.
        images: to train on, encrypted under the attacker's own keys.
        public: what the scheme mixes in, where it does.
        scheme: that the victim trained with.
        recipe: of the training.
        budget: what was learned when it ends is handed back.
    """
    model, device = _renewed(network).train(), next(network.parameters()).device
    steps = -(-len(images) // recipe.batch_size)
    optimiser = SGD(model.parameters(), momentum=0.9, nesterov=True, weight_decay=5e-4)
    schedule = OneCycleLR(optimiser, recipe.learning_rate, total_steps=recipe.epochs * steps)
    encoder = Encoder(scheme, images, public if scheme.public_k else None)
    for encoded in _batches(encoder, recipe.epochs, steps):
        if not budget.left:
            break
        loss = F.cross_entropy(model(encoded.images.to(device)), encoded.labels.to(device))
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        schedule.step()
    return model.eval()


def _batches(encoder: Encoder, epochs: int, steps: int) -> Iterator[Encoded]:
    """Encodings of every image under new keys in each of ``epochs``, in so many ``steps``."""
    for _ in range(epochs):
        encoder.next_epoch()
        # Of even size: a last batch of one image has no batch statistics.
        yield from encoder.stream(np.array_split(encoder.permutation(), steps))


def _renewed(network: nn.Module) -> nn.Module:
    """A copy with new weights."""
    copy = deepcopy(network)
    for module in copy.modules():
        renew = getattr(module, "reset_parameters", None)
        if callable(renew):
            renew()
    return copy

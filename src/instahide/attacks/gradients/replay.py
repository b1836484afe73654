"""Replays a participant's training on guessed images, differentiably."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

from instahide.attacks.base import Update


class Replay:
    """Computes the update that a participant would have sent for other images.

    In double precision, because near the solution updates differ by less than single precision.

    Args:
        network: as it was before the update. It is copied, never changed.
        update: what was sent, and how the participant trained.
    """

    def __init__(self, network: nn.Module, update: Update) -> None:
        self.training = update.training
        self.network = deepcopy(network).double().train(update.training.train_mode)
        parameters = dict(self.network.named_parameters())
        self.weights = {name: parameters[name].requires_grad_() for name in update.values}
        self.device = next(iter(self.weights.values())).device
        self.sent = {
            name: value.to(self.device, torch.float64) for name, value in update.values.items()
        }

    def logits(self, images: Tensor, weights: Mapping[str, Tensor] | None = None) -> Tensor:
        """(n, classes) of images (n, C, H, W), under ``weights`` or those before the update."""
        # Batch norm in train mode moves its running statistics: copies, that no guess sees twice.
        buffers = {name: value.clone() for name, value in self.network.named_buffers()}
        tensors = {**(self.weights if weights is None else weights), **buffers}
        return functional_call(self.network, tensors, (images,))  # type: ignore[no-any-return]

    def update(self, images: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """By name what would have been sent for images (n, C, H, W), labels (n, classes)."""
        weights = self.weights
        for places in self.training.batches():
            loss = F.cross_entropy(self.logits(images[places], weights), labels[places])
            slopes = torch.autograd.grad(loss, tuple(weights.values()), create_graph=True)
            gradient = dict(zip(weights, slopes, strict=True))
            if self.training.steps == 0:
                return gradient
            rate = self.training.learning_rate
            weights = {name: value - rate * gradient[name] for name, value in weights.items()}
        return {name: value - self.weights[name] for name, value in weights.items()}

    def mean_gradient(self, name: str) -> Tensor:
        """What was sent of a parameter, as the mean gradient over the local steps."""
        if self.training.steps == 0:
            return self.sent[name]
        return self.sent[name] / (-self.training.learning_rate * self.training.steps)


def squared_distance(found: Mapping[str, Tensor], sent: Mapping[str, Tensor]) -> Tensor:
    """Squared difference over all parameters, as a share of what was sent (Zhu et al., 2019)."""
    apart = sum((found[name] - sent[name]).square().sum() for name in sent)
    return torch.as_tensor(apart / _square(sent).clamp(min=1e-30))


def cosine_distance(found: Mapping[str, Tensor], sent: Mapping[str, Tensor]) -> Tensor:
    """1 less the cosine over all parameters: their direction alone (Geiping et al., 2020)."""
    together = torch.as_tensor(sum((found[name] * sent[name]).sum() for name in sent))
    return 1 - together / (_square(found) * _square(sent)).clamp(min=1e-60).sqrt()


def _square(values: Mapping[str, Tensor]) -> Tensor:
    return torch.as_tensor(sum(value.square().sum() for value in values.values()))

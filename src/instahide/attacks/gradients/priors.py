"""Image priors, for cases in which an update does not determine the images.

Total variation is Geiping et al.'s (2020). Batch norm statistics are the prior of Yin et al., "See
through Gradients: Image Batch Recovery via GradInversion" (CVPR 2021, arXiv:2104.07586): features
of the guess, at the input of each batch norm, should have the mean and variance that training saw.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import torch
from torch import Tensor, nn

from instahide.attacks.base import Update
from instahide.attacks.gradients.replay import Replay

BatchNorm = nn.modules.batchnorm._BatchNorm
#: Mean and variance, one a channel.
Moments = tuple[Tensor, Tensor]


def total_variation(images: Tensor) -> Tensor:
    """Mean absolute step between neighbours of images or volumes, summed over their axes."""
    steps = [images.diff(dim=axis).abs().mean() for axis in range(2, images.ndim)]
    return torch.stack(steps).sum()


class FeatureStatistics:
    """How far the features of a guess are from what batch norm knows of them.

    Args:
        replay: whose network looks at the guess.
        known: by layer's name, from `known_statistics`.
    """

    def __init__(self, replay: Replay, known: Mapping[str, Moments]) -> None:
        self._replay, self._known = replay, known
        self._seen: dict[str, Tensor] = {}
        for name in known:
            layer = replay.network.get_submodule(name)
            layer.register_forward_pre_hook(partial(self._keep, name))

    def distance(self, images: Tensor) -> Tensor:
        """Mean over layers of squared differences, in units of the known variance."""
        self._replay.logits(images)
        total = images.new_zeros(())
        for name, (mean, variance) in self._known.items():
            over = [axis for axis in range(self._seen[name].dim()) if axis != 1]
            spread, centre = torch.var_mean(self._seen[name], dim=over, correction=0)
            least = variance + 1e-5
            off = (centre - mean).square() / least + (spread / least - 1).square()
            total = total + off.mean() / len(self._known)
        return total

    def _keep(self, name: str, layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        self._seen[name] = inputs[0]


def known_statistics(network: nn.Module, update: Update) -> dict[str, Moments]:
    """By batch norm layer, what is known of its inputs; empty if nothing is.

    A participant that sends its running statistics after one batch in train mode has sent those of
    the batch itself: they moved by a known share of the way. Otherwise the running statistics of
    the network say what images at large look like, once it has been trained.
    """
    known: dict[str, Moments] = {}
    for name, layer in network.named_modules():
        if isinstance(layer, BatchNorm):
            running = _running(layer)
            exact = None if running is None else _of_batch(name, layer.momentum, running, update)
            if exact is not None:
                known[name] = exact
            elif running is not None and layer.num_batches_tracked:
                known[name] = running
    return known


def _running(layer: BatchNorm) -> Moments | None:
    mean, variance = layer.running_mean, layer.running_var
    return None if mean is None or variance is None else (mean.double(), variance.double())


def _of_batch(
    name: str, momentum: float | None, running: Moments, update: Update
) -> Moments | None:
    """The moments that ``running`` ones moved towards, if they were sent after a single batch."""
    keys = (f"{name}.running_mean", f"{name}.running_var")
    if update.training.steps > 1 or not momentum or not set(keys) <= set(update.buffers):
        return None
    mean, variance = (
        before + update.buffers[key].to(before) / momentum
        for key, before in zip(keys, running, strict=True)
    )
    return mean, variance.clamp(min=0)

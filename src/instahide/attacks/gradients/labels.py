"""Labels from the gradient of the last layer, in closed form.

Zhao, Mopuri and Bilen, "iDLG: Improved Deep Leakage from Gradients" (arXiv:2001.02610): the
gradient of the last layer's bias is p - y, the softmax minus the label, so that for one image only
the entry of the label's class is negative. For a soft label of InstaHide with total s, the gradient
is s p - y, with a negative entry for each of its classes. In an untrained network p hardly depends
on the image, and s is the ratio of the other entries to p. For a batch, the gradient shows how
often each class occurs in it (Wainakh et al., "User-Level Label Leakage from Gradients in Federated
Learning", PETS 2022).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from instahide.attacks.base import require
from instahide.attacks.gradients.replay import Replay
from instahide.encryption.scheme import Scheme

#: Smaller entries of labels are errors of single precision.
LEAST = 1e-3


def last_bias(network: nn.Module) -> str | None:
    """The name of the last linear layer's bias; None without such a layer, or without its bias."""
    names = [
        f"{name}.bias"
        for name, part in network.named_modules()
        if isinstance(part, nn.Linear) and part.bias is not None
    ]
    return names[-1] if names else None


def recovered_labels(replay: Replay, guess: Tensor, scheme: Scheme) -> Tensor:
    """(n, classes) labels of the encodings in an update; the order within a batch is unknown.

    Args:
        replay: the update, which contains the `last_bias` of its network.
        guess: (n, C, H, W) arbitrary images, to estimate the network's mean prediction.
        scheme: the public scheme; it determines whether labels sum to 1.
    """
    slope = replay.mean_gradient(require(last_bias(replay.network)))
    with torch.no_grad():
        prediction = replay.logits(guess).softmax(dim=1).mean(dim=0)
    if len(guess) > 1:
        return _batch_labels(slope, prediction, len(guess))
    rest = slope > 0
    total = slope[rest].sum() / prediction[rest].sum().clamp(min=1e-12)
    if scheme.public_k == 0 or scheme.label_mode == "renormalised":
        total = torch.ones_like(total)
    label = torch.where(slope < 0, (total * prediction - slope).clamp(min=0), 0)
    return (label / label.sum().clamp(min=1e-12) * total)[None]


def _batch_labels(slope: Tensor, prediction: Tensor, count: int) -> Tensor:
    """(n, classes) one-hot labels: repeatedly the class with the largest remaining mass."""
    masses = count * (prediction - slope)
    chosen = []
    for _ in range(count):
        chosen.append(int(masses.argmax()))
        masses[chosen[-1]] -= 1
    return F.one_hot(torch.tensor(chosen), len(slope)).to(slope)


def labels_of_dense(replay: Replay, images: Tensor, scheme: Scheme) -> Tensor | None:
    """(n, classes) float32 labels of recovered ``images`` (n, C, H, W).

    The gradient of the last layer's weights is the sum of the slopes at its outputs times its
    inputs, which the images determine, so that the slopes are the solution of linear equations.
    None after several steps, in which the inputs change, or if there are fewer inputs than images.
    """
    name = last_dense(replay.network)
    if name is None or f"{name}.weight" not in replay.sent or replay.training.steps > 1:
        return None
    inputs, logits = _inputs(replay, name, images)
    if len(images) > inputs.shape[1]:
        return None
    slope = replay.mean_gradient(f"{name}.weight")
    slopes = torch.linalg.lstsq(inputs.T, slope.T * len(images)).solution
    prediction = logits.softmax(dim=1)
    total = (slopes / prediction.clamp(min=1e-12)).amax(dim=1, keepdim=True)
    if scheme.public_k == 0 or scheme.label_mode == "renormalised":
        total = torch.ones_like(total)
    labels = total * prediction - slopes
    labels = torch.where(labels < LEAST, 0.0, labels)
    scale = total / labels.sum(dim=1, keepdim=True).clamp(min=1e-12)
    found: Tensor = (labels * scale).float().cpu()
    return found


def last_dense(network: nn.Module) -> str | None:
    """The name of the last dense layer; None without one."""
    names = [name for name, part in network.named_modules() if isinstance(part, nn.Linear)]
    return names[-1] if names else None


def _inputs(replay: Replay, name: str, images: Tensor) -> tuple[Tensor, Tensor]:
    """The inputs (n, f) of the dense layer ``name`` for ``images``, and the logits (n, classes)."""
    seen: list[Tensor] = []
    layer = replay.network.get_submodule(name)
    hook = layer.register_forward_hook(lambda _, inputs, __: seen.append(inputs[0].detach()))
    with torch.no_grad():
        logits = replay.logits(images)
    hook.remove()
    return seen[-1], logits

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

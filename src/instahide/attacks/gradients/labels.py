"""Labels from the gradient of the last layer, without a search.

Zhao, Mopuri and Bilen, "iDLG: Improved Deep Leakage from Gradients" (arXiv:2001.02610): the
gradient of the last layer's bias is p - y, the softmax less the label, so that for one image only
the label's class is negative. A soft label of InstaHide with total s leaves s p - y, and a negative
entry for each of its classes; p hardly depends on the image while a network is untrained, and s is
what the other entries are of p. Of a batch the gradient gives how often each class is in it
(Wainakh et al., "User-Level Label Leakage from Gradients in Federated Learning", PETS 2022).
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
    """(n, classes) labels of the encodings behind an update, in no order if there are several.

    Args:
        replay: of the update, which holds the `last_bias` of its network.
        guess: (n, C, H, W) any images, for what the network says of images at large.
        scheme: public: whether labels sum to 1.
    """
    slope = replay.mean_gradient(require(last_bias(replay.network)))
    with torch.no_grad():
        said = replay.logits(guess).softmax(dim=1).mean(dim=0)
    if len(guess) > 1:
        return _of_batch(slope, said, len(guess))
    rest = slope > 0
    total = slope[rest].sum() / said[rest].sum().clamp(min=1e-12)
    if scheme.public_k == 0 or scheme.label_mode == "renormalised":
        total = torch.ones_like(total)
    label = torch.where(slope < 0, (total * said - slope).clamp(min=0), 0)
    return (label / label.sum().clamp(min=1e-12) * total)[None]


def _of_batch(slope: Tensor, said: Tensor, count: int) -> Tensor:
    """(n, classes) one class each: the likeliest, counted off one by one."""
    masses = count * (said - slope)
    chosen = []
    for _ in range(count):
        chosen.append(int(masses.argmax()))
        masses[chosen[-1]] -= 1
    return F.one_hot(torch.tensor(chosen), len(slope)).to(slope)

"""Training of the pair encoder on encodings of the attacker's own images."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn import functional as F

from instahide.attacks.base import Progress, no_progress
from instahide.attacks.budget import Budget
from instahide.attacks.reconstruction.pair_encoder.features import magnitudes
from instahide.attacks.reconstruction.pair_encoder.network import PairEncoder
from instahide.attacks.reconstruction.pair_encoder.training_loop import LearningRate, train_steps
from instahide.attacks.shadow_encodings import shadow_batches
from instahide.data import ImageTable
from instahide.encryption.scheme import Scheme

RATE = LearningRate(2e-3, warm_up=30, floor=0.02)


def train_pair_encoder(
    shadow: ImageTable,
    scheme: Scheme,
    budget: Budget,
    progress: Progress = no_progress,
    *,
    encoder: PairEncoder | None = None,
    device: torch.device | str = "cpu",
) -> PairEncoder:
    """Train until ``budget`` ends; the learning rate decays to nearly 0.

    Args:
        shadow: thousands of images like the private ones, none of them private.
        scheme: scheme of the encodings.
        budget: time limit.
        progress: receives the mean loss.
        encoder: encoder to continue with; a new one by default.
        device: device to train on.
    """
    fresh = encoder is None
    model = (PairEncoder(shadow.shape[0]) if encoder is None else encoder).to(device).train()
    scale = torch.tensor(15.0, device=device, requires_grad=True)
    offset = torch.tensor(-3.0, device=device, requires_grad=True)
    optimiser = torch.optim.AdamW(
        [
            {"params": model.parameters(), "weight_decay": 1e-3},
            {"params": [scale, offset], "weight_decay": 0.0},
        ]
    )

    def losses() -> Iterator[Tensor]:
        for step, batch in enumerate(shadow_batches(shadow, scheme)):
            sizes = magnitudes(batch.encodings.to(device))
            if step == 0 and fresh:
                model.calibrate(sizes)
            yield _loss(model(sizes), batch.shares.to(device), scale, offset)

    train_steps(optimiser, losses(), budget, progress, RATE)
    return model.eval()


def _loss(features: Tensor, shares: Tensor, scale: Tensor, offset: Tensor) -> Tensor:
    """Binary cross-entropy over all pairs of different encodings."""
    others = ~torch.eye(len(features), dtype=torch.bool, device=features.device)
    logits = scale * (features @ features.T) + offset
    return F.binary_cross_entropy_with_logits(logits[others], shares[others].float())

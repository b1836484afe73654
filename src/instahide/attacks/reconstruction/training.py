"""Training of the pair encoder on encodings of the attacker's own images."""

from __future__ import annotations

import time

import torch
from torch import Tensor
from torch.nn import functional as F

from instahide.attacks.base import Budget, Progress, silent
from instahide.attacks.reconstruction.encoder import PairEncoder
from instahide.attacks.reconstruction.features import magnitudes
from instahide.attacks.shadows import shadow_batches
from instahide.encryption.scheme import Scheme
from instahide.images import ImageTable

RATE, FLOOR, WARM_UP = 2e-3, 0.02, 30


def train_pair_encoder(
    shadow: ImageTable,
    scheme: Scheme,
    budget: Budget,
    progress: Progress = silent,
    *,
    encoder: PairEncoder | None = None,
    device: torch.device | str = "cpu",
) -> PairEncoder:
    """Train until ``budget`` ends; its learning rate falls to nearly 0 by then.

    Args:
        shadow: images of the private ones' kind, thousands of them, none of them private.
        scheme: that the encodings were made with.
        budget: of seconds.
        progress: told the mean loss.
        encoder: to go on with; a new one by default.
        device: to train on.
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
    mean_loss, began = 0.0, time.monotonic()
    for step, batch in enumerate(shadow_batches(shadow, scheme)):
        spent = min(1.0, (time.monotonic() - began) / budget.seconds)
        if budget.left == 0:
            break
        sizes = magnitudes(batch.encodings.to(device))
        if step == 0 and fresh:
            model.calibrate(sizes)
        for group in optimiser.param_groups:
            group["lr"] = RATE * min(1, (step + 1) / WARM_UP) * (FLOOR + (1 - FLOOR) * (1 - spent))
        loss = _loss(model(sizes), batch.shares.to(device), scale, offset)
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        mean_loss += (loss.item() - mean_loss) / min(step + 1, 50)
        progress(f"step {step + 1}, loss {mean_loss:.4f}", spent)
    return model.eval()


def _loss(features: Tensor, shares: Tensor, scale: Tensor, offset: Tensor) -> Tensor:
    """Binary cross-entropy over all pairs of different encodings."""
    others = ~torch.eye(len(features), dtype=torch.bool, device=features.device)
    logits = scale * (features @ features.T) + offset
    return F.binary_cross_entropy_with_logits(logits[others], shares[others].float())

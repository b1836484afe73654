"""What a run has measured so far, epoch by epoch."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class EpochRecord:
    """One epoch.

    Attributes:
        epoch: its number, from 1.
        loss: mean soft-label cross-entropy of the encodings, in nats.
        learning_rate: of its last step.
        seconds: spent on training, without evaluation.
        images_per_second: encodings learnt from in a second of training.
        metrics: what the caller's evaluation returned, as shares from 0 to 1.
    """

    epoch: int
    loss: float
    learning_rate: float
    seconds: float
    images_per_second: float
    metrics: dict[str, float]


History = list[EpochRecord]


def patience_exhausted(history: History, patience: int | None) -> bool:
    """Whether the last ``patience`` epochs all failed to beat the best accuracy before them."""
    if patience is None or len(history) <= patience:
        return False
    scores = [record.metrics["accuracy"] for record in history]
    return max(scores[-patience:]) <= max(scores[:-patience])

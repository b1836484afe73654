"""The measurements of each epoch of a run."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class EpochRecord:
    """Measurements of one epoch.

    Attributes:
        epoch: its number, from 1.
        loss: mean soft-label cross-entropy of the encodings, in nats.
        learning_rate: learning rate of its last step.
        seconds: time of training, without evaluation.
        images_per_second: encodings per second of training.
        metrics: results of the evaluation, as shares from 0 to 1.
    """

    epoch: int
    loss: float
    learning_rate: float
    seconds: float
    images_per_second: float
    metrics: dict[str, float]


History = list[EpochRecord]


def patience_exhausted(history: History, patience: int | None) -> bool:
    """Whether none of the last ``patience`` epochs exceeded the best accuracy before them."""
    if patience is None or len(history) <= patience:
        return False
    scores = [record.metrics["accuracy"] for record in history]
    return max(scores[-patience:]) <= max(scores[:-patience])

"""The measurements of each epoch of a run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class EpochRecord:
    """Measurements of one epoch.

    Attributes:
        epoch: its number, from 1.
        loss: mean loss of the encodings (see `losses.Loss`): cross-entropies are in nats.
        learning_rate: learning rate of its last step.
        seconds: time of training, without evaluation.
        images_per_second: encodings per second of training.
        metrics: results of the evaluation (see `metrics.headline`).
    """

    epoch: int
    loss: float
    learning_rate: float
    seconds: float
    images_per_second: float
    metrics: dict[str, float]


History = list[EpochRecord]
#: Metrics that patience watches; of each, more is better.
WATCHED = ("accuracy", "macro_auroc", "r2")


def watched(metrics: Mapping[str, float]) -> float:
    """The metric that patience watches."""
    return next(metrics[name] for name in WATCHED if name in metrics)


def patience_exhausted(history: History, patience: int | None) -> bool:
    """Whether none of the last ``patience`` epochs exceeded the best result before them.

    The result is the first of `WATCHED` that was measured.
    """
    if patience is None or len(history) <= patience:
        return False
    scores = [watched(record.metrics) for record in history]
    return max(scores[-patience:]) <= max(scores[:-patience])

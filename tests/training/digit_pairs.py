"""Two handwritten digits side by side, with a finding for each of ten digits."""

from __future__ import annotations

import numpy as np

from experiments import multilabel
from instahide.data import Split, open_split
from instahide.data.splits import make_split
from instahide.training.settings import TrainSettings
from instahide.training.trainer import Trainer


def digit_pairs(data: str = "digits", rounds: int = 1) -> Split:
    """Pairs of the digits of ``data``; in each round, every digit is in one pair."""
    generator = np.random.default_rng(0)
    return make_split(*(multilabel.paired(part, generator, rounds) for part in open_split(data)))


def trainer_of(split: Split, scheme: str, **changes: object) -> Trainer:
    """Training on ``split`` that counts in no ledger, on the CPU in float32."""
    values = {"data": "pairs", "scheme": scheme, "device": "cpu", "precision": "float32"}
    settings = TrainSettings.from_values(values | changes)
    return multilabel.trainer_of(split, settings.completed(split.train.task))

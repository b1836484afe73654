"""Two handwritten digits side by side, with a finding for each of ten digits."""

from __future__ import annotations

import numpy as np
import torch

from instahide.data import ImageTable, Split, open_pool, open_split
from instahide.data.splits import make_split
from instahide.encryption.encoder import Encoder
from instahide.training.data.private import PrivateData
from instahide.training.data.target_scale import target_scale
from instahide.training.distributed.processes import ALONE
from instahide.training.models import build
from instahide.training.settings import TrainSettings
from instahide.training.trainer import Trainer


def digit_pairs(data: str = "digits", rounds: int = 1) -> Split:
    """Pairs of the digits of ``data``; in each round, every digit is in one pair."""
    generator = np.random.default_rng(0)
    return make_split(*(_paired(part, rounds, generator) for part in open_split(data)))


def _paired(images: ImageTable, rounds: int, generator: np.random.Generator) -> ImageTable:
    orders = [generator.permutation(len(images) // 2 * 2).reshape(-1, 2) for _ in range(rounds)]
    left, right = np.concatenate(orders).T
    pixels = np.concatenate([images.pixels[left], images.pixels[right]], axis=3)
    findings = np.zeros((len(left), len(images.classes)), np.float32)
    for side in (left, right):
        findings[np.arange(len(side)), images.labels[side]] = 1
    return ImageTable.from_arrays(pixels, findings, images.classes, task="multi-label")


def trainer_of(split: Split, scheme: str, **changes: object) -> Trainer:
    """Training on ``split`` that counts in no ledger, on the CPU in float32."""
    values = {"data": "pairs", "scheme": scheme, "device": "cpu", "precision": "float32"}
    settings = TrainSettings.from_values(values | changes).completed(split.train.task)
    how = settings.encryption(split.train.task)
    public = open_pool("photos", split.train.shape) if how.public_k else None
    encoder = Encoder(how, split.train, public)
    scale = target_scale(split.train, ALONE)
    material = PrivateData(settings, how, split, public, encoder, scale)
    card = material.card
    model = build(
        card.model,
        card.shape[0],
        len(card.classes),
        sign_invariant=card.sign_invariant,
        seed=settings.seed,
    )
    return Trainer(material, model, torch.device("cpu"), torch.float32)

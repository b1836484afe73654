"""Selects the features of an attack: those of a trained encoder, or untrained ones."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from instahide.attacks.base import EncodingObservation, Progress
from instahide.attacks.budget import Budget
from instahide.attacks.reconstruction.pair_encoder.compression import compressed
from instahide.attacks.reconstruction.pair_encoder.features import (
    magnitudes,
    raw_edges,
    raw_edges_of_square,
)
from instahide.attacks.reconstruction.pair_encoder.network import (
    PairEncoder,
    load_encoder,
    save_encoder,
    shipped_encoder,
)
from instahide.attacks.reconstruction.pair_encoder.training import train_pair_encoder

#: File name of a trained encoder in the folder of an attack.
FILE = "encoder.safetensors"


def default_features(
    observation: EncodingObservation,
    training: Budget | None,
    progress: Progress,
    folder: Path | None = None,
) -> Tensor:
    """(n, d) principal components of features of the encodings, see `compressed`.

    Args:
        observation: the observation; an encoder is trained on its shadow images, if it has any.
        training: time limit of the training; None to use an existing encoder.
        progress: receives the progress of the training.
        folder: folder in which a trained encoder is saved and found again.

    Raises:
        InstaHideError: the encoder in ``folder`` is damaged.
    """
    encodings = observation.encodings
    if not observation.scheme.mask:
        return compressed(encodings, raw_edges)
    encoder = chosen_encoder(observation, training, progress, folder)
    features = raw_edges_of_square if encoder is None else encoder.to(encodings.device)
    with torch.no_grad():
        return compressed(magnitudes(encodings), features)


def chosen_encoder(
    observation: EncodingObservation,
    training: Budget | None,
    progress: Progress,
    folder: Path | None,
) -> PairEncoder | None:
    """The encoder in ``folder``, or the shipped one for this shape, trained within a budget.

    None if there is none for this shape. The arguments are those of `default_features`.
    """
    kept = None if folder is None else folder / FILE
    if kept is not None and kept.exists():
        return load_encoder(kept)
    channels, height, width = observation.encodings.shape[1:]
    encoder = shipped_encoder((channels, height, width))
    if training is None or observation.shadow is None:
        return encoder
    if encoder is not None and encoder.channels != channels:
        encoder = None
    encoder = train_pair_encoder(
        observation.shadow, observation.scheme, training, progress, encoder=encoder,
        device=observation.encodings.device,
    )  # fmt: skip
    if kept is not None:
        save_encoder(kept, encoder)
    return encoder

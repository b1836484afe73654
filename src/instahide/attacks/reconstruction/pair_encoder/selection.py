"""Selects the features of an attack: those of a trained encoder, or untrained ones."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor

from instahide.attacks.base import (
    Budget,
    EncodingObservation,
    Progress,
)
from instahide.attacks.reconstruction.pair_encoder.features import edges, edges_of_square
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
    """(n, D) `standardised` features of the encodings.

    Args:
        observation: the observation; an encoder is trained on its shadow images, if it has any.
        training: time limit of the training; None to use an existing encoder.
        progress: receives the progress of the training.
        folder: folder in which a trained encoder is saved and found again.

    Raises:
        InstaHideError: the encoder in ``folder`` is damaged.
    """
    if not observation.scheme.mask:
        return edges(observation.encodings)
    encodings = observation.encodings
    encoder = _encoder(observation, training, progress, folder)
    if encoder is None:
        return edges_of_square(encodings)
    return encoder.to(encodings.device).features(encodings)


def _encoder(
    observation: EncodingObservation,
    training: Budget | None,
    progress: Progress,
    folder: Path | None,
) -> PairEncoder | None:
    """The encoder in ``folder``, or the shipped one for this shape, trained within a budget."""
    kept = None if folder is None else folder / FILE
    if kept is not None and kept.exists():
        return load_encoder(kept)
    channels, height, width = observation.encodings.shape[1:]
    encoder = shipped_encoder((channels, height, width))
    if training is None or observation.shadow is None:
        return encoder
    encoder = train_pair_encoder(
        observation.shadow, observation.scheme, training, progress, encoder=encoder,
        device=observation.encodings.device,
    )  # fmt: skip
    if kept is not None:
        save_encoder(kept, encoder)
    return encoder

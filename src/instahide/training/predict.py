"""Prediction, also from encrypted queries: whoever runs the network sees encodings only."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from instahide.data import ImageSource, PhotoCrops
from instahide.encryption.encoder import Encoder
from instahide.encryption.exposure import Exposure, limit_error
from instahide.encryption.scheme import Scheme
from instahide.errors import InstaHideError
from instahide.training.class_logits import class_logits
from instahide.training.device import autocast

#: Encodings of a query; the authors advise more than 15 where accuracy counts most.
ENCODINGS = 10
BATCH = 500


@torch.inference_mode()
def probabilities(
    model: nn.Module,
    images: Tensor,
    *,
    precision: torch.dtype = torch.float32,
    classes: int | None = None,
) -> Tensor:
    """(n, classes) float32 on the CPU, for images or encodings (n, C, H, W).

    Args:
        model: gives logits; it is used in evaluation mode and left in the mode it came in. A single
            output is the logit of class 1 of two.
        images: normalized.
        precision: of the arithmetic.
        classes: how many there are, if that is known.

    Raises:
        InstaHideError: the network has outputs for another number of classes.
    """
    device = next(model.parameters()).device
    training = model.training
    model.eval()
    parts = []
    try:
        for start in range(0, len(images), BATCH):
            batch = images[start : start + BATCH]
            with autocast(device, precision):
                outputs = model(batch.to(device).contiguous(memory_format=torch.channels_last))
            logits = class_logits(outputs, classes)
            parts.append(logits.float().softmax(1).cpu())
    finally:
        model.train(training)
    return torch.cat(parts)


def predict_encrypted(
    model: nn.Module,
    scheme: Scheme,
    queries: ImageSource,
    public: ImageSource | PhotoCrops | None = None,
    *,
    encodings: int = ENCODINGS,
    coefficient: float = 0.5,
    precision: torch.dtype = torch.float32,
    participant: str = "",
    exposure: Exposure | None = None,
) -> Tensor:
    """Class probabilities (n, classes), averaged over encodings of each query.

    Every query is mixed with k - 1 public images, or with other queries if ``scheme`` is of one
    data set, under fresh keys each time. More encodings help the answer, and help an attacker who
    sees them all.

    Args:
        model: what was trained on encodings of ``scheme``; it has an output for each class, or a
            single output, the logit of class 1 of two.
        scheme: of the training.
        queries: the images to ask about, normalized like the training images.
        public: the public images of a scheme that mixes some in.
        encodings: of each query.
        coefficient: least coefficient of the query (paper, section 4.2).
        precision: of the arithmetic.
        participant: a name in the keys, as for `Encoder`.
        exposure: counts the encodings of each query, and may limit them; an account of the ledger
            where queries leave your machine.

    Raises:
        ExposureLimitError: a query is at its limit.
        InstaHideError: fewer than one encoding, or a coefficient that the scheme cannot give;
            fewer queries than a mix within one data set needs; a network with outputs for another
            number of classes than the queries have.
    """
    if encodings < 1:
        raise InstaHideError(f"{encodings} encodings answer nothing.", "Use 10 or more.")
    encoder = Encoder(
        scheme.query(coefficient), queries, public, participant=participant, exposure=exposure
    )
    total = torch.zeros(len(queries), len(queries.classes))
    for _ in range(encodings):
        encoder.next_epoch()
        for start in range(0, len(queries), BATCH):
            rows = np.arange(start, min(start + BATCH, len(queries)))
            encoded = encoder.encode(rows)
            if len(encoded.images) < len(rows):
                raise limit_error(encoder.exposure)
            total[rows] += probabilities(
                model, encoded.images, precision=precision, classes=total.shape[1]
            )
    return total / encodings

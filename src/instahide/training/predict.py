"""Prediction from plain images and from encrypted queries."""

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
from instahide.training.device import autocast, channels_last

#: Encodings of a query by default; the authors advise more than 15 for the best accuracy.
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
    """Class probabilities of images or encodings.

    Args:
        model: returns logits, one for each class; a single output is the logit of class 1 of two.
            It runs in evaluation mode, and its previous mode is restored.
        images: (n, C, H, W) normalized images or encodings.
        precision: type of the network's arithmetic.
        classes: number of classes to check the outputs against; None for no check.

    Returns:
        (n, classes) float32 on the CPU.

    Raises:
        InstaHideError: the model does not return logits, or for another number of classes.
    """
    device = next(model.parameters()).device
    training = model.training
    model.eval()
    parts = []
    try:
        for start in range(0, len(images), BATCH):
            batch = images[start : start + BATCH]
            with autocast(device, precision):
                outputs = model(channels_last(batch.to(device)))
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
    """Predict the classes of encrypted queries, averaged over several encodings of each.

    Each encoding mixes the query with k - 1 public images, or with k - 1 other queries if
    ``scheme`` has no public images, under new keys. More encodings make the prediction more
    accurate; they also help an attacker who sees all of them.

    Args:
        model: a network trained on encodings of ``scheme``; it has one output for each class, or a
            single output, the logit of class 1 of two.
        scheme: the scheme of the training.
        queries: the images to classify, with the normalization of the training images.
        public: the public images, required if ``scheme.public_k`` is above 0.
        encodings: number of encodings of each query.
        coefficient: least coefficient of the query in a mix (paper, section 4.2).
        precision: type of the network's arithmetic.
        participant: a name that is mixed into the keys, as for `Encoder`.
        exposure: counts the encodings of each query, and may limit them. Pass an account of a
            ledger if the encodings leave your machine.

    Returns:
        (n, classes) float32 probabilities on the CPU.

    Raises:
        ExposureLimitError: a query has reached its exposure limit.
        InstaHideError: ``encodings`` is below 1; ``coefficient`` is above the bound c1 of the
            scheme; there are fewer than k queries and ``scheme`` has no public images; or the
            model has outputs for another number of classes than the queries.

    Examples:
        >>> from instahide import Scheme, open_split, predict_encrypted
        >>> from instahide.training.models import build
        >>> model = build("small", channels=1, classes=10, sign_invariant=True)
        >>> queries = open_split("digits").test.subset(slice(0, 8))
        >>> probabilities = predict_encrypted(model, Scheme.inside(4), queries, encodings=2)
        >>> tuple(probabilities.shape)
        (8, 10)
    """
    if encodings < 1:
        raise InstaHideError(f"encodings = {encodings} is below 1.", "Use 10 or more.")
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

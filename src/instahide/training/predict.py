"""Prediction from plain images and from encrypted queries."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from instahide.data import ImageSource, ImageTable, PhotoCrops
from instahide.data.image_source import has_repeats, task_of
from instahide.data.labels import Task
from instahide.encryption.encoder import Encoder
from instahide.encryption.exposure import Exposure, limit_error
from instahide.encryption.scheme import Scheme
from instahide.errors import DataError, InstaHideError
from instahide.training.device import autocast, channels_last
from instahide.training.outputs import Outputs
from instahide.utils.evaluation_mode import evaluation_mode

#: Encodings of a query by default; the authors advise more than 15 for the best accuracy.
ENCODINGS = 10
BATCH = 500
#: Least difference that a query makes to its prediction, as a share of its own label.
LEAST_SHARE = 0.1


@torch.inference_mode()
def probabilities(
    model: nn.Module,
    images: Tensor,
    *,
    precision: torch.dtype = torch.float32,
    classes: int | None = None,
    outputs: Outputs | None = None,
) -> Tensor:
    """Class probabilities of images or encodings, or what else the network predicts.

    Args:
        model: returns logits, one for each class; a single output is the logit of class 1 of two.
            It runs in evaluation mode, and the mode of each of its modules is restored.
        images: (n, C, H, W) normalized images or encodings.
        precision: type of the network's arithmetic.
        classes: number of classes to check the outputs against; None for no check.
        outputs: what the network predicts; by default probabilities of classes.

    Returns:
        (n, columns) float32 on the CPU.

    Raises:
        InstaHideError: the model does not return logits, returns NaN or infinite ones, or has
            outputs for another number of classes; or ``outputs`` are of another number.
    """
    outputs = outputs or Outputs()
    if classes is not None:
        outputs = outputs.fitted(classes)
    device = next(model.parameters()).device
    parts = []
    with evaluation_mode(model):
        for start in range(0, len(images), BATCH):
            batch = images[start : start + BATCH]
            with autocast(device, precision):
                raw = model(channels_last(batch.to(device)))
            parts.append(outputs.predictions(raw).cpu())
    return torch.cat(parts) if parts else torch.zeros(0, outputs.columns or 0)


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
    outputs: Outputs | None = None,
) -> Tensor:
    """Predict the labels of encrypted queries, averaged over several encodings of each.

    Each encoding mixes the query with k - 1 public images, or with k - 1 other queries if
    ``scheme`` has no public images, under new keys. More encodings make the prediction more
    accurate; they also help an attacker who sees all of them.

    What is averaged are probabilities of classes or findings, or values. If queries are mixed with
    each other, a prediction is partly that of the others. The class of largest probability is not
    affected on average, so probabilities of classes stay as they are. Probabilities of findings and
    values are corrected: see `without_partners`. For this, images of one group may be mixed with
    each other if there is no ``exposure``, and equal images get the same prediction. Last,
    probabilities are calibrated as ``outputs`` say.

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
        outputs: what the network predicts; by default probabilities of the classes or findings of
            the queries. A regression needs it: `NetworkCard.outputs`. Task, number and names of
            its columns are those of the queries, as after `align_to_model`.

    Returns:
        (n, columns) float32 probabilities or values on the CPU.

    Raises:
        ExposureLimitError: a query has reached its exposure limit.
        InstaHideError: ``encodings`` is below 1; ``coefficient`` is above the bound c1 of the
            scheme, or so low that a query of findings or values has hardly an effect; there are
            fewer than k queries and ``scheme`` has no public images; the classes or the task of the
            queries are not those of ``outputs``; or the model has outputs for another number of
            classes than the queries, or NaN or infinite ones.

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
    query = scheme.query(coefficient)
    outputs = _outputs_for(queries, outputs)
    places = np.arange(len(queries))
    if _shares_labels(query, outputs.task):
        if exposure is None and isinstance(queries, ImageTable):
            queries, places = all_mixable(queries)
        else:
            _require_all_mixable(queries)
    encoder = Encoder(query, queries, public, participant=participant, exposure=exposure)
    total = torch.zeros(len(queries), outputs.columns or 0)
    for _ in range(encodings):
        encoder.next_epoch()
        for start in range(0, len(queries), BATCH):
            rows = np.arange(start, min(start + BATCH, len(queries)))
            encoded = encoder.encode(rows)
            if len(encoded.images) < len(rows):
                raise limit_error(encoder.exposure)
            total[rows] += probabilities(
                model, encoded.images, precision=precision, outputs=outputs.uncalibrated
            )
    return outputs.of_queries(without_partners(total / encodings, query, outputs))[places]


def _outputs_for(queries: ImageSource, outputs: Outputs | None) -> Outputs:
    """``outputs``, or by default those of the labels of ``queries``, with a known number.

    Raises:
        DataError: ``outputs`` are of another task, or their columns are others than the labels'.
    """
    task, classes = task_of(queries), tuple(queries.classes)
    if outputs is None:
        return Outputs(task, len(classes))
    remedy = (
        "Bring the queries to the outputs of the network by "
        "`instahide.training.data.alignment.align_to_model`."
    )
    if outputs.task != task:
        raise DataError(f"The network is for a {outputs.task} task, the queries {task}.", remedy)
    if outputs.columns not in (None, len(classes)):
        raise DataError(
            f"The network has {outputs.columns} outputs, but the queries {len(classes)} classes.",
            remedy,
        )
    if outputs.classes not in ((), classes):
        raise DataError("The queries have other classes than the network, or their order.", remedy)
    return outputs.fitted(len(classes))


def _shares_labels(query: Scheme, task: Task) -> bool:
    """Whether a prediction is partly that of other queries, and is to be corrected."""
    return query.private_k > 1 and task != "single-label"


def all_mixable(queries: ImageTable) -> tuple[ImageTable, NDArray[np.int64]]:
    """Queries of which any two are mixed equally often, and the row of each query among them.

    `without_partners` relies on it. Images of one group are not mixed with each other, nor is one
    picture with itself. Encodings that stay here need no groups, and each picture is encoded once.
    """
    alone = replace(queries, sources=None, groups=None)
    _, first, places = np.unique(alone.content_ids, return_index=True, return_inverse=True)
    return alone if len(first) == len(alone) else alone.subset(first), places


def _require_all_mixable(queries: ImageSource) -> None:
    """Check that any two queries are mixed equally often.

    Raises:
        DataError: several queries are of one picture or group.
    """
    if has_repeats(queries):
        raise DataError(
            "Several queries are of one picture or group. Such queries are not mixed with each "
            "other, so that their predictions cannot be corrected for the others.",
            "Predict one image of each group at a time, or leave out `exposure=` where encodings "
            "stay on your machine.",
        )


def label_shares(query: Scheme, count: int) -> tuple[float, float]:
    """Mean shares of a query, and of each of ``count`` - 1 other queries, in its encodings."""
    own = float(query.simulated_coefficients()[:, 0].mean())
    return own, (1 - own) / (count - 1)


def require_separable(query: Scheme, task: Task, count: int) -> None:
    """Check that the labels of ``count`` queries can be told apart although they are mixed.

    Raises:
        InstaHideError: the coefficient of a query is hardly larger than those of the others.
    """
    if not _shares_labels(query, task) or count < 2:
        return
    own, other = label_shares(query, count)
    if own - other < LEAST_SHARE:
        raise InstaHideError(
            "The coefficient of a query is hardly larger than those of the queries it is mixed "
            "with, so that their labels cannot be told apart.",
            "Raise `coefficient=` (`query_coefficient=` of a training run), or use more images.",
        )


def require_encryptable(query: Scheme, images: ImageTable, *, held_out: bool = False) -> None:
    """Check that `predict_encrypted` can predict ``images`` without an account.

    Args:
        query: the scheme of the queries.
        images: test images; or those that this process holds out, if ``held_out``.
        held_out: which of both, for the message.

    Raises:
        InstaHideError: there are too few pictures, or their labels could not be told apart.
    """
    pictures = len(images)
    if _shares_labels(query, images.task):
        pictures = len(all_mixable(images)[0])
    if 0 < pictures < query.private_k:
        raise DataError(
            f"A query is mixed with {query.private_k - 1} others, but there are {pictures} "
            f"{'held-out images in a process' if held_out else 'test images'}.",
            "Set `calibration_share=0`, or `queries=0`."
            if held_out
            else "Add test images, or set `queries=0`.",
        )
    require_separable(query, images.task, pictures)


def without_partners(predictions: Tensor, query: Scheme, outputs: Outputs) -> Tensor:
    """Predictions of queries, without the part of the queries that they were mixed with.

    Mixed labels are linear in the labels, and a network predicts their mean. The query itself has
    the mean coefficient a, and the n - 1 other queries share the rest equally, on average. So the
    mean prediction p of a query with the label y is a y + (1 - a) (n m - y) / (n - 1), where m is
    the mean label of all queries, which is the mean of p; this holds if any two queries are mixed
    equally often. This is solved for y. Nothing is to be
    corrected where all partners are public, as these have no labels, nor for classes.

    Args:
        predictions: (n, columns) averaged over the encodings of each query.
        query: the scheme of the queries.
        outputs: what the network predicts.

    Returns:
        (n, columns); probabilities are clipped to 0 and 1.

    Raises:
        InstaHideError: the coefficient of the query is hardly larger than those of the others.

    Examples:
        >>> import torch
        >>> from instahide import Scheme
        >>> from instahide.training.outputs import Outputs
        >>> from instahide.training.predict import without_partners
        >>> query = Scheme.inside(4).query(0.5)
        >>> mixed = torch.tensor([[0.6], [0.4], [0.3], [0.3]])
        >>> found = without_partners(mixed, query, Outputs("multi-label", 1))
        >>> bool(found[0] > 0.7), bool(torch.isclose(found.mean(), mixed.mean()))
        (True, True)
    """
    count = len(predictions)
    if not _shares_labels(query, outputs.task) or count < 2:
        return predictions
    require_separable(query, outputs.task, count)
    own, other = label_shares(query, count)
    found = (predictions - count * other * predictions.mean(0)) / (own - other)
    return found.clamp(0, 1) if outputs.task == "multi-label" else found

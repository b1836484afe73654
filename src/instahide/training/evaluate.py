"""Predictions of a network for batches, and its accuracy on plain images."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor, nn

from instahide.data.table import ImageTable
from instahide.errors import InstaHideError
from instahide.training.device import autocast, channels_last
from instahide.training.outputs import Outputs
from instahide.utils.evaluation_mode import evaluation_mode

#: Predictions (n, columns) and labels of the same images.
Predicted = tuple[Tensor, Tensor]


class CalibrationSet(NamedTuple):
    """Uncalibrated predictions for images to calibrate with: plain, and as encrypted queries."""

    plain: Predicted
    queries: Predicted | None


class Accuracy(NamedTuple):
    """Shares of correct predictions, from 0 to 1; None for a class without images."""

    overall: float
    per_class: tuple[float | None, ...]


def table_batches(table: ImageTable, size: int = 500) -> Iterator[tuple[Tensor, Tensor]]:
    """The images of ``table`` in order, normalized, with their labels."""
    for start in range(0, len(table), size):
        rows = slice(start, start + size)
        yield torch.from_numpy(table.normalized(rows)), torch.from_numpy(table.labels[rows])


@torch.inference_mode()
def predicted(
    model: nn.Module,
    batches: Iterable[tuple[Tensor, Tensor]],
    outputs: Outputs,
    *,
    precision: torch.dtype = torch.float32,
) -> Predicted:
    """The predictions of ``model`` for all images of ``batches``, and their labels, on the CPU.

    Args:
        model: runs on its current device, in evaluation mode. The mode of each of its modules is
            restored.
        batches: at least one batch of normalized images with their labels.
        outputs: what the network predicts.
        precision: type of the network's arithmetic.

    Returns:
        (n, columns) float32 predictions, see `Outputs.predictions`; and the labels as in the
        batches.

    Raises:
        InstaHideError: the network returns something else than these outputs, or NaN or infinite
            ones.
    """
    device = next(model.parameters()).device
    found = []
    with evaluation_mode(model):
        for images, labels in batches:
            with autocast(device, precision):
                raw = model(channels_last(images.to(device)))
            found.append((outputs.predictions(raw).cpu(), labels))
    predictions, targets = (torch.cat(parts) for parts in zip(*found, strict=True))
    return predictions, targets


def accuracy(
    model: nn.Module,
    batches: Iterable[tuple[Tensor, Tensor]],
    *,
    precision: torch.dtype = torch.float32,
) -> Accuracy:
    """Measure the accuracy of ``model``, on its current device.

    Args:
        model: returns logits (n, classes); a single output is the logit of class 1 of two. The mode
            of each of its modules is restored.
        batches: at least one batch of normalized images (n, C, H, W) and class numbers (n,).
        precision: type of the network's arithmetic.

    Raises:
        InstaHideError: the network has no output for a class number, or returns NaN or infinite
            ones.
    """
    # Only here: its import takes a second or two.
    from torchmetrics.functional.classification import multiclass_stat_scores

    found, labels = predicted(model, batches, Outputs(), precision=precision)
    if len(labels) and labels.max() >= found.shape[1]:
        raise InstaHideError(
            f"The network has outputs for {found.shape[1]} classes, but an image is of class "
            f"{labels.max()} (counted from 0).",
            "Use a network with one output for each class.",
        )
    scores = multiclass_stat_scores(found, labels, found.shape[1], average=None)
    right, *_, total = scores.unbind(1)
    shares = torch.where(total > 0, right / total, torch.nan).tolist()
    per_class = tuple(None if math.isnan(share) else share for share in shares)
    return Accuracy(float(right.sum() / total.sum()), per_class)

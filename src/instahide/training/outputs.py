"""What the outputs of a network mean: probabilities of classes or findings, or values."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional as F

from instahide.data.labels import Task
from instahide.errors import InstaHideError
from instahide.training.calibration import (
    LEAST_OF_QUERIES,
    UNCALIBRATED,
    Calibration,
    calibrated,
    log_odds,
)


@dataclass(frozen=True)
class Outputs:
    """What the outputs of a network mean.

    Attributes:
        task: what the network predicts: ``single-label``: logits of classes; ``multi-label``: a
            logit for each finding; ``regression``: standardised values.
        columns: number of classes, findings or values; None if unknown.
        mean: of the values of a regression, for which an output is 0; in the unit of the labels.
        std: the difference in value of two outputs that differ by 1, likewise.
        calibration: scale and bias of the logits of plain images.
        query_calibration: scale and bias of the logits of the averaged probabilities of encrypted
            queries; None for `calibration`.
        classes: names of the columns, in order; empty if unknown.

    Examples:
        >>> import torch
        >>> from instahide.training.outputs import Outputs
        >>> Outputs("multi-label", 2).predictions(torch.zeros(1, 2))
        tensor([[0.5000, 0.5000]])
        >>> Outputs("regression", 1, mean=(40.0,), std=(10.0,)).predictions(torch.ones(1, 1))
        tensor([[50.]])
    """

    task: Task = "single-label"
    columns: int | None = None
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    calibration: Calibration = UNCALIBRATED
    query_calibration: Calibration | None = None
    classes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Check the names, and that a regression has a mean and a standard deviation.

        Raises:
            InstaHideError: one is missing, or there is another number of them than of columns.
        """
        if self.classes and self.columns not in (None, len(self.classes)):
            raise InstaHideError(
                f"There are {len(self.classes)} names of {self.columns} columns.",
                "Name every column, or none.",
            )
        if self.task == "regression" and not (
            len(self.mean) == len(self.std) == (self.columns or len(self.mean)) > 0
        ):
            raise InstaHideError(
                f"A regression of {self.columns or 'some'} values needs a mean and a standard "
                f"deviation of each, but there are {len(self.mean)} and {len(self.std)}.",
                "Pass `mean=` and `std=`, or take the outputs of the network's card.",
            )

    def tensor(self, outputs: object) -> Tensor:
        """(n, columns) float32 outputs of a network.

        Args:
            outputs: what the network returned: (n, columns) or (n,), or an object with these as its
                attribute ``logits``. A single output is the logit of class 1 of two classes.

        Raises:
            InstaHideError: the outputs have another shape.
        """
        if self.task == "single-label":
            return class_logits(outputs, self.columns).float()
        found = getattr(outputs, "logits", outputs)
        shape = tuple(found.shape) if isinstance(found, Tensor) else type(found).__name__
        if isinstance(found, Tensor) and found.ndim == 1:
            found = found[:, None]
        if (
            not isinstance(found, Tensor)
            or found.ndim != 2
            or self.columns not in (None, found.shape[1])
        ):
            raise InstaHideError(
                f"The network returns {shape} for a batch, not (n, {self.columns or 'columns'}).",
                "Let it end in one output for each finding or value.",
            )
        return found.float()

    def predictions(self, outputs: object) -> Tensor:
        """(n, columns) float32 probabilities of classes or findings, or values in their own unit.

        Raises:
            InstaHideError: as for `tensor`; or an output or a prediction is NaN or infinite.
        """
        raw = self.tensor(outputs)
        found = self.converted(raw)
        finite = (raw.isfinite() & found.isfinite()).all(dim=1)
        if not bool(finite.all()):
            raise InstaHideError(
                f"The network returns NaN or infinite outputs for {int((~finite).sum())} of "
                f"{len(found)} images of a batch.",
                "Train it with a lower learning rate or precision float32. In a network of your "
                "own, look for roots, logarithms and divisions.",
            )
        return found

    def converted(self, outputs: object) -> Tensor:
        """The predictions, also where they are not finite: for networks that are traced.

        Raises:
            InstaHideError: as for `tensor`.
        """
        found = self.tensor(outputs)
        if self.task == "regression":
            return found * self._row(self.std, found) + self._row(self.mean, found)
        return calibrated(found, self.calibration, self.task)

    @property
    def uncalibrated(self) -> Outputs:
        """The same outputs, with probabilities as the network was trained to give them."""
        return replace(self, calibration=UNCALIBRATED, query_calibration=None)

    def fitted(self, columns: int) -> Outputs:
        """The same outputs, of which there are ``columns``.

        Raises:
            InstaHideError: there is another number of them.
        """
        if self.columns not in (None, columns):
            raise InstaHideError(
                f"`outputs` has {self.columns} columns, but the number of classes is {columns}.",
                "Pass the outputs of the network's card, and as many classes as it has.",
            )
        return replace(self, columns=columns)

    def of_queries(self, averaged: Tensor) -> Tensor:
        """(n, columns) calibrated predictions of encrypted queries, from uncalibrated ones."""
        calibration = self.query_calibration or self.calibration
        if self.task == "regression" or calibration == UNCALIBRATED:
            return averaged
        logits = log_odds(averaged, self.task, LEAST_OF_QUERIES)
        return calibrated(logits, calibration, self.task)

    def standardised(self, targets: Tensor) -> Tensor:
        """Targets (n, columns) of a regression in the unit of the outputs."""
        return (targets - self._row(self.mean, targets)) / self._row(self.std, targets)

    def _row(self, values: tuple[float, ...], like: Tensor) -> Tensor:
        return torch.tensor(values, dtype=torch.float32, device=like.device)


def class_logits(outputs: object, classes: int | None = None) -> Tensor:
    """Convert the outputs of a network to class logits.

    A single output is the logit of class 1 of two, as for `BCEWithLogitsLoss`: the softmax of the
    result is then (1 - sigmoid, sigmoid).

    Args:
        outputs: (n, c) or (n,) outputs, or an object with these as its attribute ``logits``.
        classes: number of classes to check against; None for no check.

    Returns:
        (n, classes) logits.

    Raises:
        InstaHideError: the outputs are not a tensor of such a shape, or are for another number of
            classes.
    """
    logits = getattr(outputs, "logits", outputs)
    if not isinstance(logits, Tensor) or logits.ndim not in (1, 2):
        shape = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
        raise InstaHideError(
            f"The network returns {shape} for a batch, not logits of shape (n, classes).",
            "Let it end in one output for each class.",
        )
    if logits.ndim == 1:
        logits = logits[:, None]
    count = logits.shape[1]
    if count == 1:
        logits = F.pad(logits, (1, 0))
    if classes is not None and logits.shape[1] != classes:
        raise InstaHideError(
            f"The network has {count} output{'s' if count > 1 else ''}, but the number of classes "
            f"is {classes}.",
            "Use a network with one output for each class (or one output for two classes).",
        )
    return logits

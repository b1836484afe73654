"""Metrics of predictions against true labels, for each task (torchmetrics)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from instahide.data.labels import Task
from instahide.errors import DataError

#: Specificity at which sensitivity is measured.
SPECIFICITY = 0.9
#: Probability from which a finding is predicted as present, and a soft target counts as present.
PRESENT = 0.5
#: Most classes for which each has metrics of its own, and most rows of a confusion matrix.
MOST_DETAILED, MOST_CONFUSED = 1_000, 100
#: Metrics that are no shares from 0 to 1.
_NO_SHARES = ("mae", "r2")


class Evaluation(NamedTuple):
    """How well predictions fit.

    Attributes:
        metrics: by name; all but ``mae`` and ``r2`` are shares from 0 to 1.
        details: metrics of each class, finding or value, and a confusion matrix; for JSON.
    """

    metrics: dict[str, float]
    details: dict[str, object]


def headline(task: Task, predictions: Tensor, targets: Tensor) -> dict[str, float]:
    """The few metrics that are measured after each epoch; arguments as for `evaluation`.

    Raises:
        DataError: predictions and targets have other columns, no finding is both present and absent
            in the targets, or R2 is undefined because there is a single image.
    """
    _require_alike(task, predictions, targets)
    if task == "single-label":
        return {"accuracy": float((predictions.argmax(1) == targets).double().mean())}
    if task == "multi-label":
        return {"macro_auroc": _require_mean(_auroc_of_findings(predictions, targets))}
    errors = _errors(predictions, targets)
    if "r2" not in errors:
        raise DataError("R2 of a single test image is undefined.", "Give more test images.")
    return {name: float(each.mean()) for name, each in errors.items()}


def evaluation(
    task: Task, classes: Sequence[str], predictions: Tensor, targets: Tensor
) -> Evaluation:
    """All metrics of ``predictions``.

    The area under the ROC curve (AUROC) and the sensitivity at a specificity of 90% of a class or
    finding need images with and without it, and R2 needs two images. Macro metrics are means over
    the classes or findings for which a metric is defined. Undefined metrics are left out. Findings
    also have the expected calibration error of all known ones together (Naeini et al., AAAI 2015).

    Args:
        task: what the labels are.
        classes: names of the classes, findings or values.
        predictions: (n, columns) probabilities or values.
        targets: (n,) class numbers; or (n, columns) targets, NaN for an unknown finding.

    Raises:
        DataError: predictions and targets are of other images or columns.
    """
    _require_alike(task, predictions, targets)
    if task == "regression":
        errors = _errors(predictions, targets)
        parts = {name: each.tolist() for name, each in errors.items()}
        found = {name: float(each.mean()) for name, each in errors.items()}
        return Evaluation(found, {"values": _by_class(classes, parts)})
    if task == "multi-label":
        columns = _findings(predictions, targets)
        parts = {
            "auroc": [_auroc(*column) for column in columns],
            "f1": [_f1(*column) for column in columns],
            "sensitivity_at_90_specificity": [_sensitivity(*column) for column in columns],
        }
        macro = {f"macro_{name}": values for name, values in parts.items()}
        found = _means(macro) | _calibration_error(predictions, targets)
        return Evaluation(found, {"findings": _by_class(classes, parts)})
    found = headline(task, predictions, targets)
    if len(classes) > MOST_DETAILED:
        return Evaluation(found, {})
    return _of_classes(found, classes, predictions, targets)


def as_text(name: str, value: float) -> str:
    """A metric for people: a percentage, or a number where it is no share."""
    if name.removeprefix("encrypted_") in _NO_SHARES:
        return f"{value:.4g}"
    return f"{value:.1%}"


def _of_classes(
    found: dict[str, float], classes: Sequence[str], predictions: Tensor, targets: Tensor
) -> Evaluation:
    # Only here: its import takes a second or two.
    from torchmetrics.functional.classification import multiclass_confusion_matrix

    matrix = multiclass_confusion_matrix(predictions.argmax(1), targets, len(classes)).double()
    right, support, chosen = matrix.diagonal(), matrix.sum(1), matrix.sum(0)
    parts = {
        "accuracy": [_share(*pair) for pair in zip(right, support, strict=True)],
        "auroc": [
            _auroc(predictions[:, number], targets == number) for number in range(len(classes))
        ],
        "f1": [
            _share(2 * hits, of + said) if of else None
            for hits, of, said in zip(right, support, chosen, strict=True)
        ],
    }
    details: dict[str, object] = {"classes": _by_class(classes, parts)}
    if len(classes) <= MOST_CONFUSED:
        # Rows are true classes, columns predicted ones.
        details["confusion_matrix"] = matrix.long().tolist()
    macro = {"macro_auroc": parts["auroc"], "macro_f1": parts["f1"]}
    return Evaluation(found | _means(macro), details)


def _require_alike(task: Task, predictions: Tensor, targets: Tensor) -> None:
    """Check that there is a target for each prediction; PyTorch would repeat single columns."""
    found, wanted = tuple(predictions.shape), tuple(targets.shape)
    if task == "single-label":
        found = found[:1]
    if found != wanted:
        raise DataError(
            f"Predictions are {tuple(predictions.shape)}, targets {wanted}.",
            "Bring the images to the outputs of the network by "
            "`instahide.training.data.alignment.align_to_model`.",
        )


def _findings(predictions: Tensor, targets: Tensor) -> list[tuple[Tensor, Tensor]]:
    """Of each finding, the predictions of the images where it is known, and whether it is there."""
    known = ~targets.isnan()
    return [
        (predictions[rows, number], targets[rows, number] >= PRESENT)
        for number, rows in enumerate(known.T)
    ]


def _auroc_of_findings(predictions: Tensor, targets: Tensor) -> list[float | None]:
    return [_auroc(*column) for column in _findings(predictions, targets)]


def _auroc(scores: Tensor, present: Tensor) -> float | None:
    from torchmetrics.functional.classification import binary_auroc

    return float(binary_auroc(scores, present.long())) if _both(present) else None


def _sensitivity(scores: Tensor, present: Tensor) -> float | None:
    from torchmetrics.functional.classification import binary_sensitivity_at_specificity

    if not _both(present):
        return None
    return float(binary_sensitivity_at_specificity(scores, present.long(), SPECIFICITY)[0])


def _f1(scores: Tensor, present: Tensor) -> float | None:
    from torchmetrics.functional.classification import binary_f1_score

    if not present.any():
        return None
    return float(binary_f1_score(scores, present.long(), threshold=PRESENT))


def _calibration_error(predictions: Tensor, targets: Tensor) -> dict[str, float]:
    from torchmetrics.functional.classification import binary_calibration_error

    known = ~targets.isnan()
    if not known.any():
        return {}
    present = (targets[known] >= PRESENT).long()
    return {"calibration_error": float(binary_calibration_error(predictions[known], present))}


def _both(present: Tensor) -> bool:
    return bool(present.any()) and not bool(present.all())


def _errors(predictions: Tensor, targets: Tensor) -> dict[str, Tensor]:
    """(columns,) the mean absolute error, and the share of the variance that is explained."""
    from torchmetrics.functional.regression import mean_absolute_error, r2_score

    values, wanted = predictions.double(), targets.double()
    columns = values.shape[1]
    errors = {"mae": mean_absolute_error(values, wanted, num_outputs=columns).reshape(-1)}
    if len(values) > 1:
        errors["r2"] = r2_score(values, wanted, multioutput="raw_values").reshape(-1)
    return errors


def _share(part: Tensor, whole: Tensor) -> float | None:
    return float(part / whole) if whole else None


def _require_mean(values: Sequence[float | None]) -> float:
    defined = [value for value in values if value is not None]
    if not defined:
        raise DataError(
            "No finding is present in some of the test images and absent in others.",
            "Give test images with and without a finding.",
        )
    return sum(defined) / len(defined)


def _means(parts: dict[str, list[float | None]]) -> dict[str, float]:
    """The mean of each list over its defined values; lists without any are left out."""
    return {
        name: float(torch.tensor(defined, dtype=torch.float64).mean())
        for name, values in parts.items()
        if (defined := [value for value in values if value is not None])
    }


def _by_class(
    classes: Sequence[str], parts: dict[str, list[float | None]]
) -> dict[str, dict[str, float | None]]:
    return {
        name: {metric: values[number] for metric, values in parts.items()}
        for number, name in enumerate(classes)
    }

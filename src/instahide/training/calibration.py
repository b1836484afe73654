"""Calibration: a scale and a bias of logits, fitted to images that the network did not learn from.

A network that learned from mixes is not certain enough of single images: the labels of mixes are
shares, and it has never seen a whole one. Two numbers correct most of this (Platt, "Probabilistic
Outputs for Support Vector Machines", 1999; Guo et al., "On Calibration of Modern Neural Networks",
ICML 2017). The scale is positive, so the order of images by the probability of a finding, and of
the classes of an image, stays as it is.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from instahide.data.labels import Task
from instahide.errors import InstaHideError

#: Scale and bias of logits.
Calibration = tuple[float, float]
UNCALIBRATED: Calibration = (1.0, 0.0)
#: Iterations of the fit of two numbers, far more than it needs.
_ITERATIONS = 100
#: Largest absolute logarithm of the scale: a network that tells nothing keeps an order.
_MOST_LOG_SCALE = 5.0
#: Least probability of a finding in encrypted queries: the correction for partners clips at 0, and
#: the mean of a few encodings says no more than this.
LEAST_OF_QUERIES = 1e-3


def is_at_limit(calibration: Calibration) -> bool:
    """Whether the scale is the smallest or the largest that is allowed.

    Targets that contradict the probabilities, or agree with all of them, bound it on one side only.
    """
    return math.isclose(abs(math.log(calibration[0])), _MOST_LOG_SCALE)


def log_odds(probabilities: Tensor, task: Task, least: float = 0.0) -> Tensor:
    """(n, columns) float64 logits that ``task`` turns into these probabilities (n, columns).

    Probabilities of findings are first brought into the range from ``least`` to 1 - ``least``, in
    proportion, so that their order stays.
    """
    exact = probabilities.double()
    if task != "single-label":
        exact = least + (1 - 2 * least) * exact
    found = exact.clamp(min=torch.finfo(torch.float32).tiny).log()
    if task == "single-label":
        return found
    # The float32 next to 1 is further away from it than this.
    return found - (1 - exact).clamp(min=torch.finfo(torch.float64).eps).log()


def calibrated(logits: Tensor, calibration: Calibration, task: Task) -> Tensor:
    """(n, columns) probabilities of classes or findings, float32, from logits (n, columns)."""
    scale, bias = calibration
    if task == "single-label":
        return (scale * logits).softmax(1).float()
    return (scale * logits + bias).sigmoid().float()


def fit_calibration(
    probabilities: Tensor, targets: Tensor, task: Task, least: float = 0.0
) -> Calibration:
    """The scale and bias for which the ``targets`` are most likely.

    All findings share both numbers. Classes get a scale alone, the inverse of the temperature.

    Args:
        probabilities: (n, columns) of images that the network did not learn from.
        targets: (n,) class numbers, or (n, columns) findings, NaN where unknown.
        task: ``single-label`` or ``multi-label``.
        least: as for `log_odds`.

    Raises:
        InstaHideError: no target is known, or these are measured values.

    Examples:
        >>> import torch
        >>> from instahide.training.calibration import fit_calibration
        >>> timid = torch.tensor([[0.6], [0.6], [0.6], [0.4]]).repeat(50, 1)
        >>> present = torch.tensor([[1.0], [1.0], [1.0], [0.0]]).repeat(50, 1)
        >>> scale, bias = fit_calibration(timid, present, "multi-label")
        >>> scale > 5
        True
    """
    if task == "regression":
        raise InstaHideError(
            "Measured values have no probabilities to calibrate.", "Leave out the calibration."
        )
    known = ~targets.isnan()
    if not known.any():
        raise InstaHideError(
            "No image has a known label to calibrate with.", "Give images with labels."
        )
    logits = log_odds(probabilities, task, least)
    if task != "single-label":
        return _fit_findings(logits[known], _smoothed(targets, known)[known])
    # Laplace's rule of succession, for the same reason as Platt's targets.
    classes = logits.shape[1]
    certain = classes / (len(targets) + classes)

    def loss(values: Tensor) -> Tensor:
        return F.cross_entropy(logits * values.exp(), targets, label_smoothing=certain)

    (log_scale,) = _minimizer(loss, 1)
    return math.exp(_clamped(log_scale)), 0.0


def _fit_findings(logits: Tensor, targets: Tensor) -> Calibration:
    """The scale, within its limits, and the bias for which ``targets`` (m,) are most likely."""
    # The scale and the bias of standardised logits hardly depend on each other.
    centre, spread = float(logits.mean()), float(logits.std(unbiased=False)) or 1.0
    standardised = (logits - centre) / spread

    def loss(scale: Tensor | float, bias: Tensor) -> Tensor:
        return F.binary_cross_entropy_with_logits(scale * standardised + bias, targets)

    log_scale, bias = _minimizer(lambda values: loss(values[0].exp(), values[1]), 2)
    log_scale -= math.log(spread)
    scale = math.exp(_clamped(log_scale))
    if _clamped(log_scale) != log_scale:
        # The loss is convex in scale and bias, so the best allowed scale is the limit itself.
        (bias,) = _minimizer(lambda values: loss(scale * spread, values[0]), 1)
    return scale, bias - scale * centre


def _minimizer(loss: Callable[[Tensor], Tensor], count: int) -> list[float]:
    """The ``count`` values for which ``loss`` is smallest, searched from 0."""
    values = torch.zeros(count, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS(
        [values],
        max_iter=_ITERATIONS,
        line_search_fn="strong_wolfe",
        tolerance_grad=1e-9,
        tolerance_change=1e-14,
    )

    def step() -> Tensor:
        optimizer.zero_grad()
        found = loss(values)
        found.backward()  # type: ignore[no-untyped-call]
        return found

    optimizer.step(step)  # type: ignore[no-untyped-call]
    found: list[float] = values.detach().tolist()
    return found


def _clamped(log_scale: float) -> float:
    return max(-_MOST_LOG_SCALE, min(log_scale, _MOST_LOG_SCALE))


def _smoothed(targets: Tensor, known: Tensor) -> Tensor:
    """Platt's targets: never quite 0 or 1, so that a network that errs nowhere has a finite fit."""
    present = targets >= 0.5
    positives, negatives = int((present & known).sum()), int((~present & known).sum())
    high, low = (positives + 1) / (positives + 2), 1 / (negatives + 2)
    return torch.where(present, high, low).double()

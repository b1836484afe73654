"""Losses of networks on mixed labels, for each task."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn import functional as F

from instahide.errors import InstaHideError
from instahide.training.outputs import Outputs


@dataclass(frozen=True)
class Loss:
    """The loss on mixed labels: a sum over targets, to be divided by their number.

    ===============  ==============================================================  ============
    task             loss                                                            a target is
    ===============  ==============================================================  ============
    single-label     cross-entropy with shares of classes                            an image
    multi-label      binary cross-entropy of logits with a probability of each       a known
                     finding                                                         finding
    regression       squared error of standardised values                            a known value
    ===============  ==============================================================  ============

    An unknown target (NaN) is ignored.

    Attributes:
        outputs: what the network predicts.
        class_weights: the weight of each class or finding; none for equal weights.
        positive_weights: the weight of a present finding relative to an absent one, for each
            finding; none for 1.

    Raises:
        InstaHideError: there are weights for another number of classes or findings, or weights that
            the task does not have.

    Examples:
        >>> import torch
        >>> from instahide.training.losses import Loss
        >>> from instahide.training.outputs import Outputs
        >>> loss = Loss(Outputs("multi-label", 2))
        >>> total, known = loss(torch.zeros(1, 2), torch.tensor([[0.5, torch.nan]]))
        >>> round(float(total), 4), int(known)
        (0.6931, 1)
    """

    outputs: Outputs = field(default_factory=Outputs)
    class_weights: tuple[float, ...] = ()
    positive_weights: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        task = self.outputs.task
        if self.class_weights and task == "regression":
            raise InstaHideError("A regression has no class weights.", "Leave out `class_weights`.")
        if self.positive_weights and task != "multi-label":
            raise InstaHideError(
                f"Positive weights are for several findings; these labels are {task}.",
                "Leave out `positive_weights`, or use `class_weights`.",
            )
        _require_count("class_weights", self.class_weights, self.outputs.columns)
        _require_count("positive_weights", self.positive_weights, self.outputs.columns)

    @property
    def counts_images(self) -> bool:
        """Whether the number of targets is that of images, whatever the labels."""
        return self.outputs.task == "single-label"

    def __call__(self, outputs: object, targets: Tensor) -> tuple[Tensor, Tensor]:
        """The sum of the losses of all known targets, and their number, both scalars.

        Args:
            outputs: what the network returned for n encodings.
            targets: (n, columns) mixed labels; of classes, a row may sum to less than 1.

        Raises:
            InstaHideError: the network returned something else than (n, columns).
        """
        found = self.outputs.tensor(outputs)
        weights = _tensor(self.class_weights, found)
        if self.counts_images:
            total = F.cross_entropy(found, targets, weight=weights, reduction="sum")
            return total, torch.tensor(len(found), device=found.device)
        known = ~targets.isnan()
        # Not by multiplication: NaN times 0 is NaN.
        wanted = torch.where(known, targets, 0.0)
        if self.outputs.task == "multi-label":
            losses = F.binary_cross_entropy_with_logits(
                found,
                wanted,
                weight=weights,
                pos_weight=_tensor(self.positive_weights, found),
                reduction="none",
            )
        else:
            losses = (found - self.outputs.standardised(wanted)).square()
        return torch.where(known, losses, 0.0).sum(), known.sum()


def _require_count(name: str, weights: Sequence[float], columns: int | None) -> None:
    if weights and columns not in (None, len(weights)):
        raise InstaHideError(
            f"There are {len(weights)} values in `{name}`, but {columns} classes.",
            "Give one for each class, in the order of the classes.",
        )


def _tensor(weights: Sequence[float], like: Tensor) -> Tensor | None:
    return torch.tensor(weights, dtype=like.dtype, device=like.device) if weights else None

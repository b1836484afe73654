"""Class logits from the outputs of a network."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from instahide.errors import InstaHideError


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

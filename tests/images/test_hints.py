"""What somebody's data set says of itself, whatever it is made of."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import ConcatDataset, Subset, TensorDataset

from instahide.errors import InstaHideError
from instahide.images.hints import class_names, classes_known


def made(**attributes: Any) -> Any:
    return SimpleNamespace(**attributes)


NAMED = made(classes=["cat", "dog"])


@pytest.mark.parametrize(
    ("dataset", "names", "count"),
    [
        (NAMED, ("cat", "dog"), 2),
        (Subset(NAMED, [0]), ("cat", "dog"), 2),
        (Subset(Subset(NAMED, [0]), [0]), ("cat", "dog"), 2),
        (made(features={"label": made(names=["a", "b", "c"])}), ("a", "b", "c"), 3),
        (made(features={"x": made(names=["a", "b"])}), (), None),
        (made(classes=[], targets=[0, 2]), (), 3),
        (made(targets=torch.tensor([0, 1, 4])), (), 5),
        (Subset(made(targets=np.asarray([1, 0])), [0]), (), 2),
        (TensorDataset(torch.zeros(2), torch.zeros(2)), (), None),
        (ConcatDataset([[1], [2]]), (), None),  # type: ignore[list-item]
    ],
)
def test_classes(dataset: Any, names: tuple[str, ...], count: int | None) -> None:
    assert class_names(dataset) == names
    assert classes_known(dataset) == count


def test_targets_that_are_no_class_numbers_are_refused() -> None:
    with pytest.raises(InstaHideError, match="label of item 1 is not one whole number"):
        classes_known(made(targets=[0, "cat"]))

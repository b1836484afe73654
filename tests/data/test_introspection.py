"""What somebody's data set says of itself, whatever it is made of."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import ConcatDataset, Subset, TensorDataset

from instahide.data.introspection import class_names, num_classes
from instahide.errors import InstaHideError


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
    assert num_classes(dataset) == count


def test_targets_that_are_no_class_numbers_are_refused() -> None:
    with pytest.raises(InstaHideError, match="label of item 1 is not one whole number"):
        num_classes(made(targets=[0, "cat"]))


@pytest.mark.parametrize(
    ("classes", "names", "count"),
    [
        (3, (), 3),
        (np.int64(3), (), 3),
        (torch.tensor(3), (), 3),
        (np.array(["a", "b"]), ("a", "b"), 2),
        (np.array([b"a", b"b"]), ("a", "b"), 2),
        (torch.arange(3), ("0", "1", "2"), 3),
        (np.arange(2), ("0", "1"), 2),
        (range(2), ("0", "1"), 2),
        ({"a": 0, "b": 1}, ("a", "b"), 2),
        ({"a": 1, "b": 0}, ("b", "a"), 2),
        ({1: "b", 0: "a"}, ("a", "b"), 2),
        (("a", "b").__iter__, (), None),
        (np.array([]), (), None),
    ],
)
def test_classes_in_other_types(classes: Any, names: tuple[str, ...], count: int | None) -> None:
    assert class_names(made(classes=classes)) == names
    assert num_classes(made(classes=classes)) == count


@pytest.mark.parametrize(
    "classes",
    [
        "cat", b"cat", True, 0, -1, 1 << 30, 2.0, np.eye(2), [["a"]], [None, "a"], [1.5, 2.5],
        {"a", "b"}, {"a": 0, "b": 2}, {"a": 0, "b": 0}, {"a": "x"}, {"a": [0]}, [[0], [1]],
        ["a", "b", "a"], [{}],
        torch.tensor([0, 1, 1]), torch.tensor([0.0, 1.0]), [True, False], object(),
    ],
)  # fmt: skip
def test_classes_that_are_not_clear_are_refused(classes: Any) -> None:
    for ask in (class_names, num_classes):
        with pytest.raises(InstaHideError, match="class"):
            ask(made(classes=classes))


class PerItem(list[int]):
    """A data set whose `classes` has one entry for every item."""

    classes: Any = None


@pytest.mark.parametrize(
    "kind", [list, np.array, lambda labels: torch.tensor(list(map(int, labels)))]
)
def test_a_list_of_one_class_for_every_item_is_not_the_names(kind: Any) -> None:
    dataset = PerItem(range(9))
    dataset.classes = kind([str(number % 3) for number in range(9)])
    assert class_names(dataset) == ()
    assert num_classes(dataset) is None
    dataset.targets = [number % 3 for number in range(9)]  # type: ignore[attr-defined]
    assert num_classes(dataset) == 3


@pytest.mark.parametrize("targets", ["text", 7, {"a": 1}, None])
def test_targets_that_are_no_list_say_nothing(targets: Any) -> None:
    assert num_classes(made(targets=targets)) is None

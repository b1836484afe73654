"""What losses and metrics do with soft labels, as docs/pipelines.md says."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader

from tests.integrations.matrix import COUNT, encoded, network, plain


def batch(size: int = 6) -> tuple[torch.Tensor, torch.Tensor]:
    images, labels = next(iter(encoded(plain(batch_size=size))))
    return network()(images), labels


@pytest.mark.parametrize("options", [{}, {"label_smoothing": 0.1}, {"weight": torch.ones(COUNT)}])
def test_cross_entropy_takes_them(options: dict[str, Any]) -> None:
    logits, labels = batch()
    smoothing = options.get("label_smoothing", 0.0)
    target = labels * (1 - smoothing) + smoothing / COUNT
    expected = -(target * logits.log_softmax(1)).sum(1).mean()
    torch.testing.assert_close(F.cross_entropy(logits, labels, **options), expected)
    torch.testing.assert_close(nn.CrossEntropyLoss(**options)(logits, labels), expected)


@pytest.mark.parametrize("outputs", [1, 2, COUNT - 1, COUNT + 1])
def test_cross_entropy_refuses_another_number_of_classes(outputs: int) -> None:
    _, labels = batch()
    with pytest.raises(RuntimeError, match="multi-target not supported"):
        F.cross_entropy(torch.zeros(len(labels), outputs), labels)


@pytest.mark.parametrize(
    "loss",
    [
        lambda logits, labels: F.nll_loss(logits.log_softmax(1), labels),
        lambda logits, labels: nn.NLLLoss()(logits.log_softmax(1), labels),
        nn.MultiMarginLoss(),
        lambda logits, labels: (logits.argmax(1) == labels).float().mean(),
    ],
)
def test_what_needs_class_numbers_raises(loss: Any) -> None:
    with pytest.raises(RuntimeError):
        loss(*batch())


def test_accuracies_that_are_wrong_without_an_error() -> None:
    """For a network that is right about every mix."""
    torchmetrics = pytest.importorskip("torchmetrics")
    _, labels = batch(COUNT)
    right = labels * 10 - 1
    measure = torchmetrics.Accuracy(task="multiclass", num_classes=COUNT)
    assert measure(right, labels) == 0
    assert measure(right, labels.argmax(1)) == 1
    assert len(labels) == COUNT
    assert (right.argmax(1) == labels).float().mean() < 0.2
    assert (right.argmax(1) == labels.argmax(1)).float().mean() == 1


def test_a_loader_that_is_used_plainly_is_found_by_the_same_checks() -> None:
    """The helper of these tests can fail."""
    from tests.integrations.matrix import require_encodings

    for images, numbers in DataLoader(plain().dataset, 6):
        for labels in (numbers, F.one_hot(numbers, COUNT).float(), torch.rand(6, COUNT)):
            for given in (images, images.bfloat16(), images.half()):
                with pytest.raises(AssertionError, match="a plain image"):
                    require_encodings(given, labels)

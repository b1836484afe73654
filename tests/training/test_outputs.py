"""What networks give for a batch: logits of every class, or one output for two classes."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from instahide import ImageTable, InstaHideError, Scheme, predict_encrypted
from instahide.training.evaluate import accuracy, table_batches
from instahide.training.outputs import Outputs, class_logits
from instahide.training.predict import probabilities

LOGITS = torch.tensor([-3.0, -0.1, 0.2, 4.0])


def table(classes: int, count: int = 40) -> ImageTable:
    pixels = np.random.default_rng(0).integers(0, 256, (count, 8, 8), dtype=np.uint8)
    return ImageTable.from_arrays(pixels, np.arange(count) % classes)


def linear(outputs: int) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(64, outputs))


class Named(nn.Module):
    """Gives its outputs as the networks of transformers do."""

    def __init__(self, inner: nn.Module, squeeze: bool = False) -> None:
        super().__init__()
        self.inner, self.squeeze = inner, squeeze

    def forward(self, images: Tensor) -> Any:
        logits = self.inner(images)
        return SimpleNamespace(logits=logits[:, 0] if self.squeeze else logits)


@pytest.mark.parametrize("outputs", [LOGITS, LOGITS[:, None], SimpleNamespace(logits=LOGITS)])
def test_one_output_is_the_logit_of_the_second_of_two_classes(outputs: Any) -> None:
    shares = class_logits(outputs, 2).softmax(1)
    torch.testing.assert_close(shares[:, 1], LOGITS.sigmoid())
    torch.testing.assert_close(shares.sum(1), torch.ones(4))
    assert shares.argmax(1).tolist() == [0, 0, 1, 1]


@pytest.mark.parametrize("outputs", [torch.zeros(4, 3, 2), torch.tensor(1.0), [1, 2], None])
def test_what_is_not_logits_is_refused(outputs: Any) -> None:
    with pytest.raises(InstaHideError, match="not logits"):
        class_logits(outputs)


@pytest.mark.parametrize(("outputs", "classes"), [(1, 3), (3, 2), (2, 3), (10, 3)])
def test_another_number_of_classes_is_refused(outputs: int, classes: int) -> None:
    with pytest.raises(InstaHideError, match=f"has {outputs} outputs?, but .* is {classes}"):
        predict_encrypted(linear(outputs), Scheme.inside(k=2), table(classes))


@pytest.mark.parametrize("squeeze", [False, True])
def test_answers_of_a_network_with_one_output(squeeze: bool) -> None:
    model = Named(linear(1), squeeze)
    images = torch.from_numpy(table(2).normalized())
    expected = linear(1)(images)[:, 0].sigmoid().detach()
    torch.testing.assert_close(probabilities(model, images, classes=2)[:, 1], expected)
    answers = predict_encrypted(model, Scheme.inside(k=2), table(2))
    assert answers.shape == (40, 2)
    torch.testing.assert_close(answers.sum(1), torch.ones(40))
    assert 0.1 < answers[:, 1].mean() < 0.9


def test_accuracy_of_a_network_with_one_output() -> None:
    images = table(2)
    answers = linear(1)(torch.from_numpy(images.normalized()))[:, 0] > 0
    expected = (answers.numpy() == images.labels).mean()
    found = accuracy(linear(1), table_batches(images))
    assert found.overall == pytest.approx(expected)
    assert len(found.per_class) == 2


def test_accuracy_with_labels_that_the_network_does_not_know_is_refused() -> None:
    with pytest.raises(InstaHideError, match="outputs for 2 classes, but an image is of class 2"):
        accuracy(linear(2), table_batches(table(3)))


def tasks() -> list[Outputs]:
    return [
        Outputs("single-label", 3),
        Outputs("multi-label", 3, calibration=(2.0, 1.0)),
        Outputs("regression", 3, mean=(0.0,) * 3, std=(10.0,) * 3),
    ]


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("outputs", tasks(), ids=lambda outputs: outputs.task)
def test_outputs_that_are_no_numbers_are_refused(outputs: Outputs, value: float) -> None:
    raw = torch.zeros(4, 3)
    assert outputs.predictions(raw).isfinite().all()
    raw[2, 1] = value
    with pytest.raises(InstaHideError, match=r"NaN or infinite outputs for 1 of 4.*learning rate"):
        outputs.predictions(raw)
    # Networks that are traced for export compute on.
    assert outputs.converted(raw).shape == (4, 3)


def test_values_beyond_float32_are_refused() -> None:
    outputs = Outputs("regression", 1, mean=(0.0,), std=(1e6,))
    with pytest.raises(InstaHideError, match="NaN or infinite outputs for 2 of 2"):
        outputs.predictions(torch.full((2, 1), 3e38))


def test_a_network_that_returns_nan_has_no_accuracy_and_predicts_nothing() -> None:
    class Nan(nn.Linear):
        def forward(self, images: Tensor) -> Tensor:
            return super().forward(images.flatten(1)) * math.nan

    model, images = Nan(64, 2), table(2)
    for use in (
        lambda: accuracy(model, table_batches(images)),
        lambda: probabilities(model, torch.from_numpy(images.normalized())),
        lambda: predict_encrypted(model, Scheme.inside(k=2), images),
    ):
        with pytest.raises(InstaHideError, match="NaN or infinite outputs"):
            use()
    assert model.training

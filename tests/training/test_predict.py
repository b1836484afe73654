"""Prediction: the mean over encodings of each query, and a network left as it came."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from instahide.data import ImageTable
from instahide.data.labels import Task
from instahide.encryption.encoder import Encoded, Encoder
from instahide.encryption.exposure import Exposure
from instahide.encryption.scheme import Scheme
from instahide.errors import DataError, ExposureLimitError, InstaHideError
from instahide.training import predict
from instahide.training.outputs import Outputs
from instahide.training.predict import predict_encrypted, probabilities

CLASSES = 3


def table(count: int = 12, seed: int = 0) -> ImageTable:
    pixels = np.random.default_rng(seed).integers(0, 256, (count, 1, 4, 4), np.uint8)
    return ImageTable.from_arrays(pixels, np.arange(count) % CLASSES)


class Model(nn.Module):
    """A linear model with a known weight that notes its mode whenever it is used."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(16, CLASSES)
        self.norm = nn.BatchNorm1d(CLASSES)
        self.modes: list[bool] = []
        with torch.no_grad():
            self.linear.weight.copy_(torch.arange(48).reshape(3, 16) / 48 - 0.5)

    def forward(self, x: Tensor) -> Tensor:
        self.modes.append(self.norm.training)
        logits: Tensor = self.linear(x.flatten(1))
        return logits


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[tuple[NDArray[np.int64], Encoded]]:
    """What every encoder is asked for, and gives."""
    noted: list[tuple[NDArray[np.int64], Encoded]] = []
    encode = Encoder.encode

    def noting(self: Encoder, indices: NDArray[np.int64]) -> Encoded:
        encoded = encode(self, indices)
        noted.append((indices, encoded))
        return encoded

    monkeypatch.setattr(Encoder, "encode", noting)
    return noted


@pytest.mark.parametrize("scheme", [Scheme.cross(4), Scheme.inside(4)])
@pytest.mark.parametrize("batch", [5, 500])
def test_the_answer_is_the_mean_over_encodings(
    batch: int,
    made: list[tuple[NDArray[np.int64], Encoded]],
    monkeypatch: pytest.MonkeyPatch,
    scheme: Scheme,
) -> None:
    pool = table(20, seed=1) if scheme.public_k else None
    monkeypatch.setattr(predict, "BATCH", batch)
    model, queries = Model(), table()
    answer = predict_encrypted(model, scheme, queries, pool, encodings=10)
    assert answer.shape == (12, CLASSES)
    assert answer.dtype is torch.float32
    expected = torch.zeros(12, CLASSES, dtype=torch.float64)
    for indices, encoded in made:
        logits = encoded.images.flatten(1).double() @ model.linear.weight.double().T
        expected[indices] += (logits + model.linear.bias.double()).softmax(1).detach()
    torch.testing.assert_close(answer.double(), expected / 10, atol=1e-6, rtol=0)
    torch.testing.assert_close(answer.sum(1), torch.ones(12))
    np.testing.assert_array_equal(
        np.bincount(np.concatenate([indices for indices, _ in made])), [10] * 12
    )


def test_every_encoding_has_keys_of_its_own_and_the_query_its_coefficient(
    made: list[tuple[NDArray[np.int64], Encoded]],
) -> None:
    predict_encrypted(
        Model(), Scheme.cross(4), table(), table(20, seed=1), encodings=5, coefficient=0.6
    )
    images = torch.cat([encoded.images for _, encoded in made])
    assert len({image.abs().numpy().tobytes() for image in images}) == 60
    # One private image a mix: its label is its coefficient.
    shares = torch.cat([encoded.labels for _, encoded in made]).sum(1)
    assert shares.min() >= 0.6
    assert shares.max() <= 0.65


def test_one_query_is_enough() -> None:
    # Even one whose values are all of one sign.
    query = replace(table().subset(slice(0, 1)), pixels=np.full((1, 1, 4, 4), 255, np.uint8))
    query.pixels[0, 0, 0] = 240
    answer = predict_encrypted(Model(), Scheme.cross(4), query, table(20, seed=1), encodings=1)
    assert answer.shape == (1, CLASSES)


def test_queries_of_one_data_set_are_mixed_among_themselves() -> None:
    with pytest.raises(InstaHideError, match="mix needs 4 private images"):
        predict_encrypted(Model(), Scheme.inside(4), table(3))
    with pytest.raises(InstaHideError, match="scheme uses none"):
        predict_encrypted(Model(), Scheme.inside(4), table(), table(20, seed=1))


def test_queries_are_counted_and_limited() -> None:
    exposure = Exposure(12, limit=3)
    scheme = Scheme.cross(2, private_k=1)
    for _ in range(3):
        predict_encrypted(
            Model(), scheme, table(), table(seed=1), encodings=1, exposure=exposure,
            participant="clinic",
        )  # fmt: skip
    assert exposure.counts.tolist() == [3] * 12
    with pytest.raises(ExposureLimitError):
        predict_encrypted(Model(), scheme, table(), table(seed=1), encodings=1, exposure=exposure)


def test_a_query_at_its_limit_ends_the_answer_before_it_is_encrypted_again() -> None:
    exposure = Exposure(12, limit=2)
    exposure.record(np.array([[7], [7]]), np.ones((2, 1), np.float32))
    with pytest.raises(ExposureLimitError):
        predict_encrypted(
            Model(), Scheme.cross(2, private_k=1), table(), table(seed=1), exposure=exposure
        )
    assert exposure.counts[7] == 2


@pytest.mark.parametrize("encodings", [0, -1])
def test_no_encoding_is_refused(encodings: int) -> None:
    with pytest.raises(InstaHideError, match="Use 10 or more"):
        predict_encrypted(Model(), Scheme.cross(4), table(), table(), encodings=encodings)


def test_a_coefficient_out_of_reach_is_refused() -> None:
    with pytest.raises(InstaHideError, match="out of reach"):
        predict_encrypted(Model(), Scheme.cross(4), table(), table(), coefficient=0.9)


@pytest.mark.parametrize("training", [True, False])
def test_a_network_is_evaluated_and_left_in_its_mode(training: bool) -> None:
    model = Model().train(training)
    predict_encrypted(model, Scheme.cross(4), table(), table(20, seed=1), encodings=2)
    assert model.modes == [False, False]
    assert model.training is training
    assert model.norm.training is training
    with pytest.raises(RuntimeError):
        probabilities(model, torch.zeros(2, 1, 5, 5))
    assert model.training is training, "also after an error"


def test_probabilities_of_any_number_of_images(monkeypatch: pytest.MonkeyPatch) -> None:
    model = Model()
    images = torch.randn(9, 1, 4, 4)
    whole = probabilities(model, images)
    monkeypatch.setattr(predict, "BATCH", 4)
    torch.testing.assert_close(probabilities(model, images), whole)
    assert not whole.requires_grad
    expected = model(images).softmax(1)
    torch.testing.assert_close(whole, expected.detach())
    half = probabilities(model, images, precision=torch.bfloat16)
    assert half.dtype is torch.float32
    torch.testing.assert_close(half, whole, atol=0.02, rtol=0)


@pytest.mark.parametrize(
    ("outputs", "queries", "problem"),
    [
        # A single finding was repeated for each finding of the queries.
        (Outputs("multi-label", 1), ("multi-label", 3), "has 1 outputs, but the queries 3"),
        (Outputs("multi-label", 3), ("multi-label", 2), "has 3 outputs, but the queries 2"),
        (Outputs("single-label", 5), ("single-label", 3), "has 5 outputs, but the queries 3"),
        (Outputs("multi-label", 3), ("single-label", 3), "for a multi-label task"),
        (Outputs("single-label", 3), ("multi-label", 3), "for a single-label task"),
        (Outputs("single-label", 3, classes=("2", "1", "0")), ("single-label", 3), "their order"),
        (Outputs("regression", 1, (0.0,), (1.0,)), ("regression", 2), "has 1 outputs"),
    ],
)
def test_queries_with_other_columns_than_the_outputs_are_refused(
    outputs: Outputs, queries: tuple[Task, int], problem: str
) -> None:
    task, count = queries
    labels = np.arange(12) % count
    if task != "single-label":
        labels = np.eye(count, dtype=np.float32)[labels]
    images = ImageTable.from_arrays(table().pixels, labels, task=task)
    network = nn.Sequential(nn.Flatten(), nn.Linear(16, outputs.columns or 1))
    with pytest.raises(DataError, match=problem) as caught:
        predict_encrypted(network, Scheme.inside(4), images, encodings=1, outputs=outputs)
    assert "align_to_model" in caught.value.remedy


def test_outputs_of_an_unknown_number_have_that_of_the_queries() -> None:
    known = Outputs("single-label", CLASSES, classes=("0", "1", "2"))
    for outputs in (Outputs(), known, None):
        found = predict_encrypted(Model(), Scheme.inside(4), table(), encodings=1, outputs=outputs)
        assert found.shape == (12, CLASSES)
    network = nn.Sequential(nn.Flatten(), nn.Linear(16, 5))
    with pytest.raises(InstaHideError, match="5 outputs, but the number of classes is 3"):
        predict_encrypted(network, Scheme.inside(4), table(), encodings=1, outputs=Outputs())


def test_the_number_of_classes_and_the_outputs_agree() -> None:
    with pytest.raises(InstaHideError, match="has 3 columns, but the number of classes is 2"):
        probabilities(Model(), torch.zeros(2, 1, 4, 4), classes=2, outputs=Outputs(columns=3))
    with pytest.raises(InstaHideError, match="2 names of 3 columns"):
        Outputs(columns=3, classes=("a", "b"))


def test_no_images_have_no_probabilities() -> None:
    none = torch.zeros(0, 1, 4, 4)
    assert probabilities(Model(), none, classes=CLASSES).shape == (0, CLASSES)
    assert probabilities(Model(), none).shape == (0, 0)

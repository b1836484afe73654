"""Training, test and prediction of several findings and of measured values."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torchmetrics.functional.classification import binary_calibration_error

from instahide.data import ImageTable, Split, open_split
from instahide.data.duplicates.group_hash import group_hashes
from instahide.data.labels import Task
from instahide.data.splits import make_split
from instahide.encodings.ledger.ledger import Ledger
from instahide.encodings.publish import Publication, publish, threads
from instahide.encryption.encoder import Encoded, Encoder
from instahide.encryption.exposure import Exposure
from instahide.encryption.scheme import Scheme
from instahide.errors import DataError, InstaHideError
from instahide.training import predict
from instahide.training.data.alignment import align_to_model
from instahide.training.data.target_scale import scale_of_parts, target_scale
from instahide.training.distributed.processes import ALONE
from instahide.training.evaluate import predicted, table_batches
from instahide.training.models.deployment import Deployment
from instahide.training.models.model_io import load_network
from instahide.training.outputs import Outputs
from instahide.training.predict import predict_encrypted, require_encryptable, without_partners
from instahide.training.run_folder import RunFolder
from instahide.training.settings import TrainSettings
from instahide.training.trainer import Trainer, start
from tests.training.digit_pairs import digit_pairs, trainer_of

#: The margin that docs/labels.md states.
MARGIN = 0.02


def darkness() -> Split:
    """Digits with the mean of their pixels and the digit itself as values, in odd units."""
    split = open_split("digits")

    def measured(images: ImageTable) -> ImageTable:
        ink = images.pixels.mean(axis=(1, 2, 3))
        values = np.stack([1000 + 10 * ink, images.labels / 1e3], axis=1).astype(np.float32)
        return replace(images, labels=values, classes=("ink", "digit"), task="regression")

    return make_split(*map(measured, split))


@pytest.mark.slow
def test_findings_are_learnt_measured_and_predicted(tmp_path: Path) -> None:
    split = digit_pairs()
    trainer = trainer_of(split, "inside", k=2, epochs=12, queries=4)
    folder = RunFolder.open(tmp_path / "run", trainer.settings)
    trainer.run(folder)
    assert trainer.metrics["macro_auroc"] > 0.75
    assert trainer.metrics["encrypted_macro_auroc"] > 0.65
    assert list(trainer.history[-1].metrics) == ["macro_auroc"]
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert list(results["evaluation"]["findings"]) == list(split.train.classes)
    network, card = load_network(tmp_path / "run" / "model.safetensors")
    assert card.task == "multi-label"
    found = card.outputs.predictions(network(torch.from_numpy(split.test.normalized())))
    assert bool(((found >= 0) & (found <= 1)).all())


@pytest.mark.slow
def test_values_come_out_in_their_own_unit(tmp_path: Path) -> None:
    split = darkness()
    trainer = trainer_of(split, "inside", k=2, epochs=10, queries=4)
    trainer.run(RunFolder.open(tmp_path / "run", trainer.settings))
    assert trainer.metrics["r2"] > 0.25
    assert trainer.metrics["encrypted_r2"] > 0.4
    assert list(trainer.history[-1].metrics) == ["mae", "r2"]
    network, card = load_network(tmp_path / "run" / "model.safetensors")
    np.testing.assert_allclose(card.target_mean, split.train.labels.mean(0), rtol=1e-4)
    np.testing.assert_allclose(card.target_std, split.train.labels.std(0), rtol=1e-3)
    pixels = torch.from_numpy(split.test.pixels.astype(np.float32))
    exported = Deployment(network, card)(pixels)
    plain = network(torch.from_numpy(split.test.normalized()))
    torch.testing.assert_close(exported, card.outputs.predictions(plain), rtol=1e-3, atol=1e-3)


def test_a_pooled_run_learns_findings_that_not_every_folder_has(tmp_path: Path) -> None:
    split = digit_pairs()
    half = len(split.train) // 2
    parts = {"anna": (slice(0, half), slice(0, 8)), "ben": (slice(half, None), slice(4, 10))}
    for name, (rows, columns) in parts.items():
        table = split.train.subset(rows)
        table = replace(table, labels=table.labels[:, columns], classes=table.classes[columns])
        with Ledger.open(tmp_path / "ledger.sqlite") as ledger:
            publication = Publication(table, None, Scheme.inside(2), 2, participant=name)
            publish(publication, tmp_path / name, ledger, engine=threads)
    settings = TrainSettings.from_values(
        {"data": [str(tmp_path / name) for name in parts], "epochs": 2, "patience": 1}
    )
    with pytest.raises(InstaHideError, match="Patience needs a metric"):
        start(settings, tmp_path / "patient")
    job = start(settings.merged({"patience": None}), tmp_path / "run")
    assert job.material.card.classes == split.train.classes
    assert job.history[-1].loss < job.history[0].loss
    encoded = settings.merged({"patience": None, "test": str(tmp_path / "anna")})
    with pytest.raises(DataError, match="a mix has no true findings"):
        start(encoded, tmp_path / "tested")


def test_images_of_another_task_are_refused() -> None:
    split = digit_pairs()
    card = ("a", "b")
    with pytest.raises(
        DataError, match="network are single-label, those of the images multi-label"
    ):
        align_to_model(split.test, split.test.shape, card, split.train)


def test_values_of_several_parts_have_one_scale() -> None:
    values = np.random.default_rng(0).normal(5, 3, (100, 2)).astype(np.float32)
    whole = ImageTable.from_arrays(np.zeros((100, 2, 2), np.uint8), values, task="regression")
    parts = scale_of_parts([values[:30], values[30:]])
    np.testing.assert_allclose(parts, target_scale(whole, ALONE), rtol=1e-9)
    np.testing.assert_allclose(parts.std, values.std(0), rtol=1e-5)
    assert scale_of_parts([np.ones((4, 1), np.float32)]).std == (1.0,)


@pytest.mark.parametrize("task", ["multi-label", "regression"])
def test_the_part_of_other_queries_is_removed_exactly(task: Task) -> None:
    query = Scheme.inside(4).query(0.5)
    truth = torch.from_numpy(np.random.default_rng(0).random((20, 3), np.float32))
    own = float(query.simulated_coefficients()[:, 0].mean())
    others = (truth.sum(0) - truth) / (len(truth) - 1)
    outputs = Outputs(task, 3, (0.0,) * 3, (1.0,) * 3)
    found = without_partners(own * truth + (1 - own) * others, query, outputs)
    torch.testing.assert_close(found, truth, rtol=1e-4, atol=1e-5)
    # Public partners have no labels, and classes keep their probabilities.
    mixed = torch.rand(20, 3)
    assert torch.equal(without_partners(mixed, Scheme.cross(4).query(0.5), outputs), mixed)
    assert torch.equal(without_partners(mixed, query, Outputs(columns=3)), mixed)


class OracleEncoder(Encoder):
    """Returns mixed labels in place of encodings, so that `Oracle` predicts them without error."""

    def encode(self, indices: NDArray[np.int64]) -> Encoded:
        encoded = super().encode(indices)
        return Encoded(encoded.labels[:, :, None, None], encoded.labels)


class Oracle(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.one = nn.Parameter(torch.ones(()))

    def forward(self, mixed: Tensor) -> Tensor:
        return mixed[:, :, 0, 0].logit(1e-6)


def queries_of(truth: Tensor, groups: list[int] | None, pictures: list[int]) -> ImageTable:
    pixels = np.random.default_rng(0).integers(0, 256, (len(truth), 1, 4, 4), np.uint8)[pictures]
    table = ImageTable.from_arrays(pixels, truth.numpy(), ("a", "b"), task="multi-label")
    return replace(table, groups=None if groups is None else group_hashes(groups, len(truth)))


@pytest.mark.parametrize("groups", [None, [0] * 5 + list(range(1, 6))])
@pytest.mark.parametrize("pictures", [list(range(10)), [0, 0, 0, 0, 4, 5, 6, 7, 8, 9]])
def test_queries_of_one_picture_or_group_are_predicted_as_others_are(
    groups: list[int] | None, pictures: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a network without errors: the mean error of an entry is below a fifth at 300 encodings."""
    monkeypatch.setattr(predict, "Encoder", OracleEncoder)
    truth = torch.tensor([[1.0, 0.0]] * 5 + [[0.0, 1.0]] * 5)
    queries = queries_of(truth, groups, pictures)
    found = predict_encrypted(Oracle(), Scheme.inside(4), queries, encodings=300)
    assert float((found - truth).abs().mean()) < 0.05
    if groups or len(set(pictures)) < 10:
        with pytest.raises(DataError, match="one picture or group"):
            predict_encrypted(Oracle(), Scheme.inside(4), queries, exposure=Exposure(10))


def test_a_regression_without_its_unit_is_refused() -> None:
    with pytest.raises(InstaHideError, match="needs a mean and a standard deviation"):
        Outputs("regression", 2)
    with pytest.raises(InstaHideError, match="needs a mean and a standard deviation"):
        Outputs("regression", 2, (0.0,), (1.0,))


def test_queries_that_would_be_refused_after_the_training_are_refused_before_it() -> None:
    split = digit_pairs()
    few = Split(split.train, split.test.subset(slice(0, 4)))
    settings = TrainSettings.from_values({"scheme": "inside", "k": 4})
    query = settings.encryption("multi-label").query(0.0)
    with pytest.raises(InstaHideError, match="query_coefficient"):
        require_encryptable(query, few.test)
    # Twelve images of three pictures are three queries.
    again = split.test.subset(np.arange(12) % 3)
    with pytest.raises(InstaHideError, match="told apart"):
        require_encryptable(Scheme.inside(3).query(0.2), again)
    with pytest.raises(DataError, match="mixed with 3 others, but there are 2"):
        require_encryptable(Scheme.inside(4).query(0.5), split.test.subset(np.arange(12) % 2))


def test_queries_that_cannot_be_told_apart_are_refused() -> None:
    split = digit_pairs()
    network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(8 * 16, 10))
    queries = split.test.subset(slice(0, 4))
    with pytest.raises(InstaHideError, match="hardly larger than those of the queries"):
        predict_encrypted(network, Scheme.inside(4), queries, encodings=1, coefficient=0.0)


def test_weights_are_refused_before_a_run_begins() -> None:
    trainer = trainer_of(digit_pairs(), "inside", k=2, epochs=1, positive_weights=[1.0, 2.0])
    with pytest.raises(InstaHideError, match="2 values in `positive_weights`, but 10 classes"):
        trainer.run()


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_probabilities_are_calibrated_as_those_of_plain_training(seed: int) -> None:
    """The expected calibration error of cross k = 4, on plain images and on encrypted queries."""
    split = digit_pairs(rounds=2)
    truth = torch.from_numpy(split.test.labels).long().flatten()

    def calibration_error(predictions: Tensor) -> float:
        return float(binary_calibration_error(predictions.flatten(), truth))

    def of_plain_images(trainer: Trainer, outputs: Outputs) -> float:
        found, _ = predicted(trainer.model, table_batches(split.test), outputs)
        return calibration_error(found)

    plain = trainer_of(split, "plain", epochs=30, seed=seed)
    plain.run()
    most = of_plain_images(plain, plain.card.outputs) + MARGIN
    trainer = trainer_of(split, "cross", epochs=30, seed=seed)
    trainer.run()
    outputs = trainer.card.outputs
    queried = trainer.material.encrypted_predictions(trainer.model, torch.float32, outputs)
    assert queried is not None
    assert of_plain_images(trainer, outputs) <= most
    assert calibration_error(queried[0]) <= most
    # This is what the calibration does: without it, the error is larger.
    assert of_plain_images(trainer, outputs.uncalibrated) > most

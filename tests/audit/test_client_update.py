"""What a participant sends, what the attacker gets of it, and how what comes out is scored."""

from __future__ import annotations

import dataclasses
from dataclasses import fields

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from instahide.attacks.base import InvertedUpdate, LocalTraining, UpdateObservation, require
from instahide.attacks.gradients.lenet import lenet
from instahide.audit.client_update import observe_update
from instahide.audit.ground_truth import GroundTruth
from instahide.audit.scoring.gradient_inversion import match_order
from instahide.audit.scoring.scores import score
from instahide.data import ImageTable, open_split
from instahide.encryption.scheme import Scheme
from instahide.errors import InstaHideError

ROWS = np.array([5, 3, 8])
BATCH = LocalTraining(images=3, batch_size=3)


@pytest.fixture(scope="module")
def images() -> ImageTable:
    return open_split("digits").train.subset(slice(0, 30))


def seen(
    images: ImageTable, scheme: Scheme, training: LocalTraining = BATCH
) -> tuple[UpdateObservation, GroundTruth]:
    network = lenet((1, 8, 8), 10, seed=0)
    return observe_update(images, None, scheme, network, ROWS, training, labels="none")


def test_the_gradient_is_that_of_the_encodings(images: ImageTable) -> None:
    observation, truth = observe_update(
        images, None, Scheme.inside(4), lenet((1, 8, 8), 10, seed=0), ROWS, BATCH
    )
    network = observation.network
    logits = network(require(truth.encodings)).log_softmax(dim=1)
    loss = -(require(observation.labels) * logits).sum(dim=1).mean()
    slopes = torch.autograd.grad(loss, tuple(network.parameters()))
    sent = observation.update.values
    for (name, _), slope in zip(network.named_parameters(), slopes, strict=True):
        torch.testing.assert_close(sent[name], slope, atol=1e-6, rtol=1e-4)


def test_one_step_moves_the_weights_by_the_gradient(images: ImageTable) -> None:
    once = dataclasses.replace(BATCH, steps=1, learning_rate=0.5)
    gradient, change = (
        require(seen(images, Scheme.plain(), training)[0].update).values
        for training in (BATCH, once)
    )
    for name, value in gradient.items():
        torch.testing.assert_close(change[name], -0.5 * value, atol=1e-6, rtol=1e-4)


def test_the_attacker_gets_no_encoding_and_no_label(images: ImageTable) -> None:
    observation, truth = seen(images, Scheme.inside(4))
    assert {field.name for field in fields(observation)} == {
        "encoder", "mean", "std", "threat", "shape", "network", "update", "labels",
    }  # fmt: skip
    assert observation.shape == (1, 8, 8)
    assert observation.labels is None
    assert observation.threat.update
    assert require(truth.encodings).shape == (3, 1, 8, 8)
    assert truth.partners[:, 0].tolist() == ROWS.tolist()


def test_batches_go_round_the_images() -> None:
    training = LocalTraining(images=3, batch_size=2, steps=3)
    assert [batch.tolist() for batch in training.batches()] == [[0, 1], [2, 0], [1, 2]]
    assert [batch.tolist() for batch in BATCH.batches()] == [[0, 1, 2]]


@pytest.mark.parametrize(
    "changes",
    [{"images": 0}, {"batch_size": 0}, {"batch_size": 2}, {"steps": -1}, {"learning_rate": 0}],
)
def test_a_training_that_cannot_be_is_refused(changes: dict[str, int]) -> None:
    with pytest.raises(InstaHideError):
        LocalTraining(**changes)  # type: ignore[arg-type]


def test_as_many_images_are_needed_as_are_trained_on(images: ImageTable) -> None:
    with pytest.raises(InstaHideError, match="3 rows for a training on 1"):
        seen(images, Scheme.plain(), LocalTraining())


def test_the_truth_itself_scores_highest_in_any_order(images: ImageTable) -> None:
    observation, truth = seen(images, Scheme.plain())
    order = torch.tensor([2, 0, 1])
    labels = F.one_hot(truth.classes[truth.partners[:, 0]], 10).float()
    shuffled = InvertedUpdate(
        images=require(truth.encodings)[order] + 1e-4, class_coefficients=labels[order]
    )
    figures = score(shuffled, observation, truth).summary
    assert figures["identified_mean"] == 1
    assert figures["encoding_psnr_mean"] > 60
    assert figures["class_sets_right"] == 1
    assert figures["of_nothing_psnr_mean"] < 20


def test_no_two_images_stand_for_the_same(images: ImageTable) -> None:
    _, truth = seen(images, Scheme.plain())
    encodings = require(truth.encodings)
    same = InvertedUpdate(images=encodings[[0, 0, 0]] + torch.rand(3, 1, 1, 1))
    ordered = match_order(same, encodings).images
    assert sorted(ordered.flatten(1).sum(1).tolist()) == sorted(
        same.images.flatten(1).sum(1).tolist()
    )


def test_an_encoding_found_is_not_the_image(images: ImageTable) -> None:
    observation, truth = seen(images, Scheme.inside(4))
    figures = score(InvertedUpdate(images=require(truth.encodings)), observation, truth).summary
    assert figures["encoding_mse_mean"] == 0
    assert figures["ssim_mean"] < 0.5

"""From updates to encodings to private images, and which of the two steps a failure is of."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from instahide.attacks.base import LocalTraining, Progress, UpdateObservation, no_progress
from instahide.attacks.budget import Budget
from instahide.attacks.federated.attack import FederatedAttack
from instahide.attacks.federated.observation import FederatedObservation, InvertedRounds
from instahide.attacks.gradients.dense_layer import DenseLayer
from instahide.attacks.gradients.dlg import DeepLeakage
from instahide.attacks.gradients.lenet import lenet
from instahide.attacks.gradients.perceptron import perceptron
from instahide.attacks.refusal import image_shape, refusal
from instahide.audit.federation import exact_encodings, observe_federation
from instahide.audit.ground_truth import GroundTruth
from instahide.audit.scoring.scores import score
from instahide.data import ImageTable
from instahide.data.public.crops import PHOTOS, PhotoCrops
from instahide.encryption.scheme import Scheme
from instahide.errors import InstaHideError
from tests.attacks.conftest import natural
from tests.waiting import ticks

SIDE, IMAGES, EPOCHS = 16, 12, 20
FEDSGD = LocalTraining(images=6, batch_size=6, learning_rate=0.1)
FEDAVG = LocalTraining(images=12, batch_size=3, steps=4, learning_rate=0.1)


@cache
def federation(
    training: LocalTraining, epochs: int = EPOCHS
) -> tuple[FederatedObservation, GroundTruth]:
    private = ImageTable.from_arrays(natural(IMAGES, 1, SIDE), np.arange(IMAGES) % 4)
    public = ImageTable.from_arrays(natural(300, 2, SIDE))
    network = perceptron((3, SIDE, SIDE), 4, units=64, seed=0)
    return observe_federation(private, public, Scheme.cross(4), network, training, epochs=epochs)


@cache
def photographs() -> ImageTable:
    """Patches, none of them flat, of a size for which there is a shipped encoder."""
    crops = PhotoCrops.open(PHOTOS, (3, 32, 32)).draw(np.random.default_rng(0).random((100, 4)))
    return ImageTable.from_arrays(crops[crops.std(axis=(1, 2, 3)) > 40][:20], np.arange(20) % 4)


@pytest.mark.slow
@pytest.mark.usefixtures("same_keys")
@pytest.mark.parametrize(
    ("training", "epochs"),
    [(FEDSGD, 20), pytest.param(FEDAVG, 40, marks=pytest.mark.slow)],
    ids=["FedSGD", "FedAvg"],
)
def test_private_images_come_back_from_updates(training: LocalTraining, epochs: int) -> None:
    network = perceptron((3, 32, 32), 4, units=96, seed=0)
    observation, truth = observe_federation(
        photographs(), None, Scheme.inside(4), network, training, epochs=epochs
    )
    attack = FederatedAttack()
    assert refusal(attack, observation) is None
    found = attack.run(observation, Budget(), no_progress)
    figures = score(found, observation, truth).summary
    sent = len(observation.updates) * training.images
    assert figures["encodings_recovered"] == figures["encodings_sent"] == sent
    assert figures["encoding_psnr_worst"] > 60
    # 19 or 20 in four draws of keys at 20 epochs of FedSGD.
    assert figures["images_recognizable"] >= 10
    assert figures["images_sought"] == 20


def test_the_exact_encodings_are_those_behind_the_updates() -> None:
    observation, truth = federation(FEDSGD, 3)
    found = FederatedAttack().run(observation, Budget(), no_progress)
    exact = exact_encodings(observation, truth, labels=True)
    # In the order of the updates, but in any order within each.
    ours, theirs = (
        one.reshape(-1, FEDSGD.images, one.shape[1]).sort(dim=1).values
        for one in (found.labels, exact.labels)
        if one is not None
    )
    # The attack takes entries below a hundredth for errors.
    torch.testing.assert_close(ours, theirs, atol=0.012, rtol=0)
    assert len(exact.encodings) == len(found.encodings)
    assert exact_encodings(observation, truth, labels=False).labels is None


class Rough:
    """An inversion that adds noise, or that admits to have failed at some updates."""

    def __init__(self, noise: float, failing: tuple[int, ...] = ()) -> None:
        self.noise, self.failing, self.calls = noise, failing, 0

    def applies(self, observation: UpdateObservation) -> str | None:
        return DenseLayer().applies(observation)

    def run(self, observation: UpdateObservation, budget: Budget, progress: Progress):  # type: ignore[no-untyped-def]
        found = DenseLayer().run(observation, budget, progress)
        failed = self.calls in self.failing
        self.calls += 1
        noise = torch.randn(found.images.shape, generator=torch.Generator().manual_seed(self.calls))
        return replace(
            found,
            images=found.images + (5 if failed else self.noise) * noise,
            statistics={"confirmed": float(not failed)},
        )


class Slow(Rough):
    """An inversion that takes a few seconds of a clock, or gives up before it has succeeded."""

    def __init__(self, cut: bool = False) -> None:
        super().__init__(0.0)
        self.cut = cut

    def run(self, observation: UpdateObservation, budget: Budget, progress: Progress):  # type: ignore[no-untyped-def]
        for _ in range(5):
            _ = budget.left
        if self.cut:
            budget.cut()
        return super().run(observation, Budget(), progress)


def test_rough_encodings_are_reported_by_how_much() -> None:
    observation, truth = federation(FEDSGD, 3)
    found = FederatedAttack(inversion=Rough(noise=1.0)).run(observation, Budget(), no_progress)
    figures = score(found, observation, truth).summary
    assert figures["encodings_recovered"] == 0
    # Noise of one standard deviation of the pixels, about 0.2.
    assert 8 < figures["encoding_psnr_mean"] < 20


@pytest.mark.slow
def test_updates_that_were_not_inverted_are_left_out() -> None:
    observation, truth = federation(FEDSGD, 4)
    found = FederatedAttack(inversion=Rough(0.0, (0, 3))).run(observation, Budget(), no_progress)
    assert found.statistics["updates_inverted"] == found.statistics["updates_used"] == 6
    assert not set(found.updates.tolist()) & {0, 3}
    figures = score(found, observation, truth).summary
    assert figures["encodings_recovered"] == figures["encodings_used"] == 36
    assert figures["encodings_sent"] == 48
    # Without any that was, the encodings are what there is.
    rough = Rough(0.0, tuple(range(8)))
    found = FederatedAttack(inversion=rough).run(observation, Budget(), no_progress)
    assert (found.statistics["updates_inverted"], found.statistics["updates_used"]) == (0, 8)


class KilledError(Exception):
    """As if the process had been killed."""


@pytest.mark.slow
def test_interrupted_it_goes_on(tmp_path: Path) -> None:
    observation, _ = federation(FEDSGD, 4)
    for after in ("inversion", "groups", "final recovery"):

        def killed(what: str, share: float, after: str = after) -> None:
            if what == after and share > 0.2:
                raise KilledError

        with pytest.raises(KilledError):
            FederatedAttack(folder=tmp_path).run(observation, Budget(), killed)
    files = sorted(path.name for path in tmp_path.glob("update-*"))
    assert len(files) == len(observation.updates)
    said: list[str] = []
    resumed = FederatedAttack(folder=tmp_path).run(
        observation, Budget(), lambda what, share: said.append(what)
    )
    assert "groups" not in said
    whole = FederatedAttack().run(observation, Budget(), no_progress)
    torch.testing.assert_close(resumed.encodings, whole.encodings)
    assert torch.equal(resumed.images.assignment, whole.images.assignment)


@pytest.mark.slow
def test_a_folder_is_of_one_attack(tmp_path: Path) -> None:
    observation, _ = federation(FEDSGD, 3)
    FederatedAttack(folder=tmp_path).run(observation, Budget(), no_progress)
    with pytest.raises(InstaHideError, match="another attack"):
        FederatedAttack(folder=tmp_path, inversion=DenseLayer(seed=1)).run(
            observation, Budget(), no_progress
        )
    (tmp_path / "update-00000.safetensors").write_bytes(b"damaged")
    with pytest.raises(InstaHideError, match="update-00000"):
        FederatedAttack(folder=tmp_path).run(observation, Budget(), no_progress)


@pytest.mark.slow
def test_without_time_it_reconstructs_from_what_there_is() -> None:
    observation, truth = federation(FEDSGD, 4)
    budget = Budget(40, clock=ticks())
    found = FederatedAttack(inversion=Slow()).run(observation, budget, no_progress)
    assert isinstance(found, InvertedRounds)
    figures = score(found, observation, truth).summary
    assert 0 < figures["encodings_used"] < figures["encodings_sent"]
    # Time is left, but some of the updates were skipped.
    assert budget.left > 0
    assert budget.cut_short
    whole = Budget()
    FederatedAttack().run(observation, whole, no_progress)
    assert not whole.cut_short


def test_an_inversion_that_was_cut_short_is_tried_again(tmp_path: Path) -> None:
    observation, _ = federation(FEDSGD, 3)
    budget = Budget(1000, clock=ticks())
    FederatedAttack(folder=tmp_path, inversion=Slow(cut=True)).run(observation, budget, no_progress)
    assert budget.cut_short
    assert not list(tmp_path.glob("update-*"))


@pytest.mark.slow
def test_a_convolutional_network_is_left_to_deep_leakage() -> None:
    images = ImageTable.from_arrays(natural(2, 1, 8)[:, :1], np.arange(2))
    observation, truth = observe_federation(
        images, None, Scheme.inside(2), lenet((1, 8, 8), 2, seed=0), LocalTraining(), epochs=3
    )
    attack = FederatedAttack(inversion=DeepLeakage(rounds=20, starts=1))
    assert FederatedAttack().applies(observation) is None
    found = attack.run(observation, Budget(), no_progress)
    figures = score(found, observation, truth).summary
    assert figures["encodings_recovered"] >= 3


def test_the_server_applies_each_update_before_the_next() -> None:
    for training, rate in ((FEDSGD, -0.1), (FEDAVG, 1.0)):
        observation, truth = federation(training, 3)
        assert len(observation.updates) == IMAGES * 3 // training.images
        assert image_shape(observation) == (3, SIDE, SIDE)
        first, second = observation.updates[:2]
        after: dict[str, nn.Parameter] = dict(second.network.named_parameters())
        for name, before in first.network.named_parameters():
            expected = before + rate * first.update.values[name]
            torch.testing.assert_close(after[name].detach(), expected.detach())
        encrypted = truth.partners[:, 0].reshape(3, IMAGES)
        assert all(sorted(epoch.tolist()) == list(range(IMAGES)) for epoch in encrypted)


def test_it_is_refused_where_it_cannot_succeed() -> None:
    observation, _ = federation(FEDSGD, 2)
    assert FederatedAttack().applies(observation) is None
    assert refusal(FederatedAttack(), replace(observation, updates=())) is not None
    assert "no rounds" in str(refusal(FederatedAttack(), observation.updates[0]))
    with pytest.raises(InstaHideError, match="too few"):
        federation(LocalTraining(images=50, batch_size=50), 2)

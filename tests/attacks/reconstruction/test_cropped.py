"""Encodings of images that were cropped at random: recovered, or refused and not called safe.

The photographs are those of `test_end_to_end`: floors that tell when something breaks.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
import torch

from instahide.attacks.base import EncodingObservation, ThreatModel, no_progress
from instahide.attacks.budget import Budget
from instahide.attacks.reconstruction.attack import ReconstructionAttack
from instahide.attacks.reconstruction.pair_encoder.features import edges_of_square
from instahide.audit.ground_truth import GroundTruth, observe
from instahide.audit.scoring.ceiling import ceiling_of
from instahide.audit.scoring.reconstruction import ReconstructionScore, score_reconstruction
from instahide.encryption.augmentation import Augmentation
from instahide.encryption.scheme import Scheme
from tests.attacks.elsewhere import DEVICE, Elsewhere
from tests.attacks.reconstruction.test_end_to_end import read_networks_beforehand, tables

IMAGES, COPIES = 15, 30
#: Less work, and harder for the attack: 12 of the 15 images came back with the keys of this test.
FEW_COPIES = 20


@cache
def observed(
    augmentation: Augmentation, labels: str = "none", copies: int = COPIES
) -> tuple[EncodingObservation, GroundTruth]:
    private, public = tables(IMAGES)
    threat = ThreatModel(labels=labels, public="none", encodings_per_image=copies)  # type: ignore[arg-type]
    return observe(private, public, Scheme.cross(6), threat, augmentation=augmentation)


def attacked(
    observation: EncodingObservation, truth: GroundTruth, attack: ReconstructionAttack | None = None
) -> ReconstructionScore:
    chosen = attack or ReconstructionAttack()
    assert chosen.applies(observation) is None
    found = chosen.run(observation, Budget(), no_progress)
    return score_reconstruction(found, truth, observation.mean, observation.std)


@pytest.mark.slow
@pytest.mark.usefixtures("same_keys")
def test_cropped_images_are_recovered_by_who_knows_that_they_were_cropped() -> None:
    observation, truth = observed(Augmentation(padding=3), copies=FEW_COPIES)
    aware = attacked(observation, truth)
    unaware = attacked(replace(observation, augmentation=Augmentation()), truth)
    assert aware.mass > 0.6
    assert aware.mass > unaware.mass + 0.15
    assert (aware.ssim > 0.5).sum() >= 8
    assert (aware.ssim > 0.5).sum() > (unaware.ssim > 0.5).sum() + 3
    ceiling = ceiling_of(observation, truth)
    assert (ceiling.ssim > 0.5).all()
    assert ceiling.ssim.mean() > aware.ssim.mean()


@pytest.mark.slow
def test_cropped_and_mirrored_images_are_recovered() -> None:
    observation, truth = observed(Augmentation(padding=2, flip=True))
    score = attacked(observation, truth)
    assert (score.ssim > 0.5).sum() >= 6
    assert (ceiling_of(observation, truth).ssim > 0.5).all()


@pytest.mark.slow
@pytest.mark.parametrize("labels", ["soft", "coarse"])
def test_labels_do_not_make_the_attack_weaker(labels: str) -> None:
    observation, truth = observed(Augmentation(padding=2), labels)
    score = attacked(observation, truth)
    blind = replace(observation, labels=None, threat=replace(observation.threat, labels="none"))
    assert score.mass > attacked(blind, truth).mass - 0.05


@pytest.mark.slow
def test_an_interrupted_attack_goes_on_and_gives_the_same(tmp_path: Path) -> None:
    observation, _ = observed(Augmentation(padding=3))

    class Killed(BaseException):
        pass

    def killing(what: str, _: float) -> None:
        if what == "recovery and assignment, round 2":
            raise Killed

    attack = ReconstructionAttack(folder=tmp_path)
    with pytest.raises(Killed):
        attack.run(observation, Budget(), killing)
    resumed = attack.run(observation, Budget(), no_progress)
    whole = ReconstructionAttack().run(observation, Budget(), no_progress)
    torch.testing.assert_close(resumed.images, whole.images)
    # The state of one threat model is not taken for that of another.
    unaware = replace(observation, augmentation=Augmentation())
    with pytest.raises(Exception, match="other"):
        attack.run(unaware, Budget(), no_progress)


@pytest.mark.slow
def test_what_is_refused_is_not_called_safe() -> None:
    observation, _ = observed(Augmentation(padding=3), copies=FEW_COPIES)
    far = replace(observation, augmentation=Augmentation(padding=9))
    unmasked = replace(observation, encoder=replace(observation.scheme, mask=False))
    own = ReconstructionAttack(features=edges_of_square)
    attack = ReconstructionAttack()
    for reason in (attack.applies(far), attack.applies(unmasked), own.applies(observation)):
        assert "does not mean that such encodings are safe" in str(reason)
    assert "by up to 9 pixels; this attack undoes at most 8" in str(attack.applies(far))


@pytest.mark.slow
def test_all_of_it_can_run_on_another_device(monkeypatch: pytest.MonkeyPatch) -> None:
    observation, _ = observed(Augmentation(padding=3))
    read_networks_beforehand(monkeypatch)
    few = replace(observation, encodings=observation.encodings[:60])
    with Elsewhere():
        attack = ReconstructionAttack(rounds=1, device=DEVICE)
        assert attack.run(few, Budget(), no_progress).images is not None

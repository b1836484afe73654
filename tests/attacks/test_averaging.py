"""Averages show the image under Mixup, nothing under InstaHide, and |x| under both."""

from __future__ import annotations

import pytest

from instahide.attacks.averaging import Averaging, AveragingAbsolute
from instahide.attacks.base import ThreatModel, no_progress
from instahide.attacks.budget import Budget
from instahide.audit.ground_truth import observe
from instahide.audit.scoring.scores import Score, score
from instahide.data import ImageTable
from instahide.encryption.scheme import Scheme


def attacked(
    attack: Averaging | AveragingAbsolute, scheme: Scheme, private: ImageTable, count: int = 100
) -> tuple[Score, dict[str, float]]:
    threat = ThreatModel(public="none", grouped=True, encodings_per_image=count)
    observation, truth = observe(private, None, scheme, threat)
    assert attack.applies(observation) is None
    found = attack.run(observation, Budget(), no_progress)
    return score(found, observation, truth), dict(found.statistics)


def test_mixup_falls_and_falls_further_with_every_encoding(private: ImageTable) -> None:
    few, many = (
        attacked(Averaging(), Scheme.mixup(4), private, count)[0].summary for count in (5, 100)
    )
    assert many["ssim_mean"] >= 0.8
    assert many["identified_mean"] == 1
    assert few["ssim_mean"] < many["ssim_mean"] - 0.03


def test_the_mean_of_masked_encodings_is_noise(private: ImageTable) -> None:
    result, statistics = attacked(Averaging(), Scheme.inside(4), private)
    # Over 8,640 values the two differ by about 1%; more than 10% would be a mask that is not fair.
    assert statistics["rms_of_mean"] == pytest.approx(statistics["rms_expected_of_noise"], rel=0.1)
    # 20 images, each right with 1 in 20: 12 or more by chance once in 10^11.
    assert result.summary["identified_mean"] < 0.6


@pytest.mark.parametrize("scheme", [Scheme.mixup(4), Scheme.inside(4)], ids=["mixup", "instahide"])
def test_squares_show_absolute_values_whatever_the_mask(
    private: ImageTable, scheme: Scheme
) -> None:
    result, _ = attacked(AveragingAbsolute(), scheme, private, 400)
    assert result.summary["identified_mean"] == 1
    assert result.summary["ssim_mean"] > 0.5


def test_it_applies_only_to_several_encodings_of_known_images(private: ImageTable) -> None:
    for threat, reason in [
        (ThreatModel(public="none", encodings_per_image=2), "does not know"),
        (ThreatModel(public="none", grouped=True), "No two"),
    ]:
        observation, _ = observe(private, None, Scheme.inside(4), threat)
        assert reason in str(Averaging().applies(observation))

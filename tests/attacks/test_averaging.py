"""Averages show the image under Mixup, nothing under InstaHide, and |x| under both."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import pytest
from torch import Tensor

from instahide.attacks.averaging import Averaging, AveragingAbsolute
from instahide.attacks.base import ThreatModel, no_progress
from instahide.attacks.budget import Budget
from instahide.attacks.refusal import refusal
from instahide.audit.ground_truth import observe
from instahide.audit.scoring.scores import Score, score
from instahide.data import ImageTable
from instahide.encryption.encoders.base import ImageEncoder, InstanceEncoder
from instahide.encryption.encoders.registry import encoder_named
from instahide.encryption.encoders.rivals.dp_instahide import DPInstaHide
from instahide.encryption.encoders.secret_random import SecretRandom
from instahide.encryption.scheme import Scheme


def attacked(
    attack: Averaging, scheme: InstanceEncoder, private: ImageTable, count: int = 100
) -> tuple[Score, dict[str, float]]:
    threat = ThreatModel(public="none", grouped=True, encodings_per_image=count)
    observation, truth = observe(private, None, scheme, threat)
    assert refusal(attack, observation) is None
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


def test_the_mean_of_the_encodings_of_another_encoder_shows_the_image(private: ImageTable) -> None:
    """DP-InstaHide publishes means of k images with independent noise."""
    result, _ = attacked(Averaging(), DPInstaHide(k=4, noise=0.3), private, 400)
    assert result.summary["identified_mean"] == 1
    assert result.summary["ssim_mean"] > 0.7


@dataclass(frozen=True)
class Halved(ImageEncoder):
    """Publishes every other row."""

    name: ClassVar[str] = "halved"

    def output_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        if shape[1] % 2:
            raise RuntimeError("odd")
        return (shape[0], shape[1] // 2, shape[2])

    def transform(self, images: Tensor, key: Any, random: SecretRandom) -> Tensor:
        return images[:, :, ::2]


@pytest.mark.parametrize(
    "encoder", [Halved(), encoder_named("neuracrypt"), encoder_named("block-scrambling")],
    ids=lambda encoder: encoder.name,
)  # fmt: skip
def test_encodings_that_are_no_images_are_not_averaged(
    encoder: InstanceEncoder, private: ImageTable
) -> None:
    threat = ThreatModel(public="none", grouped=True, encodings_per_image=3)
    observation, _ = observe(private, None, encoder, threat)
    assert "are no images" in str(refusal(Averaging(), observation))
    assert "structure of InstaHide" in str(refusal(AveragingAbsolute(), observation))

"""What labels give away, by label mode."""

from __future__ import annotations

import pytest

from instahide.attacks.base import ThreatModel, no_progress
from instahide.attacks.budget import Budget
from instahide.attacks.label_leakage import LabelLeakage
from instahide.audit.ground_truth import observe
from instahide.audit.scoring.scores import score
from instahide.data import ImageTable
from instahide.encryption.scheme import Scheme


def leaked(
    private: ImageTable, public: ImageTable, scheme: Scheme, labels: str
) -> dict[str, float]:
    threat = ThreatModel(labels=labels, encodings_per_image=20)  # type: ignore[arg-type]
    observation, truth = observe(private, public if scheme.public_k else None, scheme, threat)
    found = LabelLeakage().run(observation, Budget(), no_progress)
    return {**found.statistics, **score(found, observation, truth).summary}


def test_soft_labels_are_the_coefficients(private: ImageTable, public: ImageTable) -> None:
    figures = leaked(private, public, Scheme.cross(4), "soft")
    assert figures["class_sets_right"] == 1
    assert figures["coefficient_error"] == pytest.approx(0, abs=1e-6)
    # Of 19 partners 16 are of another class; 400 mixes, so within 5 of 7 deviations of 0.018.
    assert figures["mixes_with_all_classes_apart"] == pytest.approx(16 / 19, abs=0.13)


def test_renormalised_labels_leave_a_factor_open(private: ImageTable, public: ImageTable) -> None:
    figures = leaked(private, public, Scheme.cross(4, label_mode="renormalised"), "soft")
    assert figures["class_sets_right"] == 1
    assert 0.01 < figures["coefficient_error"] < 0.15


def test_inside_nothing_is_left_open(private: ImageTable, public: ImageTable) -> None:
    scheme = Scheme.inside(4, label_mode="renormalised")
    figures = leaked(private, public, scheme, "soft")
    assert figures["coefficient_error"] == pytest.approx(0, abs=1e-6)


def test_coarse_labels_give_classes_alone(private: ImageTable, public: ImageTable) -> None:
    figures = leaked(private, public, Scheme.cross(4), "coarse")
    assert figures["class_sets_right"] == 1
    soft = leaked(private, public, Scheme.cross(4, label_mode="renormalised"), "soft")
    assert figures["coefficient_error"] > soft["coefficient_error"]


def test_it_needs_labels(private: ImageTable) -> None:
    threat = ThreatModel(labels="none", public="none")
    observation, _ = observe(private, None, Scheme.inside(4), threat)
    assert "no labels" in str(LabelLeakage().applies(observation))

"""Leakage from the label of an encoding alone.

A soft label is the sum of lambda_j onehot(y_j) over the private images. If their classes differ, it
is a list of their coefficients; if two share a class, it has the sum of both. Carlini et al.
(arXiv:2011.05315, section 4) read the coefficients off the labels in this way. Renormalised labels
give the coefficients up to a common factor; coarse ones give the classes alone.
"""

from __future__ import annotations

from torch import Tensor

from instahide.attacks.base import ClassCoefficients, EncodingObservation, Progress, require
from instahide.attacks.budget import Budget
from instahide.encryption.scheme import Scheme


class LabelLeakage:
    """The classes in every mix, and their total coefficients if labels reveal them."""

    name = "labels"
    title = "Reading classes and coefficients off the labels"
    paper = "Carlini et al., arXiv:2011.05315, section 4"
    observes = EncodingObservation
    volumes = True
    augmented = True

    def applies(self, observation: EncodingObservation) -> str | None:
        """Applies if the attacker has labels."""
        return "The attacker sees no labels." if observation.labels is None else None

    def run(
        self, observation: EncodingObservation, budget: Budget, progress: Progress
    ) -> ClassCoefficients:
        """Coefficients (n, classes), exact if the labels are soft."""
        labels = require(observation.labels)
        soft = observation.threat.labels == "soft"
        if not (soft and observation.scheme.label_mode == "soft"):
            shares = labels / labels.sum(dim=1, keepdim=True)
            labels = shares * _expected_private_sum(observation.scheme)
        progress("labels", 1.0)
        return ClassCoefficients(labels, statistics=_statistics(observation, soft))


def _statistics(observation: EncodingObservation, soft: bool) -> dict[str, float]:
    labels = require(observation.labels)
    present = (labels > 0).sum(dim=1)
    apart = (present == observation.scheme.private_k).float().mean()
    return {
        "classes_per_mix": float(present.float().mean()),
        # These labels reveal every private coefficient separately.
        "mixes_with_all_classes_apart": float(apart),
    } | ({"share_entropy_bits": float(_entropy(labels).mean())} if soft else {})


def _entropy(labels: Tensor) -> Tensor:
    """(n,) entropy of a label in bits; 0 if it has a single class."""
    shares = labels / labels.sum(dim=1, keepdim=True)
    return -(shares * shares.clamp(min=1e-12).log2()).sum(dim=1)


def _expected_private_sum(scheme: Scheme) -> float:
    return float(scheme.simulated_coefficients()[:, : scheme.private_k].sum(axis=1).mean())

"""Tests whether encodings of one image are more similar than encodings of different images.

The paper (Huang et al., ICML 2020, section 5) uses two-sample Kolmogorov-Smirnov tests of the
values of encodings, which would detect that encodings of an image have their own distribution.
This module adds: the same test on absolute values, which the mask does not change; a test of
*distances* between encodings of one image and of two; and a classifier two-sample test (Lopez-Paz
and Oquab, ICLR 2017), which learns any difference between two images. P-values are corrected for
multiple tests under arbitrary dependence (Benjamini and Yekutieli, 2001).
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from instahide.attacks.base import EncodingObservation, Finding, Progress, require
from instahide.attacks.budget import Budget
from instahide.utils.optional_deps import requires_extra

#: Largest number of pairs of encodings or images in a test.
MOST_PAIRS = 1000
#: Smallest number of encodings per image to train a classifier.
LEAST_ENCODINGS = 8
#: Number of pairs of images for the classifier.
_CLASSIFIED = 20
#: A fixed seed of the choice of pairs.
_SEED = 0

Values = NDArray[np.float32]


class StatisticalTests:
    """Corrected p-values; small ones mean that encodings of one image can be recognized."""

    name = "statistics"
    title = "Statistical tests between encodings of one image and of others"
    paper = "Huang et al., InstaHide, ICML 2020, section 5 (arXiv:2010.02772)"
    observes = EncodingObservation
    volumes = True
    augmented = True
    any_encoder = True

    def applies(self, observation: EncodingObservation) -> str | None:
        """Applies if the attacker knows which encodings are of the same image."""
        if observation.groups is None:
            return "The attacker does not know which encodings are of one image."
        counts = np.bincount(observation.groups.numpy())
        if len(counts) < 2 or counts.min() < LEAST_ENCODINGS:
            return f"There are fewer than {LEAST_ENCODINGS} encodings of an image."
        return None

    def run(self, observation: EncodingObservation, budget: Budget, progress: Progress) -> Finding:
        """Compute statistics only."""
        with requires_extra("scipy", "audit"):
            from scipy.stats import false_discovery_control
        tests, other = {}, {}
        flat = observation.encodings.flatten(1).numpy()
        for name, values in (("signed", flat), ("absolute", np.abs(flat))):
            for test, (p_value, effect) in _tests(values, _members(observation), budget):
                tests[f"{test}_{name}"], other[f"{test}_{name}_effect"] = p_value, effect
                progress(f"{test}, {name}", len(tests) / 6)
        corrected = false_discovery_control(list(tests.values()), method="by") if tests else ()
        p_values = {f"{name}_p": float(p) for name, p in zip(tests, corrected, strict=True)}
        return Finding(statistics=p_values | other)


def _members(observation: EncodingObservation) -> list[NDArray[np.int64]]:
    """The encodings of each group."""
    groups = require(observation.groups).numpy()
    return [np.flatnonzero(groups == number) for number in np.unique(groups)]


def _tests(
    values: Values, members: list[NDArray[np.int64]], budget: Budget
) -> Iterator[tuple[str, tuple[float, float]]]:
    """Name, p-value and effect of every test that starts within the budget."""
    for name, test in (
        ("values", values_test), ("distances", distances_test), ("classifier", classifier_test),
    ):  # fmt: skip
        if not budget.over:
            yield name, test(values, members)


def values_test(values: Values, members: list[NDArray[np.int64]]) -> tuple[float, float]:
    """The paper's test of the distribution of values in encodings.

    A rank test compares the Kolmogorov-Smirnov distances of pairs of encodings of one image with
    those of two images. Each encoding is in one pair only.

    Returns:
        p-value, and the mean distance of pairs of two images minus that of pairs of one.
    """
    from scipy.stats import ks_2samp, mannwhitneyu

    one, two = (
        np.asarray([ks_2samp(values[a], values[b]).statistic for a, b in pairs])
        for pairs in _pairs(members)
    )
    return float(mannwhitneyu(one, two, alternative="less").pvalue), float(two.mean() - one.mean())


def distances_test(values: Values, members: list[NDArray[np.int64]]) -> tuple[float, float]:
    """A test whether two encodings of one image are closer than two of different images.

    Returns:
        Kolmogorov-Smirnov p-value, and the mean correlation of pairs of one image minus that of
        pairs of two.
    """
    from scipy.stats import ks_2samp

    centred = values - values.mean(axis=0)
    centred /= np.linalg.norm(centred, axis=1, keepdims=True)
    one, two = (
        (centred[a] * centred[b]).sum(axis=1) for a, b in map(np.transpose, _pairs(members))
    )
    return float(ks_2samp(one, two).pvalue), float(one.mean() - two.mean())


def classifier_test(values: Values, members: list[NDArray[np.int64]]) -> tuple[float, float]:
    """A test whether a classifier can distinguish encodings of two images.

    It is trained on half of the encodings of each image and tested on the other half.

    Returns:
        Binomial p-value of its right answers over all pairs of images, and its accuracy.
    """
    from scipy.stats import binomtest

    with requires_extra("scikit-learn", "audit"):
        from sklearn.linear_model import RidgeClassifier
    right = asked = 0
    # Each image is in one pair only, so that answers are independent.
    for a, b in list(zip(members[::2], members[1::2], strict=False))[:_CLASSIFIED]:
        half = min(len(a), len(b)) // 2
        learn, ask = np.concatenate([a[:half], b[:half]]), np.concatenate([a[half:], b[half:]])
        model = RidgeClassifier(alpha=float(values.shape[1]))
        model.fit(values[learn], np.repeat([0, 1], half))
        truth = np.repeat([0, 1], [len(a) - half, len(b) - half])
        right += int((model.predict(values[ask]) == truth).sum())
        asked += len(ask)
    return float(binomtest(right, asked, 0.5, alternative="greater").pvalue), right / asked


def _pairs(members: list[NDArray[np.int64]]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Pairs (m, 2) of encodings of one image, and pairs of two, no encoding in two pairs."""
    generator = np.random.default_rng(_SEED)
    one, single = [], []
    for group in members:
        # Half of each image's encodings for each kind of pair.
        mixed = generator.permutation(group)
        half = len(mixed) // 4 * 2
        one.append(mixed[:half].reshape(-1, 2))
        single.append(mixed[half : 2 * half])
    count = min(map(len, single))
    table = np.stack([rows[:count] for rows in single])
    # Neighbours in a ring of images, of which each second place is taken: no encoding twice.
    left, right = table[:, ::2], np.roll(table, 1, axis=0)[:, 1::2]
    two = np.stack([left[:, : right.shape[1]], right[:, : left.shape[1]]], axis=2).reshape(-1, 2)
    pairs = [generator.permutation(kind)[:MOST_PAIRS] for kind in (np.concatenate(one), two)]
    return pairs[0], pairs[1]

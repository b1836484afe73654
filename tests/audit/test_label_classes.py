"""Findings as classes: nothing that mixed findings show is lost."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from instahide.audit.label_classes import findings_as_classes
from instahide.data import ImageTable

TARGETS = st.sampled_from([0.0, 1.0, 0.5, float("nan")])


def table(findings: np.ndarray) -> ImageTable:
    names = tuple(f"finding {number}" for number in range(findings.shape[1]))
    pixels = np.zeros((len(findings), 1, 4, 4), np.uint8)
    return ImageTable.from_arrays(pixels, findings, names, task="multi-label")


@given(st.integers(1, 4).flatmap(
    lambda columns: st.tuples(*(
        st.integers(1, 8).flatmap(lambda n: arrays(np.float32, (n, columns), elements=TARGETS))
        for _ in range(2)
    ))
))  # fmt: skip
def test_images_are_of_one_class_if_they_agree_in_all_findings(
    parts: tuple[np.ndarray, np.ndarray],
) -> None:
    """Over both tables; the findings are then a linear function of the classes."""
    classed = findings_as_classes(*map(table, parts))
    labels = np.concatenate([each.labels for each in classed])
    findings = np.concatenate(parts)
    for row in range(len(labels)):
        alike = [np.array_equal(findings[row], other, equal_nan=True) for other in findings]
        np.testing.assert_array_equal(labels == labels[row], alike)
    assert classed[0].classes == classed[1].classes
    assert len(set(classed[0].classes)) == len(classed[0].classes) >= 2
    assert {each.task for each in classed} == {"single-label"}


def test_classes_and_values_stay_as_they_are() -> None:
    classes = ImageTable.from_arrays(np.zeros((4, 1, 4, 4), np.uint8), np.arange(4) % 2)
    assert findings_as_classes(classes)[0] is classes


def test_classes_have_names_of_their_own_whatever_findings_are_called() -> None:
    for names in (("none", "b"), ("a", "a, b"), ("b", "a b")):
        rows = np.array([[0, 0], [1, 0], [0, 1], [1, 1], [0.1234567, 0], [0.1234568, 0]])
        pixels = np.zeros((len(rows), 1, 4, 4), np.uint8)
        images = ImageTable.from_arrays(pixels, rows.astype(np.float32), names, task="multi-label")
        (classed,) = findings_as_classes(images)
        assert len(set(classed.classes)) == len(classed.classes) == 6

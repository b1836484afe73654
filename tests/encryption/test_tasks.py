"""Mixed labels of several findings and of measured values."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from instahide import Encoder, ImageTable, Scheme
from instahide.data.labels import Task
from instahide.encryption.mixing import soft_labels
from instahide.encryption.scheme import label_mode_for
from instahide.errors import SchemeError

TARGETS = arrays(
    np.float32, (3, 2, 4), elements=st.sampled_from([0.0, 0.25, 1.0, np.float32(np.nan)])
)


def table(task: Task, columns: int = 3, count: int = 20) -> ImageTable:
    generator = np.random.default_rng(0)
    pixels = generator.integers(0, 256, (count, 6, 6), np.uint8)
    targets = generator.integers(0, 2, (count, columns)).astype(np.float32)
    if task == "regression":
        targets = 100 * targets - 40
    return ImageTable.from_arrays(pixels, targets, task=task)


@given(TARGETS, arrays(np.float32, (3, 2), elements=st.floats(0.125, 1, width=32)))
def test_a_mixed_target_is_the_weighted_mean_and_unknown_if_one_is(
    targets: np.ndarray, raw: np.ndarray
) -> None:
    weights = raw / raw.sum(1, keepdims=True)
    found = soft_labels(weights, targets, 4).numpy()
    for mix in range(3):
        for column in range(4):
            parts = targets[mix, :, column]
            if np.isnan(parts).any():
                assert np.isnan(found[mix, column])
            else:
                expected = sum(w * y for w, y in zip(weights[mix], parts, strict=True))
                assert found[mix, column] == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("task", ["multi-label", "regression"])
def test_public_images_leave_the_scale_of_targets_alone(task: Task) -> None:
    private = table(task)
    constant = ImageTable.from_arrays(private.pixels, np.full((20, 1), 0.75, np.float32), task=task)
    public = table(task, count=30)
    scheme = Scheme.cross(4, label_mode=label_mode_for(task))
    labels = Encoder(scheme, constant, public).encode(np.arange(20)).labels
    np.testing.assert_allclose(labels.numpy(), 0.75, rtol=1e-6)


@pytest.mark.parametrize("task", ["multi-label", "regression"])
def test_soft_targets_below_the_true_ones_are_refused(task: Task) -> None:
    with pytest.raises(SchemeError, match=r"too small.*label_mode='renormalised'"):
        Encoder(Scheme.cross(4), table(task), table(task))
    # Without public images the coefficients sum to 1 in either mode.
    assert Encoder(Scheme.inside(4), table(task)).encode(np.arange(4)).labels.shape == (4, 3)


def test_the_label_mode_follows_the_task_unless_it_is_stated() -> None:
    assert label_mode_for("single-label") == "soft"
    assert label_mode_for("regression") == "renormalised"
    assert label_mode_for("single-label", "renormalised") == "renormalised"
    assert label_mode_for("multi-label", "soft") == "soft"


def test_one_column_is_enough() -> None:
    for task in ("multi-label", "regression"):
        encoded = Encoder(Scheme.inside(2), table(task, 1)).encode(np.arange(6))
        assert encoded.labels.shape == (6, 1)

"""Metrics of predictions, against scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn import metrics as sklearn_metrics

from instahide.data.labels import Task
from instahide.errors import DataError
from instahide.training.metrics import as_text, evaluation, headline

NAMES = ("a", "b", "c")


def random(rows: int = 200, seed: int = 0) -> tuple[torch.Tensor, np.random.Generator]:
    generator = np.random.default_rng(seed)
    return torch.from_numpy(generator.random((rows, 3), np.float32)), generator


def test_classes_are_measured_as_scikit_learn_does() -> None:
    scores, generator = random()
    scores = scores.softmax(1)
    truth = torch.from_numpy(generator.integers(0, 3, 200))
    found = evaluation("single-label", NAMES, scores, truth)
    chosen = scores.argmax(1)
    expected = {
        "accuracy": sklearn_metrics.accuracy_score(truth, chosen),
        "macro_auroc": sklearn_metrics.roc_auc_score(truth, scores, multi_class="ovr"),
        "macro_f1": sklearn_metrics.f1_score(truth, chosen, average="macro"),
    }
    assert found.metrics == pytest.approx(expected, abs=1e-5)
    matrix = sklearn_metrics.confusion_matrix(truth, chosen)
    assert found.details["confusion_matrix"] == matrix.tolist()
    assert list(found.details["classes"]) == list(NAMES)  # type: ignore[call-overload]


def test_findings_are_measured_where_they_are_known() -> None:
    scores, generator = random()
    truth = torch.from_numpy((generator.random((200, 3)) < 0.3).astype(np.float32))
    truth[torch.from_numpy(generator.random((200, 3)) < 0.2)] = torch.nan
    found = evaluation("multi-label", NAMES, scores, truth)
    aurocs, sensitivities, f1 = [], [], []
    for column in range(3):
        rows = ~truth[:, column].isnan()
        y, p = truth[rows, column].numpy(), scores[rows, column].numpy()
        aurocs.append(sklearn_metrics.roc_auc_score(y, p))
        f1.append(sklearn_metrics.f1_score(y, p >= 0.5))
        false, true, _ = sklearn_metrics.roc_curve(y, p, drop_intermediate=False)
        sensitivities.append(true[1 - false >= 0.9].max())
    assert found.metrics["macro_auroc"] == pytest.approx(np.mean(aurocs), abs=1e-5)
    assert found.metrics["macro_f1"] == pytest.approx(np.mean(f1), abs=0.01)
    name = "macro_sensitivity_at_90_specificity"
    assert found.metrics[name] == pytest.approx(np.mean(sensitivities), abs=1e-5)
    assert headline("multi-label", scores, truth) == {
        "macro_auroc": pytest.approx(found.metrics["macro_auroc"])
    }


def test_values_are_measured_as_scikit_learn_does() -> None:
    values, generator = random()
    truth = values + torch.from_numpy(generator.normal(0, 0.2, (200, 3)).astype(np.float32))
    found = evaluation("regression", NAMES, values, truth)
    expected = {
        "mae": sklearn_metrics.mean_absolute_error(truth.numpy(), values.numpy()),
        "r2": sklearn_metrics.r2_score(truth.numpy(), values.numpy()),
    }
    assert found.metrics == pytest.approx(expected, abs=1e-5)
    assert headline("regression", values, truth) == pytest.approx(expected, abs=1e-5)


def test_what_is_undefined_is_left_out_and_never_watched() -> None:
    scores, _ = random(5)
    present = torch.ones(5, 3)
    assert "macro_auroc" not in evaluation("multi-label", NAMES, scores, present).metrics
    with pytest.raises(DataError, match="No finding is present in some of the test images"):
        headline("multi-label", scores, present)
    assert set(evaluation("regression", NAMES, scores[:1], present[:1]).metrics) == {"mae"}
    with pytest.raises(DataError, match="R2 of a single test image"):
        headline("regression", scores[:1], present[:1])
    one = evaluation("single-label", NAMES, scores[:1], torch.tensor([1]))
    assert "macro_auroc" not in one.metrics


def test_a_finding_that_is_always_there_does_not_count() -> None:
    scores = torch.tensor([[0.1, 0.9], [0.8, 0.1], [0.3, 0.2]])
    truth = torch.tensor([[0.0, 1.0], [1.0, 1.0], [0.0, 1.0]])
    assert headline("multi-label", scores, truth) == {"macro_auroc": 1.0}


def test_shares_are_shown_as_percentages_and_others_as_numbers() -> None:
    assert as_text("encrypted_accuracy", 0.5) == "50.0%"
    assert as_text("mae", 12.3456) == "12.35"
    assert as_text("encrypted_r2", 0.5) == "0.5"


@pytest.mark.parametrize("task", ["multi-label", "regression"])
@pytest.mark.parametrize("columns", [1, 2, 4])
def test_predictions_of_other_columns_are_not_measured(task: Task, columns: int) -> None:
    targets = torch.tensor([[0.0, 1.0, 0.0], [1.0, 0.0, 1.0]])
    for measure in (headline, lambda *given: evaluation(given[0], ("a", "b", "c"), *given[1:])):
        with pytest.raises(DataError, match=f"Predictions are .2, {columns}., targets .2, 3."):
            measure(task, torch.rand(2, columns), targets)

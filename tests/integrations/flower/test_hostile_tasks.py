"""What a hostile server or client may try with findings, measured values and their scale."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import ArrayRecord, Message, MetricRecord, RecordDict
from PIL import Image

from instahide.data.normalization.normalization import Normalization
from instahide.errors import InstaHideError
from instahide.integrations.flower.client import participant as participant_module
from instahide.integrations.flower.config import FederatedSettings
from instahide.integrations.flower.errors import SILENCE
from instahide.integrations.flower.federation_spec import FederationSpec
from instahide.integrations.flower.moments import averaged_targets
from instahide.integrations.flower.server.negotiation import alike_targets, read_moments
from instahide.integrations.flower.server.reply_checks import MOST_WEIGHT, ReplyChecks
from instahide.training.data.target_scale import TargetScale
from tests.integrations.flower.conftest import ALLOWED, Hospital
from tests.integrations.flower.tables import write_folder

NOISE = np.random.default_rng(0).integers(0, 256, (40, 16, 16), dtype=np.uint8)
FINDINGS = np.random.default_rng(1).integers(0, 2, (40, 3)).astype(np.float32)
VALUES = np.random.default_rng(2).normal([60, 1.5], [12, 0.4], (40, 2)).astype(np.float32)
SCALE = TargetScale((60.0, 1.5), (12.0, 0.4))
GREY = Normalization((0.5,), (0.29,))
Of = Callable[..., Hospital]


@pytest.fixture
def findings(tmp_path: Path) -> Of:
    """A participant that has two of the three findings of the federation."""

    def make(labels: np.ndarray[Any, Any] = FINDINGS[:, :2], **own: Any) -> Hospital:
        folder = write_folder(tmp_path / "own", NOISE[: len(labels)], labels, ("mass", "fluid"))
        agreement = FederationSpec(
            (1, 16, 16), ("mass", "nodule", "fluid"), GREY, task="multi-label"
        )
        return Hospital(terms(tmp_path) | folder | own, agreement)

    return make


@pytest.fixture
def values(tmp_path: Path) -> Of:
    """A participant with an age and a dose of each image."""

    def make(labels: np.ndarray[Any, Any] = VALUES, **own: Any) -> Hospital:
        columns = ("age", "dose")
        folder = write_folder(tmp_path / "own", NOISE[: len(labels)], labels, columns)
        agreement = FederationSpec((1, 16, 16), columns, GREY, task="regression", target=SCALE)
        return Hospital(terms(tmp_path) | folder | {"task": "regression"} | own, agreement)

    return make


def terms(folder: Path) -> dict[str, Any]:
    return {
        "ledger": str(folder / "ledger.sqlite"), "scheme": "inside", "k": 4, "device": "cpu",
        "max-exposure": ALLOWED,
    }  # fmt: skip


def own_test(node: Hospital) -> dict[str, str]:
    """Settings that name test images, the negatives of the training images, with their labels."""
    folder = Path(node.own["data"]).with_name("test")
    folder.mkdir()
    for number, image in enumerate(NOISE):
        Image.fromarray(255 - image).save(folder / f"{number}.png")
    return {
        "test": str(folder),
        "test-labels": node.own["labels"],
        "test-label-columns": node.own["label-columns"],
    }


def refused(node: Hospital, message: Message, **run: Any) -> str:
    """Why the participant refuses: in words of its own, and before it encrypts anything."""
    reason = node.refusal(message, **run)
    assert reason != SILENCE
    assert reason.isprintable()
    assert node.exposure() == (0, 0)
    return reason


def test_honest_rounds_are_answered(findings: Of) -> None:
    node = findings()
    answer = node.answer(node.message())
    assert not answer.has_error()
    assert set(answer.content["metrics"]) == {
        "num-examples", "loss", "exposure-least", "exposure-mean", "exposure-most"
    }  # fmt: skip


def test_honest_rounds_of_measured_values_are_answered(values: Of) -> None:
    node = values()
    assert not node.answer(node.message(), lr=0.01).has_error()


def test_a_server_cannot_make_findings_of_classes_or_values_of_findings(
    findings: Of, hospital: Callable[..., Hospital]
) -> None:
    node = findings()
    for task in ("single-label", "regression"):
        assert f"the federation's {task}" in refused(node, node.message(task=task))
    classes = hospital()
    for task in ("multi-label", "regression"):
        assert f"the federation's {task}" in refused(classes, classes.message(task=task))


def test_findings_of_a_participant_are_not_told_and_not_left_out(findings: Of) -> None:
    node = findings()
    reason = refused(node, node.message(classes=["nodule", "rib"]))
    assert "2 of this participant's classes are not classes" in reason
    assert "mass" not in reason
    # A column of its own is never dropped, so that it cannot be taken for unknown.
    assert "1 of this participant's" in refused(node, node.message(classes=["mass", "nodule"]))


def test_who_knows_no_finding_has_nothing_to_teach(findings: Of) -> None:
    node = findings(np.full((40, 2), np.nan, np.float32))
    assert "knows no finding" in refused(node, node.message())


def test_findings_that_no_mix_would_know_are_not_taught(findings: Of) -> None:
    labels = np.full((40, 2), np.nan, np.float32)
    labels[:15, 0] = 1
    # 40 mixes of 4 images, each of which is known with a probability of 15 / 40: 0.8 of them.
    node = findings(labels)
    assert "hardly any mix" in refused(node, node.message())


def test_a_value_that_a_participant_lacks_is_not_taken_for_unknown(values: Of) -> None:
    node = values()
    changes = {"classes": ["age", "dose", "weight"], "target_mean": [60.0, 1.5, 70.0]}
    reason = refused(node, node.message(**changes, target_std=[12.0, 0.4, 10.0]))
    assert "lacks 1 of the values" in reason


@pytest.mark.parametrize(
    ("mean", "std"),
    [
        ([720.0, 1.5], [144.0, 0.4]), ([60.0, 1500.0], [12.0, 400.0]), ([60.0, 0.0], [12.0, 1e-9]),
        ([1e9, 1.5], [12.0, 0.4]), ([60.0, 1.5], [1e9, 0.4]), ([-60.0, 1.5], [12.0, 0.4]),
        ([60.0, 1.5], [2.0, 0.4]), ([1.5, 60.0], [0.4, 12.0]), ([], []),
    ],
)  # fmt: skip
def test_a_scale_of_values_in_another_unit_is_refused(
    values: Of, mean: list[float], std: list[float]
) -> None:
    node = values()
    reason = refused(node, node.message(target_mean=mean, target_std=std))
    assert "`target-mean`" in reason
    # Not its own, by which a server could search for it.
    assert "12" not in reason


@pytest.mark.parametrize(
    ("mean", "std", "named"),
    [
        ([60.0], [12.0], "target-mean"), ([60.0, 1.5], [12.0], "target-mean"),
        ([60.0, float("nan")], [12.0, 0.4], "target-mean"),
        ([60.0, 1e300], [12.0, 0.4], "target-mean"),
        ([60.0, 1.5], [12.0, 0.0], "target-std"), ([60.0, 1.5], [12.0, -0.4], "target-std"),
        ([60.0, 1.5], [12.0, float("inf")], "target-std"),
        (["60", "1.5"], [12.0, 0.4], "target-mean"), (60.0, [12.0, 0.4], "target-mean"),
    ],
)  # fmt: skip
def test_a_scale_that_is_none_is_refused_by_name(
    values: Of, mean: Any, std: Any, named: str
) -> None:
    node = values()
    reason = refused(node, node.message(target_mean=mean, target_std=std))
    assert f"`{named}` cannot be used" in reason


def test_a_participant_sends_means_of_values_only_where_they_hide_each(values: Of) -> None:
    node = values()
    node.agreement = replace(node.agreement, target=TargetScale((), ()))
    answer = node.answer(node.message("query"))
    sent = dict(answer.content["metrics"])
    # The normalization is agreed on, so that it is not told.
    assert set(sent) == {"num-examples", "target-mean", "target-std"}
    np.testing.assert_allclose(sent["target-mean"], VALUES.mean(0), rtol=1e-5)
    np.testing.assert_allclose(sent["target-std"], VALUES.std(0), rtol=1e-4)


def test_few_pictures_have_no_mean_to_send(values: Of) -> None:
    node = values(VALUES[:9])
    for message in (node.message(), node.message("query", target_mean=[], target_std=[])):
        assert "9 pictures or groups, too few" in refused(node, message)


def test_many_images_of_few_patients_have_no_mean_to_send(tmp_path: Path) -> None:
    of_patient = [f"patient {number % 9}" for number in range(40)]
    folder = write_folder(tmp_path / "own", NOISE, VALUES, ("age", "dose"), of_patient)
    agreement = FederationSpec((1, 16, 16), ("age", "dose"), GREY, task="regression", target=SCALE)
    node = Hospital(terms(tmp_path) | folder | {"task": "regression"}, agreement)
    message = node.message("query", target_mean=[], target_std=[])
    assert "9 pictures or groups" in refused(node, message)


def test_a_value_that_all_images_share_is_not_sent(values: Of) -> None:
    constant = VALUES.copy()
    constant[:, 1] = 1.5
    node = values(constant)
    message = node.message("query", target_mean=[], target_std=[])
    assert "the same in all images" in refused(node, message)


def test_measured_values_are_not_tested_at_a_participant(values: Of) -> None:
    node = values()
    node.own |= own_test(node)
    assert "do not test a regression" in refused(node, node.message("evaluate"), client_test=True)


def test_a_test_of_findings_tells_a_macro_auroc_and_nothing_else(findings: Of) -> None:
    node = findings()
    node.own |= own_test(node)
    answer = node.answer(node.message("evaluate"), client_test=True)
    assert set(answer.content["metrics"]) == {"num-examples", "macro-auroc"}


def test_training_images_are_not_taken_for_test_images(
    findings: Of, caplog: pytest.LogCaptureFixture
) -> None:
    node = findings()
    node.own["test"] = node.own["data"]
    assert node.refusal(node.message("evaluate"), client_test=True) == SILENCE
    assert "has no split column" in caplog.text


def test_a_test_that_is_undefined_is_refused(findings: Of) -> None:
    node = findings(np.ones((40, 2), np.float32))
    node.own |= own_test(node)
    assert "undefined" in refused(node, node.message("evaluate"), client_test=True)


@pytest.mark.parametrize(
    ("run", "named"),
    [
        ({"class_weights": "1,2"}, "`class_weights`"),
        ({"positive_weights": "1,2"}, "`positive_weights`"),
        ({"class_weights": "1,2,-3"}, "`class_weights`"),
        ({"positive_weights": "nan,1,1"}, "`positive_weights`"),
        ({"model": "small-3d"}, "small-3d"), ({"label_mode": "soft"}, "label-mode"),
        ({"federation_task": "detection"}, "`federation_task`"), ({"value_range": "5"}, "value"),
        ({"target_std": "0"}, "`target_std`"), ({"labels": "/etc/passwd"}, "`labels`"),
        ({"window": "0,1"}, "`window`"), ({"task": "regression"}, "`task`"),
        ({"group_column": "none"}, "`group-column`"), ({"label_columns": "mass"}, "label-columns"),
        ({"split_column": "any"}, "`split-column`"), ({"image_column": "any"}, "`image-column`"),
    ],
)  # fmt: skip
def test_settings_of_a_run_that_do_not_fit_are_named(
    findings: Of, run: dict[str, Any], named: str
) -> None:
    node = findings()
    assert named in refused(node, node.message(), **run)


def test_soft_labels_of_findings_with_public_images_are_refused_by_name(findings: Of) -> None:
    node = findings(scheme="cross", label_mode="soft")
    node.own["label-mode"] = node.own.pop("label_mode")
    run = {"scheme": "cross", "label_mode": "soft"}
    assert "soft labels" in refused(node, node.message(), **run)


def test_no_table_of_a_server_s_choice_is_read(
    findings: Of, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[str] = []
    opened = participant_module.open_images

    def noting(source: Any, **more: Any) -> Any:
        read.append(str(more["labels"].path))
        return opened(source, **more)

    monkeypatch.setattr(participant_module, "open_images", noting)
    node = findings()
    run = {"test": "/etc", "test_labels": "/etc/passwd", "test_label_columns": "root"}
    assert not node.answer(node.message(), **run).has_error()
    assert read == [node.own["labels"]]


def test_a_finding_that_a_participant_lacks_is_not_learned_there(findings: Of) -> None:
    node = findings()
    message = node.message(run={"weight_decay": 0.0})
    before = message.content["arrays"].to_torch_state_dict()
    answer = node.answer(message, weight_decay=0.0)
    after = next(iter(answer.content.array_records.values())).to_torch_state_dict()
    head = [name for name in after if after[name].shape[:1] == (3,)]
    assert head
    for name in head:
        changed = [bool((after[name][row] != before[name][row]).any()) for row in range(3)]
        assert changed == [True, False, True], name


def scale_of(mean: Any, std: Any, images: Any = 100) -> MetricRecord:
    return MetricRecord({"num-examples": images, "target-mean": mean, "target-std": std})


AGREED = FederationSpec((1, 8, 8), ("age",), GREY, task="regression")


@pytest.mark.parametrize(
    "metrics",
    [
        scale_of([60.0], [0.0]), scale_of([60.0], [-1.0]), scale_of([float("nan")], [12.0]),
        scale_of([60.0], [float("inf")]), scale_of([1e12], [12.0]), scale_of([60.0, 1.0], [12.0]),
        scale_of(60.0, 12.0), scale_of([60.0], [12.0], 10**15), scale_of([60.0], [12.0], 0),
        MetricRecord({"num-examples": 3, "target-mean": [60.0]}),
        MetricRecord({"num-examples": 3, "mean": [0.5], "std": [0.2]}),
        MetricRecord({"num-examples": 3, "target-mean": [6.0], "target-std": [1.0], "mean": [0.5]}),
    ],
)  # fmt: skip
def test_scales_of_clients_out_of_bounds_are_not_used(metrics: MetricRecord) -> None:
    asked = Message(RecordDict(), 5, "query")
    asked.metadata.__dict__["_message_id"] = "a message"
    answer = Message(RecordDict({"metrics": metrics}), reply_to=asked)
    with pytest.raises(InstaHideError, match="The answer"):
        read_moments(answer, AGREED)


def test_one_client_does_not_move_the_scale_of_the_others() -> None:
    honest = [scale_of([55.0 + 5 * number], [12.0]) for number in range(4)]
    for liar in (scale_of([1e9], [12.0]), scale_of([60.0], [1e9]), scale_of([60.0], [1e-9])):
        assert alike_targets([*honest, liar]) == honest
    big = scale_of([60.0], [12.0], 10**9)
    alike_targets([*honest, big])
    assert big["num-examples"] == MOST_WEIGHT * 100
    with pytest.raises(InstaHideError, match="too different"):
        alike_targets([scale_of([5.0], [0.1]), scale_of([5000.0], [100.0])])


def test_the_scale_is_that_of_all_values_together() -> None:
    parts = [VALUES[:10].astype(np.float64), VALUES[10:].astype(np.float64)]
    answers = [scale_of(list(p.mean(0)), list(p.std(0)), len(p)) for p in parts]
    found = averaged_targets(answers)
    np.testing.assert_allclose(found.mean, VALUES.astype(np.float64).mean(0))
    np.testing.assert_allclose(found.std, VALUES.astype(np.float64).std(0))


@pytest.mark.parametrize(
    "numbers",
    [
        {"macro-auroc": 1.5}, {"macro-auroc": float("nan")}, {"accuracy": 0.5}, {},
        {"macro-auroc": 0.5, "accuracy": 0.5},
    ],
)  # fmt: skip
def test_a_macro_auroc_of_a_client_is_a_share(numbers: dict[str, float]) -> None:
    checks = ReplyChecks({}, frozenset(), measured=frozenset({"macro-auroc"}))
    asked = Message(RecordDict(), 5, "evaluate")
    asked.metadata.__dict__["_message_id"] = "a message"
    content = RecordDict({"metrics": MetricRecord({"num-examples": 10, **numbers})})
    found = checks.tested([Message(content, reply_to=asked)])
    assert not found.kept
    assert set(found.dropped) == {5}


def test_arrays_are_those_of_the_number_of_findings(findings: Of) -> None:
    node = findings()
    message = node.message()
    fewer = replace(node.agreement, classes=("mass", "fluid"))
    settings = FederatedSettings.from_config(node.run_config())
    message.content["arrays"] = ArrayRecord(fewer.network(settings).state_dict())
    assert "is not an array of shape" in refused(node, message)

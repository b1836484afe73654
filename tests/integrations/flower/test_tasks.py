"""Federations on findings, measured values, groups, and pixels of other ranges."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from flwr.app import Context, RecordDict

from instahide.data import ImageTable
from instahide.encodings.ledger.ledger import Ledger
from instahide.encryption.scheme import Scheme
from instahide.errors import InstaHideError
from instahide.integrations.flower.config import FederatedSettings
from instahide.integrations.flower.federation_spec import FederationSpec
from instahide.integrations.flower.moments import own_scale
from instahide.training.data.alignment import align_to_model
from instahide.training.data.target_scale import scale_of_parts
from instahide.training.models.model_io import load_network
from tests.integrations.flower.conftest import Federation
from tests.integrations.flower.tables import digit_pairs, write_folder

Make = Callable[..., Federation]
TERMS = {"scheme": "inside", "k": 2, "max-exposure": 10**6, "device": "cpu"}


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """Participants with their own node configs."""

    def made(nodes: list[Mapping[str, Any]], **config: Any) -> Federation:
        run = {
            "scheme": "inside", "k": 2, "rounds": 1, "batch-size": 32, "lr": 0.1,
            "model": "small-group", "precision": "float32", "device": "cpu",
            "clients": len(nodes), "out": str(tmp_path / "out"),
        }  # fmt: skip
        run |= {name.replace("_", "-"): value for name, value in config.items()}
        contexts = {}
        for number, node in enumerate(nodes, start=100):
            terms = {**TERMS, "scheme": run["scheme"], "ledger": str(tmp_path / f"{number}.sqlite")}
            contexts[number] = Context(1, number, {**terms, **node}, RecordDict(), run)
        return Federation(run, contexts)

    return made


def on_images(test: Mapping[str, str]) -> dict[str, str]:
    """Settings of a server with such test images."""
    return {
        "test": test["data"],
        "test-labels": test["labels"],
        "test-label-columns": test["label-columns"],
    }


@pytest.mark.slow
def test_three_participants_learn_findings_that_one_of_them_lacks(
    make: Make, tmp_path: Path
) -> None:
    """Ten findings at two participants, one of which has 16 bits; seven, and patients, at one."""
    (all_findings, patients, deep), test = digit_pairs(3)
    names = all_findings.classes
    seven = patients.labels[:, :7]
    # Two images of each patient, and 42 of one.
    of_patient = [f"patient {max(number, 40) // 2}" for number in range(len(patients))]
    nodes = [
        write_folder(tmp_path / "all", all_findings.pixels[:, 0], all_findings.labels, names),
        write_folder(tmp_path / "some", patients.pixels[:, 0], seven, names[:7], of_patient),
        write_folder(tmp_path / "deep", deep.pixels[:, 0].astype(np.uint16) * 257, deep.labels,
                     names) | {"window": "0,65535"},
    ]  # fmt: skip
    nodes = [node | {"rescale": True} for node in nodes]
    on = on_images(write_folder(tmp_path / "test", test.pixels[:, 0], test.labels, names))
    results = make(nodes, rounds=2, local_epochs=5, **{"value-range": "0,1"}, **on).run()

    assert results["refusals"] == {}
    assert (results["task"], results["metric"]) == ("multi-label", "macro_auroc")
    # 0.93 in a run; chance is 0.5.
    assert results["macro_auroc"] > 0.5 + 0.3
    assert results["rounds"][-1]["macro_auroc"] == pytest.approx(results["macro_auroc"])
    findings = results["evaluation"]["findings"]
    assert set(findings) == set(names)
    # Those that one participant lacks are learned from the others.
    assert min(findings[name]["auroc"] for name in names[7:]) > 0.6
    by_node = {page["node"]: page for page in results["rounds"][-1]["clients"]}
    # 10 epochs, 2 images in a mix; a patient is in the mixes of all its images.
    means = [by_node[str(node)]["exposure-mean"] for node in (100, 101, 102)]
    each = len(of_patient) / len(set(of_patient))
    assert means == [20, pytest.approx(20 * each), 20]
    assert by_node["101"]["exposure-most"] >= 42 * 10
    _, card = load_network(tmp_path / "out" / "model.safetensors")
    assert (card.task, card.classes, card.value_range) == ("multi-label", names, (0.0, 1.0))
    assert Scheme.from_json(card.scheme).label_mode == "renormalised"


@pytest.mark.slow
def test_the_limit_of_a_group_is_kept_over_its_images(make: Make, tmp_path: Path) -> None:
    (pairs,), test = digit_pairs(1, rounds=1)
    pixels, labels = pairs.pixels[:120, 0], pairs.labels[:120]
    of_patient = [f"patient {number // 3}" for number in range(120)]
    own = write_folder(tmp_path / "own", pixels, labels, pairs.classes, of_patient)
    on = on_images(write_folder(tmp_path / "test", test.pixels[:, 0], test.labels, test.classes))
    with pytest.raises(InstaHideError, match="No round changed the network"):
        make([own | {"max-exposure": 2}], mean=0.3, std=0.38, **on).run()
    results = make(
        [own | {"max-exposure": 30}], mean=0.3, std=0.38, rounds=6,
        out=str(tmp_path / "again"), **on,
    ).run()  # fmt: skip
    assert 1 <= sum(len(page["clients"]) for page in results["rounds"]) < 6
    with Ledger.open(tmp_path / "100.sqlite") as ledger:
        counts = ledger.totals().counts
    # An entry of the ledger for each patient, and none above the limit.
    assert 20 < counts.max() <= 30


def values_of(images: ImageTable) -> np.ndarray[Any, Any]:
    """How much ink an image has, and how far to the right, in units of nobody's choice."""
    ink = images.pixels[:, 0].astype(np.float64)
    share = ink.sum(axis=(1, 2))
    right = (ink.sum(axis=1) * np.arange(ink.shape[2])).sum(axis=1) / share
    return np.stack([share / 1000, 40 + 10 * right], axis=1).astype(np.float32)


VALUES = ("ink", "place")


def test_a_small_spread_of_large_values_is_sent_as_it_is() -> None:
    values = np.random.default_rng(0).normal(20_000, 0.01, (50, 1)).astype(np.float32)
    images = ImageTable.from_arrays(
        np.arange(50 * 16, dtype=np.uint16).reshape(50, 1, 4, 4), values, task="regression"
    )
    assert own_scale(images).std == pytest.approx((float(values.astype(np.float64).std()),))


@pytest.mark.slow
def test_measured_values_are_learned_in_a_unit_that_all_agree_on(
    make: Make, digits: tuple[ImageTable, ImageTable], tmp_path: Path
) -> None:
    train, test = digits
    parts = [train.subset(slice(0, 80)), train.subset(slice(80, 240))]
    nodes = [
        write_folder(tmp_path / f"{n}", part.pixels[:, 0], values_of(part), VALUES)
        | {"task": "regression"}
        for n, part in enumerate(parts)
    ]
    on = on_images(write_folder(tmp_path / "test", test.pixels[:, 0], values_of(test), VALUES))
    # An empty text is no value: the learning rate is that of regressions.
    results = make(nodes, rounds=4, local_epochs=8, lr="", **on, federation_task="regression").run()
    assert results["refusals"] == {}
    assert (results["metric"], results["settings"]["lr"]) == ("r2", 0.01)
    losses = [each["loss"] for each in results["rounds"]]
    assert losses[-1] < 0.75 * losses[0]
    # In another unit, predictions would be off by many deviations. Few images with fresh keys do
    # not always teach more than the mean.
    assert results["r2"] > -0.5
    assert set(results["evaluation"]["values"]) == set(VALUES)
    _, card = load_network(tmp_path / "out" / "model.safetensors")
    whole = scale_of_parts([values_of(train)])
    np.testing.assert_allclose(card.target_mean, whole.mean, rtol=1e-5)
    np.testing.assert_allclose(card.target_std, whole.std, rtol=1e-5)


@pytest.mark.slow
def test_who_has_a_value_in_another_unit_is_refused(
    make: Make, digits: tuple[ImageTable, ImageTable], tmp_path: Path
) -> None:
    train, _ = digits
    nodes = []
    for n in range(3):
        part = train.subset(slice(80 * n, 80 * n + 80))
        values = values_of(part) * (1000 if n == 2 else 1)
        folder = write_folder(tmp_path / f"{n}", part.pixels[:, 0], values, VALUES)
        nodes.append(folder | {"task": "regression"})
    facts = {"shape": "1,8,8", "classes": ",".join(VALUES), "federation-task": "regression"}
    results = make(nodes, **facts).run()
    assert len(results["rounds"][0]["clients"]) == 2
    (reason,) = results["refusals"].values()
    assert "`target-mean` or `target-std` is too far" in reason
    assert results["r2"] is None


@pytest.mark.slow
@pytest.mark.parametrize("parts", [1, 2])
def test_fedsgd_is_gradient_descent_on_all_known_findings(
    make: Make, tmp_path: Path, parts: int
) -> None:
    """One step on plain images in two parts is the step on their union (an exact oracle)."""
    (pairs,), _ = digit_pairs(1, rounds=1)
    names, labels = pairs.classes[:4], pairs.labels[:90, :4].copy()
    labels[40:, 3] = np.nan
    # The second participant lacks the last finding, and is larger than the first.
    rows = [slice(0, 40), slice(40, 90)] if parts == 2 else [slice(0, 90)]
    nodes = []
    for n, part in enumerate(rows):
        known = 3 if n == 1 else 4
        own = pairs.pixels[:90, 0][part], labels[part][:, :known], names[:known]
        nodes.append(write_folder(tmp_path / f"{n}", *own))
    config = {
        "scheme": "plain", "strategy": "FedSGD", "lr": 0.5, "mean": 0.3, "std": 0.38,
        "schedule": "constant", "federation-task": "multi-label", "shape": "1,8,16",
        "classes": ",".join(names), "positive-weights": "3,1,1,2",
    }  # fmt: skip
    make(nodes, **config).run()
    found, card = load_network(tmp_path / "out" / "model.safetensors")

    whole = ImageTable.from_arrays(pairs.pixels[:90], labels, names, task="multi-label")
    images = align_to_model(whole, card.shape, card.classes, card, card.task)
    settings = FederatedSettings.from_config({"model": "small-group", **config})
    network = FederationSpec(card.shape, card.classes).network(settings)
    targets = torch.from_numpy(images.labels)
    losses = torch.nn.functional.binary_cross_entropy_with_logits(
        network(torch.from_numpy(images.normalized())), targets.nan_to_num(),
        pos_weight=torch.tensor([3.0, 1, 1, 2]), reduction="none",
    )  # fmt: skip
    losses[~targets.isnan()].sum().div(targets.numel()).backward()
    for after, before in zip(found.parameters(), network.parameters(), strict=True):
        assert before.grad is not None
        torch.testing.assert_close(after, before - 0.5 * before.grad, rtol=1e-3, atol=1e-5)


@pytest.mark.slow
def test_participants_report_a_mean_of_macro_aurocs_and_the_results_say_so(
    make: Make, tmp_path: Path
) -> None:
    (one, other), test = digit_pairs(2, rounds=1)
    names = one.classes
    nodes = []
    for n, part in enumerate((one, other)):
        folder = write_folder(tmp_path / f"{n}", part.pixels[:, 0], part.labels, names)
        tests = test.pixels[n::2, 0], test.labels[n::2]
        on = on_images(write_folder(tmp_path / f"test-{n}", *tests, names))
        nodes.append(folder | on)
    facts = {"shape": "1,8,16", "classes": ",".join(names), "federation-task": "multi-label"}
    run = make(nodes, client_test=True, **facts)
    results = run.run()
    assert results["refusals"] == {}
    own = [a for a in run.answers if a.metadata.message_type == "evaluate"]
    sent = [dict(answer.content["metrics"]) for answer in own]
    assert all(set(numbers) == {"num-examples", "macro-auroc"} for numbers in sent)
    expected = np.average(
        [numbers["macro-auroc"] for numbers in sent],
        weights=[numbers["num-examples"] for numbers in sent],
    )
    assert results["rounds"][0]["client-macro-auroc"] == pytest.approx(expected)
    assert "not the macro AUROC of all images together" in results["client_metric"]
    assert results["macro_auroc"] is None


def test_participants_do_not_test_regressions(make: Make) -> None:
    facts = {"shape": "1,8,8", "classes": "age", "federation-task": "regression"}
    with pytest.raises(InstaHideError, match="do not test a regression"):
        make([{"data": "digits"}], client_test=True, **facts).run()


@pytest.mark.slow
def test_volumes_of_a_stated_window_are_learned(make: Make, tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    nodes = []
    for n in range(2):
        labels = np.arange(40) % 2
        volumes = generator.integers(-1000, 400, (40, 8, 8, 8)).astype(np.int16)
        volumes[labels == 1, 2:6, 2:6, 2:6] = 300
        np.savez(tmp_path / f"{n}.npz", images=volumes[:, None], labels=labels)
        nodes.append({"data": str(tmp_path / f"{n}.npz"), "window": "-1000,400"})
    facts = {
        "shape": "1,8,8,8", "classes": "0,1", "value-range": "-1000,400", "model": "small-3d",
        "noise": 0.5,
    }  # fmt: skip
    results = make(nodes, **facts).run()
    assert results["refusals"] == {}
    assert len(results["rounds"][0]["clients"]) == 2
    _, card = load_network(tmp_path / "out" / "model.safetensors")
    assert (card.shape, card.value_range) == ((1, 8, 8, 8), (-1000.0, 400.0))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("window", "value_range", "said"),
    [
        ("full", "0,4095", "does not state the range"),
        ("1%,99%", "0,1", "does not state the range"),
        ("0,4095", "0,65535", "another range of pixels than the federation's, 0 to 65535"),
        ("0,4095", "0,255", "another range of pixels"),
        ("0,4095", "0,4095", ""),
        ("0,4095", "0,1", "another range of pixels"),
    ],
)
def test_ranges_of_pixels_are_stated_and_the_same(
    make: Make, tmp_path: Path, window: str, value_range: str, said: str
) -> None:
    pixels = np.random.default_rng(0).integers(0, 4096, (40, 8, 8)).astype(np.uint16)
    np.savez(tmp_path / "own.npz", images=pixels, labels=np.arange(40) % 2)
    node = {"data": str(tmp_path / "own.npz"), "window": window}
    facts = {"shape": "1,8,8", "classes": "0,1", "value-range": value_range, "mean": 0.5}
    run = make([node], std=0.29, **facts)
    if not said:
        assert run.run()["refusals"] == {}
        return
    with pytest.raises(InstaHideError, match="No round changed the network"):
        run.run()
    assert said in run.answers[0].error.reason
    assert "4095" not in run.answers[0].error.reason.replace("0,4095", "")


def test_test_images_in_another_unit_are_refused(make: Make, tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 4096, (40, 8, 8)).astype(np.uint16)
    np.savez(tmp_path / "test.npz", images=pixels, labels=np.arange(40) % 2)
    for value_range in ("0,1", "0,255"):
        run = make([{"data": "digits"}], test=str(tmp_path / "test.npz"), value_range=value_range)
        with pytest.raises(InstaHideError, match="in another unit"):
            run.run()


def test_dp_sgd_does_not_pass_off_images_as_patients(make: Make, tmp_path: Path) -> None:
    (pairs,), _ = digit_pairs(1, rounds=1)
    of_patient = [f"patient {number // 2}" for number in range(60)]
    part = pairs.pixels[:60, 0], pairs.labels[:60], pairs.classes
    node = write_folder(tmp_path / "own", *part, of_patient)
    facts = {"shape": "1,8,16", "classes": ",".join(pairs.classes)}
    facts |= {"federation-task": "multi-label"}
    run = make([node], dp=True, scheme="plain", mean=0.3, std=0.38, **facts)
    with pytest.raises(InstaHideError, match="No round changed the network"):
        run.run()
    assert "its images have groups" in run.answers[0].error.reason


@pytest.mark.filterwarnings("ignore:Full backward hook is firing")
def test_dp_sgd_learns_findings(make: Make, tmp_path: Path) -> None:
    (pairs,), _ = digit_pairs(1, rounds=1)
    node = write_folder(tmp_path / "own", pairs.pixels[:60, 0], pairs.labels[:60], pairs.classes)
    facts = {"shape": "1,8,16", "classes": ",".join(pairs.classes)}
    facts |= {"federation-task": "multi-label"}
    results = make([node], dp=True, scheme="plain", mean=0.3, std=0.38, **facts).run()
    assert results["rounds"][0]["epsilon"] > 0
    # It has no noise, so that two rounds would show the values of an image that came in between.
    assert "loss" not in str(results["rounds"])

"""Whose word counts: the run's, or the node's own."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from instahide.encryption.exposure import Exposure
from instahide.encryption.scheme import Scheme
from instahide.errors import ExposureLimitError
from instahide.integrations.flower.client.local_training import require_room
from instahide.integrations.flower.client.participant import Participant, is_simulated
from instahide.integrations.flower.client.participant_config import (
    NODE_ONLY,
    OF_NODES,
    OF_TABLES,
    OF_TEST_TABLES,
    REFUSED,
    groups,
)
from instahide.integrations.flower.config import FederatedSettings
from instahide.integrations.flower.errors import RefusalError

OWN = {"data": "mine", "scheme": "cross", "k": 4, "max-exposure": 5}
PART = {"partition-id": 1, "num-partitions": 3}


def test_a_node_decides_on_what_is_its_own() -> None:
    run = {
        "data": "theirs", "test": "theirs", "ledger": "elsewhere", "public": "http://10.0.0.1/pool",
        "fresh-crops": True, "size": 8, "skip-bad": True, "max-exposure": 500, "device": "cuda:7",
        "partition": "dirichlet", "alpha": 0.01, "lr": 0.3, "test-labels": "theirs.csv",
        "test-label-columns": "any", "test-image-column": "any", "test-split-column": "any",
    }  # fmt: skip
    found = Participant.open(run, OWN).settings
    default = FederatedSettings.from_config({})
    for name in NODE_ONLY:
        expected = {"data": "mine", "max_exposure": 5}.get(name, getattr(default, name))
        assert getattr(found, name) == expected, name
    assert found.lr == 0.3
    named = {"public": "pool", "size": 32, "device": "cpu", "test": "held-out"}
    found = Participant.open(run, OWN | named).settings
    assert {name: getattr(found, name) for name in named} == named


@pytest.mark.parametrize("name", REFUSED)
def test_a_run_does_not_choose_what_is_read_of_a_node_s(name: str) -> None:
    shown = name.replace("_", "-")
    values: dict[str, Any] = {"task": "multi-label", "window": "full", "rescale": True}
    value = values.get(name, "anything")
    with pytest.raises(RefusalError, match=f"run config names `{shown}`, which only"):
        Participant.open({"scheme": "cross", "k": 4, shown: value}, OWN)
    # Not even in the node's own words.
    with pytest.raises(RefusalError, match=f"run config names `{shown}`"):
        Participant.open({shown: value}, {**OWN, "labels": "labels.csv", shown: value})


@pytest.mark.parametrize("name", [*OF_TABLES, *OF_TEST_TABLES])
def test_columns_without_their_table_are_refused(name: str) -> None:
    shown = name.replace("_", "-")
    value = "multi-label" if name == "task" else "anything"
    with pytest.raises(RefusalError, match=f"`{shown}`, but no table of labels for it"):
        Participant.open({}, OWN | {"test": "held-out", shown: value})


def test_a_setting_in_both_spellings_is_refused() -> None:
    with pytest.raises(RefusalError, match="names a setting twice"):
        Participant.open({}, {**OWN, "max-exposure": 5, "max_exposure": 5000})


def test_a_node_s_table_and_window_are_its_own() -> None:
    own = {
        "labels": "labels.csv", "image-column": "image", "label-columns": "mass, nodule",
        "group-column": "patient", "split-column": "part", "window": "-1000,400",
    }  # fmt: skip
    settings = Participant.open({"federation-task": "regression"}, OWN | own).settings
    assert settings.labels_task == "multi-label"
    options = settings.read_options()
    assert options["window"] == (-1000.0, 400.0)
    table = options["labels"]
    assert table is not None
    assert table.label_columns == ("mass", "nodule")
    assert (table.path, table.image_column, table.group_column, table.split_column) == (
        "labels.csv", "image", "patient", "part"
    )  # fmt: skip


@pytest.mark.parametrize("name", ["label-columns", "group-column", "split-column", "image-column"])
def test_columns_without_a_table_are_not_passed_over(name: str) -> None:
    with pytest.raises(RefusalError, match=f"names `{name}`, but no table"):
        Participant.open({}, OWN | {name: "patient"})


@pytest.mark.parametrize("mode", ["soft", "renormalised"])
def test_the_label_mode_that_is_meant_by_none_is_that_of_the_node_s_labels(mode: str) -> None:
    own = OWN | {"labels": "labels.csv", "label-columns": "mass,nodule"}
    run = {"scheme": "cross", "k": 4}
    Participant.open(run, own)
    if mode == "soft":
        with pytest.raises(RefusalError, match="label-mode is 'renormalised'"):
            Participant.open(run | {"label-mode": mode}, own)
    else:
        Participant.open(run | {"label-mode": mode}, own)


def test_every_setting_is_decided_by_exactly_one_group() -> None:
    named = [name for group in groups().values() for name in group]
    assert len(named) == len(set(named))
    assert set(named) == set(FederatedSettings.model_fields)


def test_the_guide_says_who_decides_each_setting() -> None:
    page = Path(__file__).resolve().parents[4] / "docs" / "federated.md"
    rows = [
        line for line in page.read_text(encoding="utf-8").splitlines() if line.startswith("| `")
    ]
    names = {name for row in rows for name in re.findall(r"`([a-z0-9-]+)`", row.split("|")[1])}
    decided = {name for who, group in groups().items() if who != "unused" for name in group}
    assert {name.replace("_", "-") for name in (*decided, *OF_NODES)} - names == set()


@pytest.mark.parametrize("missing", ["data", "scheme", "k", "max-exposure"])
def test_a_node_that_does_not_name_its_terms_takes_no_part(missing: str) -> None:
    own = {name: value for name, value in OWN.items() if name != missing}
    run = {"scheme": "cross", "k": 4, "max-exposure": 5, "data": "theirs"}
    for incomplete in (own, own | {missing: ""}):
        with pytest.raises(RefusalError, match=f"does not name `{missing}`"):
            Participant.open(run, incomplete)
    with pytest.raises(RefusalError, match="`data`, `scheme`, `k`, `max-exposure`"):
        Participant.open(run, {})


def test_parts_of_a_data_set_are_no_terms_outside_of_the_simulation_engine() -> None:
    assert not is_simulated()
    with pytest.raises(RefusalError, match="`data`, `scheme`, `k`, `max-exposure`"):
        Participant.open({"data": "/etc/passwd", "scheme": "plain"}, PART)


def test_the_ledger_is_the_node_s_own() -> None:
    node = Participant.open({"ledger": "elsewhere"}, OWN)
    assert str(node.ledger()) == os.environ["INSTAHIDE_LEDGER"]


@pytest.mark.parametrize("own", [{"max-exposre": 5}, {"lr": 0.1}, {"rounds": 3}, {"\x1b[2J": 1}])
def test_a_slip_in_a_node_s_config_is_not_passed_over(own: dict[str, Any]) -> None:
    with pytest.raises(RefusalError, match="unknown setting") as refused:
        Participant.open({}, OWN | own)
    assert str(refused.value).isprintable()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("max-exposure", 0), ("max-exposure", True), ("max-exposure", "ten"), ("k", 2.5),
        ("k", 0), ("k", 10**400), ("c1", float("nan")), ("c1", 0.1), ("scheme", "none"),
        ("noise", -1.0), ("max-epsilon", 0), ("max-epsilon", float("inf")), ("max-epsilon", "8"),
        ("delta", 1.0), ("partition-id", 1), ("size", 0), ("model", "large"),
        ("data", "images of anna\x1b[2J"), ("window", "wide"), ("window", "400,-1000"),
        ("task", "detection"),
    ],
)  # fmt: skip
def test_a_value_that_does_not_fit_is_named_and_not_told(name: str, value: Any) -> None:
    with pytest.raises(RefusalError) as refused:
        Participant.open({}, OWN | {name: value})
    assert name in str(refused.value)
    assert "anna" not in str(refused.value)


def test_settings_that_do_not_fit_each_other_are_refused() -> None:
    with pytest.raises(RefusalError, match="partition-id"):
        Participant.open({}, OWN | {"partition-id": 3, "num-partitions": 3})
    with pytest.raises(RefusalError, match="not fit"):
        Participant.open({}, OWN | {"private-k": 5})


#: A run that is on the terms of `OWN`, and what would weaken it.
WEAKER = [
    {"scheme": "plain"}, {"scheme": "mixup"}, {"scheme": "inside"}, {"k": 2}, {"k": 3},
    {"private-k": 1}, {"private-k": 3}, {"c1": 0.9}, {"c2": 0.9, "c1": 0.6}, {"c2": 0.0},
    {"label-mode": "renormalised"}, {"coefficient-distribution": "dirichlet"},
    {"batch-size": 2}, {"batch-size": 7},
    {"local-epochs": 101}, {"strategy": "FedSGD", "gradient": "batch"},
]  # fmt: skip


@pytest.mark.parametrize("weaker", WEAKER)
def test_what_a_node_does_not_name_does_not_fall_to_the_server(weaker: dict[str, Any]) -> None:
    run = {"scheme": "cross", "k": 4}
    assert Participant.open(run, OWN).settings.encryption() == Scheme.cross(4)
    with pytest.raises(RefusalError, match="takes part if"):
        Participant.open(run | weaker, OWN)


@pytest.mark.parametrize(
    ("term", "weaker"),
    [
        ({"private-k": 3}, {}), ({"c1": 0.5}, {}), ({"c1": 0.5}, {"c1": 0.55}),
        ({"noise": 0.5}, {}), ({"noise": 0.5}, {"noise": 0.4}),
        ({"batch-size": 64}, {"batch-size": 32}),
        ({"local-epochs": 2}, {"local-epochs": 3}), ({"model": "small-group"}, {"model": "small"}),
        ({"precision": "float32"}, {"precision": "bfloat16"}), ({"flip": True}, {}),
        ({"crop-padding": 2}, {"crop-padding": 3}),
    ],
)  # fmt: skip
def test_a_run_that_is_not_on_the_terms_that_a_node_names_is_refused(
    term: dict[str, Any], weaker: dict[str, Any]
) -> None:
    run = {"scheme": "cross", "k": 4}
    Participant.open(run | term, OWN | term)
    with pytest.raises(RefusalError, match="takes part if"):
        Participant.open(run | weaker, OWN | term)


def test_more_noise_and_larger_batches_than_a_node_asks_for_are_welcome() -> None:
    run = {"scheme": "cross", "k": 4, "noise": 2.0, "batch-size": 512, "local-epochs": 1}
    own = OWN | {"noise": 0.5, "batch-size": 64, "local-epochs": 2}
    assert Participant.open(run, own).settings.noise == 2.0


@pytest.mark.parametrize(
    ("run", "named"),
    [
        ({"mask": False}, "`mask`"), ({"evaluate": True}, "`evaluate`"), ({"lr": "high"}, "`lr`"),
        ({"model": "\x1b[31mred"}, "`model`"), ({"model": "huge"}, "`model`"),
        ({"model": "os:system"}, "`model`"), ({"model": "monai:DenseNet121"}, "`model`"),
        ({"model": "timm:resnet18"}, "`model`"), ({"weights": "weights.pt"}, "`weights`"),
        ({"\u202egnitteS": 1}, "?gnitteS"), ({"x" * 5000: 1}, "xxx..."),
        ({"local-epochs": 1, "local_epochs": 9}, "`local_epochs`"), ({"k": 10**400}, "k is"),
        ({"seed": -1}, "`seed`"), ({"lr": float("nan")}, "`lr`"), ({"rounds": 10**12}, "`rounds`"),
        ({"epochs": 3}, "`epochs`"), ({"dp": True}, "DP-SGD"), ({"c1": 0.01}, "c1 = 0.01"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_run_config_is_named_to_the_server(
    run: dict[str, Any], named: str
) -> None:
    with pytest.raises(RefusalError) as refused:
        Participant.open({"scheme": "cross", "k": 4} | run, OWN)
    said = str(refused.value)
    assert named in said
    assert said.isprintable()
    assert len(said) < 4000


def test_nodes_that_share_a_data_set_share_no_image_and_no_ledger(tmp_path: Path) -> None:
    own = {**OWN, "data": "digits", "ledger": str(tmp_path / "ledger.sqlite")}
    nodes = [Participant.open({}, own | PART | {"partition-id": part}) for part in range(3)]
    assert len({node.ledger() for node in nodes}) == 3
    tables = [node.images() for node in nodes]
    assert sum(map(len, tables)) == 1438
    # A part has a mean of its own, which it may be asked for.
    assert len({table.mean for table in tables}) == 3


def test_a_run_may_not_move_images_far() -> None:
    run = {"scheme": "cross", "k": 4, "crop-padding": 8}
    Participant.open(run, OWN).require_crop((3, 32, 32))
    with pytest.raises(RefusalError, match="above 7, a quarter"):
        Participant.open(run, OWN).require_crop((1, 28, 30))
    Participant.open(run, OWN | {"crop-padding": 8}).require_crop((1, 28, 30))


@pytest.mark.parametrize(
    ("limit", "passes", "certain"), [(3, 1, False), (3, 2, True), (2, 3, True)]
)
def test_a_round_is_refused_beforehand_where_it_is_certain_to_pass_the_limit(
    limit: int, passes: int, certain: bool
) -> None:
    exposure = Exposure(10, limit=limit)
    if not certain:
        require_room(exposure, Scheme.inside(2), passes, np.arange(10))
        # One image is one encoding short of its limit: it has no room for its own.
        exposure.record(np.array([[0], [0], [0]]), np.ones((3, 1), np.float32))
    with pytest.raises(ExposureLimitError):
        require_room(exposure, Scheme.inside(2), passes, np.arange(10))


def test_a_group_is_in_an_encoding_for_each_of_its_images() -> None:
    exposure = Exposure(12, limit=3)
    pairs, fours = np.arange(12) // 2, np.arange(12) // 4
    exposure.group(pairs)
    require_room(exposure, Scheme.inside(1), 1, pairs)
    with pytest.raises(ExposureLimitError):
        require_room(exposure, Scheme.inside(1), 2, pairs)
    exposure.group(fours)
    with pytest.raises(ExposureLimitError):
        require_room(exposure, Scheme.inside(1), 1, fours)

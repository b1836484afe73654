"""Whose word counts: the run's, or the node's own."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from instahide.encryption.exposure import Exposure, ExposureLimitError
from instahide.encryption.scheme import Scheme
from instahide.learning.flower.local import require_room
from instahide.learning.flower.node import Node
from instahide.learning.flower.refusal import RefusalError

PART = {"partition-id": 1, "num-partitions": 3}


def test_a_node_has_the_last_word_on_what_is_its_own() -> None:
    own = {"data": "mine", "max-exposure": 5, "device": "cpu"}
    node = Node.open({"data": "theirs", "max-exposure": 500, "lr": 0.3}, own)
    assert (node.settings.data, node.settings.max_exposure) == ("mine", 5)
    assert node.settings.lr == 0.3


def test_whoever_starts_a_run_decides_neither_what_a_node_reads_nor_where_it_counts() -> None:
    run = {"data": "theirs", "test": "theirs", "ledger": "elsewhere"}
    node = Node.open(run, {"data": "mine"})
    assert (node.settings.test, node.settings.ledger) == (None, None)
    assert str(node._ledger()) == os.environ["INSTAHIDE_LEDGER"]
    with pytest.raises(RefusalError, match="does not say which images are its own"):
        Node.open(run, {})


@pytest.mark.parametrize("own", [{"max-exposre": 5}, {"lr": 0.1}, {"dp": True}])
def test_a_slip_in_a_node_s_config_is_not_passed_over(own: dict[str, Any]) -> None:
    with pytest.raises(RefusalError, match="no setting of a node"):
        Node.open({}, {"data": "mine", **own})


@pytest.mark.parametrize(
    "run", [{"scheme": "plain"}, {"scheme": "cross", "k": 2}, {"private-k": 3}, {"c1": 0.9}]
)
def test_a_run_that_encrypts_less_than_a_node_insists_on_is_refused(run: dict[str, Any]) -> None:
    own = {"data": "mine", "scheme": "cross", "k": 4, "private-k": 2, "c1": 0.65}
    agreed = {"scheme": "cross", "k": 4}
    assert Node.open(agreed, own).settings.encryption() == Scheme.cross(4)
    with pytest.raises(RefusalError, match="takes part if"):
        Node.open(agreed | run, own)


def test_nodes_that_share_a_data_set_share_no_image_and_no_ledger(tmp_path: Path) -> None:
    run = {"data": "digits", "ledger": str(tmp_path / "ledger.sqlite")}
    nodes = [Node.open(run, PART | {"partition-id": part}) for part in range(3)]
    assert len({node._ledger() for node in nodes}) == 3
    tables = [node.images() for node in nodes]
    assert sum(map(len, tables)) == 1438
    # A part has a mean of its own, which it may be asked for.
    assert len({table.mean for table in tables}) == 3


@pytest.mark.parametrize(
    ("limit", "passes", "certain"), [(3, 1, False), (3, 2, True), (2, 3, True)]
)
def test_a_round_is_refused_beforehand_where_it_is_certain_to_pass_the_limit(
    limit: int, passes: int, certain: bool
) -> None:
    exposure = Exposure(10, limit=limit)
    if not certain:
        require_room(exposure, Scheme.inside(2), passes)
        # One image is one encoding short of its limit: it has no room for its own.
        exposure.take(np.array([[0], [0], [0]]), np.ones((3, 1), np.float32))
    with pytest.raises(ExposureLimitError):
        require_room(exposure, Scheme.inside(2), passes)

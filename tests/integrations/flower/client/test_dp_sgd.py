"""The DP-SGD baseline: what it spends, what it remembers, what it refuses."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from opacus.accountants import RDPAccountant

from instahide.errors import InstaHideError
from instahide.integrations.flower.client import dp_sgd

# PyTorch's, of hooks that Opacus puts on the first layer.
pytestmark = pytest.mark.filterwarnings("ignore:Full backward hook is firing")
Make = Callable[..., Any]
PART = {"partition-id": 0, "num-partitions": 2}
MOMENTS = {"mean": 0.3, "std": 0.38}
DP = {"dp": True, "scheme": "plain", "batch_size": 25, "noise_multiplier": 2.0, "delta": 1e-4}


def test_epsilon_grows_over_rounds_and_runs_as_one_accountant_over_all_of_them(
    federation: Make, tmp_path: Path
) -> None:
    node = {"partition-id": 0, "num-partitions": 6}
    spent = [
        page["epsilon"]
        for _ in range(2)
        for page in federation([node], clients=1, **DP).run()["rounds"]
    ]
    # About 40 images, 25 to a batch: two steps a round, each of half the images.
    for steps, epsilon in zip((2, 4, 6, 8), spent, strict=True):
        oracle = RDPAccountant()
        oracle.history = [(2.0, 0.5, steps)]
        assert epsilon == pytest.approx(oracle.get_epsilon(1e-4))
    file = dp_sgd.history_file(tmp_path / "ledger-0.sqlite")
    assert dp_sgd.read_history(file) == [(2.0, 0.5, 8)]


def test_a_round_that_would_pass_the_node_s_max_epsilon_is_refused_beforehand(
    federation: Make, tmp_path: Path
) -> None:
    oracle = RDPAccountant()
    oracle.history = [(2.0, 0.5, 4)]
    most = oracle.get_epsilon(1e-5)
    node = {"partition-id": 0, "num-partitions": 6, "max-epsilon": most * 1.001, "delta": 1e-5}
    run = federation([node], clients=1, **{**DP, "rounds": 4})
    pages = run.run()["rounds"]
    assert [len(page["clients"]) for page in pages] == [1, 1, 0, 0]
    assert "above its `max-epsilon`" in pages[2]["failures"][0]["reason"]
    file = dp_sgd.history_file(tmp_path / "ledger-0.sqlite")
    assert dp_sgd.read_history(file) == [(2.0, 0.5, 4)]


@pytest.mark.parametrize("text", ["", "[[2.0, 0.5, -4]]", "[[0, 0.5, 4]]", "{}", "[[NaN, 0.5, 4]]"])
def test_a_damaged_history_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "history").write_text(text)
    with pytest.raises(InstaHideError, match="does not hold the history"):
        dp_sgd.read_history(tmp_path / "history")


def test_a_node_that_insists_on_noise_takes_no_less(federation: Make) -> None:
    run = federation([PART | {"dp": True, "noise-multiplier": 3.0}], clients=1, **DP, **MOMENTS)
    with pytest.raises(InstaHideError, match="No client took part"):
        run.run()
    assert "noise-multiplier is at least 3.0" in run.answers[0].error.reason
    run = federation([PART | {"dp": True}], clients=1, scheme="plain", **MOMENTS)
    with pytest.raises(InstaHideError, match="No client took part"):
        run.run()
    assert "dp is True" in run.answers[0].error.reason


def test_generators_of_two_processes_do_not_begin_alike() -> None:
    """PyTorch's own do, and so would everybody's noise."""
    seeds = {dp_sgd._generator().initial_seed() for _ in range(10)}
    assert len(seeds) == 10


def test_images_must_not_meet_in_a_batch(federation: Make) -> None:
    run = federation(**DP, model="small", mean=0.3, std=0.38)
    with pytest.raises(ValueError, match="No client took part"):
        run.run()
    assert "without batch normalization" in run.answers[0].error.reason

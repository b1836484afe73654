"""The DP-SGD baseline: what it spends, what it remembers, what it refuses."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from flwr.app import RecordDict
from opacus.accountants import RDPAccountant

from instahide.learning.flower import private
from instahide.learning.flower.settings import FederatedSettings

# PyTorch's, of hooks that Opacus puts on the first layer.
pytestmark = pytest.mark.filterwarnings("ignore:Full backward hook is firing")
Make = Callable[..., Any]
DP = {"dp": True, "scheme": "plain", "batch_size": 25, "noise_multiplier": 2.0, "delta": 1e-4}


def test_epsilon_grows_over_rounds_as_one_accountant_over_all_of_them(federation: Make) -> None:
    run = federation([{"partition-id": 0, "num-partitions": 6}], clients=1, **DP)
    spent = [page["epsilon"] for page in run.run()["rounds"]]
    # About 40 images, 25 to a batch: two steps a round, each of half the images.
    for steps, epsilon in zip((2, 4), spent, strict=True):
        oracle = RDPAccountant()
        oracle.history = [(2.0, 0.5, steps)]
        assert epsilon == pytest.approx(oracle.get_epsilon(1e-4))
    for context in run.contexts.values():
        memory = context.state[private.MEMORY]
        assert dict(memory) == {"noise": [2.0], "rate": [0.5], "steps": [4]}


def test_who_remembers_nothing_counts_all_rounds_before() -> None:
    settings = FederatedSettings.from_config({"dp": True, "scheme": "plain", "local-epochs": 3})
    assert private._history(RecordDict(), settings, 1, 0.25) == []
    assert private._history(RecordDict(), settings, 4, 0.25) == [(1.0, 0.25, 3 * 3 * 4)]


def test_generators_of_two_processes_do_not_begin_alike() -> None:
    """PyTorch's own do, and so would everybody's noise."""
    seeds = {private._generator().initial_seed() for _ in range(10)}
    assert len(seeds) == 10


def test_images_must_not_meet_in_a_batch(federation: Make) -> None:
    run = federation(**DP, model="small", mean=0.3, std=0.38)
    with pytest.raises(ValueError, match="No client took part"):
        run.run()
    assert "without batch normalisation" in run.answers[0].error.reason

"""Strategies by name, with their arguments, or a sentence that says why not."""

from __future__ import annotations

from typing import Any

import pytest

from instahide.errors import InstaHideError
from instahide.integrations.flower.config import FederatedSettings
from instahide.integrations.flower.server.strategies import NAMES, FedSGD, make_strategy
from instahide.training.models import build


def made(strategy: str, arguments: str = "", model: str = "small-group") -> Any:
    config = {"strategy": strategy, "strategy-arguments": arguments, "model": model}
    network = build(model, 1, 10, sign_invariant=True, seed=0)
    return make_strategy(FederatedSettings.from_config(config), network)


@pytest.mark.parametrize("name", NAMES)
def test_every_strategy_can_be_had(name: str) -> None:
    arguments = "client-learning-rate=0.1" if name == "QFedAvg" else ""
    strategy = made(name, arguments)
    assert type(strategy).__name__ == name
    assert strategy.min_available_nodes == 2


def test_arguments_are_passed_on() -> None:
    assert made("FedAdam", "eta=0.25 tau=0.5").eta == 0.25
    assert made("FedProx", "proximal-mu=0.5").proximal_mu == 0.5
    assert made("FedAvg", "fraction-train=0.5").fraction_train == 0.5
    strategy = made("FedSGD", "momentum=0.9")
    assert isinstance(strategy, FedSGD)
    assert strategy.momentum == 0.9


@pytest.mark.parametrize(
    ("name", "arguments", "model", "problem"),
    [
        ("FedFoo", "", "small", "no strategy `FedFoo`"),
        ("FedAvg", "eta=1.0", "small", "FedAvg does not take `eta=1.0`"),
        ("FedSGD", "eta=1.0", "small", "FedSGD does not take `eta=1.0`"),
        ("QFedAvg", "", "small-group", "client_learning_rate"),
        ("FedAvg", "eta=[", "small", "cannot be read"),
        ("FedAdam", "", "small", "running variances"),
    ],
)
def test_what_cannot_be_is_refused(name: str, arguments: str, model: str, problem: str) -> None:
    with pytest.raises(InstaHideError, match=problem):
        made(name, arguments, model)

"""What clients may answer: bad answers are dropped and named, and the round goes on."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from flwr.app import (
    Array,
    ArrayRecord,
    ConfigRecord,
    Error,
    Message,
    MetricRecord,
    RecordDict,
)

from instahide.errors import InstaHideError
from instahide.integrations.flower.config import FederatedSettings
from instahide.integrations.flower.federation_spec import FederationSpec
from instahide.integrations.flower.server.negotiation import alike, read_moments
from instahide.integrations.flower.server.reply_checks import MOST_WEIGHT
from instahide.integrations.flower.server.round_log import LoggedStrategy, RoundLog
from instahide.integrations.flower.server.strategies import NAMES, make_strategy
from instahide.training.models import build

Make = Callable[..., Any]
ALL = ("FedSGD", *NAMES)
FIRST = "network.0.weight"
GREY = FederationSpec((1, 8, 8), ("0", "1"))
GOOD = {
    "num-examples": 100, "loss": 1.5, "exposure-least": 1, "exposure-mean": 2.0, "exposure-most": 3,
}  # fmt: skip


class Round:
    """One round of a strategy: five honest clients, and whatever else answers."""

    def __init__(self, name: str, model: str = "small-group") -> None:
        arguments = "client-learning-rate=0.1" if name == "QFedAvg" else ""
        config = {"strategy": name, "strategy-arguments": arguments, "model": model}
        self.network = build(model, 1, 10, sign_invariant=True, seed=0)
        self.strategy = make_strategy(FederatedSettings.from_config(config), self.network)
        self.honest = [self.answer(node, seed=node) for node in range(1, 6)]

    def arrays(self, seed: int, far: float = 0.01) -> dict[str, np.ndarray[Any, Any]]:
        generator = np.random.default_rng(seed)
        by_gradient = type(self.strategy).__name__ == "FedSGD"
        found = {}
        for name, value in self.network.state_dict().items():
            start = value.numpy()
            if start.dtype.kind == "f":
                step = far * generator.standard_normal(start.shape)
                start = (step if by_gradient else start + step).astype(start.dtype)
            found[name] = start
        return found

    def answer(self, node: int, seed: int = 0, **changes: Any) -> Message:
        """An answer of ``node``, with other metrics or, of the same name, arrays."""
        arrays = {n: Array(v) for n, v in self.arrays(seed, changes.pop("far", 0.01)).items()}
        metrics = dict(GOOD)
        for name, value in changes.items():
            if value is None:
                del metrics[name.replace("_", "-")]
            else:
                metrics[name.replace("_", "-")] = value
        content = RecordDict({"arrays": ArrayRecord(arrays), "metrics": MetricRecord(metrics)})
        return reply(node, content)

    def run(self, *more: Message) -> dict[str, np.ndarray[Any, Any]] | None:
        """The network after a round with the honest answers and ``more`` of them."""
        self.strategy.configure_train = lambda *_: []  # type: ignore[method-assign]
        self.strategy.checks.begin(ArrayRecord(self.network.state_dict()))
        for name in ("_arrays", "current_arrays"):
            if hasattr(self.strategy, name):
                state = self.network.state_dict()
                by_name = type(self.strategy).__name__ in ("FedAdagrad", "FedAdam", "FedYogi")
                plain = {key: value.numpy() for key, value in state.items()}
                setattr(self.strategy, name, plain if by_name else ArrayRecord(state))
        found, self.metrics = self.strategy.aggregate_train(1, [*more, *self.honest])
        return None if found is None else {name: found[name].numpy() for name in found}


def reply(node: int, content: RecordDict | Error) -> Message:
    asked = Message(RecordDict(), node, "train")
    asked.metadata.__dict__["_message_id"] = "a message"
    return Message(content, reply_to=asked)


def damaged(change: Callable[[dict[str, np.ndarray[Any, Any]]], Any]) -> Callable[[Round], Message]:
    def make(here: Round) -> Message:
        values = here.arrays(9)
        change(values)
        message = here.answer(66)
        message.content["arrays"] = ArrayRecord({n: Array(v) for n, v in values.items()})
        return message

    return make


def fill(value: float) -> Callable[[dict[str, np.ndarray[Any, Any]]], Any]:
    return lambda values: values[FIRST].__setitem__((0, 0, 0, 0), value)


def with_records(**records: Any) -> Callable[[Round], Message]:
    def make(here: Round) -> Message:
        message = here.answer(66)
        content = {**dict(message.content), **records}
        message.content = RecordDict(
            {n: value for n, value in content.items() if value is not None}
        )
        return message

    return make


BAD: dict[str, Callable[[Round], Message]] = {
    "nan": damaged(fill(np.nan)),
    "inf": damaged(fill(-np.inf)),
    "one huge value": damaged(fill(1e30)),
    "missing array": damaged(lambda values: values.pop(FIRST)),
    "further array": damaged(lambda values: values.update({"\x1b[2J": np.zeros(3)})),
    "wrong shape": damaged(lambda values: values.update({FIRST: np.zeros((4, 4), np.float32)})),
    "broadcast": damaged(lambda values: values.update({FIRST: np.zeros((), np.float32)})),
    "wrong type": damaged(lambda values: values.update({FIRST: values[FIRST].astype(np.float64)})),
    "too far": lambda here: here.answer(66, far=50.0),
    "far beyond the median": lambda here: here.answer(66, far=0.2),
    "no images": lambda here: here.answer(66, num_examples=None),
    "no image": lambda here: here.answer(66, num_examples=0),
    "negative images": lambda here: here.answer(66, num_examples=-100),
    "a part of an image": lambda here: here.answer(66, num_examples=100.5),
    "nan images": lambda here: here.answer(66, num_examples=float("nan")),
    "10^15 images": lambda here: here.answer(66, num_examples=10**15),
    "a list of images": lambda here: here.answer(66, num_examples=[100, 100]),
    "no loss": lambda here: here.answer(66, loss=None),
    "nan loss": lambda here: here.answer(66, loss=float("nan")),
    "negative loss": lambda here: here.answer(66, loss=-1.0),
    "infinite loss": lambda here: here.answer(66, loss=float("inf")),
    "negative exposure": lambda here: here.answer(66, exposure_most=-1),
    "further metric": lambda here: here.answer(66, **{"\x1b[2J": 1.0}),
    "no records": with_records(arrays=None, metrics=None),
    "no arrays": with_records(arrays=None),
    "no metrics": with_records(metrics=None),
    "further record": with_records(more=ConfigRecord({"a": 1})),
    "arrays are metrics": with_records(arrays=MetricRecord({"a": 1})),
    "metrics are arrays": with_records(metrics=ArrayRecord()),
    "further arrays": with_records(more=ArrayRecord({"a": Array(np.zeros(3))})),
    "refusal": lambda here: reply(66, Error(2, "\x1b[2J\u202e" + "x" * 10_000)),
    "refusal without words": lambda here: reply(66, Error(2, "")),
}


@pytest.mark.parametrize("name", ALL)
def test_bad_answers_are_dropped_and_named_and_the_round_goes_on(name: str) -> None:
    """The network is bit for bit that of a round in which the bad answers never came."""
    without, here = Round(name).run(), Round(name)
    messages = {}
    for node, bad in enumerate(BAD, start=66):
        messages[node] = BAD[bad](here)
        messages[node].metadata.__dict__["_src_node_id"] = node
    found = here.run(*messages.values())
    assert without is not None
    assert found is not None
    for key, values in without.items():
        np.testing.assert_array_equal(found[key], values)
    dropped = here.strategy.last.dropped
    assert set(dropped) == set(messages)
    for reason in dropped.values():
        assert reason
        assert reason.isprintable()
        assert len(reason) <= 700


def test_running_variances_are_not_negative() -> None:
    here = Round("FedAvg", model="small")
    name = next(name for name in here.network.state_dict() if name.endswith("running_var"))
    found = here.run(damaged(lambda values: values[name].__setitem__(0, -0.5))(here))
    assert found is not None
    assert "negative variance" in here.strategy.last.dropped[66]


@pytest.mark.parametrize("claim", [10**9, 10**8, 10**5])
def test_no_claim_of_images_counts_for_more_than_a_few_clients(claim: int) -> None:
    here = Round("FedAvg")
    liar = here.answer(66, seed=66, num_examples=claim)
    found = here.run(liar)
    assert found is not None
    weights = np.array([MOST_WEIGHT * 100, 100, 100, 100, 100, 100], np.float64)
    arrays = [here.arrays(seed)[FIRST] for seed in (66, 1, 2, 3, 4, 5)]
    expected = np.average(arrays, axis=0, weights=weights)
    np.testing.assert_allclose(found[FIRST], expected, rtol=1e-4, atol=1e-6)
    # What it said is in the log.
    assert here.strategy.last.numbers[66]["num-examples"] == claim


def test_a_node_does_not_count_for_more_than_it_said_at_first() -> None:
    here = Round("FedAvg")
    first = here.run(here.answer(66, seed=66))
    here.honest = [here.answer(node, seed=node) for node in range(1, 6)]
    again = here.run(here.answer(66, seed=66, num_examples=900))
    assert first is not None
    assert again is not None
    np.testing.assert_array_equal(first[FIRST], again[FIRST])


def test_a_node_answers_once() -> None:
    here = Round("FedAvg")
    without = here.run()
    here.honest = [here.answer(node, seed=node) for node in range(1, 6)]
    # Its second answer, behind its first.
    here.honest.append(here.answer(5, seed=77))
    found = here.run()
    assert without is not None
    assert found is not None
    np.testing.assert_array_equal(found[FIRST], without[FIRST])


@pytest.mark.parametrize("name", ["FedAvg", "FedSGD", "FedMedian", "Krum"])
def test_a_round_of_bad_answers_only_changes_nothing(name: str) -> None:
    here = Round(name)
    here.honest = []
    assert here.run(here.answer(66, loss=None), reply(67, Error(2, "no"))) is None
    assert set(here.strategy.last.dropped) == {66, 67}


@pytest.mark.slow
@pytest.mark.parametrize("name", ALL)
def test_exposures_of_a_round_are_those_of_all_clients(name: str) -> None:
    here = Round(name)
    here.honest = [
        here.answer(node, seed=node, exposure_least=node, exposure_most=10 * node)
        for node in range(1, 6)
    ]
    here.run()
    metrics = here.metrics
    assert metrics is not None
    found = {key: metrics[key] for key in ("num-examples", "exposure-least", "exposure-most")}
    assert found == {"num-examples": 500, "exposure-least": 1, "exposure-most": 50}


def test_a_round_whose_answers_give_no_network_is_marked_as_failed() -> None:
    here = Round("Bulyan")
    here.honest = here.honest[:2]
    here.strategy.configure_train = lambda *_: here.honest  # type: ignore[method-assign]
    here.strategy.checks.begin(ArrayRecord(here.network.state_dict()))
    log = RoundLog({}, None)
    logged = LoggedStrategy(here.strategy, log)
    logged.configure_train(1, ArrayRecord(), ConfigRecord(), None)  # type: ignore[arg-type]
    arrays, _ = logged.aggregate_train(1, here.honest)
    assert arrays is None
    (entry,) = log.rounds
    assert [client["node"] for client in entry["clients"]] == ["1", "2"]
    assert entry["exposure-most"] == 3
    assert "the network is unchanged" in entry["failed"]


def test_two_clients_cannot_outvote_each_other() -> None:
    """With two answers the median says nothing, but no answer may move the network far."""
    here = Round("FedAvg")
    here.honest = here.honest[:1]
    assert here.run(here.answer(66, far=0.2)) is not None
    assert here.strategy.last.dropped == {}
    here = Round("FedAvg")
    here.honest = here.honest[:1]
    here.run(here.answer(66, far=50.0))
    assert "would change the network by" in here.strategy.last.dropped[66]


def test_bad_answers_are_in_the_results_with_their_reasons(
    federation: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = federation(mean=0.3, std=0.38, client_test=True)
    ask = run.ask

    def lying(message: Message) -> Message:
        answer: Message = ask(message)
        if message.metadata.dst_node_id == 101:
            metrics = answer.content["metrics"]
            metrics["accuracy" if "accuracy" in metrics else "loss"] = float("nan")
        return answer

    monkeypatch.setattr(run, "ask", lying)
    results = run.run()
    for page in results["rounds"]:
        assert [client["node"] for client in page["clients"]] == ["100"]
        reasons = [failure["reason"] for failure in page["failures"]]
        assert ["loss" in reason or "accuracy" in reason for reason in reasons] == [True, True]
    assert results["rounds"][-1]["client-accuracy"] >= 0


def test_a_federation_of_liars_fails_clearly(
    federation: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = federation(mean=0.3, std=0.38)
    ask = run.ask

    def lying(message: Message) -> Message:
        answer: Message = ask(message)
        answer.content["metrics"]["num-examples"] = -1
        return answer

    monkeypatch.setattr(run, "ask", lying)
    with pytest.raises(InstaHideError, match="No round changed the network"):
        run.run()
    results = json.loads((Path(run.config["out"]) / "results.json").read_text(encoding="utf-8"))
    assert all(page["failed"].startswith("No client's answer") for page in results["rounds"])
    assert set(results["refusals"]) == {"100", "101"}


def moments_of(mean: Any, std: Any, images: Any = 100) -> MetricRecord:
    return MetricRecord({"num-examples": images, "mean": mean, "std": std})


@pytest.mark.parametrize(
    "metrics",
    [
        moments_of([0.5], [0.0]), moments_of([1.5], [0.2]), moments_of([float("nan")], [0.2]),
        moments_of([0.5, 0.5], [0.2, 0.2]), moments_of(0.5, 0.2), moments_of([0.5], [0.2], 10**15),
        moments_of([0.5], [0.2], -1), MetricRecord({"num-examples": 3, "mean": [0.5]}),
        MetricRecord({}), moments_of([], []),
    ],
)  # fmt: skip
def test_moments_out_of_bounds_are_not_used(metrics: MetricRecord) -> None:
    with pytest.raises(InstaHideError, match="The answer"):
        read_moments(reply(5, RecordDict({"metrics": metrics})), GREY)


def test_one_client_does_not_move_the_normalization_of_the_others() -> None:
    honest = [moments_of([0.3 + 0.02 * number], [0.25], 100) for number in range(4)]
    liar = moments_of([1.0], [0.25], 10**9)
    assert alike([*honest, liar]) == honest
    big = moments_of([0.4], [0.25], 10**9)
    alike([*honest, big])
    assert big["num-examples"] == MOST_WEIGHT * 100
    with pytest.raises(InstaHideError, match="too different"):
        alike([moments_of([0.0], [0.01]), moments_of([1.0], [0.01])])


def test_a_server_checks_its_own_normalization(federation: Make) -> None:
    for wrong in ({"mean": 0.5}, {"mean": "0.5,0.5", "std": "0.2,0.2"}, {"mean": 5, "std": 0.2}):
        with pytest.raises(InstaHideError, match="cannot be used"):
            federation(**wrong).run()


def test_the_network_of_the_server_is_not_changed_by_its_checks() -> None:
    here = Round("FedAvg")
    before = {name: value.clone() for name, value in here.network.state_dict().items()}
    here.run(BAD["nan"](here))
    for name, value in here.network.state_dict().items():
        assert torch.equal(value, before[name])

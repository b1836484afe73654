"""Messages of any form, both ways: an answer, a refusal with a reason, or an error of ours."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Error, Message, MetricRecord, RecordDict
from flwr.supercore.task_identity import TaskIdentity
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from instahide.integrations.flower.config import FederatedSettings
from instahide.integrations.flower.errors import SILENCE, RefusalError
from instahide.integrations.flower.federation_spec import FederationSpec
from instahide.integrations.flower.server.negotiation import read_moments
from instahide.integrations.flower.server.strategies import make_strategy
from instahide.training.data.target_scale import UNSCALED, scale_of_parts
from instahide.training.models import build
from tests.integrations.flower.conftest import HONEST, Hospital
from tests.integrations.flower.tables import write_folder

FEW = settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
MANY = settings(max_examples=4000, deadline=None, suppress_health_check=list(HealthCheck))

TEXT = st.one_of(st.text(max_size=20), st.sampled_from(["\x1b[2J", "\u202e", "/etc/passwd", "nan"]))
WHOLE = st.one_of(st.integers(-3, 40), st.integers(-(2**63), 2**63 - 1))
NUMBER = st.one_of(st.floats(-2, 2), st.floats(width=64))
SCALAR = st.one_of(TEXT, WHOLE, NUMBER, st.booleans(), st.binary(max_size=8))
LISTS = st.one_of(*(st.lists(one, max_size=4) for one in (TEXT, WHOLE, NUMBER, st.booleans())))
CONFIG_KEYS = (
    "shape", "classes", "task", "value-range", "mean", "std", "target-mean", "target-std",
    "server-round", "proximal-mu",
)  # fmt: skip
METRIC_KEYS = ("num-examples", "loss", "exposure-least", "exposure-mean", "exposure-most")
CHANGES = st.dictionaries(
    st.one_of(st.sampled_from(CONFIG_KEYS), TEXT), st.one_of(SCALAR, LISTS), max_size=3
)
RUN_KEYS = sorted(name.replace("_", "-") for name in FederatedSettings.model_fields)
RUNS = st.dictionaries(st.one_of(st.sampled_from(RUN_KEYS), TEXT), SCALAR, max_size=2)
METRICS = st.dictionaries(
    st.one_of(st.sampled_from(METRIC_KEYS), TEXT),
    st.one_of(WHOLE, NUMBER, st.lists(NUMBER, max_size=3), st.lists(WHOLE, max_size=3)),
    max_size=3,
)
ARRAY = st.one_of(
    st.builds(
        Array, st.just("float32"), st.just((3,)), st.sampled_from(["numpy.ndarray", "x"]),
        st.binary(max_size=60).flatmap(
            lambda rest: st.sampled_from([rest, b"\x93NUMPY\x01\x00v\x00" + rest])
        ),
    ),
    st.sampled_from([np.zeros(3), np.array(np.nan), np.zeros((2, 2), np.int64), np.array(["x"])])
    .map(Array),
)  # fmt: skip
ARRAYS = st.dictionaries(
    st.one_of(st.sampled_from(["network.0.weight", "network.0.bias"]), TEXT), ARRAY, max_size=2
)


@pytest.fixture(scope="module", params=["single-label", "multi-label", "regression"])
def node(request: pytest.FixtureRequest) -> Any:
    """A node with labels of each task, and images that it tests networks on."""
    TaskIdentity.run_id = TaskIdentity.node_id = TaskIdentity.task_id = 1
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        pixels = np.random.default_rng(0).integers(0, 256, (12, 1, 16, 16), dtype=np.uint8)
        np.savez(folder / "own.npz", images=pixels, labels=np.arange(12) % 2)
        own = {
            "data": str(folder / "own.npz"), "ledger": str(folder / "l.sqlite"), "device": "cpu",
            "scheme": "inside", "k": 4, "max-exposure": 40, "test": str(folder / "own.npz"),
        }  # fmt: skip
        if request.param == "single-label":
            yield Hospital(own)
            return
        labels = np.random.default_rng(1).integers(0, 2, (12, 2)).astype(np.float32)
        table = write_folder(folder / "tabled", pixels[:, 0], labels, ("0", "1"))
        own |= table | {
            "task": request.param,
            "test": table["data"],
            "test-labels": table["labels"],
        }
        own["test-label-columns"] = table["label-columns"]
        target = scale_of_parts([labels]) if request.param == "regression" else UNSCALED
        yield Hospital(own, replace(HONEST, task=request.param, target=target))


def server_message(
    node: Hospital, kind: str, changes: dict[str, Any], arrays: dict[str, Array], drop: bool
) -> Message:
    message = node.message(kind)
    config = message.content["config"]
    for name, value in changes.items():
        config[name] = value
    if drop and changes:
        config.pop(next(iter(changes)))
    if "arrays" in message.content:
        for name, array in arrays.items():
            message.content["arrays"][name] = array
    return message


def check_server_message(
    node: Hospital, kind: str, changes: dict[str, Any], arrays: dict[str, Array], drop: bool,
    run: dict[str, Any],
) -> None:  # fmt: skip
    answer = node.answer(server_message(node, kind, changes, arrays, drop), **run)
    if answer.has_error():
        reason = answer.error.reason
        assert reason != SILENCE
        assert reason.isprintable()
        assert node.own["data"] not in reason
    assert node.exposure()[1] <= 40


def from_server(given_settings: settings) -> Callable[..., Any]:
    kinds = st.sampled_from(["train", "train", "evaluate", "query"])
    return lambda test: given_settings(
        given(kind=kinds, changes=CHANGES, arrays=ARRAYS, drop=st.booleans(), run=RUNS)(test)
    )


@pytest.mark.slow
@from_server(FEW)
def test_a_node_answers_whatever_a_server_sends(node: Hospital, **sent: Any) -> None:
    check_server_message(node, **sent)


@pytest.mark.slow
@from_server(MANY)
def test_a_node_answers_whatever_a_server_sends_at_length(node: Hospital, **sent: Any) -> None:
    check_server_message(node, **sent)


class Server:
    """A strategy, the network that it began with, and an honest answer."""

    def __init__(self) -> None:
        self.network = build("small-group", 1, 2, sign_invariant=True, seed=0)
        config = {"model": "small-group"}
        self.strategy = make_strategy(FederatedSettings.from_config(config), self.network)
        self.state = self.network.state_dict()

    def answer(self, node: int, content: RecordDict | Error) -> Message:
        asked = Message(RecordDict(), node, "train")
        asked.metadata.__dict__["_message_id"] = "a message"
        return Message(content, reply_to=asked)

    def good(self) -> RecordDict:
        metrics = dict.fromkeys(METRIC_KEYS, 1)
        return RecordDict({"arrays": ArrayRecord(self.state), "metrics": MetricRecord(metrics)})


@pytest.fixture(scope="module")
def server() -> Server:
    TaskIdentity.run_id = TaskIdentity.node_id = TaskIdentity.task_id = 1
    return Server()


RECORDS = st.dictionaries(
    st.one_of(st.sampled_from(["arrays", "metrics"]), TEXT),
    st.one_of(METRICS.map(MetricRecord), ARRAYS.map(ArrayRecord), st.just(ConfigRecord({"a": 1}))),
    max_size=2,
)


def check_client_message(
    server: Server, metrics: dict[str, Any], arrays: dict[str, Array], records: dict[str, Any],
    error: str | None,
) -> None:  # fmt: skip
    content = server.good()
    for name, value in metrics.items():
        content["metrics"][name] = value
    for name, array in arrays.items():
        content["arrays"][name] = array
    for name, record in records.items():
        content[name] = record
    answer = server.answer(7, content if error is None else Error(2, error))
    found, _ = server.strategy.aggregate_train(1, [answer, server.answer(8, server.good())])
    assert found is not None
    # Zeros, and weights of an array that passes for one, are all that may have come through.
    assert all(np.isfinite(array.numpy()).all() for array in found.values())
    assert all(why.isprintable() for why in server.strategy.last.dropped.values())
    server.strategy.aggregate_evaluate(1, [answer])
    reason = ""
    try:
        read_moments(answer, FederationSpec((1, 8, 8), ("0", "1")))
    except RefusalError as refused:
        reason = str(refused)
    assert reason.isprintable()


def from_client(given_settings: settings) -> Callable[..., Any]:
    errors = st.one_of(st.none(), st.none(), TEXT)
    return lambda test: given_settings(
        given(metrics=METRICS, arrays=ARRAYS, records=RECORDS, error=errors)(test)
    )


@pytest.mark.slow
@from_client(FEW)
def test_a_server_goes_on_whatever_a_client_sends(server: Server, **sent: Any) -> None:
    check_client_message(server, **sent)


@pytest.mark.slow
@from_client(MANY)
def test_a_server_goes_on_whatever_a_client_sends_at_length(server: Server, **sent: Any) -> None:
    check_client_message(server, **sent)

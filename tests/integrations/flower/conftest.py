"""A federation in this process: the server app and the client app, with nothing between them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest
from flwr.app import ArrayRecord, Context, Message, RecordDict
from flwr.serverapp import Grid
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects
from flwr.supercore.task_identity import TaskIdentity

from instahide.data import ImageTable, open_split
from instahide.data.normalization.normalization import Normalization
from instahide.encodings.ledger.ledger import Ledger
from instahide.integrations.flower.client import app
from instahide.integrations.flower.config import FederatedSettings
from instahide.integrations.flower.federation_spec import FederationSpec

#: Of digits: enough to learn from, few enough for a quick test.
IMAGES = 240


#: What nodes of these tests have in common with the run, unless they name something else.
TERMS = ("scheme", "k", "private-k", "gradient", "noise")


@dataclass
class Federation:
    """Nodes that answer at once; every answer is kept.

    Attributes:
        config: the run config.
        contexts: of the nodes, with what Flower keeps for them between rounds.
        answers: of all nodes, in order.
    """

    config: dict[str, Any]
    contexts: dict[int, Context]
    answers: list[Message] = field(default_factory=list)

    def run(self) -> dict[str, Any]:
        """All rounds; returns what is in `results.json`."""
        from instahide.integrations.flower import server_app

        server_app(Direct(self), Context(1, 1, {}, RecordDict(), self.config))
        path = Path(self.config["out"]) / "results.json"
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return found

    def ask(self, message: Message) -> Message:
        """What the node that ``message`` is for answers."""
        from instahide.integrations.flower import client_app

        message.metadata.__dict__["_message_id"] = "a message"
        answer = client_app(message, self.contexts[message.metadata.dst_node_id])
        self.answers.append(answer)
        return answer


class Direct(Grid):
    """Takes messages to the client app, and its answers back."""

    def __init__(self, federation: Federation) -> None:
        self.federation = federation

    def get_node_ids(self) -> Iterable[int]:
        return list(self.federation.contexts)

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> Iterable[Message]:
        return [self.federation.ask(message) for message in messages]

    @property
    def run(self) -> Any:
        raise NotImplementedError

    def set_run(self, run: Any) -> None:
        raise NotImplementedError

    def create_message(self, *_: Any, **__: Any) -> Message:
        raise NotImplementedError

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        raise NotImplementedError

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        raise NotImplementedError


#: Encodings of an image that a node allows. Four are expected of a round, and this many in fewer
#: than one round in a billion.
ALLOWED = 20


def wire(message: Message) -> bytes:
    """Every byte of ``message`` that Flower would send, its arrays included."""
    return b"".join(part.deflate() for part in get_all_nested_objects(message).values())


@pytest.fixture(autouse=True)
def _identity() -> None:
    """What a process of Flower's knows of itself."""
    TaskIdentity.run_id = TaskIdentity.node_id = TaskIdentity.task_id = 1


def write_images(path: Path, images: ImageTable) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(path, images=images.pixels, labels=images.labels)
    return path


@pytest.fixture(scope="session")
def digits() -> tuple[ImageTable, ImageTable]:
    """Training and test images."""
    train, test = open_split("digits")
    return train.subset(slice(0, IMAGES)), test


def own_config(node: Mapping[str, Any], run: Mapping[str, Any]) -> dict[str, Any]:
    """A whole node config, of what ``node`` names and otherwise of terms that ``run`` is on."""
    names = [*TERMS, *(("data", "test", "ledger") if "partition-id" in node else ())]
    terms = {name: run[name] for name in names if run.get(name, "") != ""}
    return {"max-exposure": 10**6, **terms, **node}


@pytest.fixture
def federation(tmp_path: Path, digits: tuple[ImageTable, ImageTable]) -> Callable[..., Federation]:
    """Nodes that split digits, or those whose node configs are given."""
    data = write_images(tmp_path / "train.npz", digits[0])
    test = write_images(tmp_path / "test.npz", digits[1])
    runs = 0

    def make(nodes: Iterable[Mapping[str, Any]] | None = None, **config: Any) -> Federation:
        nonlocal runs
        runs += 1
        common = {
            "data": str(data), "test": str(test), "scheme": "inside", "k": 2, "rounds": 2,
            "batch-size": 32, "lr": 0.05, "ledger": str(tmp_path / "ledger.sqlite"),
            "out": str(tmp_path / f"out-{runs}"), "model": "small-group",
        }  # fmt: skip
        given = common | {name.replace("_", "-"): value for name, value in config.items()}
        if nodes is None:
            nodes = [{"partition-id": part, "num-partitions": 2} for part in range(2)]
        nodes = [own_config(node, given) for node in nodes]
        contexts = {
            100 + number: Context(1, 100 + number, dict(node), RecordDict(), given)
            for number, node in enumerate(nodes)
        }
        return Federation(given, contexts)

    return make


#: What an honest server sends to a `Hospital` with images of noise.
HONEST = FederationSpec((1, 16, 16), ("0", "1"), Normalization((0.5,), (0.29,)))


@dataclass
class Hospital:
    """One node with 40 images of noise, and whatever message a server may send it.

    Attributes:
        own: its node config.
        agreement: what an honest server sends.
    """

    own: dict[str, Any]
    agreement: FederationSpec = HONEST

    def run_config(self, **run: Any) -> dict[str, Any]:
        """A run that is on the node's terms, with changes."""
        common = {
            "scheme": "inside", "k": 4, "model": "small-group", "precision": "float32",
            "batch-size": 8, "local-epochs": 1,
        }  # fmt: skip
        return common | {name.replace("_", "-"): value for name, value in run.items()}

    def message(
        self, kind: str = "train", run: Mapping[str, Any] = MappingProxyType({}), **changes: Any
    ) -> Message:
        """An honest message of the server of such a run, with changes of its config."""
        config = self.agreement.to_record()
        config["server-round"] = 1
        for name, value in changes.items():
            config[name.replace("_", "-")] = value
        records: dict[str, Any] = {"config": config}
        if kind != "query":
            settings = FederatedSettings.from_config(self.run_config(**run))
            records["arrays"] = ArrayRecord(self.agreement.network(settings).state_dict())
        return Message(RecordDict(records), 2, kind)

    def answer(self, message: Message, **run: Any) -> Message:
        """What the node answers, in a run with such settings."""
        context = Context(1, 2, self.own, RecordDict(), self.run_config(**run))
        answers = {"train": app.train, "evaluate": app.evaluate, "query": app.query}
        return answers[message.metadata.message_type](message, context)

    def refusal(self, message: Message, **run: Any) -> str:
        """Why the node refuses; nothing is counted by it."""
        answer = self.answer(message, **run)
        assert answer.has_error()
        assert not answer.has_content()
        return str(answer.error.reason)

    def exposure(self) -> tuple[int, int]:
        """Least and most encodings of an image, in the node's ledger."""
        if not Path(self.own["ledger"]).exists():
            return 0, 0
        with Ledger.open(Path(self.own["ledger"])) as ledger:
            counts = ledger.totals().counts
        return (int(counts.min()), int(counts.max())) if len(counts) else (0, 0)


@pytest.fixture
def hospital(tmp_path: Path) -> Callable[..., Hospital]:
    """A node with images and a ledger of its own, and terms that can be changed."""
    generator = np.random.default_rng(0)
    pixels = generator.integers(0, 256, (40, 1, 16, 16), dtype=np.uint8)
    made = 0

    def make(images: np.ndarray[Any, Any] = pixels, **own: Any) -> Hospital:
        nonlocal made
        made += 1
        np.savez(tmp_path / f"own-{made}.npz", images=images, labels=np.arange(len(images)) % 2)
        terms = {
            "data": str(tmp_path / f"own-{made}.npz"), "ledger": str(tmp_path / f"{made}.sqlite"),
            "scheme": "inside", "k": 4, "max-exposure": ALLOWED, "device": "cpu",
        }  # fmt: skip
        return Hospital(terms | {name.replace("_", "-"): value for name, value in own.items()})

    return make

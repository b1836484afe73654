"""A user's own Flower client app counts in a ledger over rounds and runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from instahide import Scheme, encode_loader
from instahide.encodings.ledger.ledger import Ledger
from instahide.errors import ExposureLimitError

COUNT, CLASSES = 24, 3
app = ClientApp()


def images() -> TensorDataset:
    pixels = np.random.default_rng(0).integers(0, 256, (COUNT, 1, 6, 6), np.uint8)
    values = torch.from_numpy((pixels.astype(np.float32) / 255 - 0.5) / 0.25)
    return TensorDataset(values, torch.arange(COUNT) % CLASSES)


@app.train()
def train(message: Message, context: Context) -> Message:
    """As in the guide: the account of this node's ledger, opened anew in every round."""
    dataset, network = images(), nn.Sequential(nn.Flatten(), nn.Linear(36, CLASSES))
    arrays = message.content["arrays"]
    assert isinstance(arrays, ArrayRecord)
    network.load_state_dict(arrays.to_torch_state_dict())
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    with Ledger.open(Path(str(context.node_config["ledger"]))) as ledger:
        account = ledger.account(dataset, limit=int(context.node_config["limit"]))
        loader = encode_loader(
            DataLoader(dataset, 8, shuffle=True), Scheme.inside(k=2), classes=CLASSES,
            exposure=account,
        )  # fmt: skip
        for encodings, labels in loader:
            optimizer.zero_grad()
            nn.functional.cross_entropy(network(encodings), labels).backward()
            optimizer.step()
        # Before anything that was learned from encodings is sent.
        account.sync()
        most = int(account.counts.max())
    content = {"arrays": ArrayRecord(network.state_dict()), "metrics": MetricRecord({"most": most})}
    return Message(RecordDict(content), reply_to=message)  # type: ignore[arg-type]


def asked(config: dict[str, Any], number: int) -> Message:
    network = nn.Sequential(nn.Flatten(), nn.Linear(36, CLASSES))
    content = RecordDict(
        {
            "arrays": ArrayRecord(network.state_dict()),
            "config": ConfigRecord({"server-round": number}),
        }
    )
    message = Message(content, 2, "train")
    message.metadata.__dict__["_message_id"] = "a message"
    return app(message, Context(1, 2, config, RecordDict(), {}))


def test_counts_go_on_over_rounds_and_the_limit_holds(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    config = {"ledger": str(path), "limit": 100}
    for number in range(1, 4):
        answer = asked(config, number)
        (metrics,) = answer.content.metric_records.values()
        with Ledger.open(path) as ledger:
            counts = ledger.account(images()).counts
        assert counts.sum() == 2 * COUNT * number
        assert metrics["most"] == counts.max()
    with pytest.raises(ExposureLimitError):
        asked({**config, "limit": int(counts.max())}, 4)
    with Ledger.open(path) as ledger:
        assert ledger.account(images()).counts.max() == counts.max()

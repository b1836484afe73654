"""What encodings add to a client's round in a federation.

One client of the Flower app answers the same request to train, in turns on plain images and on
encodings (cross-dataset, k = 4): it opens its images, hashes and counts them in its ledger, trains
for an epoch, and packs its weights.
"""

from __future__ import annotations

import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, RecordDict
from flwr.supercore.task_identity import TaskIdentity

from benchmarks.measure import medians, quick, report
from benchmarks.workload import CLASSES, random_table
from instahide.integrations.flower import client_app
from instahide.integrations.flower.config import FederatedSettings
from instahide.integrations.flower.federation_spec import FederationSpec

NODE = 2


def answer(config: dict[str, Any], node: dict[str, Any], agreement: FederationSpec) -> None:
    """One round of a client: what Flower calls when a request comes in."""
    network = agreement.network(FederatedSettings.from_config(config))
    record = ConfigRecord({**agreement.to_record(), "server-round": 1})
    content = RecordDict({"arrays": ArrayRecord(network.state_dict()), "config": record})
    request = Message(content, NODE, "train")
    request.metadata.__dict__["_message_id"] = "a request"
    reply = client_app(request, Context(1, NODE, node, RecordDict(), config))
    assert reply.has_content(), reply.error.reason


def main() -> None:
    tiny = quick(__doc__)
    # What a process of Flower's knows of itself.
    TaskIdentity.run_id = TaskIdentity.node_id = TaskIdentity.task_id = 1
    count, rounds = (64, 1) if tiny else (4_000, 11)
    table, public = random_table(count), random_table(64 if tiny else 10_000, seed=1)
    classes = tuple(map(str, range(CLASSES)))
    agreement = FederationSpec(table.shape, classes, table.normalization)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        np.savez(folder / "images.npz", images=table.pixels, labels=table.labels)
        public.save(folder / "pool")
        node = {
            "data": str(folder / "images.npz"), "ledger": str(folder / "ledger.sqlite"),
            "public": str(folder / "pool"), "k": 4, "max-exposure": 10**6,
        }  # fmt: skip
        works = {
            scheme: partial(
                answer,
                {"batch-size": 64, "scheme": scheme},
                {**node, "scheme": scheme},
                agreement,
            )
            for scheme in ("plain", "cross")
        }
        seconds = medians(works, rounds)
        processor = medians(works, rounds, time.process_time)
    overhead = seconds["cross"] / seconds["plain"]
    processor_overhead = processor["cross"] / processor["plain"]
    rows = [
        ("a round on plain images", f"{seconds['plain']:,.2f} s"),
        ("a round on encodings", f"{seconds['cross']:,.2f} s"),
        ("overhead", f"{overhead - 1:+.2%}"),
        ("overhead in processor time", f"{processor_overhead - 1:+.2%}"),
    ]
    figures = {
        "overhead": overhead,
        "processor_overhead": processor_overhead,
        "plain_round_seconds": seconds["plain"],
    }
    report(f"A client's round, {count:,} images", rows, figures)


if __name__ == "__main__":
    main()

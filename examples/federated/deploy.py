"""A real deployment on this machine: a SuperLink with TLS, and SuperNodes with images of their own.

    python examples/federated/deploy.py --data digits scheme=cross rounds=5

Certificates, keys, images, ledgers and logs go into one folder (`--work`). Everything is stopped at
the end, after Ctrl-C as well. What stands in `app/pyproject.toml` may be said as ``name=value``.
"""

from __future__ import annotations

import argparse
import signal
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from deployment import Deployment
from servers import running
from simulate import said, show

from instahide import ImageTable, open_split
from instahide.learning.flower.partition import shares

#: Settings of a run that a node decides.
TERMS = (
    "scheme", "k", "max-exposure", "private-k", "c1", "c2", "labels", "law", "noise", "gradient",
    "public", "size", "batch-size",
)  # fmt: skip


def give(folder: Path, images: ImageTable) -> Path:
    """Put ``images`` into a file of their own."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "images.npz"
    np.savez(path, images=images.pixels, labels=images.labels)
    return path


def node_terms(values: dict[str, Any]) -> dict[str, Any]:
    """What each node names in its own config: without it no node takes part.

    One person starts everything here, so that nodes agree to whatever is asked for. In a real
    deployment every node names its own terms, and whoever starts a run has to keep to them.
    """
    terms = {"scheme": "cross", "k": 4, "max-exposure": 100}
    return terms | {name: values[name] for name in TERMS if name in values}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", default="digits", help="what the nodes split among them")
    parser.add_argument("--clients", type=int, default=3)
    parser.add_argument("--work", type=Path, help="folder to work in; a temporary one by default")
    parser.add_argument("settings", nargs="*", help="name=value")
    options = parser.parse_args()
    # A request to end is as good as Ctrl-C: nothing is left running.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    values = said(options.settings)
    alpha = values.get("alpha", 0.3) if values.get("partition") == "dirichlet" else None
    train, test = open_split(options.data)
    with (
        tempfile.TemporaryDirectory() as temporary,
        running(options.work or Path(temporary)) as servers,
    ):
        deployment = Deployment(servers)
        for number, rows in enumerate(shares(train.labels, options.clients, alpha=alpha)):
            name = f"node-{number}"
            deployment.admit(name)
            data = give(servers.folder / name, train.subset(rows))
            deployment.start_node(name, {"data": data, **node_terms(values)})
        deployment.wait_for(options.clients)
        server_test = give(servers.folder / "server", test)
        agreed = {"test": server_test, "clients": options.clients}
        show(deployment.run({**agreed, **values}, servers.folder / "out"))


if __name__ == "__main__":
    main()

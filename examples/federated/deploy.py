"""Deploy a federation on this machine: a SuperLink with TLS, and SuperNodes with their own images.

    python examples/federated/deploy.py --data digits scheme=cross rounds=5

Certificates, keys, images, ledgers and logs are written to one folder (`--work`). All processes are
stopped at the end, also after Ctrl-C. Settings of `app/pyproject.toml` can be changed as
``name=value``.
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
from instahide.integrations.flower.client.partition import partition

#: Settings that each node decides for itself.
TERMS = (
    "scheme", "k", "max-exposure", "private-k", "c1", "c2", "label-mode",
    "coefficient-distribution", "noise", "gradient", "public", "size", "batch-size",
)  # fmt: skip


def give(folder: Path, images: ImageTable) -> Path:
    """Save ``images`` in one file in ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "images.npz"
    np.savez(path, images=images.pixels, labels=images.labels)
    return path


def node_terms(values: dict[str, Any]) -> dict[str, Any]:
    """Settings for each node config, without which no node takes part.

    In this example one person starts everything, so the nodes accept the settings of the run. In a
    real deployment every node sets its own terms, and a run must keep to them.
    """
    terms = {"scheme": "cross", "k": 4, "max-exposure": 100}
    return terms | {name: values[name] for name in TERMS if name in values}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", default="digits", help="data set that the nodes split among them")
    parser.add_argument("--clients", type=int, default=3)
    parser.add_argument("--work", type=Path, help="working folder (default: a temporary one)")
    parser.add_argument("settings", nargs="*", help="a setting, as name=value")
    options = parser.parse_args()
    # Treat SIGTERM like Ctrl-C, so that all processes are stopped.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    values = said(options.settings)
    alpha = values.get("alpha", 0.3) if values.get("partition") == "dirichlet" else None
    train, test = open_split(options.data)
    with (
        tempfile.TemporaryDirectory() as temporary,
        running(options.work or Path(temporary)) as servers,
    ):
        deployment = Deployment(servers)
        for number, rows in enumerate(partition(train.labels, options.clients, alpha=alpha)):
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

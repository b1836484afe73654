"""Simulate a federation with Flower's simulation engine: clients take turns on this machine.

    python examples/federated/simulate.py --clients 3 scheme="cross" rounds=5

Settings of `app/pyproject.toml` can be changed as ``name=value``. All files are written to one
folder (`--work`), and all processes are stopped at the end.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from servers import APP, connect, free_port, run_config, running, wait_until_healthy


def simulate(folder: Path, clients: int, values: Mapping[str, Any]) -> dict[str, Any]:
    """Run the app with ``clients`` clients and ``values`` for its config; returns the results.

    Raises:
        RuntimeError: the federation failed; see its log in ``folder``.
    """
    with running(folder) as servers:
        out, port = servers.folder / "out", free_port()
        superlink = servers.start(
            "superlink", "flower-superlink", "--insecure", "--simulation",
            "--host", "127.0.0.1", "--port", str(port),
        )  # fmt: skip
        wait_until_healthy(superlink, port, None)
        connection = {
            "address": f"127.0.0.1:{port}",
            "insecure": True,
            "options.num-supernodes": clients,
            "options.backend.client-resources.num-cpus": 1,
            "options.backend.init-args.num-cpus": 1,
        }
        connect(servers, "simulation", connection)
        config = {"clients": clients, "ledger": servers.folder / "ledger.sqlite", **values}
        servers.run(
            "simulation", "run", APP, "simulation", "--stream",
            "--run-config", run_config({**config, "out": out}),
        )  # fmt: skip
        results = out / "results.json"
        if not results.exists():
            raise RuntimeError(f"The federation failed; see the logs in {folder}.")
        found: dict[str, Any] = json.loads(results.read_text(encoding="utf-8"))
        return found


def said(arguments: list[str]) -> dict[str, Any]:
    """Parse ``name=value`` arguments; values are JSON, or else text."""
    found = {}
    for argument in arguments:
        name, _, value = argument.partition("=")
        try:
            found[name] = json.loads(value)
        except ValueError:
            found[name] = value
    return found


def show(results: Mapping[str, Any]) -> None:
    """Print each round, and the nodes that took no part."""
    for page in results["rounds"]:
        exposure = [page.get(f"exposure-{name}") for name in ("least", "mean", "most")]
        shown = {key: page.get(key) for key in ("round", "loss", results["metric"])}
        print(json.dumps({**shown, "exposure": exposure}))
    for node, reason in results["refusals"].items():
        print(f"Node {node}: {reason}", file=sys.stderr)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clients", type=int, default=3)
    parser.add_argument("--work", type=Path, help="working folder (default: a temporary one)")
    parser.add_argument("settings", nargs="*", help="a setting, as name=value")
    options = parser.parse_args()
    # Treat SIGTERM like Ctrl-C, so that all processes are stopped.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with tempfile.TemporaryDirectory() as name:
        work = options.work or Path(name)
        results = simulate(work, options.clients, said(options.settings))
    show(results)


if __name__ == "__main__":
    main()

"""A SuperLink with TLS and SuperNodes that authenticate, all on this machine."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from credentials import certify, make_node_key
from servers import APP, STARTING, Servers, connect, free_port, run_config, wait_until_healthy

#: Name of the `flwr` user that starts runs and registers nodes.
OPERATOR = "operator"


class Deployment:
    """A deployment in the folder of ``servers``.

    A restarted SuperLink keeps its nodes, runs and address.
    """

    def __init__(self, servers: Servers) -> None:
        self.servers = servers
        self.port = free_port()
        self._certificates = servers.folder / "certificates"
        certify(self._certificates)
        connection = {"address": f"127.0.0.1:{self.port}", "root-certificates": self.root}
        connect(servers, OPERATOR, connection)
        self.start_superlink()

    @property
    def root(self) -> Path:
        """The root certificate, which all processes have."""
        return self._certificates / "root.pem"

    def start_superlink(self) -> None:
        """Start the SuperLink, and wait until it responds."""
        process = self.servers.start(
            "superlink", "flower-superlink", "--host", "127.0.0.1", "--port", str(self.port),
            "--ssl-ca-certfile", self.root, "--ssl-certfile", self._certificates / "server.pem",
            "--ssl-keyfile", self._certificates / "server.key",
            "--enable-supernode-auth", "--disable-runtime-dependency-installation",
            "--database", self.servers.folder / "superlink.db",
        )  # fmt: skip
        wait_until_healthy(process, self.port, self.root)

    def admit(self, name: str) -> None:
        """Make a key pair for the node ``name``, and register its public key with the SuperLink."""
        public = make_node_key(self.key(name))
        self.servers.run(OPERATOR, "supernode", "register", public, OPERATOR)

    def key(self, name: str) -> Path:
        """The private key of the node ``name``."""
        return self.servers.folder / name / "node.key"

    def start_node(self, name: str, config: Mapping[str, Any]) -> None:
        """Start the node ``name`` with its node config; its ledger is in its own folder."""
        folder = self.servers.folder / name
        folder.mkdir(exist_ok=True)
        self.servers.start(
            name, "flower-supernode", "--superlink", f"127.0.0.1:{self.port}",
            "--root-certificates", self.root, "--auth-supernode-private-key", self.key(name),
            "--host", "127.0.0.1", "--port", str(free_port()),
            "--node-config", run_config({"ledger": folder / "ledger.sqlite", **config}),
        )  # fmt: skip

    def kill(self, name: str) -> None:
        """Kill a process and its children with SIGKILL."""
        self.servers.stop(name, signal.SIGKILL)

    def online(self) -> int:
        """Number of nodes that are online."""
        shown = self.servers.run(OPERATOR, "supernode", "list", OPERATOR, "--format", "json")
        nodes = json.loads(shown[shown.index("{") :])["nodes"]
        return sum(node["status"] == "online" for node in nodes)

    def wait_for(self, nodes: int) -> None:
        """Wait until this number of ``nodes`` is online.

        Raises:
            RuntimeError: they are not online in time.
        """
        deadline = time.monotonic() + STARTING
        while self.online() < nodes:
            if time.monotonic() > deadline:
                raise RuntimeError("Not all nodes are online; see their logs.")

    def run(self, values: Mapping[str, Any], out: Path, app: Path = APP) -> dict[str, Any]:
        """Run ``app`` with ``values`` as its run config; returns the results in ``out``.

        Raises:
            RuntimeError: the federation failed.
        """
        config = run_config({**values, "out": out})
        self.servers.run(OPERATOR, "run", app, OPERATOR, "--stream", "--run-config", config)
        results = out / "results.json"
        if not results.exists():
            raise RuntimeError(f"The federation failed; see the logs in {self.servers.folder}.")
        found: dict[str, Any] = json.loads(results.read_text(encoding="utf-8"))
        return found

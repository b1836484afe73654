"""Processes of Flower's: started with logs of their own, and all of them stopped at the end."""

from __future__ import annotations

import os
import signal
import socket
import ssl
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

APP = Path(__file__).resolve().parent / "app"
PROGRAMS = Path(sys.executable).parent
#: Seconds to wait for a server to answer, and for a process to end by itself.
STARTING, ENDING = 60, 10
#: Nobody outside is told, asked for releases, or asked for packages.
ENVIRONMENT = {
    "FLWR_TELEMETRY_ENABLED": "0",
    "FLWR_DISABLE_UPDATE_CHECK": "1",
    "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
    # Simulated clients are the work itself, which Ray would put behind everybody else's.
    "RAY_worker_niceness": "0",
    # A cluster that runs here already would not let a simulation say how many processors it takes.
    "RAY_ADDRESS": "local",
}


def free_port() -> int:
    """A port of the loopback interface that nobody uses just now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Servers:
    """Processes in one working folder; use `running`.

    Attributes:
        folder: holds their logs, and what Flower writes.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder.resolve()
        self._processes: dict[str, subprocess.Popen[bytes]] = {}

    def environment(self, name: str) -> dict[str, str]:
        """Of the process ``name``: Flower keeps its files in a folder of it."""
        home = self.folder / "flower" / name
        home.mkdir(parents=True, exist_ok=True)
        path = os.pathsep.join([str(PROGRAMS), os.environ.get("PATH", os.defpath)])
        return {**os.environ, **ENVIRONMENT, "FLWR_HOME": str(home), "PATH": path}

    def start(self, name: str, program: str, *arguments: str | Path) -> subprocess.Popen[bytes]:
        """Start ``program`` of Flower's, with a log of its own, out of reach of Ctrl-C."""
        with (self.folder / f"{name}.log").open("ab") as log:
            process = subprocess.Popen(
                [PROGRAMS / program, *map(str, arguments)],
                cwd=self.folder,
                env=self.environment(name),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._processes[name] = process
        return process

    def stop(self, name: str, kind: signal.Signals = signal.SIGTERM) -> None:
        """End a process and all that it has started: by asking first, unless ``kind`` is a kill."""
        process = self._processes.pop(name)
        started = _descendants(process.pid)
        process.send_signal(kind)
        with suppress(subprocess.TimeoutExpired):
            process.wait(ENDING)
        process.kill()
        process.wait()
        for descendant in started:
            with suppress(ProcessLookupError):
                os.kill(descendant, signal.SIGKILL)

    def stop_all(self) -> None:
        """End every process, the last one first."""
        for name in reversed(list(self._processes)):
            self.stop(name)

    def run(self, name: str, *arguments: str | Path) -> str:
        """What ``flwr`` prints, run to its end; it stands in the log of ``name``, too.

        Raises:
            RuntimeError: it fails; with what it printed.
        """
        done = subprocess.run(
            [PROGRAMS / "flwr", *map(str, arguments)],
            cwd=self.folder,
            env=self.environment(name),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        with (self.folder / f"{name}.log").open("a", encoding="utf-8") as log:
            log.write(done.stdout + done.stderr)
        if done.returncode:
            raise RuntimeError(f"flwr {arguments[0]} failed:\n{done.stdout}{done.stderr}")
        return done.stdout


def _descendants(ancestor: int) -> list[int]:
    """All processes that descend from one: Flower starts some in sessions of their own."""
    table = ["ps", "-eo", "pid=,ppid="]
    shown = subprocess.run(table, capture_output=True, text=True, check=True)
    parents = dict(map(int, line.split()) for line in shown.stdout.splitlines())
    found = [ancestor]
    for member in found:
        found += [process for process, parent in parents.items() if parent == member]
    return found[1:]


@contextmanager
def running(folder: Path) -> Iterator[Servers]:
    """Servers in ``folder``, none of which outlives the block, whether it ends or is ended."""
    folder.mkdir(parents=True, exist_ok=True)
    servers = Servers(folder)
    try:
        yield servers
    finally:
        servers.stop_all()


def wait_until_healthy(process: subprocess.Popen[bytes], port: int, root: Path | None) -> None:
    """Wait until the SuperLink at ``port`` answers; ``root`` is its root certificate, if any.

    Raises:
        RuntimeError: it ended, or does not answer.
    """
    context = ssl.create_default_context(cafile=root) if root else None
    url = f"{'https' if root else 'http'}://127.0.0.1:{port}/health"
    deadline = time.monotonic() + STARTING
    while time.monotonic() < deadline and process.poll() is None:
        try:
            with urllib.request.urlopen(url, timeout=5, context=context):  # noqa: S310
                return
        except OSError:
            time.sleep(0.2)
    raise RuntimeError("The SuperLink does not start; its log says why.")


def connect(servers: Servers, name: str, connection: Mapping[str, Any]) -> None:
    """Let ``flwr``, run as ``name``, know the SuperLink of ``connection`` under that name."""
    lines = [f"[superlink.{name}]", *_toml(connection)]
    home = Path(servers.environment(name)["FLWR_HOME"])
    (home / "config.toml").write_text("\n".join(lines) + "\n", encoding="utf-8")


def run_config(values: Mapping[str, Any]) -> str:
    """``values`` as ``flwr run --run-config`` takes them."""
    return " ".join(_toml(values, between="="))


def _toml(values: Mapping[str, Any], between: str = " = ") -> Iterator[str]:
    for name, value in values.items():
        shown = str(value).lower() if isinstance(value, bool) else value
        text = f'"{shown}"' if isinstance(value, str | Path) else str(shown)
        yield f"{name}{between}{text}"

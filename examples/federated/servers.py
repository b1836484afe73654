"""Start Flower's processes, each with its own log, and stop all of them at the end."""

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
#: Seconds to wait for a server to respond, and for a process to end by itself.
STARTING, ENDING = 60, 10
#: Turns off telemetry, update checks and the installation of packages.
ENVIRONMENT = {
    "FLWR_TELEMETRY_ENABLED": "0",
    "FLWR_DISABLE_UPDATE_CHECK": "1",
    "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
    # By default Ray runs workers at low priority, but here they do the main work.
    "RAY_worker_niceness": "0",
    # On an existing Ray cluster, a simulation could not set its number of processors.
    "RAY_ADDRESS": "local",
}


def free_port() -> int:
    """A free port of the loopback interface."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Servers:
    """Processes in one working folder. Create it with `running`.

    Attributes:
        folder: for logs and Flower's files.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder.resolve()
        self._processes: dict[str, subprocess.Popen[bytes]] = {}

    def environment(self, name: str) -> dict[str, str]:
        """Environment of the process ``name``, with its own folder for Flower's files."""
        home = self.folder / "flower" / name
        home.mkdir(parents=True, exist_ok=True)
        path = os.pathsep.join([str(PROGRAMS), os.environ.get("PATH", os.defpath)])
        return {**os.environ, **ENVIRONMENT, "FLWR_HOME": str(home), "PATH": path}

    def start(self, name: str, program: str, *arguments: str | Path) -> subprocess.Popen[bytes]:
        """Start Flower's ``program`` with its own log, in a session that Ctrl-C does not reach."""
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
        """Send ``kind`` to a process, then kill it and its descendants if they do not end."""
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
        """Stop every process, the last one first."""
        for name in reversed(list(self._processes)):
            self.stop(name)

    def run(self, name: str, *arguments: str | Path) -> str:
        """Run ``flwr`` and return its output, which is also appended to the log of ``name``.

        Raises:
            RuntimeError: it fails; the message contains its output.
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
    """All descendants of a process: Flower starts some in sessions of their own."""
    table = ["ps", "-eo", "pid=,ppid="]
    shown = subprocess.run(table, capture_output=True, text=True, check=True)
    parents = dict(map(int, line.split()) for line in shown.stdout.splitlines())
    found = [ancestor]
    for member in found:
        found += [process for process, parent in parents.items() if parent == member]
    return found[1:]


@contextmanager
def running(folder: Path) -> Iterator[Servers]:
    """Processes in ``folder``, all of which are stopped when the block ends, also by an error."""
    folder.mkdir(parents=True, exist_ok=True)
    servers = Servers(folder)
    try:
        yield servers
    finally:
        servers.stop_all()


def wait_until_healthy(process: subprocess.Popen[bytes], port: int, root: Path | None) -> None:
    """Wait until the SuperLink at ``port`` responds; ``root`` is its root certificate, if any.

    Raises:
        RuntimeError: it ended, or does not respond in time.
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
    raise RuntimeError("The SuperLink does not start; see its log.")


def connect(servers: Servers, name: str, connection: Mapping[str, Any]) -> None:
    """Configure the SuperLink of ``connection`` as ``name`` for the ``flwr`` user of this name."""
    lines = [f"[superlink.{name}]", *_toml(connection)]
    home = Path(servers.environment(name)["FLWR_HOME"])
    (home / "config.toml").write_text("\n".join(lines) + "\n", encoding="utf-8")


def run_config(values: Mapping[str, Any]) -> str:
    """Format ``values`` for ``flwr run --run-config``."""
    return " ".join(_toml(values, between="="))


def _toml(values: Mapping[str, Any], between: str = " = ") -> Iterator[str]:
    for name, value in values.items():
        shown = str(value).lower() if isinstance(value, bool) else value
        text = f'"{shown}"' if isinstance(value, str | Path) else str(shown)
        yield f"{name}{between}{text}"

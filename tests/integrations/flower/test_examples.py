"""The scripts in `examples/federated`, run as a person runs them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
EXAMPLE = ROOT / "examples" / "federated"
pytestmark = pytest.mark.slow


def start(script: str, work: Path, *settings: str) -> subprocess.Popen[str]:
    path = os.pathsep.join(filter(None, [str(ROOT / "src"), os.environ.get("PYTHONPATH")]))
    return subprocess.Popen(
        [sys.executable, str(EXAMPLE / script), "--work", str(work), *settings],
        env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def left_behind(work: Path) -> list[str]:
    """Processes whose home of Flower's lies in ``work``."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            environment = (process / "environ").read_bytes()
            command = (process / "cmdline").read_bytes()
        except OSError:
            continue
        if f"FLWR_HOME={work}".encode() in environment:
            found.append(command.replace(b"\0", b" ").decode())
    return found


def gone(work: Path) -> bool:
    """Within some seconds: children notice that their parent has ended."""
    deadline = time.monotonic() + 900
    while left_behind(work):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.5)
    return True


@pytest.mark.parametrize("script", ["simulate.py", "deploy.py"])
def test_an_example_prints_every_round_and_leaves_nothing_running(
    script: str, tmp_path: Path
) -> None:
    run = start(script, tmp_path, "rounds=2", "scheme=cross", "partition=dirichlet")
    printed, complaints = run.communicate(timeout=1200)
    assert run.returncode == 0, complaints
    pages = [json.loads(line) for line in printed.splitlines()]
    assert [page["round"] for page in pages] == [1, 2]
    assert [page["exposure"][1] for page in pages] == [2, 4]
    assert len(list(tmp_path.rglob("ledger*.sqlite"))) == 3
    assert (tmp_path / "out" / "model.safetensors").exists()
    assert gone(tmp_path), left_behind(tmp_path)


@pytest.mark.parametrize(
    ("script", "kind"),
    [
        ("simulate.py", signal.SIGINT),
        ("simulate.py", signal.SIGTERM),
        ("deploy.py", signal.SIGINT),
    ],
)
def test_ctrl_c_stops_everything(script: str, kind: signal.Signals, tmp_path: Path) -> None:
    run = start(script, tmp_path, "rounds=1000")
    results = tmp_path / "out" / "results.json"
    deadline = time.monotonic() + 900
    while not results.exists():
        assert run.poll() is None, run.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.5)
    run.send_signal(kind)
    run.communicate(timeout=900)
    assert run.returncode != 0
    assert gone(tmp_path), left_behind(tmp_path)

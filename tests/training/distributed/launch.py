"""Processes that train together, as `torchrun` or another launcher starts them."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).parents[3]
#: Long enough for a busy machine.
SECONDS = 900


def environment(**changes: str) -> dict[str, str]:
    """Of a process that finds this checkout."""
    path = os.pathsep.join([str(ROOT / "src"), str(ROOT)])
    return {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", **changes}


@contextmanager
def started(size: int, *arguments: str) -> Iterator[list[subprocess.Popen[str]]]:
    """``python -m arguments`` ``size`` times, with what a launcher says of each; no agent."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    common = {"WORLD_SIZE": str(size), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    processes = [
        subprocess.Popen(
            [sys.executable, "-m", *arguments],
            env=environment(**common, RANK=str(rank)),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(size)
    ]
    try:
        yield processes
    finally:
        for process in processes:
            process.kill()
            process.communicate()


def ended(processes: Sequence[subprocess.Popen[str]]) -> list[tuple[int, str]]:
    """Exit code of each of ``processes``, and all that it said."""
    found = []
    for process in processes:
        output = "".join(process.communicate(timeout=SECONDS))
        found.append((process.returncode, output))
    return found


@contextmanager
def torchrun(*arguments: str, restarts: int = 0) -> Iterator[subprocess.Popen[str]]:
    """``python -m arguments`` in two processes under `torchrun`."""
    launcher = ["torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    # Without the variable the processes of a restart look for those before them (pytorch#135712).
    run = subprocess.Popen(
        [sys.executable, "-m", *launcher, "--max-restarts", str(restarts),
         "-m", *arguments],
        env=environment(TORCH_DISABLE_SHARE_RDZV_TCP_STORE="1"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )  # fmt: skip
    try:
        yield run
    finally:
        # It ends what it has started.
        run.terminate()
        run.communicate()


def train(*arguments: str) -> tuple[str, str]:
    """What `instahide train` says that goes well, and what it says on standard error."""
    with torchrun("instahide", "train", *arguments) as run:
        said, complained = run.communicate(timeout=SECONDS)
        assert run.returncode == 0, complained
        return said, complained

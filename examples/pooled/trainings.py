"""The training runs, each in its own process that reads only the files passed to it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from participants import NAMES


def arguments(copies: int, epochs: int) -> dict[str, list[str]]:
    """Arguments of `instahide train`; each image is seen equally often in all runs."""
    encoded = ["--epochs", str(epochs)]
    plain = ["--scheme", "plain", "--epochs", str(epochs * copies)]
    return {
        "pooled": [*(f"{name}/encoded" for name in NAMES), *encoded],
        "one_holder": ["everybody/encoded", *encoded],
        "plain": ["everybody/images.npz", *plain],
        # With --by-class, the first participant has no image of the last class.
        "plain_third": [f"{NAMES[1]}/images.npz", *plain],
    }


def results(folder: Path, name: str, given: list[str]) -> dict[str, Any]:
    """Run `instahide train` in ``folder`` and return the contents of its results file."""
    command = [sys.executable, "-m", "instahide", "train", *given, "--test", "test.npz"]
    command += ["--out", f"runs/{name}"]
    subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL)
    found: dict[str, Any] = json.loads((folder / "runs" / name / "results.json").read_text())
    return found

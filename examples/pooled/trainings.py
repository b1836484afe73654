"""What is trained, each as a process of its own that sees nothing but the files it is given."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from participants import NAMES


def arguments(copies: int, epochs: int) -> dict[str, list[str]]:
    """For `instahide train`; plain images are seen as often as there are encodings of them."""
    encoded = ["--epochs", str(epochs)]
    plain = ["--scheme", "plain", "--epochs", str(epochs * copies)]
    return {
        "pooled": [*(f"{name}/encoded" for name in NAMES), *encoded],
        "one_holder": ["everybody/encoded", *encoded],
        "plain": ["everybody/images.npz", *plain],
        # By class, the first one's file ends before the last class, and would not know it.
        "plain_third": [f"{NAMES[1]}/images.npz", *plain],
    }


def results(folder: Path, name: str, given: list[str]) -> dict[str, Any]:
    """What a run of `instahide train` in ``folder`` measured."""
    command = [sys.executable, "-m", "instahide", "train", *given, "--test", "test.npz"]
    command += ["--out", f"runs/{name}"]
    subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL)
    found: dict[str, Any] = json.loads((folder / "runs" / name / "results.json").read_text())
    return found

"""The three participants: they split the images, and each encrypts its own."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from instahide import ImageTable

NAMES = ("anna", "ben", "cleo")


def publish(
    folder: Path, train: ImageTable, test: ImageTable, copies: int, *, by_class: bool
) -> None:
    """Write each participant's images to its folder, and run all encryptions in parallel."""
    parts = dict(zip(NAMES, shares(train.labels, by_class=by_class), strict=True))
    save(folder / "test.npz", test)
    for name, rows in (parts | {"everybody": np.arange(len(train))}).items():
        save(folder / name / "images.npz", train.subset(rows))
    # Participants agree on one normalization: their own would differ slightly.
    moments = ["--mean", ",".join(map(str, train.mean)), "--std", ",".join(map(str, train.std))]
    agreed = ["--copies", str(copies), *moments]
    running = [encrypt(folder / name, agreed) for name in (*parts, "everybody")]
    codes = [process.wait() for process in running]
    if any(codes):
        sys.exit("An `encrypt` failed; see above.")


def shares(labels: NDArray[np.int64], *, by_class: bool) -> list[NDArray[np.int64]]:
    """Rows of each participant, no row twice. With ``by_class``, one of them lacks each class."""
    if not by_class:
        return [np.arange(first, len(labels), len(NAMES)) for first in range(len(NAMES))]
    parts: list[list[NDArray[np.int64]]] = [[] for _ in NAMES]
    for number in np.unique(labels):
        holders = [part for place, part in enumerate(parts) if place != number % len(NAMES)]
        for first, part in enumerate(holders):
            part.append(np.flatnonzero(labels == number)[first :: len(holders)])
    return [np.sort(np.concatenate(part)) for part in parts]


def save(path: Path, images: ImageTable) -> None:
    """Save images and labels in one file."""
    path.parent.mkdir(exist_ok=True)
    np.savez(path, images=images.pixels, labels=images.labels)


def encrypt(folder: Path, agreed: list[str]) -> subprocess.Popen[bytes]:
    """Start a participant's `instahide encrypt`, in its own folder and with its own ledger."""
    command = [sys.executable, "-m", "instahide", "encrypt", "images.npz", "--out", "encoded"]
    command += ["--participant", folder.name, *agreed]
    own = {**os.environ, "INSTAHIDE_LEDGER": str(folder / "ledger.sqlite")}
    return subprocess.Popen(command, cwd=folder, env=own, stdout=subprocess.DEVNULL)

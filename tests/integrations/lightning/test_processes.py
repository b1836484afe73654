"""Lightning runs in processes of their own: several at a time, resumed, killed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from tests.integrations.lightning.lightning_parts import (
    IMAGES,
    QUIET,
    all_differ,
    checkpoint,
    counted,
)
from tests.integrations.lightning.lightning_run import kept
from tests.waiting import LIMIT, wait_until

pytestmark = QUIET
ROOT = Path(__file__).parents[3]


def started(folder: Path, epochs: int, *options: str) -> subprocess.Popen[bytes]:
    """`lightning_run` in processes of its own."""
    path = os.pathsep.join([str(ROOT / "src"), str(ROOT)])
    return subprocess.Popen(
        [
            sys.executable,
            "-m",
            "tests.integrations.lightning.lightning_run",
            str(folder),
            str(epochs),
            *options,
        ],
        env={**os.environ, "PYTHONPATH": path},
    )


def run(folder: Path, epochs: int, *options: str) -> NDArray[np.int64]:
    """Counts that the run's last checkpoint holds."""
    with started(folder, epochs, *options) as process:
        assert process.wait(timeout=LIMIT) == 0
    counts: Tensor = checkpoint(folder / "last.ckpt")["counts"][0]
    return counts.numpy()


@pytest.mark.slow
def test_two_processes_encrypt_their_own_images_under_their_own_keys(tmp_path: Path) -> None:
    counts = run(tmp_path, 2, "--devices", "2")
    for epoch in range(2):
        shards = [set(kept(tmp_path, epoch, rank).images.reshape(-1)) for rank in range(2)]
        # Each has its share, and no partner from outside it; one image fills the last batch up.
        assert [len(shard) for shard in shards] == [11, 11]
        assert shards[0] | shards[1] == set(range(IMAGES))
    assert all_differ(kept(tmp_path).masks)
    # Images move from one to the other: only together do they know how often each went out.
    assert counts.tolist() == counted(kept(tmp_path)).tolist()


@pytest.mark.slow
def test_a_checkpoint_within_an_epoch_has_the_counts_of_both_processes(tmp_path: Path) -> None:
    # Before the second batch of three is given, the third has been asked for, and counted.
    counts = run(tmp_path, 1, "--devices", "2", "--every", "2")
    assert counts.tolist() == counted(kept(tmp_path)).tolist()


@pytest.mark.slow
def test_two_processes_resume_together(tmp_path: Path) -> None:
    run(tmp_path, 1, "--devices", "2")
    counts = run(tmp_path, 3, "--devices", "2", "--resume", str(tmp_path / "last.ckpt"))
    assert len({path.name.split("-")[2] for path in tmp_path.glob("*.npy")}) == 4
    assert all_differ(kept(tmp_path).masks)
    assert counts.tolist() == counted(kept(tmp_path)).tolist()


@pytest.mark.slow
@pytest.mark.parametrize("everywhere", [[], ["--everywhere"]])
def test_the_limit_holds_for_two_processes_together(everywhere: list[str], tmp_path: Path) -> None:
    counts = run(tmp_path, 99, "--devices", "2", "--limit", "9", *everywhere)
    assert counts.max() <= 9
    given = counted(kept(tmp_path))
    assert given.max() > 0
    assert (given <= counts).all()
    # Both stopped after the same step.
    sizes = [len(kept(tmp_path, "*", rank).images) for rank in range(2)]
    assert abs(sizes[0] - sizes[1]) <= 3


@pytest.mark.slow
def test_killed_and_resumed_it_draws_new_keys(tmp_path: Path) -> None:
    with started(tmp_path, 100_000) as process:
        wait_until(
            lambda: (tmp_path / "last.ckpt").exists() and len(list(tmp_path.glob("*.npy"))) >= 5,
            unless=process.poll,
        )
        process.kill()
    before = counted(kept(tmp_path))
    epochs = torch.load(tmp_path / "last.ckpt", weights_only=True)["epoch"] + 3
    counts = run(tmp_path, epochs, "--resume", str(tmp_path / "last.ckpt"))
    found = kept(tmp_path)
    assert len(found.masks) > len(before)
    assert all_differ(found.masks)
    # Epochs that were made after the last checkpoint are the only ones that it does not know of.
    lost = counted(found).sum() - counts.sum()
    assert 0 <= lost <= 2 * 2 * IMAGES

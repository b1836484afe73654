"""`instahide train` in several processes, under `torchrun` and under nobody."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np
import pytest

from instahide.data import open_images, open_split
from instahide.encodings.ledger.ledger import Ledger
from instahide.training.models.model_io import load_network
from instahide.training.settings import TrainSettings
from instahide.training.trainer import Trainer
from tests.training.distributed.launch import SECONDS, ended, started, torchrun, train
from tests.waiting import wait_until

TRAIN = ("instahide", "train")


def results(run: Path) -> Any:
    return json.loads((run / "results.json").read_text())


def epochs(run: Path) -> int:
    return len(results(run)["epochs"])


def options(tmp_path: Path, *more: object, source: str = "digits") -> list[str]:
    """Arguments of a short run."""
    quick = (source, "--scheme", "inside", "--k", "2", "--queries", "0")
    out = ("--out", tmp_path / "run", "--ledger", tmp_path / "ledger.sqlite")
    return [str(option) for option in (*quick, *out, *more)]


def clinics(tmp_path: Path, classes: int = 10) -> str:
    """A source for each of two ranks: digits as they are, and fewer and darker ones."""
    images, labels = open_split("digits").train.pixels[:, 0], open_split("digits").train.labels
    few = np.flatnonzero(labels < classes)[:300]
    np.savez(tmp_path / "clinic-0.npz", x=images, y=labels)
    np.savez(tmp_path / "clinic-1.npz", x=images[few] // 2, y=labels[few])
    return str(tmp_path / "clinic-{rank}.npz")


def wait_for(path: Path) -> None:
    wait_until(path.exists)


def process_of(launcher: subprocess.Popen[str], rank: int) -> int:
    """The number of the process that ``launcher`` has given ``rank``."""
    tasks = Path(f"/proc/{launcher.pid}/task")
    children = " ".join((task / "children").read_text() for task in tasks.iterdir()).split()
    (found,) = (
        int(child)
        for child in children
        if f"\0RANK={rank}\0".encode() in Path(f"/proc/{child}/environ").read_bytes()
    )
    return found


@pytest.mark.slow
def test_torchrun_trains_once_on_every_image(tmp_path: Path) -> None:
    said, complained = train(*options(tmp_path, "--epochs", 2))
    # Rank 0 alone speaks.
    assert said.count("accuracy") == 1
    lines = [line for line in complained.splitlines() if line.startswith("epoch")]
    assert [line[:9] for line in lines] == ["epoch 1/2", "epoch 2/2"]
    found = results(tmp_path / "run")
    assert found["world"] == {"size": 2, "backend": "gloo"}
    images = open_split("digits").train
    with Ledger.open(tmp_path / "ledger.sqlite") as ledger:
        counts = ledger.account(images).counts
    # Each image is encrypted once in each of two epochs; each mix holds two.
    assert counts.sum() == 2 * 2 * len(images)
    assert counts.min() >= 2
    assert found["exposure"] == {"least": int(counts.min()), "most": int(counts.max())}


@pytest.mark.slow
def test_other_classes_end_all_ranks_with_one_message(tmp_path: Path) -> None:
    arguments = options(tmp_path, source=clinics(tmp_path, classes=9))
    with started(2, *TRAIN, *arguments) as processes:
        (ours, said), (theirs, nothing) = ended(processes)
    assert (ours, theirs, nothing) == (2, 2, "")
    assert "Rank 0 and rank 1 have other classes: 9 only in rank 0, none only in rank 1." in said
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_three_ranks_share_what_does_not_divide_by_three(tmp_path: Path) -> None:
    """1,438 images, and batches of 256."""
    with started(3, *TRAIN, *options(tmp_path, "--epochs", 1)) as processes:
        assert [code for code, _ in ended(processes)] == [0, 0, 0]
    assert results(tmp_path / "run")["world"]["size"] == 3
    images = open_split("digits").train
    with Ledger.open(tmp_path / "ledger.sqlite") as ledger:
        assert ledger.account(images).counts.sum() == 2 * len(images)


@pytest.mark.slow
def test_each_rank_opens_its_own_source(tmp_path: Path) -> None:
    """The second has a quarter of the first one's batches; it goes on until the first is done."""
    source = clinics(tmp_path)
    train(*options(tmp_path, "--epochs", 3, "--test", "digits", source=source))
    assert epochs(tmp_path / "run") == 3
    _, card = load_network(tmp_path / "run" / "model.safetensors")
    tables = [open_images(source.format(rank=rank)) for rank in (0, 1)]
    weighted = np.average([t.mean for t in tables], axis=0, weights=[len(t) for t in tables])
    assert card.mean == pytest.approx(weighted)


@pytest.mark.slow
def test_a_limit_that_one_rank_reaches_ends_both(tmp_path: Path) -> None:
    arguments = options(tmp_path, "--epochs", 50, "--max-exposure", 12)
    with started(2, *TRAIN, *arguments) as processes:
        (ours, said), (theirs, nothing) = ended(processes)
    assert (ours, theirs, nothing) == (2, 2, "")
    assert said.count("above 12 encodings") == 1
    names = {path.name for path in (tmp_path / "run").iterdir()}
    assert names == {"settings.json", "checkpoint.safetensors"}


@pytest.mark.slow
@pytest.mark.parametrize("rank", [0, 1])
def test_a_killed_rank_ends_the_run_which_goes_on_later(tmp_path: Path, rank: int) -> None:
    arguments = options(tmp_path, "--epochs", 12)
    with torchrun(*TRAIN, *arguments) as run:
        wait_for(tmp_path / "run" / "checkpoint.safetensors")
        other = process_of(run, 1 - rank)
        os.kill(process_of(run, rank), signal.SIGKILL)
        _, complained = run.communicate(timeout=SECONDS)
    assert run.returncode != 0
    assert not Path(f"/proc/{other}").exists()
    # What comes before is ours: a sentence of rank 0 if it lives, and of nobody else.
    ours = complained.partition("torch/distributed/elastic")[0]
    assert ours.count("Another process of this run has ended") <= rank
    assert "Traceback" not in ours
    assert not (tmp_path / "run" / "results.json").exists()
    train(*arguments, "--resume")
    assert epochs(tmp_path / "run") == 12


@pytest.mark.slow
def test_a_rank_says_that_another_was_killed(tmp_path: Path) -> None:
    """Where no launcher ends it first."""
    with started(2, *TRAIN, *options(tmp_path, "--epochs", 50)) as processes:
        wait_for(tmp_path / "run" / "checkpoint.safetensors")
        processes[1].kill()
        (ours, said), _ = ended(processes)
    assert ours == 2
    assert said.count("Another process of this run has ended") == 1
    assert "Traceback" not in said


@pytest.mark.slow
def test_a_run_whose_processes_were_all_killed_goes_on(tmp_path: Path) -> None:
    arguments = options(tmp_path, "--epochs", 12)
    with torchrun(*TRAIN, *arguments) as run:
        wait_for(tmp_path / "run" / "checkpoint.safetensors")
        for process in (run.pid, process_of(run, 0), process_of(run, 1)):
            os.kill(process, signal.SIGKILL)
    train(*arguments, "--resume")
    assert epochs(tmp_path / "run") == 12


@pytest.mark.slow
def test_torchrun_starts_again_what_was_killed(tmp_path: Path) -> None:
    with torchrun(*TRAIN, *options(tmp_path, "--epochs", 12, "--resume"), restarts=1) as run:
        wait_for(tmp_path / "run" / "checkpoint.safetensors")
        os.kill(process_of(run, 1), signal.SIGKILL)
        _, complained = run.communicate(timeout=SECONDS)
    assert run.returncode == 0, complained
    assert epochs(tmp_path / "run") == 12


@pytest.mark.slow
def test_ctrl_c_ends_all_ranks_with_one_line(tmp_path: Path) -> None:
    with started(2, *TRAIN, *options(tmp_path, "--epochs", 500)) as processes:
        wait_for(tmp_path / "run" / "checkpoint.safetensors")
        for process in processes:
            process.send_signal(signal.SIGINT)
        (ours, said), (theirs, nothing) = ended(processes)
    assert (ours, theirs, nothing) == (130, 130, "")
    assert said.splitlines()[-1].startswith("Stopped after epoch")


@pytest.mark.slow
def test_ctrl_c_reaches_the_ranks_through_torchrun(tmp_path: Path) -> None:
    with torchrun(*TRAIN, *options(tmp_path, "--epochs", 500)) as run:
        wait_for(tmp_path / "run" / "checkpoint.safetensors")
        ranks = [process_of(run, rank) for rank in (0, 1)]
        run.send_signal(signal.SIGINT)
        _, complained = run.communicate(timeout=SECONDS)
    assert complained.count("Stopped after epoch") == 1
    assert not any(Path(f"/proc/{rank}").exists() for rank in ranks)


@pytest.mark.slow
def test_ranks_share_folders_of_encodings(tmp_path: Path) -> None:
    folders = [str(tmp_path / name) for name in ("anna", "ben")]
    for folder in folders:
        command = ["encrypt", "digits", "--scheme", "inside", "--k", "2", "--copies", "4"]
        ledger = ["--ledger", str(tmp_path / "ledger.sqlite")]
        with started(1, "instahide", *command, *ledger, "--out", folder) as processes:
            assert ended(processes)[0][0] == 0
    train(*folders, "--test", "digits", "--epochs", "3", "--out", str(tmp_path / "run"))
    found = results(tmp_path / "run")
    assert found["world"] == {"size": 2, "backend": "gloo"}
    assert found["metrics"]["accuracy"] > 0.8


@pytest.mark.slow
def test_two_processes_learn_as_well_as_one(tmp_path: Path) -> None:
    """Means of four runs each: 0.009 apart by chance, and 0.05 once in ten million times."""
    two, one = [], []
    for seed in range(4):
        train(*options(tmp_path / str(seed), "--epochs", 15, "--seed", seed))
        two.append(results(tmp_path / str(seed) / "run")["metrics"]["accuracy"])
        values = {"data": "digits", "scheme": "inside", "k": 2, "queries": 0, "epochs": 15}
        job = Trainer.open(TrainSettings.from_values({**values, "seed": seed}))
        job.run()
        one.append(job.metrics["accuracy"])
    assert mean(two) == pytest.approx(mean(one), abs=0.05)

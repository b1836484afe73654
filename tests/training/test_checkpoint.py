"""Checkpoints: exact, whole or refused, and enough to go on after ``kill -9``."""

from __future__ import annotations

import json
import math
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from torch import Tensor, nn

from instahide.encryption.scheme import Scheme
from instahide.errors import InstaHideError
from instahide.training.evaluate import predicted
from instahide.training.history import EpochRecord, History
from instahide.training.models import SignInvariant, build, residual_network
from instahide.training.models.model_io import NetworkCard, load_network, save_network
from instahide.training.outputs import Outputs
from instahide.training.progress import Progress
from instahide.training.run_folder import RunFolder
from instahide.training.settings import TrainSettings
from instahide.training.training_loop import train
from instahide.utils.tensor_file import read_tensors, write_tensors
from tests.waiting import LIMIT, wait_until

EPOCHS = 6
DEADLINE = 60.0


def _settings(**values: object) -> TrainSettings:
    common = {"epochs": EPOCHS, "device": "cpu", "precision": "float32", "ema": 0.9, "lr": 0.01}
    return TrainSettings.from_values({**common, **values})


def _network(seed: int = 0, classes: int = 3) -> nn.Module:
    torch.manual_seed(seed)
    stem = nn.Conv2d(1, 4, 3, stride=2, padding=1, bias=False)
    return SignInvariant(residual_network(classes, stem=stem, widths=(4, 8), blocks=(1, 1)))


def _batches() -> list[tuple[Tensor, Tensor]]:
    """The last is a single encoding, which is passed over but is a step of the schedule."""
    generator = torch.Generator().manual_seed(1)
    return [
        (
            torch.randn(size, 1, 8, 8, generator=generator),
            torch.rand(size, 3, generator=generator).softmax(1),
        )
        for size in (16, 16, 16, 16, 1)
    ]


def _train(
    path: Path | None,
    settings: TrainSettings,
    *,
    resume: bool = False,
    progress: Progress | None = None,
) -> tuple[nn.Module, History]:
    run = RunFolder.open(path, settings, resume=resume) if path else None
    # Other weights after a checkpoint: its own must replace them.
    model = _network(seed=int(run is not None and run.checkpoint.exists()))
    history = train(model, _batches(), settings, run=run, progress=progress)
    if run is not None:
        run.write_results(history)
    return model, history


class StopAfter(Progress):
    """Ctrl-C when ``epoch`` is over."""

    def __init__(self, epoch: int) -> None:
        self.last = epoch

    def epoch(self, record: EpochRecord) -> None:
        if record.epoch == self.last:
            raise KeyboardInterrupt


class WaitAfter(Progress):
    """Waits to be killed when ``epoch`` is over, in the middle of a run."""

    def __init__(self, epoch: int) -> None:
        self.last = epoch

    def epoch(self, record: EpochRecord) -> None:
        if record.epoch == self.last:
            time.sleep(LIMIT)


def _same(first: nn.Module, second: nn.Module) -> bool:
    ours, theirs = first.state_dict(), second.state_dict()
    return ours.keys() == theirs.keys() and all(torch.equal(ours[n], theirs[n]) for n in ours)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Small networks are slower on many, and much slower on a busy machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def test_a_network_that_returns_nan_ends_a_run_which_can_be_resumed(tmp_path: Path) -> None:
    """The checkpoint of the epoch before stays, and a run that continues from it is as any."""
    whole, _ = _train(tmp_path / "whole", _settings())
    bad, images = count(1), _batches()[0][0]

    def evaluate(network: nn.Module) -> dict[str, float]:
        factor = math.nan if next(bad) == 3 else 1.0
        hook = network.register_forward_hook(lambda _, inputs, found: factor * found)
        try:
            found, _ = predicted(network, [(images, torch.zeros(len(images)))], Outputs())
        finally:
            hook.remove()
        return {"accuracy": float(found.mean())}

    run = RunFolder.open(tmp_path / "cut", _settings())
    with pytest.raises(InstaHideError, match="NaN or infinite outputs"):
        train(_network(), _batches(), _settings(), run=run, evaluate=evaluate)
    assert len(read_tensors(run.checkpoint)[1]["history"]) == 2
    resumed, history = _train(tmp_path / "cut", _settings(), resume=True)
    assert len(history) == EPOCHS
    assert _same(resumed, whole)


@pytest.mark.parametrize("stop", [1, 4])
@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_a_resumed_run_equals_an_uninterrupted_one(
    optimizer: str, stop: int, tmp_path: Path
) -> None:
    """Bit for bit: weights, average, moments, schedule and losses."""
    values = _settings(optimizer=optimizer)
    whole, expected = _train(tmp_path / "whole", values)
    with pytest.raises(KeyboardInterrupt):
        _train(tmp_path / "cut", values, progress=StopAfter(stop))
    resumed, history = _train(tmp_path / "cut", values, resume=True)
    assert _same(resumed, whole)
    assert [record.loss for record in history] == [record.loss for record in expected]
    files = [tmp_path / name / "checkpoint.safetensors" for name in ("whole", "cut")]
    (ours, facts), (theirs, _) = (read_tensors(file) for file in files)
    assert facts["step"] == EPOCHS * len(_batches())
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def _train_and_wait(path: str, epoch: int) -> None:
    """What the victims of `test_a_run_survives_sigkill_twice` run."""
    torch.set_num_threads(1)
    _train(Path(path), _settings(), resume=True, progress=WaitAfter(epoch))


def _epochs_in(file: Path) -> int:
    return len(read_tensors(file)[1]["history"]) if file.exists() else 0


@pytest.mark.slow
def test_a_run_survives_sigkill_twice(tmp_path: Path) -> None:
    """A process killed in the middle, its successor too; the third reaches the same end."""
    path = tmp_path / "run"
    paths = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    for epochs in (1, 3):
        call = f"['_train_and_wait']({str(path)!r}, {epochs + 1})"
        code = f"import runpy; runpy.run_path({__file__!r}){call}"
        victim = subprocess.Popen([sys.executable, "-c", code], env=paths)
        wait_until(
            lambda least=epochs: _epochs_in(path / "checkpoint.safetensors") >= least,
            unless=victim.poll,
        )
        victim.kill()
        assert victim.wait() == -9
    assert not (path / "results.json").exists()
    before = _epochs_in(path / "checkpoint.safetensors")
    assert 3 <= before < EPOCHS
    torn = path / ".checkpoint-left.safetensors"
    torn.write_bytes(b"half")
    _, history = _train(path, _settings(), resume=True)
    _, expected = _train(None, _settings())
    assert [record.epoch for record in history] == list(range(1, EPOCHS + 1))
    assert [record.loss for record in history] == [record.loss for record in expected]
    names = {file.name for file in path.iterdir()}
    assert names == {"settings.json", "checkpoint.safetensors", "results.json"}


@pytest.mark.parametrize(
    ("optimizer", "slots"),
    [("sgd", {"momentum_buffer"}), ("adamw", {"step", "exp_avg", "exp_avg_sq"})],
)
def test_a_checkpoint_holds_weights_and_moments_and_nothing_else(
    optimizer: str, slots: set[str], tmp_path: Path
) -> None:
    """Read by safetensors alone; every name and every fact is one that is known to be public."""
    _train(tmp_path / "run", _settings(optimizer=optimizer, epochs=1))
    with safe_open(tmp_path / "run" / "checkpoint.safetensors", "pt") as file:
        names, header = set(file.keys()), file.metadata()
    model = _network()
    weights, parameters = set(model.state_dict()), dict(model.named_parameters())
    expected = {f"model.{name}" for name in weights}
    expected |= {f"ema.module.{name}" for name in weights} | {"ema.n_averaged"}
    expected |= {f"optimizer.{slot}.{name}" for slot in slots for name in parameters}
    assert names == expected
    assert set(header) == {"facts", "sha256"}
    facts = json.loads(header["facts"])
    assert set(facts) == {"step", "precision", "history"}
    fields = {"epoch", "loss", "learning_rate", "seconds", "images_per_second", "metrics"}
    assert set(facts["history"][0]) == fields


def test_a_taken_folder_is_refused_untouched(tmp_path: Path) -> None:
    """A run's, somebody else's, or a file."""
    RunFolder.open(tmp_path / "run", _settings())
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.tex").write_text("x")
    (tmp_path / "file").write_text("x")
    for name in ("run", "other", "file"):
        with pytest.raises(InstaHideError, match=r"exists already.*resume=True.*out="):
            RunFolder.open(tmp_path / name, _settings())
    for name in ("other", "file"):
        with pytest.raises(InstaHideError, match="settings"):
            RunFolder.open(tmp_path / name, _settings(), resume=True)
    assert [file.name for file in (tmp_path / "other").iterdir()] == ["thesis.tex"]


def test_an_empty_or_missing_folder_is_started_by_resume_too(tmp_path: Path) -> None:
    """A run may be killed before it wrote anything."""
    (tmp_path / "empty").mkdir()
    for name in ("empty", "missing"):
        assert len(_train(tmp_path / name, _settings(epochs=1), resume=True)[1]) == 1


def test_resuming_with_other_settings_is_refused_with_the_difference(tmp_path: Path) -> None:
    RunFolder.open(tmp_path / "run", _settings())
    with pytest.raises(InstaHideError, match=r"epochs: 9 here, 6 there; lr: 0\.5 here, 0\.01"):
        RunFolder.open(tmp_path / "run", _settings(epochs=9, lr=0.5), resume=True)


def test_resuming_another_network_or_data_set_is_refused(tmp_path: Path) -> None:
    values = _settings(epochs=2)
    with pytest.raises(KeyboardInterrupt):
        _train(tmp_path / "run", values, progress=StopAfter(1))
    run = RunFolder.open(tmp_path / "run", values, resume=True)
    wider = _network(classes=4)
    with pytest.raises(InstaHideError, match="does not fit this network"):
        train(wider, _batches(), values, run=run)
    same = _network()
    with pytest.raises(InstaHideError, match="data set of another size"):
        train(same, _batches()[:2], values, run=run)


def test_a_foreign_file_in_place_of_the_checkpoint_is_refused(tmp_path: Path) -> None:
    values = _settings(epochs=2)
    run = RunFolder.open(tmp_path / "run", values)
    for content in (b"", b"\x80\x04N.", os.urandom(200)):
        run.checkpoint.write_bytes(content)
        with pytest.raises(InstaHideError, match="is damaged, or another"):
            _train(run.path, values, resume=True)
    write_tensors(run.checkpoint, {"a": torch.zeros(1)}, {})
    with pytest.raises(InstaHideError, match="does not fit"):
        _train(run.path, values, resume=True)


def test_results_tell_settings_surroundings_and_every_epoch(tmp_path: Path) -> None:
    """JSON that another program can read."""
    values = _settings(epochs=2)
    run = RunFolder.open(tmp_path / "run", values)
    history = train(_network(), _batches(), values, run=run, evaluate=lambda _: {"accuracy": 0.5})
    run.write_results(history, {"encrypted": 0.75})
    results = json.loads((run.path / "results.json").read_text())
    assert TrainSettings.from_values(results["settings"]) == values
    assert results["metrics"] == {"accuracy": 0.5, "encrypted": 0.75}
    assert [epoch["epoch"] for epoch in results["epochs"]] == [1, 2]
    assert results["images_per_second"] > 0 < results["training_seconds"]
    facts = results["surroundings"]
    assert re.match(r"\d+\.\d+", facts["versions"]["torch"])
    assert set(facts["versions"]) == {"instahide", "torch", "numpy", "python"}
    assert (facts["device"], facts["precision"]) == ("cpu", "float32")
    assert facts["threads"] == torch.get_num_threads()


def test_a_finished_network_comes_back_whole(tmp_path: Path) -> None:
    """Same logits, same card; another file is refused."""
    model = build("small", 1, 3, sign_invariant=True).eval()
    scheme = Scheme.cross(4).to_json()
    card = NetworkCard("small", True, (1, 8, 8), ("a", "b", "c"), (0.5,), (0.25,), scheme)
    save_network(tmp_path / "model.safetensors", model, card)
    back, same = load_network(tmp_path / "model.safetensors")
    x = torch.randn(2, 1, 8, 8)
    assert same == card
    assert torch.equal(back(x), model(x))
    write_tensors(tmp_path / "other.safetensors", {"a": torch.zeros(1)}, {})
    with pytest.raises(InstaHideError, match=r"other\.safetensors does not hold a network"):
        load_network(tmp_path / "other.safetensors")


@pytest.mark.parametrize(
    "change",
    [
        {"model": "no such"}, {"model": 1}, {"sign_invariant": "yes"}, {"shape": [1, 8]},
        {"shape": [10**9, 8, 8]}, {"shape": [0, 8, 8]}, {"shape": "abc"}, {"classes": []},
        {"classes": [1, 2, 3]}, {"classes": ["a", "b"]}, {"mean": []}, {"mean": ["x"]},
        {"mean": [10**400]}, {"std": [0.0]}, {"std": [1.0, 1.0]}, {"std": None},
        {"scheme": "{}{"}, {"scheme": 4}, {"scheme": '{"k": 0}'},
    ],
    ids=str,
)  # fmt: skip
def test_a_network_that_says_what_cannot_be_is_refused(
    tmp_path: Path, change: dict[str, Any]
) -> None:
    model = build("small", 1, 3, sign_invariant=True)
    scheme = Scheme.cross(4).to_json()
    card = NetworkCard("small", True, (1, 8, 8), ("a", "b", "c"), (0.5,), (0.25,), scheme)
    write_tensors(tmp_path / "model", model.state_dict(), asdict(card) | change)
    with pytest.raises(InstaHideError):
        load_network(tmp_path / "model")

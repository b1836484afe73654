"""`load_network` on files of strangers: none imports a package that nobody named."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from instahide import load_network
from instahide.cli.main import app
from instahide.encryption.scheme import Scheme
from instahide.errors import DamagedFileError, InstaHideError
from instahide.training.models import build
from instahide.training.models.model_io import NetworkCard, save_network

#: A module that leaves a mark when it is imported.
MODULE = "hostile_networks"
NAME = f"{MODULE}:make"
CARD = NetworkCard(
    NAME, True, (2, 8, 8), ("a", "b"), (0.5, 0.5), (0.25, 0.25), Scheme.inside(4).to_json()
)
CODE = """
from pathlib import Path
from torch import nn
Path({mark!r}).touch()
def make(channels, outputs):
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, outputs))
"""


@pytest.fixture
def mark(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run whose network is of a module that can be imported; returns that module's mark."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("INSTAHIDE_LEDGER", str(tmp_path / "ledger.sqlite"))
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, MODULE, raising=False)
    mark = tmp_path / "mark"
    (tmp_path / f"{MODULE}.py").write_text(CODE.format(mark=str(mark)))
    model = build(NAME, 2, 2, sign_invariant=True, size=(8, 8))
    (tmp_path / "run").mkdir()
    save_network(tmp_path / "run" / "model.safetensors", model, CARD)
    monkeypatch.delitem(sys.modules, MODULE)
    mark.unlink()
    return mark


def test_a_file_does_not_import_what_it_names(mark: Path) -> None:
    with pytest.raises(InstaHideError, match=rf"would run code.*`model='{NAME}'`"):
        load_network("run/model.safetensors")
    with pytest.raises(InstaHideError, match=r"holds the network .*, not `timm:resnet18`"):
        load_network("run/model.safetensors", model="timm:resnet18")
    assert not mark.exists()
    assert MODULE not in sys.modules


def test_whoever_names_the_network_gets_it(mark: Path) -> None:
    network, card = load_network("run/model.safetensors", model=NAME)
    assert mark.exists()
    assert card == CARD
    assert network(torch.zeros(3, 2, 8, 8)).shape == (3, 2)


def test_a_built_in_network_must_be_the_one_named(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    save_network(path, build("small", 2, 2, sign_invariant=True), replace(CARD, model="small"))
    assert load_network(path, model="small")[1].model == "small"
    with pytest.raises(InstaHideError, match="holds the network `small`, not `resnet18`"):
        load_network(path, model="resnet18")


@pytest.mark.parametrize("name", ["monai:DenseNet121", "timm:resnet18", "os:system"])
def test_packages_that_are_known_are_not_imported_either(tmp_path: Path, name: str) -> None:
    path = tmp_path / "model.safetensors"
    model = build("small", 2, 2, sign_invariant=True)
    save_network(path, model, replace(CARD, model=name))
    with pytest.raises(InstaHideError, match="would run code"):
        load_network(path)


def test_weights_that_do_not_fit_the_named_network_are_damage(mark: Path) -> None:
    save_network(Path("run/model.safetensors"), build("small", 2, 2, sign_invariant=True), CARD)
    with pytest.raises(DamagedFileError, match="does not hold a network"):
        load_network("run/model.safetensors", model=NAME)


@pytest.mark.parametrize(
    "arguments",
    [
        ["predict", "run", "digits", "--queries", "0"],
        ["audit", "run", "--images", "digits"],
        ["export-model", "run", "--format", "safetensors", "--out", "out.safetensors"],
        ["train", "--config", "settings.json", "--out", "new"],
        ["train", "--resume", "--out", "run"],
    ],
    ids=lambda arguments: " ".join(arguments[:2]),
)
def test_commands_do_not_import_what_a_file_names(mark: Path, arguments: list[str]) -> None:
    settings = {"data": "digits", "scheme": "inside", "model": NAME, "epochs": 1}
    for path in ("settings.json", "run/settings.json"):
        Path(path).write_text(json.dumps(settings))
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 2
    words = " ".join(done.output.split())
    assert f"--model {NAME}" in words
    assert not mark.exists()

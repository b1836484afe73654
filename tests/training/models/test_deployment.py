"""Exported networks compute what the network does, from pixels as they are in the image files."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from typer.testing import CliRunner

from instahide import ImageTable, load_network
from instahide.cli.main import app
from instahide.data.labels import Task
from instahide.encryption.scheme import Scheme
from instahide.errors import InstaHideError
from instahide.training.models import build
from instahide.training.models.deployment import (
    Deployment,
    DeploymentFormat,
    export_network,
)
from instahide.training.models.model_io import NetworkCard, save_network
from instahide.training.predict import probabilities
from tests.scans import stains, volumes


def _run(folder: Path, table: ImageTable, name: str, *, stem: bool) -> Path:
    """A finished run with a network whose weights are not those of a new one."""
    card = NetworkCard(
        name, stem, table.shape, ("no", "yes"), table.mean, table.std, Scheme.inside(4).to_json(),
        table.value_range,
    )  # fmt: skip
    network = build(name, table.shape[0], 2, sign_invariant=stem, seed=3, size=table.shape[1:])
    with torch.no_grad():
        network.train()
        network(torch.from_numpy(table.normalized()))
    save_network(folder / "model.safetensors", network, card)
    return folder


def _table(kind: str) -> ImageTable:
    images, labels = stains(12, 12) if kind == "images" else volumes(12, 8)
    return ImageTable.from_arrays(images, labels, ["no", "yes"])


def _export(run: Path, form: str) -> Path:
    out = run / f"out.{form}"
    done = CliRunner().invoke(app, ["export-model", str(run), "--format", form, "--out", str(out)])
    assert done.exit_code == 0, done.output
    assert not list(run.glob(".out*"))
    return out


def _ask(path: Path, form: str, pixels: Tensor) -> tuple[Tensor, str]:
    """The answers of the file, by the library that the format is of; and its card."""
    if form == "pt2":
        found = {"instahide_card": ""}
        program = torch.export.load(path, extra_files=found)
        return program.module()(pixels), found["instahide_card"]
    onnxruntime = pytest.importorskip("onnxruntime")
    session = onnxruntime.InferenceSession(path)
    card = session.get_modelmeta().custom_metadata_map["instahide_card"]
    return torch.from_numpy(session.run(None, {"pixels": pixels.numpy()})[0]), card


@pytest.mark.slow
@pytest.mark.parametrize("form", ["onnx", "pt2"])
@pytest.mark.parametrize(
    ("kind", "name", "stem"),
    [("images", "small", True), ("images", "resnet18", False), ("volumes", "small-3d", True)],
)
def test_the_file_answers_as_the_network_does(
    tmp_path: Path, form: str, kind: str, name: str, stem: bool
) -> None:
    if form == "onnx":
        pytest.importorskip("onnxscript")
    table = _table(kind)
    run = _run(tmp_path, table, name, stem=stem)
    network, card = load_network(run / "model.safetensors")
    wanted = probabilities(network, torch.from_numpy(table.normalized()))
    path = _export(run, form)
    for count in (1, len(table)):
        pixels = torch.from_numpy(table.pixels[:count].astype(np.float32))
        answers, kept = _ask(path, form, pixels)
        torch.testing.assert_close(answers, wanted[:count], rtol=1e-4, atol=1e-5)
        assert json.loads(kept) == json.loads(json.dumps(asdict(card)))
    assert (wanted.max(0).values - wanted.min(0).values).min() > 1e-3


@pytest.mark.slow
@pytest.mark.parametrize("form", ["onnx", "pt2", "safetensors"])
@pytest.mark.parametrize("name", ["model", "model.v2", ".hidden", "model.zip"])
def test_a_file_may_have_any_name(tmp_path: Path, name: str, form: DeploymentFormat) -> None:
    if form == "onnx":
        pytest.importorskip("onnxscript")
    table = _table("images")
    network, card = load_network(_run(tmp_path, table, "small", stem=True) / "model.safetensors")
    (tmp_path / "out").mkdir()
    path = tmp_path / "out" / name
    export_network(network, card, path, form)
    assert list(path.parent.iterdir()) == [path]
    if form == "safetensors":
        assert load_network(path)[1] == card
        return
    with path.open("rb") as file:
        program = torch.export.load(file) if form == "pt2" else None
    pixels = torch.from_numpy(table.pixels.astype(np.float32))
    answers = program.module()(pixels) if program else _ask(path, form, pixels)[0]
    wanted = probabilities(network, torch.from_numpy(table.normalized()))
    torch.testing.assert_close(answers, wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("form", ["onnx", "pt2"])
@pytest.mark.parametrize("task", ["multi-label", "regression"])
def test_findings_and_values_are_predicted_as_by_the_network(
    tmp_path: Path, form: DeploymentFormat, task: Task
) -> None:
    if form == "onnx":
        pytest.importorskip("onnxscript")
    table = _table("images")
    moments = ((40.0, -3.0), (12.0, 0.5)) if task == "regression" else ((), ())
    card = NetworkCard(
        "small", True, table.shape, ("age", "dose"), table.mean, table.std,
        Scheme.inside(4).to_json(), table.value_range, task, *moments,
    )  # fmt: skip
    network = build("small", 5, 2, sign_invariant=True, seed=3, size=(12, 12)).eval()
    export_network(network, card, tmp_path / f"out.{form}", form)
    with torch.no_grad():
        wanted = card.outputs.predictions(network(torch.from_numpy(table.normalized())))
    pixels = torch.from_numpy(table.pixels.astype(np.float32))
    answers, _ = _ask(tmp_path / f"out.{form}", form, pixels)
    torch.testing.assert_close(answers, wanted, rtol=1e-4, atol=1e-4)


def test_pixels_beyond_the_range_count_as_its_ends(tmp_path: Path) -> None:
    table = _table("images")
    run = _run(tmp_path, table, "small", stem=True)
    deployed = Deployment(*load_network(run / "model.safetensors")).eval()
    low, high = table.value_range
    pixels = torch.from_numpy(table.pixels.astype(np.float32))
    pixels[:, :, 0], pixels[:, :, 1] = low, high
    beyond = pixels.clone()
    beyond[:, :, 0], beyond[:, :, 1] = low - 7, high + 900
    assert torch.equal(deployed(pixels), deployed(beyond))


def test_safetensors_hold_the_network_and_its_card(tmp_path: Path) -> None:
    table = _table("images")
    run = _run(tmp_path, table, "small", stem=True)
    network, card = load_network(run / "model.safetensors")
    same, again = load_network(_export(run, "safetensors"))
    assert again == card
    x = torch.from_numpy(table.normalized())
    assert torch.equal(network(x), same(x))


class _Undecided(torch.nn.Module):
    """A network that cannot be traced: its way depends on the values."""

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1)[:, :2] * (1 if x.sum().item() > 0 else 2)


@pytest.mark.slow
@pytest.mark.parametrize("form", ["onnx", "pt2"])
def test_what_cannot_be_exported_leaves_no_file(tmp_path: Path, form: str) -> None:
    if form == "onnx":
        pytest.importorskip("onnxscript")
    card = NetworkCard("x:y", False, (1, 4, 4), ("a", "b"), (0.5,), (0.2,), Scheme(4).to_json())
    with pytest.raises(InstaHideError, match=f"cannot be exported to {form}"):
        export_network(_Undecided(), card, tmp_path / "out", form)  # type: ignore[arg-type]
    assert not list(tmp_path.iterdir())

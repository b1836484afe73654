"""Commands that write a file never replace one that they read."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from instahide import open_split
from instahide.cli.main import app


@pytest.fixture(scope="module", autouse=True)
def _inputs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A run in `run`, an archive of images, and a folder of images with a table of labels."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder := tmp_path_factory.mktemp("inputs"))
        patch.setenv("INSTAHIDE_LEDGER", str(folder / "ledger.sqlite"))
        write_inputs()
        yield


def write_inputs() -> None:
    digits = open_split("digits").train.subset(np.arange(40))
    np.savez("digits.npz", x=digits.pixels, y=digits.labels)
    Path("scans").mkdir()
    rows = ["file,class"]
    for number in range(12):
        Image.fromarray(digits.pixels[number, 0]).save(Path("scans", f"{number}.png"))
        rows.append(f"{number}.png,{digits.classes[digits.labels[number]]}")
    Path("scans/labels.csv").write_text("\n".join(rows))
    done = run("train", "digits.npz", "--scheme", "inside", "--k", "2", "--epochs", "1",
               "--batch-size", "8", "--queries", "0", "--out", "run")  # fmt: skip
    assert done[0] == 0, done[1]


def run(*arguments: str) -> tuple[int, str]:
    done = CliRunner().invoke(app, list(arguments))
    return done.exit_code, " ".join(done.output.split())


def contents() -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in Path().rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    "command",
    [
        ("export-model", "run", "--format", "safetensors", "--out", "run/model.safetensors"),
        ("export-model", "run", "--format", "onnx", "--out", "./run/../run/settings.json"),
        ("predict", "run", "digits.npz", "--queries", "0", "--out", "digits.npz"),
        ("predict", "run", "digits.npz", "--queries", "0", "--out", "run/model.safetensors"),
        ("predict", "run", "scans", "--labels", "scans/labels.csv", "--label-columns", "class",
         "--queries", "0", "--out", "scans/labels.csv"),
        ("predict", "run", "digits.npz", "--public", "scans", "--out", "scans/0.png"),
        ("show", "digits.npz", "--scheme", "inside", "--out", "digits.npz"),
        ("show", "digits.npz", "--public", "scans", "--out", "scans/3.png"),
    ],
    ids=lambda command: f"{command[0]} {command[-1]}",
)  # fmt: skip
def test_a_command_does_not_replace_what_it_reads(command: tuple[str, ...]) -> None:
    before = contents()
    code, said = run(*command)
    assert (code, "which is read, has it or is it" in said) == (2, True), said
    assert contents() == before


def test_new_files_and_earlier_results_elsewhere_are_written() -> None:
    # The folder has the name of the built-in images, and is none of the inputs.
    Path("photos").mkdir()
    for name in ("run/answers.csv", "answers.csv", "photos/answers.csv") * 2:
        code, said = run("predict", "run", "digits.npz", "--queries", "0", "--out", name)
        assert code == 0, said

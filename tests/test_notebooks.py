"""The notebooks run from top to bottom, and are kept as they are written: without outputs."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

from tests.waiting import LIMIT

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
QUICK = {"write-your-own-attack"}


def run(book: Any, folder: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Execute ``book`` in ``folder``, and give all that it printed."""
    monkeypatch.setenv("INSTAHIDE_LEDGER", str(folder / "ledger.sqlite"))
    monkeypatch.setenv("PYTHONPATH", str(ROOT / "src"))
    # The kernel of this Python, whatever Jupyter has been told of others.
    specs = folder / "jupyter" / "kernels" / "this"
    specs.mkdir(parents=True)
    command = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    kernel = {"argv": command, "display_name": "this", "language": "python"}
    (specs / "kernel.json").write_text(json.dumps(kernel))
    monkeypatch.setenv("JUPYTER_PATH", str(folder / "jupyter"))
    # Of tqdm, where a library loads it that is installed without Jupyter's widgets.
    monkeypatch.setenv("PYTHONWARNINGS", "ignore:IProgress not found")
    client = NotebookClient(
        book,
        timeout=int(LIMIT),
        startup_timeout=int(LIMIT),
        iopub_timeout=int(LIMIT),
        kernel_name="this",
        resources={"metadata": {"path": str(folder)}},
    )
    client.execute()
    return "".join(
        output.get("text", "")
        for cell in book.cells
        if cell.cell_type == "code"
        for output in cell.outputs
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    "path",
    [
        pytest.param(path, id=path.stem, marks=[] if path.stem in QUICK else [pytest.mark.slow])
        for path in NOTEBOOKS
    ],
)
def test_a_notebook_runs(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    printed = run(nbformat.read(path, as_version=4), tmp_path, monkeypatch)
    assert "identified" in printed or "encodings" in printed
    # Python's warnings are for whoever wrote the notebook, not for who reads it.
    assert "Warning" not in printed


def test_a_cell_that_fails_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("assert 1 == 2")])
    with pytest.raises(CellExecutionError):
        run(book, tmp_path, monkeypatch)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_kept_without_outputs(path: Path) -> None:
    """What a run printed is of that day and machine, and may show private images."""
    book = nbformat.read(path, as_version=4)
    nbformat.validate(book)
    assert [cell.cell_type for cell in book.cells][:2] == ["markdown", "code"]
    for cell in book.cells:
        assert not cell.get("outputs")
        assert cell.get("execution_count") is None

"""What the commands print of images in groups: exposures of groups, and no name."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from typer.testing import CliRunner

from instahide.cli import encrypt
from instahide.cli import ledger as ledger_command
from instahide.cli.main import app
from instahide.data import ImageTable, open_images
from instahide.encodings.folder import EncodedFolder
from instahide.encodings.ledger.ledger import Ledger

INSIDE = ["--scheme", "inside", "--k", "2", "--copies", "2"]
IMAGES, EACH = 30, 5
GROUPS = np.arange(IMAGES) // EACH


def grouped(*given: Any, **how: Any) -> ImageTable:
    """As a reader of a table of labels does that names the patient of each image."""
    return open_images(*given, **how).grouped([f"Miller, Anna {group}" for group in GROUPS])


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("INSTAHIDE_LEDGER", str(tmp_path / "ledger.sqlite"))
    pixels = np.random.default_rng(0).integers(0, 256, (IMAGES, 8, 8), np.uint8)
    np.savez("images.npz", x=pixels, y=np.arange(IMAGES))
    reader: Callable[..., ImageTable] = grouped
    monkeypatch.setattr(encrypt, "open_images", reader)
    monkeypatch.setattr(ledger_command, "open_images", reader)


def run(*arguments: str, code: int = 0) -> str:
    result = CliRunner().invoke(app, list(arguments))
    assert result.exit_code == code, result.output
    assert "Miller" not in result.output
    return " ".join(result.output.split())


def printed(*arguments: str) -> dict[str, Any]:
    result = CliRunner().invoke(app, [*arguments, "--json"])
    assert result.exit_code == 0, result.output
    found: dict[str, Any] = json.loads(result.stdout)
    return found


def true_counts(folder: str) -> NDArray[np.int64]:
    opened = EncodedFolder.open(folder)
    present = np.concatenate(
        [opened.shard(n).labels.numpy() > 0 for n in range(len(opened.manifest.shards))]
    )
    of_groups = present.reshape(len(present), -1, EACH)
    assert of_groups.sum(axis=2).max() == 1
    return of_groups.any(axis=2).sum(axis=0)


def test_exposure_is_that_of_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = np.random.default_rng
    monkeypatch.setattr(np.random, "default_rng", lambda seed=0: generator(seed))
    foretold = printed("encrypt", "images.npz", *INSIDE, "--out", "e", "--dry-run")
    assert foretold["groups"] == IMAGES // EACH
    assert foretold["mean"] == 2 * 2 * EACH
    assert foretold["most"] >= 2 * 2 * EACH
    text = run("encrypt", "images.npz", *INSIDE, "--out", "e", "--dry-run")
    assert "a group of images will be in" in text
    text = run("encrypt", "images.npz", *INSIDE, "--out", "e")
    assert "Exposure is counted for 6 groups of images." in text
    true = true_counts("e")
    with Ledger.open(Path("ledger.sqlite")) as ledger:
        assert (ledger.account(grouped("images.npz")).counts == true[GROUPS]).all()
    figures = printed("ledger", "--data", "images.npz")
    assert (figures["images"], figures["exposures"]) == (6, true.sum())
    assert (figures["least"], figures["most"]) == (true.min(), true.max())
    # Without the images their number of values is unknown, and so are error floors.
    whole = printed("ledger")
    assert {whole.pop("error_floor_least"), whole.pop("error_floor_median")} == {None}
    assert (figures["error_floor_least"], figures["error_floor_median"]) == (0.0, 0.0)
    assert figures == figures | whole


def test_a_limit_ends_before_a_group_is_above_it() -> None:
    text = run(
        "encrypt", "images.npz", *INSIDE, "--out", "e", "--max-exposure", "12",
    )  # fmt: skip
    assert "ended before a group passed a limit (--max-exposure 12)" in text
    assert true_counts("e").max() <= 12
    text = run("encrypt", "images.npz", *INSIDE, "--out", "f", "--max-exposure", "12", "--dry-run")
    assert "it would end early, before a group of images is in more than 12 encodings" in text


def test_epsilon_is_said_to_be_of_groups() -> None:
    noisy = ["encrypt", "images.npz", *INSIDE, "--noise", "30", "--out", "e"]
    assert "not known here before the ledger has counted, as some images are of one group" in run(
        *noisy, "--dry-run"
    )
    assert "for all images of a group together" in run(*noisy)
    assert "to the publisher's ledger alone" in run("info", "e")

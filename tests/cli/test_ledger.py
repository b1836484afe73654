"""`instahide ledger` says what was counted, what that means, and nothing of a single image."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from instahide.cli.ledger import histogram, summary
from instahide.cli.main import app
from instahide.data import ImageTable
from instahide.encodings.ledger.dp_sgd_history import history_file
from instahide.encodings.ledger.ledger import Ledger, Totals
from instahide.encryption.privacy import epsilon_of, privacy_statement
from instahide.encryption.scheme import Scheme


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A file of eight images, two of which are the same."""
    pixels = np.random.default_rng(3).integers(0, 256, (8, 1, 6, 6), np.uint8)
    pixels[7] = pixels[0]
    np.savez(tmp_path / "images.npz", x=pixels, y=np.arange(8) % 2)
    return tmp_path / "images.npz"


@pytest.fixture
def path(tmp_path: Path, data: Path) -> Path:
    """A ledger in which images of the file and others were counted."""
    loaded = np.load(data)
    images = ImageTable.from_arrays(loaded["x"], loaded["y"])
    others = ImageTable.from_arrays(loaded["x"] ^ 255, loaded["y"])
    with Ledger.open(tmp_path / "ledger.sqlite") as ledger:
        for table in (images, images, others):
            rows = np.stack([np.arange(6), np.arange(1, 7)], axis=1)
            ledger.account(table).record(rows, np.full(rows.shape, 0.5, np.float32))
    return tmp_path / "ledger.sqlite"


def shown(path: Path, data: Path | None, *, as_json: bool = False) -> str:
    options = ["--ledger", str(path)]
    options += ["--data", str(data)] if data else []
    options += ["--json"] if as_json else []
    result = CliRunner().invoke(app, ["ledger", *options])
    assert result.exit_code == 0, result.output
    return result.stdout if as_json else result.output


def test_totals_and_what_they_mean(path: Path) -> None:
    text = shown(path, None)
    assert "exposures of an image or group, most" in text
    assert "about 100 exposures" in " ".join(text.split())
    assert "No number is safe" in " ".join(text.split())
    with Ledger.open(path) as ledger:
        hashes = ledger._file._names()._own.tolist()
    assert not any(digest.hex() in text for digest in hashes)


def test_json_of_one_source(path: Path, data: Path) -> None:
    figures = json.loads(shown(path, data, as_json=True))
    assert figures["ledger"] == str(path)
    # Seven different images: the first and the last of a chain stand in one mix, others in two.
    assert (figures["images"], figures["exposures"]) == (7, 24)
    assert (figures["least"], figures["median"], figures["most"]) == (2, 4.0, 4)
    assert figures["mean_squared_coefficient"] == pytest.approx(0.25)
    assert figures["histogram"][0] == {"from": 2, "to": 2, "images": 2}
    assert figures["histogram"][-1] == {"from": 4, "to": 4, "images": 5}
    everything = json.loads(shown(path, None, as_json=True))
    assert (everything["images"], everything["exposures"]) == (14, 36)


def test_nothing_counted_is_said_and_nothing_is_made(
    tmp_path: Path, data: Path, path: Path
) -> None:
    missing = tmp_path / "missing.sqlite"
    assert "no ledger" in shown(missing, None)
    assert json.loads(shown(missing, data, as_json=True))["images"] == 0
    assert not missing.exists()
    Ledger.open(missing).close()
    assert "counted no image" in shown(missing, None)
    # Images that were never counted.
    np.savez(tmp_path / "new.npz", x=np.zeros((2, 1, 6, 6), np.uint8), y=np.arange(2))
    text = " ".join(shown(path, tmp_path / "new.npz").split())
    assert "counted no image of" in text


@given(st.lists(st.integers(0, 10**6), min_size=1, max_size=50))
def test_every_image_is_in_one_bar(counts: list[int]) -> None:
    bars = histogram(np.array(counts))
    assert 1 <= len(bars) <= 10
    for bar in bars:
        inside = [count for count in counts if bar["from"] <= count <= bar["to"]]
        assert len(inside) == bar["images"]
    assert sum(bar["images"] for bar in bars) == len(counts)


def test_a_summary_of_nothing_has_no_numbers() -> None:
    figures = summary(Totals(np.empty(0, np.int64), np.empty(0), np.empty(0)))
    assert figures["images"] == figures["exposures"] == 0
    assert figures["most"] is figures["mean_squared_coefficient"] is None


def test_what_noise_guarantees_is_said(tmp_path: Path, data: Path, path: Path) -> None:
    assert "Differential privacy: none (no noise added)" in " ".join(shown(path, None).split())
    assert json.loads(shown(path, None, as_json=True))["epsilon"] is None
    loaded = np.load(data)
    images = ImageTable.from_arrays(loaded["x"], loaded["y"])
    protected = tmp_path / "protected.sqlite"
    scheme = Scheme.inside(2, noise=30.0)
    with Ledger.open(protected) as ledger:
        account = ledger.account(images, scheme=scheme)
        account.record(np.array([[0, 1]]), np.full((1, 2), 0.5, np.float32))
        epsilon = epsilon_of(account.losses.max())
    figures = json.loads(shown(protected, data, as_json=True))
    assert figures["epsilon"] == pytest.approx(epsilon)
    assert figures["delta"] == 1e-5
    text = " ".join(shown(protected, data).split())
    assert privacy_statement(epsilon, noise=True) in text
    history_file(protected).write_text("[[2.0, 0.5, 4]]")
    text = " ".join(shown(protected, data).split())
    assert text.count("by encodings alone (DP-SGD also trained on images of this ledger") == 3

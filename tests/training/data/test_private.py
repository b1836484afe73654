"""Training on one's own images counts in the ledger, and stops at a limit."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from instahide.data import open_split
from instahide.encodings.ledger.ledger import Ledger
from instahide.encryption.privacy import epsilon_of, mu_squared_rate
from instahide.errors import ExposureLimitError, InstaHideError
from instahide.training.settings import TrainSettings
from instahide.training.trainer import start


def settings(tmp_path: Path, **changes: object) -> TrainSettings:
    values = {
        "data": "digits", "scheme": "inside", "k": 2, "epochs": 2, "queries": 0,
        "ledger": str(tmp_path / "ledger.sqlite"),
    }  # fmt: skip
    return TrainSettings.from_values(values | changes)


def counts(tmp_path: Path) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    images = open_split("digits").train
    with Ledger.open(tmp_path / "ledger.sqlite") as ledger:
        return ledger.account(images).counts


@pytest.mark.slow
def test_runs_of_the_same_images_add_up_in_the_ledger(tmp_path: Path) -> None:
    jobs = [start(settings(tmp_path), tmp_path / name) for name in ("one", "two")]
    # Every epoch encrypts each image once, and each mix holds two.
    found = counts(tmp_path)
    assert found.sum() == 2 * 2 * 2 * len(found)
    assert found.min() >= 2 * 2
    exposure = {"least": int(found.min()), "most": int(found.max())}
    assert jobs[1].material.facts()["exposure"] == exposure


def test_training_stops_before_an_image_passes_its_limit(tmp_path: Path) -> None:
    # An epoch brings one encoding and, as a partner, one on average: that the first epoch brings
    # 13 of any image happens once in a million runs.
    with pytest.raises(ExposureLimitError, match="above 12 encodings"):
        start(settings(tmp_path, max_exposure=12, epochs=20), tmp_path / "run")
    # However a run ends, the ledger keeps no trace of which images were counted together.
    with closing(sqlite3.connect(tmp_path / "ledger.sqlite")) as file:
        assert file.execute("SELECT count(*) FROM takes").fetchone() == (0,)
    assert counts(tmp_path).max() == 12
    assert (tmp_path / "run" / "checkpoint.safetensors").exists()


def test_a_last_batch_of_one_image_is_passed_over(tmp_path: Path) -> None:
    # 1,438 images: one is left over, and batch normalization cannot learn from a single one.
    job = start(settings(tmp_path, epochs=1, batch_size=479), tmp_path / "run")
    assert len(job.material.batches(pin_memory=False)) == 4
    assert job.metrics["accuracy"] > 0


def test_plain_training_shows_nothing_to_anybody(tmp_path: Path) -> None:
    job = start(settings(tmp_path, scheme="plain", epochs=1), tmp_path / "run")
    assert not (tmp_path / "ledger.sqlite").exists()
    assert job.material.facts()["exposure"]["least"] == 1


@pytest.mark.slow
def test_a_run_with_noise_says_what_it_guarantees(tmp_path: Path) -> None:
    asked = settings(tmp_path, noise=50.0, epochs=1)
    guarantees = [
        start(asked, tmp_path / name).material.facts()["guarantee"] for name in ("one", "two")
    ]
    images = open_split("digits").train
    with Ledger.open(tmp_path / "ledger.sqlite") as ledger:
        totals = ledger.totals(images)
    rate = mu_squared_rate(asked.encryption(), images.shape, images.std)
    assert guarantees[1] == {
        "epsilon": pytest.approx(epsilon_of(totals.squares.max() * rate), rel=1e-4),
        "loss": pytest.approx(totals.squares.max() * rate, rel=1e-6),
        "error_floor": pytest.approx(64 / (totals.squares.max() * rate), rel=1e-6),
        "delta": 1e-5,
    }
    assert guarantees[0]["epsilon"] < guarantees[1]["epsilon"]
    # A run without noise ends it.
    start(settings(tmp_path, epochs=1), tmp_path / "three")
    third = start(asked, tmp_path / "four")
    assert third.material.facts()["guarantee"]["epsilon"] is None


@pytest.mark.slow
def test_training_ends_before_an_image_falls_below_its_error_floor(tmp_path: Path) -> None:
    with pytest.raises(ExposureLimitError, match="privacy loss"):
        start(settings(tmp_path, noise=2.0, min_mse=0.02, epochs=50), tmp_path / "run")
    with Ledger.open(tmp_path / "ledger.sqlite") as ledger:
        losses = ledger.totals(open_split("digits").train).losses
    assert 0.02 <= 64 / losses.max() < 0.03


@pytest.mark.parametrize("scheme", ["inside", "plain"])
def test_an_error_floor_without_noise_is_refused(tmp_path: Path, scheme: str) -> None:
    with pytest.raises(InstaHideError, match=r"Without noise.*Add noise"):
        start(settings(tmp_path, scheme=scheme, min_mse=0.02), tmp_path / "run")


def test_plain_images_under_noise_are_counted_as_encodings(tmp_path: Path) -> None:
    plain = settings(tmp_path, scheme="plain", epochs=1)
    assert "guarantee" not in start(plain, tmp_path / "one").material.facts()
    noisy = settings(tmp_path, scheme="plain", noise=20.0, epochs=1)
    facts = start(noisy, tmp_path / "two").material.facts()
    assert facts["exposure"] == {"least": 1, "most": 1}
    assert facts["guarantee"]["epsilon"] > 0

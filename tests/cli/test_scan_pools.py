"""`instahide public` on volumes and 16-bit images, and training with such a pool."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner, Result

from instahide.cli.main import app
from instahide.data import open_images, open_pool
from tests.scan_files import PATIENT, ct_series, deep_png

pytest.importorskip("pydicom")
SHAPE = ["--size", "8,16,16"]
WINDOW = ["--window", "-1000,400"]
CROSS = ["--scheme", "cross", "--k", "4", "--public", "pool"]


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("INSTAHIDE_LEDGER", str(tmp_path / "ledger.sqlite"))
    return tmp_path


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments))


def ok(*arguments: str) -> str:
    done = run(*arguments)
    assert done.exit_code == 0, done.output
    assert not [part for part in PATIENT.split("^") if part in done.output]
    return " ".join(done.output.split())


def refused(*arguments: str) -> str:
    done = run(*arguments)
    assert done.exit_code == 2, done.output
    assert "Traceback" not in done.output
    return " ".join(done.output.split())


def private_patches() -> None:
    """Patches of another volume in two classes, in `private.npz`."""
    volume = ct_series(Path("private"), slices=16, side=96, start=360)
    pixels = np.stack(
        [
            volume[z : z + 8, y : y + 16, x : x + 16]
            for z in (0, 8)
            for y in range(0, 80, 16)
            for x in range(0, 80, 16)
        ]
    )
    means = pixels.mean(axis=(1, 2, 3))
    np.savez("private.npz", images=pixels[:, None], labels=(means > np.median(means)).astype(int))


@pytest.mark.slow
@pytest.mark.parametrize("window", [WINDOW, [], [*WINDOW, "--rescale"]])
def test_ct_patches_are_encrypted_and_trained_on_with_a_pool_of_cts(window: list[str]) -> None:
    ct_series(Path("cts", "a"), start=100)
    ct_series(Path("cts", "b"), start=320)
    text = ok("public", "cts", "--out", "pool", *SHAPE, *window, "--per-image", "30")
    rescaled = "--rescale" in window
    dtype = "float32" if rescaled else "int16"
    assert f"patches of 1 x 8 x 16 x 16 {dtype} from 2 images" in text
    pool = open_pool("pool", (1, 8, 16, 16))
    assert f"{len(pool):,} patches of 1 x 8 x 16 x 16 {dtype}, with values from" in text
    private_patches()
    read = [*WINDOW, "--rescale"] if rescaled else WINDOW
    images = open_images("private.npz", window=(-1000, 400), rescale=rescaled)
    assert (pool.with_pixels_like(images) is pool) is bool(window)
    ok("encrypt", "private.npz", *CROSS, *read, "--out", "encoded")
    ok("verify", "encoded")
    train = ["--epochs", "1", "--batch-size", "8", "--queries", "2", "--model", "small-3d"]
    ok("train", "private.npz", *CROSS, *read, *train, "--out", "run")
    ok("predict", "run", "private.npz", *read, "--public", "pool", "--queries", "2")
    assert json.loads(Path("run/results.json").read_text())["epochs"]


def test_a_folder_of_volumes_is_pointed_to_the_right_option() -> None:
    ct_series(Path("cts"))
    assert "`--size 64,64,64`" in refused("public", "cts", "--out", "pool")


def test_the_cost_is_said_before_and_a_dry_run_writes_nothing(place: Path) -> None:
    deep_png(Path("images", "a.png"))
    before = sorted(place.rglob("*"))
    command = ["public", "images", "--out", "pool", "--size", "32,32"]
    text = ok(*command, "--dry-run")
    assert "At most about 100 patches of 1 x 32 x 32 uint16 from 1 images, 204.8 kB" in text
    assert json.loads(run(*command, "--dry-run", "--json").stdout) == {
        "patches": 100, "bytes": 204800, "shape": [1, 32, 32], "dtype": "uint16",
    }  # fmt: skip
    assert sorted(place.rglob("*")) == before
    done = run(*command, "--json")
    assert "At most about 100 patches" in done.stderr
    found = json.loads(done.stdout)
    assert (found["patches"], found["bytes"]) == (100, 204800)
    assert found["value_range"][0] >= 0


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--size", "32,32", "--patch", "32"], "--patch can be used without --size only"),
        (["--size", "32,32", "--grey"], "--grey can be used without --size only"),
        (["--min-spread", "0.1"], "--min-spread can be used with --size only"),
        (["--size", "32,32", "--rescale"], "window is not known"),
        (["--dry-run"], "--dry-run can be used with --size only"),
        (["--size", "big"], "Write H,W or D,H,W"),
        (["--size", "32"], "--size 64,64,64"),
        (["--size", "32,32", "--window", "1%,99%"], "window of your own images"),
        (["--size", "32,32", "--max-gigabytes", "0.0001"], "--per-image 48"),
        (["--size", "600,600"], "smaller than a patch"),
    ],
)
def test_what_cannot_be_done_is_refused(options: list[str], told: str, place: Path) -> None:
    deep_png(Path("images", "a.png"))
    before = sorted(place.rglob("*"))
    assert told in refused("public", "images", "--out", "pool", *options)
    assert sorted(place.rglob("*")) == before

"""`--min-mse` and the guarantees as people see them: before, while and after encodings are made."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner, Result

from instahide.cli.main import app
from instahide.encodings.folder import EncodedFolder
from instahide.encodings.manifest import NAME

NOISY = ["encrypt", "images.npz", "--scheme", "inside", "--k", "2", "--noise", "3"]
NONE = "Error floor: none (no noise added)"


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("INSTAHIDE_LEDGER", str(tmp_path / "ledger.sqlite"))
    pixels = np.random.default_rng(0).integers(0, 256, (60, 8, 8), np.uint8)
    np.savez("images.npz", x=pixels, y=np.arange(60) % 3)


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments))


def said(*arguments: str) -> str:
    result = run(*arguments)
    assert result.exit_code == 0, result.output
    return " ".join(result.output.split())


def floor(text: str) -> float:
    found = re.search(r"Error floor: mean squared error of at least ([0-9.e-]+), so PSNR", text)
    assert found is not None, text
    return float(found[1])


def test_the_floor_before_while_and_after() -> None:
    planned = floor(said(*NOISY, "--out", "noisy", "--dry-run"))
    done = floor(said(*NOISY, "--out", "noisy"))
    assert 0 < planned < done
    assert floor(said("info", "noisy")) == planned
    assert floor(said("ledger", "--data", "images.npz")) == done
    # What has gone out lowers the floor of what will.
    assert floor(said(*NOISY, "--out", "more", "--dry-run")) < planned
    # Without the images their size is unknown, and so is the floor; the robustness is not.
    alone = said("ledger")
    assert "Error floor: not known here; name the images with --data" in alone
    assert "Reconstruction robustness: an attack that succeeds in 0.1% of cases" in alone


def test_without_noise_there_is_no_floor_and_a_limit_is_refused_with_a_remedy() -> None:
    plain = [*NOISY[:-2], "--out", "plain"]
    assert NONE in said(*plain, "--dry-run")
    assert NONE in said(*plain)
    assert NONE in said("info", "plain")
    assert NONE in said("ledger")
    for command in ([*plain, "--min-mse", "0.01", "--resume"], [*plain, "--min-mse", "0.01"]):
        refused = run(*command)
        assert refused.exit_code == 2
        assert "Add noise" in refused.output
    later = "Error floor: none (some encodings of these images have no noise)"
    assert later in said(*NOISY, "--out", "noisy")


def test_encrypting_ends_before_the_limit_and_a_second_run_goes_on_from_there() -> None:
    limited = [*NOISY, "--copies", "100", "--min-mse", "0.05"]
    planned = said(*limited, "--out", "noisy", "--dry-run")
    assert floor(planned) >= 0.05 * 0.99
    text = said(*limited, "--out", "noisy")
    assert "passed a limit (--min-mse 0.05)" in text
    assert floor(text) >= 0.05
    assert EncodedFolder.open("noisy").manifest.ended == "limit"
    assert "not known here, but to the publisher's ledger alone" in said("info", "noisy")
    assert floor(said("ledger", "--data", "images.npz")) >= 0.05
    # It ended at the first image without room; runs go on with the others until none has any.
    for number in range(200):
        again = run(*limited, "--out", f"more-{number}")
        if again.exit_code:
            break
        assert floor(" ".join(again.output.split())) >= 0.05
    assert "privacy loss" in again.output
    assert not Path(f"more-{number}", NAME).exists()
    assert floor(said(*NOISY, "--min-mse", "0.02", "--out", "lower")) >= 0.02


@pytest.mark.parametrize("value", ["0", "-1", "inf", "nan", "100"])
def test_a_limit_that_cannot_be_kept_is_refused(value: str) -> None:
    result = run(*NOISY, "--out", "noisy", "--min-mse", value)
    assert result.exit_code == 2
    assert not Path("noisy").exists()


def test_json_has_the_figures_of_the_least_protected_image_and_of_the_median() -> None:
    said(*NOISY, "--out", "noisy")
    figures = json.loads(run("ledger", "--data", "images.npz", "--json").stdout)
    assert 0 < figures["error_floor_least"] < figures["error_floor_median"]
    assert figures["error_floor"].startswith("Error floor: mean squared error")
    alone = json.loads(run("ledger", "--json").stdout)
    assert alone["error_floor_least"] is alone["error_floor_median"] is None


def test_a_prior_gives_a_lower_floor_and_says_what_it_rests_on() -> None:
    said(*NOISY, "--out", "noisy")
    pixels = np.random.default_rng(1).integers(0, 256, (80, 8, 8), np.uint8)
    np.savez("public.npz", x=pixels, y=np.arange(80) % 3)
    for command in (["info", "noisy"], ["ledger", "--data", "images.npz"]):
        text = said(*command, "--prior", "public.npz", "--baseline", "0.05")
        found = re.search(r"Error floor with a prior: .*? at least ([0-9.e-]+),", text)
        assert found is not None, text
        assert 0 < float(found[1]) < floor(text)
        assert "rests on a prior estimated from them" in text
        # The ledger counts all encodings of these images.
        assert ("reconstruction from this folder alone, on average" in text) == ("info" in command)
        assert "an attack that succeeds in 5% of cases without" in text
    np.savez("color.npz", x=np.zeros((80, 8, 8, 3), np.uint8), y=np.arange(80) % 3)
    assert "have shape" in run("info", "noisy", "--prior", "color.npz").output
    assert "--data" in run("ledger", "--prior", "public.npz").output
    assert "between 0 and 1" in run("info", "noisy", "--baseline", "1").output


def test_groups_are_protected_together() -> None:
    import csv

    Path("images").mkdir()
    from PIL import Image

    with Path("labels.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["file", "label", "patient"])
        for number, pixels in enumerate(np.load("images.npz")["x"]):
            Image.fromarray(pixels).save(f"images/{number}.png")
            rows.writerow([f"{number}.png", number % 3, number // 4])
    table = ["--labels", "labels.csv", "--group-column", "patient"]
    grouped = ["encrypt", "images", *NOISY[2:], *table]
    text = said(*grouped, "--copies", "9", "--min-mse", "0.05", "--out", "grouped")
    assert "for all images of a group together" in text
    assert floor(text) >= 0.05
    assert floor(said("ledger", "--data", "images", *table)) >= 0.05

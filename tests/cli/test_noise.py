"""`--noise` as people use and misuse it: before, while and after encodings are made."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner, Result

from instahide import ImageTable
from instahide.cli.main import app
from instahide.encodings.folder import EncodedFolder
from instahide.encodings.ledger.ledger import Ledger

NOISY = ["encrypt", "images.npz", "--scheme", "inside", "--k", "2", "--noise", "40"]
NONE = "Differential privacy: none (no noise added)"
UNKNOWN = "Differential privacy: not known here, but to the publisher's ledger alone"


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


def epsilon(text: str) -> float:
    found = re.search(r"epsilon = ([0-9.,]+) at delta = ", text)
    assert found is not None, text
    return float(found[1].replace(",", ""))


def test_epsilon_before_while_and_after() -> None:
    planned = epsilon(said(*NOISY, "--out", "noisy", "--dry-run"))
    done = epsilon(said(*NOISY, "--out", "noisy"))
    assert 0 < done < planned
    # Nothing else went out: the folder promises what was planned, the ledger what came of it.
    assert epsilon(said("info", "noisy")) == planned
    assert epsilon(said("ledger", "--data", "images.npz")) == done
    stricter = epsilon(said("info", "noisy", "--delta", "1e-9"))
    assert stricter > planned
    # What has gone out is added to what will.
    assert epsilon(said(*NOISY, "--out", "more", "--dry-run")) > planned
    said("verify", "noisy")
    assert EncodedFolder.open("noisy").manifest.encryption().noise == 40


def test_without_noise_nothing_is_promised_now_or_later() -> None:
    plain = [*NOISY[:-2], "--out", "plain"]
    assert NONE in said(*plain, "--dry-run")
    assert NONE in said(*plain)
    assert NONE in said("info", "plain")
    later = "Differential privacy: none (some encodings of these images have no noise)"
    assert later in said(*NOISY, "--out", "noisy")
    assert later in said(*NOISY, "--out", "more", "--dry-run")
    assert NONE in said("ledger")
    # The folder by itself is what its noise makes it.
    assert epsilon(said("info", "noisy")) > 0


def test_a_folder_under_a_limit_knows_no_figure() -> None:
    # Even where it did not end there, images at the limit were drawn no more, others more often.
    said(*NOISY, "--out", "whole", "--max-exposure", "60")
    assert UNKNOWN in said("info", "whole")
    assert epsilon(said(*NOISY, "--out", "noisy", "--copies", "99", "--max-exposure", "70")) > 0
    assert UNKNOWN in said("info", "noisy")


def test_images_that_are_there_twice_have_no_figure_beforehand() -> None:
    # By the copies alone it would be too small: such an image goes out twice as often.
    pixels = np.load("images.npz")["x"]
    np.savez("images.npz", x=np.concatenate([pixels, pixels[:7]]), y=np.arange(67) % 3)
    assert "Differential privacy: not known here before" in said(*NOISY, "--out", "e", "--dry-run")
    limited = said(*NOISY, "--out", "e", "--dry-run", "--max-exposure", "40")
    done = epsilon(said(*NOISY, "--out", "e"))
    assert UNKNOWN in said("info", "e")
    assert 0 < done < epsilon(limited)
    unlimited = said(*NOISY[:-2], "--out", "f", "--dry-run")
    assert NONE in unlimited


def test_private_images_in_the_public_pool_have_no_figure_beforehand() -> None:
    # They are drawn from there as well, which copies and partners do not count.
    pixels = np.load("images.npz")["x"]
    other = np.random.default_rng(1).integers(0, 256, (40, 8, 8), np.uint8)
    for name, added in (("apart", other[:0]), ("shared", pixels[:1])):
        ImageTable.from_arrays(np.concatenate([other, added])).save(Path(name))
    cross = ["encrypt", "images.npz", "--scheme", "cross", "--noise", "100", "--copies", "5"]
    planned = epsilon(said(*cross, "--public", "apart", "--out", "e", "--dry-run"))
    shared = (*cross, "--public", "shared", "--out", "e")
    text = said(*shared, "--dry-run")
    assert "private images in the public pool │ 1 " in text
    assert "not known here before the ledger has counted, as the public pool holds private" in text
    assert "epsilon =" not in text
    # A limit counts these draws too.
    assert epsilon(said(*shared, "--dry-run", "--max-exposure", "99")) > planned
    said(*shared)
    assert UNKNOWN in said("info", "e")
    assert "at least 10.0 of them on average" in said("info", "e")


def counted() -> list[int]:
    with Ledger.open() as ledger:
        return ledger.totals().counts.tolist()


def _jpegs_and_copies() -> None:
    """Six JPEG files in `first`; the same and their copies in PNG in `both`."""
    generator = np.random.default_rng(0)
    for number in range(6):
        small = Image.fromarray(generator.integers(0, 256, (8, 8, 3), np.uint8))
        for folder in ("first", "both"):
            jpeg = Path(folder, "ab"[number % 2], f"{number}.jpg")
            jpeg.parent.mkdir(parents=True, exist_ok=True)
            small.resize((64, 64), Image.Resampling.BICUBIC).save(jpeg, quality=95)
        with Image.open(jpeg) as image:
            image.save(jpeg.with_name(f"{number}-copy.png"))


@pytest.mark.parametrize(
    "method",
    [
        ("--scheme", "inside", "--k", "2", "--noise", "40"),
        ("--encoder", "dp-instahide", "--encoder-settings", "noise=900"),
    ],
)
def test_images_that_only_the_ledger_knows_to_be_one_have_no_figure_beforehand(
    method: tuple[str, ...],
) -> None:
    _jpegs_and_copies()
    second = ("encrypt", "both", *method, "--size", "8", "--out", "second")
    # Nothing is known of the copies yet, and the figure holds for what is known.
    assert "not known" not in said(*second, "--dry-run")
    said("encrypt", "first", *method, "--size", "64", "--out", "first-encoded")
    assert not EncodedFolder.open("first-encoded").manifest.limited
    before = counted()
    assert "Differential privacy: not known here" in said(*second, "--dry-run")
    assert counted() == before
    said(*second)
    assert EncodedFolder.open("second").manifest.limited
    assert "Differential privacy: not known here" in said("info", "second")


@pytest.mark.parametrize("noise", ["-1", "inf", "nan"])
def test_noise_that_is_none(noise: str) -> None:
    result = run(*NOISY[:-1], noise, "--out", "noisy")
    assert result.exit_code == 2
    assert "noise" in result.output
    assert not Path("noisy").exists()


@pytest.mark.parametrize("delta", ["0", "1", "-3"])
def test_a_delta_that_is_no_probability_is_refused(delta: str) -> None:
    assert (
        "not between 0 and 1"
        in run("ledger", "--delta", delta).output
        + run(*NOISY, "--out", "noisy", "--dry-run", "--delta", delta).output
    )


def test_a_picture_of_noise() -> None:
    said(
        "show", "images.npz", "--scheme", "inside", "--k", "2", "--noise", "3", "--out", "show.png"
    )
    assert Path("show.png").exists()

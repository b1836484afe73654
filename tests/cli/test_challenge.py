"""`instahide challenge`, from making to ranking."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from instahide.audit.challenge import baselines
from instahide.audit.challenge.baseline_names import BASELINES
from instahide.audit.challenge.leaderboard import FIGURES, TEXTS
from instahide.audit.challenge.practice import OFFICIAL
from instahide.cli.main import app
from tests.audit.challenge.examples import NAMES, perfect, submitted

SMALL = ("--images", "5", "--copies", "3", "--k", "4")
MAKE = ("make", "digits", *SMALL, "--private-k", "4", "--c2", "0")
FOLDERS = ("--out", "given", "--truth", "kept")
Run = Callable[..., str]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.chdir(tmp_path)

    def said(*arguments: str, code: int = 0) -> str:
        result = CliRunner().invoke(app, ["challenge", *arguments])
        assert result.exit_code == code, (result.output, result.exception)
        return result.output if code else result.stdout

    return said


def test_from_making_to_ranking(run: Run) -> None:
    run(*MAKE, *FOLDERS, "--id", "five-digits", "--version", "2")
    shown = run("info", "given")
    assert "15 encodings of 1 x 8 x 8, 3 of an image" in shown
    assert "five-digits, version 2, competition" in shown
    sha256 = json.loads(run("info", "given", "--json"))["sha256"]
    assert sha256 in shown

    values = perfect(Path("kept"))
    submitted(Path("ours"), Path("given"), values)
    submitted(Path("half"), Path("given"), values / 2, "=half", "0.5")
    scored = json.loads(
        run("score", "ours", "--truth", "kept", "--leaderboard", "board.csv", "--json")
    )
    assert scored["max_ssim"] == pytest.approx(1, abs=1e-4)
    assert (scored["images_recovered"], scored["challenge"]) == (5, sha256)
    assert (scored["attack"], scored["version"]) == ("ours", "1")
    assert 0 < scored["blank"]["max_ssim"] < 0.5
    assert set(scored["blank"]) == set(NAMES)
    table = run("score", "half", "--truth", "kept", "--leaderboard", "board.csv")
    assert all(name in table for name in NAMES)
    assert "=half, version 0.5, on five-digits" in table

    ranking = json.loads(run("leaderboard", "board.csv", "--json"))
    assert ranking["challenge"] == sha256
    found = [(one["rank"], one["attack"]) for one in ranking["entries"]]
    assert found == [(1, "ours"), (2, "'=half")]
    assert ranking["entries"][0]["figures"]["max_ssim"] == pytest.approx(scored["max_ssim"])
    assert "ours" in run("leaderboard", "board.csv")
    refused = run("score", "ours", "--truth", "kept", "--leaderboard", "board.csv", code=2)
    assert "another version" in refused


def test_images_of_an_attacker_need_not_be_square(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (12, 1, 8, 12), dtype=np.uint8)
    np.savez(tmp_path / "wide.npz", images=pixels, labels=np.arange(12) % 2)
    keys = ("--k", "2", "--private-k", "2", "--c2", "0")
    run("make", "wide.npz", "--images", "5", "--copies", "2", *keys, *FOLDERS)
    seen: list[tuple[int, ...]] = []

    def noting(*given: Any) -> list[Any]:
        seen.append(given[-1].shape)
        return []

    monkeypatch.setattr(baselines, "run_baselines", noting)
    Path("board.csv").write_text(",".join((*TEXTS, *FIGURES)) + "\n")
    run(
        "baselines", "given", "--truth", "kept", "--leaderboard", "board.csv",
        "--shadow", "wide.npz",
    )  # fmt: skip
    assert seen == [(1, 8, 12)]


def test_bad_input_ends_with_two(run: Run) -> None:
    run(*MAKE, *FOLDERS)
    run("make", "digits", *SMALL, "--out", "other", "--truth", "theirs")
    submitted(Path("ours"), Path("given"), perfect(Path("kept")))
    refused = run("score", "ours", "--truth", "theirs", "--leaderboard", "board.csv", code=2)
    assert "is of the challenge" in refused
    assert not Path("board.csv").exists()
    assert "does not hold the truth" in run("score", "ours", "--truth", "given", code=2)
    assert "README" in run("score", "ours/decryption.npy", "--truth", "kept", code=2)
    labels = np.load("given/label.npy")
    labels[0, 0] += 1
    np.save("given/label.npy", labels)
    assert "Ask the author" in run("info", "given", code=2)
    assert "leaderboard" in run("leaderboard", "ours/submission.json", code=2)


def test_no_truth_inside_what_is_handed_out(run: Run) -> None:
    run("make", "digits", "--out", "new", "--truth", "new/kept", code=2)
    assert not Path("new").exists()


PRACTICE = ("--kind", "practice", "--seed", "3")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("digits", "--seed", "3"), "whoever knew it could decrypt"),
        (("digits", "--kind", "practice"), "needs a seed"),
        (("scans", *PRACTICE), "would protect nothing of your images"),
        (("digits", *PRACTICE, "--public", "pool"), "--public is not an option of practice"),
        (("digits", *PRACTICE, "--encoder", "neuracrypt"), "--encoder is not an option"),
        (("digits", *PRACTICE, "--size", "8"), "--size is not an option"),
        (("digits", *PRACTICE, "--seed", "-1"), "seed"),
        (("digits", "--kind", "open"), "kind"),
        (("digits", "--id", "My Challenge"), "no name of a challenge"),
        (("digits", "--version", "0"), "version"),
    ],
)
def test_kinds_are_not_mixed_up(run: Run, arguments: tuple[str, ...], said: str) -> None:
    assert said in " ".join(run("make", *arguments, *SMALL, *FOLDERS, code=2).split())
    assert not Path("given").exists()
    assert not Path("kept").exists()


def test_a_practice_set_says_that_it_protects_nothing(run: Run, tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["challenge", "make", "digits", *PRACTICE, *SMALL, *FOLDERS])
    assert result.exit_code == 0
    assert "They protect nothing" in " ".join(result.stderr.split())
    made = json.loads(run("info", "given", "--json"))
    assert made["kind"] == "practice"


def test_official_sets_are_listed_and_made(run: Run) -> None:
    listed = run("official")
    assert all(name in listed for name in OFFICIAL)
    assert json.loads(run("official", "--json"))["digits-k4"]["version"] == 1
    run("official", "digits-k4")
    made = json.loads(run("info", "given", "--json"))
    assert made["sha256"] == OFFICIAL["digits-k4"].sha256
    assert Path("truth/truth.json").exists()
    assert "digits-k4" in run("official", "digits", "--out", "x", "--truth", "y", code=2)


def test_a_submission_named_like_a_baseline_is_refused(run: Run) -> None:
    run(*MAKE, *FOLDERS)
    submitted(Path("ours"), Path("given"), perfect(Path("kept")), "Reconstruction")
    for board in ((), ("--leaderboard", "board.csv")):
        said = run("score", "ours", "--truth", "kept", *board, code=2)
        assert "Give the attack another name" in " ".join(said.split())
    assert not Path("board.csv").exists()


@pytest.mark.slow
def test_baselines_begin_a_leaderboard(run: Run) -> None:
    once = ("--images", "6", "--copies", "1", "--k", "4", "--private-k", "1")
    run("make", "digits", *PRACTICE, *once, *FOLDERS)
    found = json.loads(run("baselines", "given", "--truth", "kept", "--budget", "10m", "--json"))
    assert [one["attack"] for one in found["entries"]] == list(BASELINES)
    ranks = {one["attack"]: one["rank"] for one in found["entries"]}
    assert (ranks["blank"], ranks["reconstruction"]) == (1, None)
    rows = list(csv.DictReader(Path("leaderboard.csv").read_text().splitlines()))
    assert "single encoding" in rows[1]["note"]
    shown = run("leaderboard", "leaderboard.csv")
    assert all(name in shown for name in ("blank", "carlini"))
    assert "not a time to spend" in run(
        "baselines", "given", "--truth", "kept", "--budget", "soon", code=2
    )

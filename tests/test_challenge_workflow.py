"""The workflow that scores submissions: its commands run here, on pull requests good and bad."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from instahide.audit.challenge.making import make_challenge
from instahide.data import ImageTable
from instahide.encryption.scheme import Scheme
from tests.audit.challenge.examples import perfect, submitted
from tests.waiting import LIMIT

ROOT = Path(__file__).resolve().parents[1]
FILE = ROOT / "examples" / "challenge" / "score-submission.yml"
WORKFLOW: dict[Any, Any] = yaml.safe_load(FILE.read_text(encoding="utf-8"))
STEPS: list[dict[str, Any]] = WORKFLOW["jobs"]["score"]["steps"]
COPY, INSTALL, SCORE = (step for step in STEPS if "run" in step)


def git(folder: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false"]
    done = subprocess.run(
        ["git", *identity, *arguments], cwd=folder, check=True, capture_output=True, text=True
    )
    return done.stdout.strip()


@dataclass(frozen=True)
class Place:
    """A checkout of the main branch, with the truth beside; pull requests come from ``fork``."""

    root: Path

    @property
    def fork(self) -> Path:
        return self.root / "fork"

    def pull_request(self) -> str:
        """What is in the fork, as pull request 7; returns its commit."""
        git(self.fork, "add", "-A")
        git(self.fork, "commit", "-qm", "x")
        git(self.fork, "push", "-qf", "origin", "HEAD:refs/pull/7/head")
        return git(self.fork, "rev-parse", "HEAD")

    def run(self, step: dict[str, Any], **given: str) -> subprocess.CompletedProcess[str]:
        """Run the commands of a step, as the runner of GitHub does."""
        stated = {name: value for name, value in step.get("env", {}).items() if "${{" not in value}
        temp = self.root / "temp"
        temp.mkdir(exist_ok=True)
        path = os.pathsep.join([str(self.root / "bin"), os.environ["PATH"]])
        return subprocess.run(
            ["bash", "-e", "-c", step["run"]],
            cwd=self.root / "main",
            env={
                **os.environ, "PATH": path, "RUNNER_TEMP": str(temp),
                "GITHUB_STEP_SUMMARY": str(self.root / "summary"), **stated, **given,
            },
            check=False, capture_output=True, text=True, timeout=LIMIT,
        )  # fmt: skip

    def copied(self, **given: str) -> subprocess.CompletedProcess[str]:
        return self.run(COPY, NUMBER="7", COMMIT=self.pull_request(), **given)


@pytest.fixture
def place(tmp_path: Path) -> Place:
    pixels = np.random.default_rng(0).integers(0, 256, (6, 3, 12, 12), np.uint8)
    table = ImageTable.from_arrays(pixels, np.arange(6) % 2)
    given, kept = tmp_path / "given", tmp_path / "main" / "truth" / "kept"
    main = tmp_path / "main"
    git(tmp_path, "init", "-q", "--bare", "origin")
    git(tmp_path, "clone", "-q", str(tmp_path / "origin"), "main")
    (main / "submissions" / "earlier").mkdir(parents=True)
    (main / "submissions" / "earlier" / "submission.json").write_text("{}")
    git(main, "add", "-A")
    git(main, "commit", "-qm", "x")
    git(main, "push", "-q", "origin", "HEAD:main")
    git(tmp_path, "clone", "-q", "-b", "main", str(tmp_path / "origin"), "fork")
    make_challenge(table, None, given, kept, encoder=Scheme.inside(2), copies=3)
    bin_ = tmp_path / "bin"
    bin_.mkdir()
    program = f'exec {sys.executable} -c "from instahide.cli import main; main()" "$@"'
    (bin_ / "instahide").write_text(f"#!/bin/sh\n{program}\n")
    (bin_ / "instahide").chmod(0o755)
    return Place(tmp_path)


def submit(place: Place, name: str = "mine", **facts: str) -> Path:
    folder = place.fork / "submissions" / name
    kept = place.root / "main" / "truth" / "kept"
    submitted(folder, place.root / "given", perfect(kept), **facts)
    return folder


@pytest.mark.slow
def test_a_submission_is_scored(place: Place) -> None:
    submit(place, attack="$(touch pwned) ## `x`")
    done = place.copied()
    assert done.returncode == 0, done.stderr
    done = place.run(SCORE, TRUTH_FOLDER="kept")
    assert done.returncode == 0, done.stderr
    summary = (place.root / "summary").read_text()
    assert "max_ssim" in summary
    assert "$(touch pwned)" in summary
    assert all(line.startswith("    ") for line in summary.splitlines())
    assert not list(place.root.rglob("pwned"))


@pytest.mark.slow
def test_a_submission_to_another_challenge_fails_and_says_why(place: Place) -> None:
    folder = submit(place)
    text = (folder / "submission.json").read_text()
    facts = yaml.safe_load(text)
    (folder / "submission.json").write_text(text.replace(facts["challenge"], "0" * 64))
    assert place.copied().returncode == 0
    done = place.run(SCORE, TRUTH_FOLDER="kept")
    assert done.returncode == 2
    assert "Error: The submission is of the challenge 000" in (place.root / "summary").read_text()


@pytest.mark.slow
def test_a_pickle_is_not_read(place: Place) -> None:
    folder = submit(place)
    np.save(folder / "decryption.npy", np.array([{}], dtype=object))
    assert place.copied().returncode == 0
    assert place.run(SCORE, TRUTH_FOLDER="kept").returncode == 2


def test_no_or_several_folders_are_refused(place: Place) -> None:
    (place.fork / "README.md").write_text("x")
    assert "exactly one folder" in place.copied().stdout
    submit(place, "one")
    submit(place, "two")
    assert "exactly one folder" in place.copied().stdout


@pytest.mark.parametrize("name", ["a b", "$(id)", "-x", "x\ny", ".git-x"])
def test_a_name_that_is_no_name_is_refused(place: Place, name: str) -> None:
    submit(place, name)
    done = place.copied()
    assert (done.returncode, "exactly one folder" in done.stdout) == (1, True)


def test_links_are_refused(place: Place) -> None:
    folder = submit(place)
    (folder / "decryption.npy").unlink()
    (folder / "decryption.npy").symlink_to("../../truth/kept/private.npy")
    done = place.copied()
    assert (done.returncode, "no regular file decryption.npy" in done.stdout) == (1, True)


def test_a_missing_or_a_huge_file_is_refused(place: Place) -> None:
    folder = submit(place)
    assert "more than 100 bytes" in place.copied(MOST_BYTES="100").stdout
    shutil.rmtree(place.root / "temp")
    (folder / "submission.json").unlink()
    assert "no regular file submission.json" in place.copied().stdout


def test_a_commit_that_was_pushed_meanwhile_is_not_scored(place: Place) -> None:
    submit(place)
    place.pull_request()
    assert place.run(COPY, NUMBER="7", COMMIT="0" * 40).returncode != 0


def test_nothing_of_the_pull_request_is_run() -> None:
    """It is never checked out, no expression is put into a script, and no token is left."""
    assert WORKFLOW["permissions"] == {"contents": "read"}
    checkouts = [step for step in STEPS if step.get("uses", "").startswith("actions/checkout")]
    assert len(checkouts) == 2
    for step in checkouts:
        assert "head" not in str(step.get("with", {}).get("ref", ""))
    assert all("${{" not in step["run"] for step in (COPY, INSTALL, SCORE))
    # The token of the truth is given to its checkout alone.
    assert [step for step in STEPS if "TRUTH_TOKEN" in str(step)] == [checkouts[1]]
    assert checkouts[1]["with"]["persist-credentials"] is False


def test_what_it_installs_exists() -> None:
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert INSTALL["run"] == 'pip install "instahide[audit]"'
    assert "audit" in project["optional-dependencies"]

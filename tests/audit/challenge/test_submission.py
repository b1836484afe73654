"""Submissions of strangers: read without pickle, of this challenge or refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from instahide.audit.challenge.challenge import ChallengeTruth
from instahide.audit.challenge.making import make_challenge
from instahide.audit.challenge.score import score_submission
from instahide.audit.challenge.submission import Submission
from instahide.data import ImageTable
from instahide.encryption.scheme import Scheme
from instahide.errors import DataError, InstaHideError
from tests.audit.challenge.examples import COPIES, IMAGES, SIDE, perfect, sha256_of, submitted

SHAPE = (IMAGES * COPIES, SIDE, SIDE, 3)


def test_a_perfect_submission_is_scored(folders: tuple[Path, Path], tmp_path: Path) -> None:
    given, kept = folders
    submission = submitted(tmp_path / "s", given, perfect(kept))
    assert score_submission(submission, ChallengeTruth.open(kept)).max_ssim > 0.999


def test_a_submission_to_another_challenge_is_refused(
    folders: tuple[Path, Path], tmp_path: Path
) -> None:
    """The other one has the same images and shapes; only its keys differ."""
    pixels = np.random.default_rng(0).integers(0, 256, (6, 3, SIDE, SIDE), np.uint8)
    table = ImageTable.from_arrays(pixels, np.arange(6) % 3)
    other = tmp_path / "given", tmp_path / "kept"
    make_challenge(table, None, *other, encoder=Scheme.inside(2), copies=COPIES)
    submission = submitted(tmp_path / "s", folders[0], perfect(folders[1]))
    with pytest.raises(InstaHideError, match="is of the challenge") as refused:
        score_submission(submission, ChallengeTruth.open(other[1]))
    assert sha256_of(folders[0]) in refused.value.problem
    assert sha256_of(other[0]) in refused.value.problem


@pytest.mark.parametrize("attack", ["reconstruction", " Fusion-Denoising"])
def test_a_submission_named_like_a_baseline_is_refused(
    folders: tuple[Path, Path], tmp_path: Path, attack: str
) -> None:
    submission = submitted(tmp_path / "s", folders[0], perfect(folders[1]), attack)
    with pytest.raises(DataError, match=r"as a baseline.*submission\.json"):
        score_submission(submission, ChallengeTruth.open(folders[1]))


FACTS = {"challenge": "0" * 64, "attack": "a", "version": "1"}


def written(folder: Path, facts: bytes, values: NDArray[Any] | None = None) -> Path:
    folder.mkdir()
    (folder / "submission.json").write_bytes(facts)
    np.save(folder / "decryption.npy", np.zeros(SHAPE, "f4") if values is None else values)
    return folder


def test_what_the_readme_asks_for_is_enough(tmp_path: Path) -> None:
    opened = Submission.open(written(tmp_path / "s", json.dumps(FACTS).encode()))
    assert (opened.facts.author, opened.facts.url) == ("", "")


@pytest.mark.parametrize(
    "change",
    [
        {"challenge": "0" * 63},
        {"challenge": "0" * 64 + "\n"},
        {"challenge": "G" * 64},
        {"challenge": None},
        {"attack": ""},
        {"attack": "a" * 81},
        {"attack": 7},
        {"version": ""},
        {"version": 1.0},
        {"author": "a" * 81},
        {"url": "javascript:alert(1)"},
        {"url": "https://a b"},
        {"more": 1},
    ],
)
def test_facts_that_cannot_be_are_refused(tmp_path: Path, change: dict[str, object]) -> None:
    folder = written(tmp_path / "s", json.dumps(FACTS | change).encode())
    with pytest.raises(InstaHideError, match=r"submission\.json.*README"):
        Submission.open(folder)


@pytest.mark.parametrize("facts", [b"", b"[]", b"\xff", b"[" * 60_000, b" " * 70_000])
def test_damaged_facts_are_refused(tmp_path: Path, facts: bytes) -> None:
    with pytest.raises(InstaHideError, match=r"submission\.json"):
        Submission.open(written(tmp_path / "s", facts))


@pytest.mark.parametrize(
    ("values", "said"),
    [
        (np.zeros((SIDE, SIDE, 3), np.float32), "4 dimensions"),
        (np.full(SHAPE, np.nan, np.float32), "finite numbers"),
        (np.full(SHAPE, "7"), "finite numbers"),
        (np.array([{}], dtype=object), "not a readable array"),
    ],
    ids=["flat", "not a number", "text", "pickle"],
)
def test_other_arrays_are_refused(tmp_path: Path, values: NDArray[Any], said: str) -> None:
    folder = written(tmp_path / "s", json.dumps(FACTS).encode(), values)
    with pytest.raises(InstaHideError, match=said):
        Submission.open(folder)


def test_a_file_is_no_submission(tmp_path: Path) -> None:
    np.save(tmp_path / "decryption.npy", np.zeros(SHAPE))
    with pytest.raises(InstaHideError, match=r"not a folder.*README"):
        Submission.open(tmp_path / "decryption.npy")


@pytest.mark.parametrize("name", ["decryption.npy", "submission.json"])
@pytest.mark.parametrize("dangling", [False, True])
def test_a_link_among_the_files_is_refused(tmp_path: Path, name: str, dangling: bool) -> None:
    folder = written(tmp_path / "s", json.dumps(FACTS).encode())
    kept = (folder / name).rename(tmp_path / name)
    (folder / name).symlink_to(f"../{name}")
    if dangling:
        kept.unlink()
    with pytest.raises(InstaHideError, match=r"is a symbolic link.*file itself"):
        Submission.open(folder)


def test_the_folder_may_be_a_link(tmp_path: Path) -> None:
    folder = written(tmp_path / "s", json.dumps(FACTS).encode())
    (tmp_path / "link").symlink_to(folder)
    assert Submission.open(tmp_path / "link").facts.attack == "a"

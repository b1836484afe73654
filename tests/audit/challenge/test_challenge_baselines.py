"""Baselines: each in the leaderboard, with a score or with the reason why not; resumed."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from instahide._version import __version__
from instahide.attacks.base import (
    AssignedImages,
    EncodingObservation,
    RecoveredImages,
    ThreatModel,
)
from instahide.audit.challenge import baselines
from instahide.audit.challenge.baseline_names import AUTHOR, BASELINES, BLANK
from instahide.audit.challenge.baselines import (
    BETTER_SIGN,
    GROUPED,
    NO_TIME,
    decryptions,
    foreign_images,
    run_baselines,
)
from instahide.audit.challenge.challenge import Challenge, ChallengeTruth
from instahide.audit.challenge.facts import Recipe
from instahide.audit.challenge.leaderboard import Entry, enter, read_leaderboard
from instahide.audit.challenge.making import make_challenge
from instahide.audit.challenge.practice import PracticeSet, make_practice
from instahide.audit.challenge.score import score_submission
from instahide.audit.challenge.submission import Submission
from instahide.data import ImageTable, open_images
from instahide.encryption.encoders.rivals.neuracrypt import NeuraCrypt
from instahide.encryption.scheme import Scheme
from instahide.errors import InstaHideError
from instahide.utils.folder_lock import only_process

Folders = tuple[Path, Path]


class Noting:
    """Notes what was run."""

    def __init__(self) -> None:
        self.begun: list[str] = []
        self.shares: list[float] = []

    def begins(self, number: int, attack: str, seconds: float) -> None:
        self.begun.append(attack)

    def goes_on(self, what: str, share: float) -> None:
        self.shares.append(share)


def practice(root: Path, images: int, copies: int, private_k: int = 2) -> Folders:
    recipe = Recipe(data="digits", images=images, seed=11)
    folders = root / "given", root / "kept"
    scheme = Scheme.cross(4, private_k=private_k)
    make_practice(PracticeSet(recipe, copies, scheme), *folders)
    return folders


def run(
    folders: Folders, root: Path, seconds: float, shadow: ImageTable | None = None
) -> tuple[list[Entry], Noting]:
    noting = Noting()
    given, kept = Challenge.open(folders[0]), ChallengeTruth.open(folders[1])
    board, out = root / "board.csv", root / "out"
    found = list(run_baselines(given, kept, board, out, seconds, noting, shadow))
    return found, noting


@pytest.mark.slow
def test_every_baseline_is_entered_and_tried_again_only_if_it_was_not_scored(
    tmp_path: Path,
) -> None:
    folders = practice(tmp_path, 10, 6)
    found, noting = run(folders, tmp_path, 60)
    assert noting.begun == list(BASELINES)
    assert noting.shares
    entries = {one.attack: one for one in found}
    assert found == read_leaderboard(tmp_path / "board.csv")
    assert {one.version for one in found} == {__version__}
    # There are no images of the attacker's own.
    assert entries["fusion-denoising"].figures is None
    assert entries["fusion-denoising"].note
    scored = {name: one for name, one in entries.items() if one.figures is not None}
    assert set(scored) == set(BASELINES) - {"fusion-denoising"}
    assert entries["reconstruction"].max_ssim > entries["blank"].max_ssim + 0.05
    assert BETTER_SIGN in entries["reconstruction"].note
    assert GROUPED in entries["averaging-absolute"].note
    assert entries["blank"].note == ""
    # The submissions are there, and score as the leaderboard says.
    kept = ChallengeTruth.open(folders[1])
    for name, one in scored.items():
        submission = Submission.open(tmp_path / "out" / f"{name}-{__version__}")
        assert score_submission(submission, kept).max_ssim == pytest.approx(one.max_ssim)

    again, noting = run(folders, tmp_path, 60)
    assert noting.begun == ["fusion-denoising"]
    assert [one.figures for one in again] == [None]
    assert len(read_leaderboard(tmp_path / "board.csv")) == len(BASELINES)


def test_two_processes_do_not_write_to_one_folder_of_submissions(tmp_path: Path) -> None:
    folders = practice(tmp_path, 2, 2)
    (tmp_path / "out").mkdir()
    with (
        only_process(tmp_path / "out"),
        pytest.raises(InstaHideError, match="is being written by another process"),
    ):
        run(folders, tmp_path, 1)
    assert not (tmp_path / "board.csv").exists()


@pytest.mark.slow
def test_fusion_learns_from_images_that_are_not_private(tmp_path: Path) -> None:
    folders = practice(tmp_path, 8, 4)
    kept = ChallengeTruth.open(folders[1])
    shadow = foreign_images(open_images("digits"), kept)
    assert len(shadow) == 1438 - 8
    private = {image.tobytes() for image in kept.originals}
    assert not private & {image.tobytes() for image in shadow.normalized()}
    found, _ = run(folders, tmp_path, 30, shadow.subset(slice(0, 300)))
    assert {one.attack for one in found if one.figures is None} == set()


def test_images_that_are_all_private_are_no_shadow(tmp_path: Path) -> None:
    folders = practice(tmp_path, 8, 4)
    kept = ChallengeTruth.open(folders[1])
    images = open_images("digits")
    rows = np.arange(8) * len(images) // 8
    with pytest.raises(InstaHideError, match="are private ones"):
        foreign_images(images.subset(rows), kept)
    other = ImageTable.from_arrays(np.zeros((4, 3, 8, 8), np.uint8), [0, 1, 0, 1])
    with pytest.raises(InstaHideError, match="shape"):
        foreign_images(other, kept)


@pytest.mark.slow
def test_too_few_encodings_are_a_reason(tmp_path: Path) -> None:
    found, _ = run(practice(tmp_path, 8, 1, private_k=1), tmp_path, 30)
    reasons = {one.attack: one.note for one in found if one.figures is None}
    assert set(reasons) == set(BASELINES) - {"blank"}
    assert "single encoding" in reasons["reconstruction"]
    assert "which encodings are of one image is unknown" in reasons["averaging"]
    assert "single encoding" in reasons["averaging"]


@pytest.mark.slow
def test_attacks_on_instahide_do_not_apply_to_other_encoders(tmp_path: Path) -> None:
    """Its encodings have another shape than a submission."""
    pixels = np.random.default_rng(0).integers(0, 256, (6, 1, 8, 8), np.uint8)
    table = ImageTable.from_arrays(pixels, np.arange(6) % 2)
    folders = tmp_path / "given", tmp_path / "kept"
    make_challenge(table, None, *folders, encoder=NeuraCrypt(width=6), copies=4)
    found, _ = run(folders, tmp_path, 30)
    assert [one.attack for one in found if one.figures is not None] == ["blank"]
    assert all("structure of InstaHide" in one.note for one in found[1:])


def test_what_has_no_time_is_not_scored(tmp_path: Path) -> None:
    folders = practice(tmp_path, 8, 4)
    found, _ = run(folders, tmp_path, 0.5)
    assert [one.note for one in found] == ["", *[NO_TIME] * (len(BASELINES) - 1)]


def test_a_kill_between_submission_and_entry_is_made_good(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folders = practice(tmp_path, 8, 2)

    def killed(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(baselines, "enter", killed)
        with pytest.raises(KeyboardInterrupt):
            run(folders, tmp_path, 0.5)
    assert (tmp_path / "out" / f"blank-{__version__}").is_dir()
    assert not (tmp_path / "board.csv").exists()
    found, _ = run(folders, tmp_path, 0.5)
    assert found[0].figures is not None


def test_a_baseline_is_run_although_another_author_took_its_name(tmp_path: Path) -> None:
    """A leaderboard may have such an entry, if another version of this library wrote it."""
    folders, board = practice(tmp_path, 8, 2), tmp_path / "board.csv"
    (blank, *_), _ = run(folders, tmp_path / "first", 0.5)
    other = replace(blank, author="mallory")
    enter(board, other, baseline=True)
    found, noting = run(folders, tmp_path, 0.5)
    assert noting.begun[0] == BLANK
    assert [one.author for one in found] == [AUTHOR] * len(BASELINES)
    assert read_leaderboard(board) == [other, *found]
    _, noting = run(folders, tmp_path, 0.5)
    assert BLANK not in noting.begun
    assert read_leaderboard(board)[0] == other


def test_the_folder_of_something_else_is_not_replaced(tmp_path: Path) -> None:
    folders = practice(tmp_path, 8, 2)
    other = tmp_path / "out" / f"blank-{__version__}"
    other.mkdir(parents=True)
    (other / "thesis.txt").write_text("years of work")
    with pytest.raises(InstaHideError):
        run(folders, tmp_path, 0.5)
    assert (other / "thesis.txt").exists()


def test_the_truth_of_another_challenge_is_refused(tmp_path: Path, folders: Folders) -> None:
    mine = practice(tmp_path, 8, 2)
    with pytest.raises(InstaHideError, match="not of"):
        run((mine[0], folders[1]), tmp_path, 0.5)


def observation(count: int) -> EncodingObservation:
    threat = ThreatModel(public="none", encodings_per_image=2)
    return EncodingObservation(
        Scheme.inside(2), (0.5,), (0.5,), threat, torch.zeros(count, 1, 4, 4)
    )


def test_an_encoding_gets_its_largest_image_and_no_image_is_blank() -> None:
    images = torch.randn(3, 1, 4, 4) * 5 + 2
    assignment = torch.tensor([[0, 1], [1, 2], [2, -1]])
    coefficients = torch.tensor([[0.7, 0.3], [0.2, 0.8], [0.1, 0.6]])
    shown = decryptions(AssignedImages(images, assignment, coefficients), observation(3))
    scaled = (images - images.mean()) / images.std()
    torch.testing.assert_close(shown[:2], scaled[[0, 2]])
    assert (shown[2] == 0).all()


def test_an_encoding_gets_the_image_of_its_group() -> None:
    images, ids = torch.randn(2, 1, 4, 4), torch.tensor([7, 3])
    for groups in itertools.product([7, 3, 5], repeat=2):
        seen = observation(2)
        object.__setattr__(seen, "groups", torch.tensor(groups))
        shown = decryptions(RecoveredImages(images, ids), seen)
        scaled = (images - images.mean()) / images.std()
        for row, group in enumerate(groups):
            expected = torch.zeros_like(scaled[0])
            if group in (7, 3):
                expected = scaled[[7, 3].index(group)]
            torch.testing.assert_close(shown[row], expected)

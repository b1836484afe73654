"""Baselines of a leaderboard: known attacks, each scored as a submission."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from instahide._version import __version__
from instahide.attacks.base import (
    AssignedImages,
    EncodingObservation,
    Finding,
    Progress,
    RecoveredImages,
)
from instahide.attacks.sandbox import Answer, IsolatedRunner
from instahide.audit.challenge.baseline_names import (
    AUTHOR,
    AVERAGING,
    BASELINES,
    BLANK,
    OURS,
)
from instahide.audit.challenge.challenge import Challenge, ChallengeTruth
from instahide.audit.challenge.leaderboard import Entry, enter, entries_of, entry
from instahide.audit.challenge.score import score_decryptions
from instahide.audit.challenge.submission import (
    Submission,
    SubmissionFacts,
    write_submission,
)
from instahide.audit.schedule import Task, seconds_for
from instahide.data import ImageTable
from instahide.data.normalization.normalization import Normalization
from instahide.errors import DataError, InstaHideError
from instahide.utils.folder_lock import only_process

#: Notes in the leaderboard.
BETTER_SIGN = "the better of two submissions, one of each sign"
GROUPED = "encodings were grouped by the assignment of reconstruction"
OUT_OF_TIME = "ended by its time budget"
NO_TIME = "the time budget was used up"
#: An attack does not start with fewer seconds than this.
LEAST_SECONDS = 1.0


class Watcher(Protocol):
    """Receives the progress of the baselines."""

    def begins(self, number: int, attack: str, seconds: float) -> None:
        """The baseline with this ``number``, from 0, starts and may take so many ``seconds``."""
        ...

    def goes_on(self, what: str, share: float) -> None:
        """The attack is at the step ``what``, and has done this share of its work."""
        ...


class Tried(NamedTuple):
    """The outcome of an attack: (N, C, H, W) decryptions, and a note; the reason if there are none.

    ``images``: normalized, of unknown sign.
    """

    images: Tensor | None
    note: str


def run_baselines(
    challenge: Challenge,
    truth: ChallengeTruth,
    leaderboard: Path,
    folder: Path,
    seconds: float,
    watcher: Watcher,
    shadow: ImageTable | None = None,
) -> Iterator[Entry]:
    """Run the `BASELINES` that the leaderboard does not score yet, and yield their entries.

    Each entry is in the leaderboard before the next attack starts. One that was not run, because it
    does not apply or had no time, is entered with the reason, and is tried again by the next call.
    Entries of other authors do not count, whatever their names.
    The attacks run in a process that never has the truth.

    Args:
        challenge: what attackers get.
        truth: its truth.
        leaderboard: CSV file of the leaderboard.
        folder: folder for the submissions.
        seconds: time for all attacks together.
        watcher: receives the progress.
        shadow: images of the attacker's own, like the private ones; `foreign_images` leaves out
            those that are private.

    Raises:
        DataError: truth or leaderboard is of another challenge.
        DamagedFileError: the leaderboard is not readable.
        InstaHideError: another process writes to ``folder``.
    """
    if challenge.sha256 != truth.facts.challenge:
        raise DataError(
            f"The truth is of the challenge {truth.facts.challenge}, not of {challenge.sha256}.",
            "Name the truth that was made with the challenge.",
        )
    folder.mkdir(parents=True, exist_ok=True)
    # Another process would replace submissions whose scores are in the leaderboard.
    with only_process(folder), IsolatedRunner() as runner:
        before = entries_of(leaderboard, challenge.sha256)
        scored = {one.name for one in before if one.is_baseline and one.figures is not None}
        missing = [name for name in BASELINES if (name, __version__) not in scored]
        observation, shape = challenge.observation("soft", shadow), truth.originals.shape[1:]
        attacks = _Attacks(observation, shape, runner, watcher.goes_on)
        left = seconds
        for number, name in enumerate(missing):
            later = [Task(other, challenge.copies) for other in missing[number + 1 :]]
            share = seconds_for(Task(name, challenge.copies), later, left)
            watcher.begins(number, name, share)
            began = time.monotonic()
            tried = attacks.run(name, share)
            left -= time.monotonic() - began
            made = _scored(name, tried, truth, folder)
            enter(leaderboard, made, baseline=True)
            yield made


def foreign_images(images: ImageTable, truth: ChallengeTruth) -> ImageTable:
    """``images`` that are not private ones, normalized as these.

    Args:
        images: images for the attacker, such as all of the data set.
        truth: the truth.

    Raises:
        DataError: the images have another shape, or all of them are private.
    """
    if images.shape != truth.originals.shape[1:]:
        raise DataError(
            f"The attacker's images have the shape {images.shape}, and the private ones "
            f"{truth.originals.shape[1:]}.",
            "Give images of the same size and channels.",
        )
    like = Normalization(truth.facts.mean, truth.facts.std, images.value_range)
    table = images.normalized_like(like)
    # Equal pixels have equal bits, as both were normalized alike.
    private = {image.tobytes() for image in truth.originals}
    kept = np.array([image.tobytes() not in private for image in table.normalized()], bool)
    if not kept.any():
        raise DataError(
            "All images of the attacker are private ones.", "Give others of the same kind."
        )
    return table.subset(kept)


class _Attacks:
    """Runs attacks on one challenge; the assignment of the reconstruction is kept for others."""

    def __init__(
        self,
        observation: EncodingObservation,
        shape: tuple[int, ...],
        runner: IsolatedRunner,
        progress: Progress,
    ) -> None:
        self._observation, self._shape = observation, shape
        self._runner, self._progress = runner, progress
        self._reconstruction: Answer | None = None

    def run(self, name: str, seconds: float) -> Tried:
        """Run one of the `BASELINES`."""
        if name == BLANK:
            return Tried(torch.zeros(len(self._observation), *self._shape), "")
        # With the assignment at hand, averaging takes next to no time.
        if seconds < LEAST_SECONDS and not (name in AVERAGING and self._reconstruction):
            return Tried(None, NO_TIME)
        if name in AVERAGING:
            return self._averaging(name, max(seconds, LEAST_SECONDS))
        return _tried(self._answer(name, self._observation, seconds), self._observation)

    def _averaging(self, name: str, seconds: float) -> Tried:
        ours = self._reconstruction or self._answer(OURS, self._observation, seconds)
        if not isinstance(ours.found, AssignedImages):
            reason = "which encodings are of one image is unknown, as reconstruction was not run"
            return Tried(None, f"{reason}: {ours.reason}")
        grouped = replace(self._observation, groups=_largest(ours.found))
        return _tried(self._answer(name, grouped, seconds), grouped, GROUPED)

    def _answer(self, name: str, observation: EncodingObservation, seconds: float) -> Answer:
        answer = self._runner.run(name, observation, seconds, self._progress)
        if name == OURS:
            self._reconstruction = answer
        return answer


def decryptions(found: Finding, observation: EncodingObservation) -> Tensor:
    """(N, C, H, W) for each encoding the recovered image with the largest coefficient in it.

    Absolute values of encodings show neither brightness nor contrast of images. The attacker knows
    that normalized images have mean 0 and deviation 1 in each channel, and scales them so. An
    encoding without a recovered image gets a blank one.

    Args:
        found: recovered images.
        observation: the encodings.

    Raises:
        TypeError: the finding has no images.
    """
    if isinstance(found, AssignedImages):
        of = _largest(found)
    elif isinstance(found, RecoveredImages):
        same = observation.owners()[:, None] == found.target_ids
        of = torch.where(same.any(dim=1), same.int().argmax(dim=1), -1)
    else:
        raise TypeError("the finding has no images")
    places = (0, 2, 3)
    mean = found.images.mean(dim=places, keepdim=True)
    deviation = found.images.std(dim=places, keepdim=True)
    images = (found.images - mean) / deviation.clamp(min=1e-9)
    blank = torch.zeros_like(images[:1])
    return torch.cat([images, blank])[of]


def _largest(found: AssignedImages) -> Tensor:
    """(N,) the image with the largest coefficient in each encoding; -1 for none."""
    column = found.coefficients.argmax(dim=1, keepdim=True)
    return found.assignment.gather(1, column)[:, 0]


def _tried(answer: Answer, observation: EncodingObservation, note: str = "") -> Tried:
    if answer.found is None:
        return Tried(None, answer.reason)
    images = decryptions(answer.found, observation)
    if not images.isfinite().all():
        return Tried(None, "the attack returned values that are not finite")
    late = OUT_OF_TIME if answer.out_of_time else ""
    return Tried(images, ", ".join(filter(None, (note, late))))


def _scored(name: str, tried: Tried, truth: ChallengeTruth, folder: Path) -> Entry:
    """The entry of an attack, whose better submission is written to ``folder``."""
    facts = SubmissionFacts(
        challenge=truth.facts.challenge, attack=name, version=__version__, author=AUTHOR
    )
    if tried.images is None:
        return entry(facts, None, tried.note)
    one = tried.images.permute(0, 2, 3, 1).numpy()
    signs = [one] if name == BLANK else [one, -one]
    scores = [score_decryptions(each, truth) for each in signs]
    best = max(range(len(signs)), key=lambda row: scores[row].max_ssim)
    _write(folder / f"{name}-{__version__}", facts, signs[best])
    note = "" if name == BLANK else BETTER_SIGN
    return entry(facts, scores[best], ", ".join(filter(None, (note, tried.note))))


def _write(folder: Path, facts: SubmissionFacts, images: NDArray[np.float32]) -> None:
    """Write a submission, in the place of one that was written before it could be entered."""
    if folder.exists():
        if Submission.open(folder).facts != facts:
            raise InstaHideError(f"{folder} is another submission.", "Choose another folder.")
        shutil.rmtree(folder)
    write_submission(folder, facts, images)

"""What the tests of challenges share."""

from __future__ import annotations

import json
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from instahide.audit.challenge.facts import digest, file_hash
from instahide.audit.challenge.score import ChallengeScore
from instahide.audit.challenge.submission import Submission, SubmissionFacts, write_submission

IMAGES, COPIES, SIDE = 6, 4, 12
NAMES = [field.name for field in fields(ChallengeScore)]


def perfect(kept: Path) -> NDArray[np.float32]:
    """One of the private images of each encoding."""
    partners = np.load(kept / "partners.npy")
    return np.asarray(np.load(kept / "private.npy")[partners[:, 0]])


def sha256_of(given: Path) -> str:
    return str(json.loads((given / "challenge.json").read_text())["sha256"])


def submitted(
    folder: Path, given: Path, values: NDArray[Any], attack: str = "ours", version: str = "1"
) -> Submission:
    facts = SubmissionFacts(challenge=sha256_of(given), attack=attack, version=version)
    return write_submission(folder, facts, values)


def score_of(value: float) -> ChallengeScore:
    """A score in which every figure has this ``value``."""
    return ChallengeScore(*[value] * len(NAMES))  # type: ignore[arg-type]


def sealed_again(folder: Path, name: str) -> None:
    """Give the facts in ``folder`` the hashes of the files as they are, as a forger would."""
    plain = json.loads((folder / name).read_text())
    plain["files"] = {file: file_hash(folder / file) for file in plain["files"]}
    plain["sha256"] = digest(plain)
    (folder / name).write_text(json.dumps(plain))

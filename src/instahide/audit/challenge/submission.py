"""Submissions to a challenge: a folder with decryptions, and the name of the attack.

``decryption.npy`` has one image for each encoding. ``submission.json`` names the attack and the
challenge that it attacked. Both come from strangers: they are read without pickle, and nothing in
them is run. Neither may be a symbolic link, which could lead to the truth or to another secret file
of the scorer.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from instahide.audit.challenge.facts import Sha256, read_array, read_model
from instahide.errors import DamagedFileError
from instahide.utils.atomic_write import atomic_directory, write_json

DECRYPTION, SUBMISSION = "decryption.npy", "submission.json"
_REMEDY = "Write the folder as the README of the challenge says."


class SubmissionFacts(BaseModel):
    """``submission.json``.

    Attributes:
        challenge: SHA-256 of the challenge.
        attack: name of the attack.
        version: version of the attack.
        author: who ran it.
        url: where it is described; empty, or of http or https.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    challenge: Sha256
    attack: Annotated[str, Field(min_length=1, max_length=80)]
    version: Annotated[str, Field(min_length=1, max_length=40)]
    author: Annotated[str, Field(max_length=80)] = ""
    url: Annotated[str, Field(max_length=200, pattern=r"^(https?://\S+)?$")] = ""


@dataclass(frozen=True, eq=False, repr=False)
class Submission:
    """A submission.

    Attributes:
        facts: attack and challenge.
        decryptions: (N, H, W, C) one normalized image for each encoding.
    """

    facts: SubmissionFacts
    decryptions: NDArray[Any]

    @classmethod
    def open(cls, folder: Path) -> Submission:
        """Read a submission.

        Raises:
            DamagedFileError: a file is missing, damaged, a symbolic link or not as the README of
                the challenge says.
        """
        if not folder.is_dir():
            raise DamagedFileError(
                f"{folder} is not a folder with {DECRYPTION} and {SUBMISSION}.", _REMEDY
            )
        for name in (DECRYPTION, SUBMISSION):
            _require_no_link(folder / name)
        facts, _ = read_model(SubmissionFacts, folder / SUBMISSION, _REMEDY)
        return cls(facts, read_array(folder / DECRYPTION, 4, _REMEDY))


def _require_no_link(path: Path) -> None:
    if path.is_symlink():
        raise DamagedFileError(
            f"{path} is a symbolic link, which a file of a submission may not be.",
            "Put the file itself into the folder.",
        )


def write_submission(folder: Path, facts: SubmissionFacts, decryptions: NDArray[Any]) -> Submission:
    """Write a submission to a new ``folder``, and open it.

    Raises:
        InstaHideError: the folder cannot be written.
    """
    with atomic_directory(folder) as partial:
        np.save(partial / DECRYPTION, decryptions, allow_pickle=False)
        write_json(partial / SUBMISSION, facts.model_dump())
    return Submission.open(folder)

"""Makes challenges like the authors': encodings for attackers, and the truth in another folder.

Nothing else in this library writes private images, partners and coefficients to disk.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import TypeAdapter, ValidationError

from instahide.attacks.base import EncodingObservation, ThreatModel
from instahide.audit.challenge import facts as files
from instahide.audit.challenge.challenge import Challenge
from instahide.audit.challenge.facts import (
    COPIES,
    SCHEME,
    Kind,
    PublicFacts,
    Recipe,
    SecretFacts,
    seal,
    write_facts,
)
from instahide.audit.challenge.readme import COMPETITION_NOTE, MARK, PRACTICE_NOTE, README, readme
from instahide.audit.ground_truth import GroundTruth, observe
from instahide.data import ImageTable
from instahide.encryption.encoders.base import InstanceEncoder
from instahide.errors import DataError, InstaHideError
from instahide.utils.atomic_write import atomic_directory


@dataclass(frozen=True)
class Name:
    """The name of a challenge.

    Attributes:
        id: lower-case letters and digits, with single hyphens between words; None for one that is
            derived from the hash of the encodings.
        version: number of the version, from 1.

    Raises:
        InstaHideError: the id or the version cannot be used.
    """

    id: str | None = None
    version: int = 1

    def __post_init__(self) -> None:
        try:
            TypeAdapter(files.Id | None).validate_python(self.id)
            TypeAdapter(files.Version).validate_python(self.version)
        except ValidationError:
            raise InstaHideError(
                f"Version {self.version} of {self.id!r:.80} is no name of a challenge.",
                "Use lower-case letters and digits with single hyphens between words, as in "
                "digits-2, at most 60 characters; and a version from 1.",
            ) from None


def make_challenge(
    images: ImageTable,
    public: ImageTable | None,
    folder: Path,
    truth_folder: Path,
    *,
    encoder: InstanceEncoder = SCHEME,
    copies: int = COPIES,
    name: Name | None = None,
) -> Challenge:
    """Write a competition to ``folder``, and the truth behind it to ``truth_folder``.

    Its keys are drawn at random and dropped.

    Args:
        images: the private images.
        public: the public pool, if the encoder uses one.
        folder: folder for attackers.
        truth_folder: folder for the scorer; neither folder may contain the other.
        encoder: how to encrypt: a scheme, or another encoder.
        copies: encodings of each image.
        name: id and version.

    Raises:
        DataError: the images are volumes.
        InstaHideError: one folder contains the other, or one is not empty.
    """
    if len(images.shape) != 3:
        raise DataError(
            f"The images have the shape {images.shape}, and a challenge is of images of two "
            "dimensions: N x H x W x C.",
            "Give images, such as slices of these volumes.",
        )
    require_apart(folder, truth_folder)
    threat = ThreatModel(public="none", encodings_per_image=copies)
    observation, truth = observe(images, public, encoder, threat)
    return write_challenge(Made(observation, truth), folder, truth_folder, name or Name())


@dataclass(frozen=True, eq=False, repr=False)
class Made:
    """SECRET: a challenge before it is written.

    Attributes:
        observation: what attackers get.
        truth: the ground truth.
        recipe: how a practice set is made again; None for a competition.
        sha256: the hash that it must have, if that is known.
    """

    observation: EncodingObservation
    truth: GroundTruth
    recipe: Recipe | None = None
    sha256: files.Sha256 | None = None


def write_challenge(made: Made, folder: Path, truth_folder: Path, name: Name) -> Challenge:
    """Write both folders of a challenge, each of which appears whole or not at all.

    Raises:
        InstaHideError: a folder cannot be written, or the challenge has another hash than it must
            have.
    """
    seen = made.observation
    kind: Kind = "practice" if made.recipe else "competition"
    moments = {"mean": seen.mean, "std": seen.std}
    with atomic_directory(folder) as partial:
        _save(partial / files.ENCODINGS, seen.encodings.permute(0, 2, 3, 1))
        _save(partial / files.LABELS, torch.as_tensor(seen.labels))
        called = name.id
        if called is None:
            called = f"challenge-{files.file_hash(partial / files.ENCODINGS)[:8]}"
        facts = seal(
            PublicFacts, partial, id=called, version=name.version, kind=kind,
            encoder=seen.encoder.name, scheme=dict(seen.encoder.settings),
            copies=seen.threat.encodings_per_image, recipe=made.recipe, **moments,
        )  # fmt: skip
        if made.sha256 not in (None, facts.sha256):
            raise InstaHideError(
                f"The SHA-256 of {facts.id} is {facts.sha256} here, and {made.sha256} elsewhere.",
                "Update scikit-learn, scikit-image and NumPy. If it is still another, report it, "
                "with your processor.",
            )
        write_facts(partial / files.FACTS, facts)
        (partial / README).write_text(_readme(made, facts), encoding="utf-8")
        # The truth first: a challenge without it cannot be scored.
        _write_truth(made.truth, facts, truth_folder, moments)
    return Challenge.read(folder, facts, seen.encoder)


def _write_truth(
    truth: GroundTruth, facts: PublicFacts, folder: Path, moments: Mapping[str, Any]
) -> None:
    public = facts.kind == "practice"
    with atomic_directory(folder) as partial:
        note = partial / (README if public else MARK)
        note.write_text(PRACTICE_NOTE if public else COMPETITION_NOTE, encoding="utf-8")
        _save(partial / files.ORIGINALS, truth.images.permute(0, 2, 3, 1))
        _save(partial / files.PARTNERS, truth.partners)
        _save(partial / files.COEFFICIENTS, truth.coefficients)
        secret = seal(
            SecretFacts, partial, id=facts.id, version=facts.version, kind=facts.kind,
            challenge=facts.sha256, private_k=truth.private_k, **moments,
        )  # fmt: skip
        write_facts(partial / files.TRUTH, secret)


def _readme(made: Made, facts: PublicFacts) -> str:
    count, *encoded = made.observation.encodings.permute(0, 2, 3, 1).shape
    images = made.truth.images.permute(0, 2, 3, 1).shape[1:]
    classes = torch.as_tensor(made.observation.labels).shape[1]
    return readme(facts, (count, *encoded), (count, *images), classes)


def require_apart(folder: Path, truth_folder: Path) -> None:
    """Check that both folders are new and neither contains the other.

    Raises:
        InstaHideError: they are not.
    """
    here, there = folder.resolve(), truth_folder.resolve()
    if here.is_relative_to(there) or there.is_relative_to(here):
        raise InstaHideError(
            f"The truth in {truth_folder} and the challenge in {folder} are not apart.",
            "Give the truth a folder that is not handed out with the challenge.",
        )
    for path in (folder, truth_folder):
        if path.exists() and (not path.is_dir() or any(path.iterdir())):
            raise InstaHideError(f"There is something in {path}.", "Name a folder that is new.")


def _save(path: Path, values: torch.Tensor) -> None:
    np.save(path, np.ascontiguousarray(values.numpy()), allow_pickle=False)

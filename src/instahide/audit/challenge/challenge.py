"""Challenges like the authors': encodings for attackers, and a separate folder with the truth.

Attackers get ``encryption.npy`` (N x H x W x C float32) and ``label.npy``, as in the InstaHide
challenge, and ``challenge.json`` with the public parameters. The scorer gets a separate folder with
the private images, partners and coefficients. Nothing else in this library writes these to disk.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from instahide.attacks.base import EncodingObservation, ThreatModel
from instahide.audit.ground_truth import observe
from instahide.data import ImageTable
from instahide.data.pixels import MOST_CHANNELS
from instahide.data.readers.arrays.npy_file import map_npy
from instahide.encryption.encoders.base import InstanceEncoder
from instahide.encryption.encoders.registry import recorded_encoder
from instahide.encryption.scheme import Scheme
from instahide.errors import (
    DamagedFileError,
    DataError,
    InstaHideError,
    failure_reason,
    first_validation_error,
)
from instahide.utils.atomic_write import atomic_directory, read_regular, write_json

ENCODINGS, LABELS, FACTS = "encryption.npy", "label.npy", "challenge.json"
MARK, TRUTH = "SECRET.txt", "truth.json"
#: Files of the ground truth.
ORIGINALS, PARTNERS, COEFFICIENTS = "private.npy", "partners.npy", "coefficients.npy"
#: The authors' challenge: 100 images, 50 encodings each.
IMAGES, COPIES = 100, 50
SCHEME = Scheme.cross(6)

#: Largest size of a JSON file in bytes.
MOST_FACTS = 1 << 16
#: The remedy for a damaged file.
_NEW_COPY = "Ask the author of the challenge for a new copy of the file."
_MARKED = """SECRET: the truth behind a challenge.

Private images, partners and coefficients are here in the clear, for the scorer alone. Do not give
this folder to anybody who attacks the challenge, and do not put it where the encodings are.
"""


class Facts(BaseModel):
    """The metadata of a challenge or of its ground truth."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    mean: tuple[float, ...]
    std: tuple[Annotated[float, Field(gt=0)], ...]


class PublicFacts(Facts):
    """``challenge.json``."""

    encoder: Annotated[str, Field(min_length=1, max_length=200)] = SCHEME.name
    scheme: dict[str, bool | int | float | str] = asdict(SCHEME)
    copies: Annotated[int, Field(ge=1)] = COPIES


class SecretFacts(Facts):
    """``truth.json``."""

    private_k: Annotated[int, Field(ge=1)]


AnyFacts = TypeVar("AnyFacts", bound=Facts)


@dataclass(frozen=True, eq=False, repr=False)
class Challenge:
    """A challenge as attackers receive it.

    Attributes:
        encodings: (N, C, H, W) float32, memory-mapped.
        labels: (N, classes) float32.
        encoder: how they were made; the authors' scheme if the folder does not say.
        copies: encodings of each image.
        mean: mean of the normalization, per channel; 0 if the challenge does not state it.
        std: standard deviation of the normalization, per channel; 1 if not stated.
    """

    encodings: NDArray[np.float32]
    labels: NDArray[np.float32]
    encoder: InstanceEncoder
    copies: int
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __repr__(self) -> str:
        return f"Challenge({len(self.encodings)} encodings, {self.copies} of an image)"

    @classmethod
    def open(cls, folder: Path, encoder: str | None = None) -> Challenge:
        """Read a challenge made by this library, or the two files of the authors' challenge.

        Args:
            folder: the challenge.
            encoder: its encoder; needed if it is of another package, whose code is then run.

        Raises:
            DamagedFileError: a file is missing or damaged, or they do not fit each other.
            InstaHideError: the encoder is of another package, and was not named.
        """
        if (folder / FACTS).exists():
            facts = _facts(PublicFacts, folder / FACTS)
        else:
            # The authors' challenge does not state its normalization.
            channels = read_array(folder / ENCODINGS, 4).shape[3]
            facts = PublicFacts(mean=(0.0,) * channels, std=(1.0,) * channels)
        return cls.read(folder, facts, recorded_encoder(facts.encoder, facts.scheme, encoder))

    @classmethod
    def read(cls, folder: Path, facts: PublicFacts, encoder: InstanceEncoder) -> Challenge:
        """Read the encodings and labels of a challenge with these ``facts``.

        Raises:
            DamagedFileError: as for `open`.
        """
        encodings, labels = read_array(folder / ENCODINGS, 4), read_array(folder / LABELS, 2)
        if len(encodings) != len(labels) or not 1 <= encodings.shape[3] <= MOST_CHANNELS:
            raise DamagedFileError(
                f"{ENCODINGS} has the shape {encodings.shape}, {LABELS} {labels.shape}.",
                "The first is N x H x W x C, the second N x classes.",
            )
        if isinstance(encoder, Scheme):
            _require_channels(facts, encodings.shape[3], folder / FACTS)
        pixels = encodings.transpose(0, 3, 1, 2)
        return cls(pixels, labels, encoder, facts.copies, facts.mean, facts.std)

    def observation(
        self, labels: Literal["soft", "coarse", "none"] = "soft"
    ) -> EncodingObservation:
        """The observation of an attacker who sees such ``labels``."""
        soft = torch.from_numpy(np.array(self.labels, np.float32))
        seen = {"soft": soft, "coarse": (soft > 0).float(), "none": None}[labels]
        return EncodingObservation(
            self.encoder,
            self.mean,
            self.std,
            ThreatModel(labels=labels, public="none", encodings_per_image=self.copies),
            torch.from_numpy(np.array(self.encodings, np.float32, order="C")),
            seen,
        )


def make_challenge(
    images: ImageTable,
    public: ImageTable | None,
    folder: Path,
    truth_folder: Path,
    *,
    encoder: InstanceEncoder = SCHEME,
    copies: int = COPIES,
) -> Challenge:
    """Write a challenge to ``folder``, and the truth behind it to ``truth_folder``.

    Args:
        images: the private images.
        public: the public pool, if the encoder uses one.
        folder: folder for attackers.
        truth_folder: folder for the scorer; neither folder may contain the other.
        encoder: how to encrypt: a scheme, or another encoder.
        copies: encodings of each image.

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
    _require_apart(folder, truth_folder)
    threat = ThreatModel(public="none", encodings_per_image=copies)
    observation, truth = observe(images, public, encoder, threat)
    moments = {"mean": images.mean, "std": images.std}
    # The truth first: a challenge without it cannot be scored.
    with atomic_directory(truth_folder) as partial:
        (partial / MARK).write_text(_MARKED, encoding="utf-8")
        _save(partial / ORIGINALS, truth.images.permute(0, 2, 3, 1))
        _save(partial / PARTNERS, truth.partners)
        _save(partial / COEFFICIENTS, truth.coefficients)
        secret = SecretFacts(private_k=encoder.private_k, **moments)
        write_json(partial / TRUTH, secret.model_dump())
    with atomic_directory(folder) as partial:
        _save(partial / ENCODINGS, observation.encodings.permute(0, 2, 3, 1))
        _save(partial / LABELS, torch.as_tensor(observation.labels))
        known = PublicFacts(
            encoder=encoder.name, scheme=dict(encoder.settings), copies=copies, **moments
        )
        write_json(partial / FACTS, known.model_dump())
    return Challenge.read(folder, known, encoder)


@dataclass(frozen=True, eq=False, repr=False)
class ChallengeTruth:
    """SECRET: the ground truth of a challenge, for the scorer only.

    Attributes:
        originals: (M, C, H, W) float32 private images, normalized.
        private: (N, private_k) int64 private images of each encoding, the encrypted one first.
        mean: mean of the normalization, per channel.
        std: standard deviation of the normalization, per channel.
    """

    originals: NDArray[np.float32]
    private: NDArray[np.int64]
    mean: tuple[float, ...]
    std: tuple[float, ...]

    @classmethod
    def open(cls, folder: Path) -> ChallengeTruth:
        """Read the folder that `make_challenge` wrote for the scorer.

        Raises:
            DamagedFileError: ``folder`` is not such a folder, or is damaged.
        """
        if not (folder / TRUTH).is_file():
            raise DamagedFileError(
                f"{folder} does not hold the truth of a challenge.",
                "Name the folder that `instahide challenge make` got as `truth=`.",
            )
        originals, partners = read_array(folder / ORIGINALS, 4), read_array(folder / PARTNERS, 2)
        facts = _facts(SecretFacts, folder / TRUTH)
        _require_channels(facts, originals.shape[3], folder / TRUTH)
        private = np.array(partners[:, : facts.private_k])
        if private.dtype.kind != "i" or not np.isin(private, np.arange(len(originals))).all():
            raise DamagedFileError(
                f"{folder / PARTNERS} names images that are not there.", _NEW_COPY
            )
        pixels = np.array(originals.transpose(0, 3, 1, 2), order="C")
        return cls(pixels, private, facts.mean, facts.std)


def _require_apart(folder: Path, truth_folder: Path) -> None:
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


def read_array(path: Path, dimensions: int) -> NDArray[Any]:
    """The array in ``path``, memory-mapped.

    Raises:
        DamagedFileError: it cannot be read, holds values that are not finite numbers, or has
            another number of dimensions.
    """
    try:
        values = map_npy(path)
    except Exception as error:  # NumPy raises several kinds on damaged headers
        reason = failure_reason(error)
        raise DamagedFileError(f"{path} is not a readable array ({reason}).", _NEW_COPY) from error
    if values.ndim != dimensions:
        raise DamagedFileError(
            f"{path} has the shape {values.shape}.", f"It must have {dimensions} dimensions."
        )
    if values.dtype.kind not in "iuf" or not np.isfinite(values).all():
        raise DamagedFileError(f"{path} does not hold finite numbers alone.", _NEW_COPY)
    return np.asanyarray(values)


def _facts(kind: type[AnyFacts], path: Path) -> AnyFacts:
    """The metadata in ``path``."""
    try:
        facts = kind.model_validate_json(read_regular(path, MOST_FACTS))
    except (OSError, ValidationError) as error:
        reason = first_validation_error(error) if isinstance(error, ValidationError) else str(error)
        raise DamagedFileError(f"{path} is damaged ({reason}).", _NEW_COPY) from None
    _require_channels(facts, len(facts.mean), path)
    return facts


def _require_channels(facts: Facts, channels: int, path: Path) -> None:
    if not len(facts.mean) == len(facts.std) == channels:
        raise DamagedFileError(f"{path} is of images with other channels.", _NEW_COPY)

"""Challenges like the authors': encodings for whoever wants to attack them, the truth apart.

For attackers: ``encryption.npy`` (N x H x W x C float32) and ``label.npy``, as the InstaHide
challenge had them, and ``challenge.json``, what is public besides. For the scorer: a folder of its
own with the private images, who is in each mix, and the coefficients. It is the one place where
those are ever written, because that is what it is for.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from instahide.attacks.base import Observation, ThreatModel
from instahide.audit.truth import observe
from instahide.encryption.scheme import Scheme
from instahide.errors import InstaHideError
from instahide.files import write_json, writing_folder
from instahide.images import ImageTable

ENCODINGS, LABELS, FACTS = "encryption.npy", "label.npy", "challenge.json"
MARK, TRUTH = "SECRET.txt", "truth.json"
#: Arrays of the truth.
ORIGINALS, PARTNERS, COEFFICIENTS = "private.npy", "partners.npy", "coefficients.npy"
#: What the authors' challenge was: 100 images, 50 encodings each.
IMAGES, COPIES = 100, 50
SCHEME = Scheme.cross(6)

_MARKED = """SECRET: the truth behind a challenge.

Private images, partners and coefficients are here in the clear, for the scorer alone. Do not give
this folder to anybody who attacks the challenge, and do not put it where the encodings are.
"""


@dataclass(frozen=True, eq=False, repr=False)
class Challenge:
    """What an attacker gets.

    Attributes:
        encodings: (N, C, H, W) float32, memory-mapped.
        labels: (N, classes) float32.
        scheme: how they were made; the authors' where nothing says otherwise.
        copies: encodings of each image.
        mean: of the normalisation, one a channel; 0 where it is not known.
        std: of the normalisation; 1 where it is not known.
    """

    encodings: NDArray[np.float32]
    labels: NDArray[np.float32]
    scheme: Scheme
    copies: int
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __repr__(self) -> str:
        return f"Challenge({len(self.encodings)} encodings, {self.copies} of an image)"

    @classmethod
    def open(cls, folder: Path) -> Challenge:
        """Read a challenge of ours, or the two files of the authors'.

        Raises:
            InstaHideError: a file is missing or damaged, or they do not fit each other.
        """
        encodings, labels = read_array(folder / ENCODINGS, 4), read_array(folder / LABELS, 2)
        if len(encodings) != len(labels) or encodings.shape[3] not in (1, 3):
            raise InstaHideError(
                f"{ENCODINGS} has the shape {encodings.shape}, {LABELS} {labels.shape}.",
                "The first is N x H x W x C, the second N x classes.",
            )
        channels = encodings.shape[3]
        unknown: dict[str, Any] = {
            "mean": [0.0] * channels,
            "std": [1.0] * channels,
            "copies": COPIES,
        }
        facts = unknown | _facts(folder / FACTS)
        scheme = Scheme.from_json(json.dumps(facts["scheme"])) if "scheme" in facts else SCHEME
        mean, std = tuple(facts["mean"]), tuple(facts["std"])
        return cls(encodings.transpose(0, 3, 1, 2), labels, scheme, facts["copies"], mean, std)

    def observation(self, labels: Literal["soft", "coarse", "none"] = "soft") -> Observation:
        """The challenge as an attacker comes upon it who sees such ``labels``."""
        soft = torch.from_numpy(np.array(self.labels, np.float32))
        seen = {"soft": soft, "coarse": (soft > 0).float(), "none": None}[labels]
        return Observation(
            torch.from_numpy(np.array(self.encodings, np.float32, order="C")),
            seen,
            self.scheme,
            self.mean,
            self.std,
            ThreatModel(labels=labels, public="none", encodings_per_image=self.copies),
        )


def make_challenge(
    images: ImageTable,
    public: ImageTable | None,
    folder: Path,
    truth_folder: Path,
    *,
    scheme: Scheme = SCHEME,
    copies: int = COPIES,
) -> Challenge:
    """Write a challenge to ``folder``, and the truth behind it to ``truth_folder``.

    Args:
        images: the private images.
        public: the public pool, if the scheme mixes some in.
        folder: for attackers.
        truth_folder: for the scorer; neither inside the other nor around it.
        scheme: how to encrypt.
        copies: encodings of each image.

    Raises:
        InstaHideError: one folder is inside the other, or there is something in one of them.
    """
    _require_apart(folder, truth_folder)
    threat = ThreatModel(public="none", encodings_per_image=copies)
    observation, truth = observe(images, public, scheme, threat)
    moments = {"mean": list(images.mean), "std": list(images.std)}
    # The truth first: a challenge that nobody can score is worth nothing.
    with writing_folder(truth_folder) as partial:
        (partial / MARK).write_text(_MARKED, encoding="utf-8")
        _save(partial / ORIGINALS, truth.images.permute(0, 2, 3, 1))
        _save(partial / PARTNERS, truth.partners)
        _save(partial / COEFFICIENTS, truth.coefficients)
        write_json(partial / TRUTH, {"private_k": scheme.private_k, **moments})
    with writing_folder(folder) as partial:
        _save(partial / ENCODINGS, observation.encodings.permute(0, 2, 3, 1))
        _save(partial / LABELS, torch.as_tensor(observation.labels))
        write_json(partial / FACTS, {"scheme": asdict(scheme), "copies": copies, **moments})
    return Challenge.open(folder)


@dataclass(frozen=True, eq=False, repr=False)
class ChallengeTruth:
    """SECRET: what a challenge hides. Only the scorer reads it.

    Attributes:
        originals: (M, C, H, W) float32 private images, normalised.
        private: (N, private_k) int64, those in each encoding, the encrypted one first.
        mean: of the normalisation, one a channel.
        std: of the normalisation, one a channel.
    """

    originals: NDArray[np.float32]
    private: NDArray[np.int64]
    mean: tuple[float, ...]
    std: tuple[float, ...]

    @classmethod
    def open(cls, folder: Path) -> ChallengeTruth:
        """Read what `make_challenge` wrote for the scorer.

        Raises:
            InstaHideError: it is not such a folder, or damaged.
        """
        facts = _facts(folder / TRUTH)
        if not facts:
            raise InstaHideError(
                f"{folder} does not hold the truth of a challenge.",
                "Name the folder that `instahide challenge make` got as --truth.",
            )
        originals, partners = read_array(folder / ORIGINALS, 4), read_array(folder / PARTNERS, 2)
        return cls(
            np.array(originals.transpose(0, 3, 1, 2), order="C"),
            np.array(partners[:, : facts["private_k"]]),
            tuple(facts["mean"]),
            tuple(facts["std"]),
        )


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
        InstaHideError: it cannot be read, or has not so many dimensions.
    """
    try:
        values = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise InstaHideError(
            f"{path} is not a readable array ({error}).", "Make or download the challenge again."
        ) from error
    if values.ndim != dimensions:
        raise InstaHideError(
            f"{path} has the shape {values.shape}.", f"It must have {dimensions} dimensions."
        )
    return np.asanyarray(values)


def _facts(path: Path) -> dict[str, Any]:
    """A JSON object, or nothing if there is no such file."""
    if not path.is_file():
        return {}
    try:
        facts = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InstaHideError(
            f"{path} is damaged ({error}).", "Make the challenge again."
        ) from error
    return dict(facts)

"""Challenges as attackers and scorers open them.

Attackers get ``encryption.npy`` (N x H x W x C float32) and ``label.npy``, as in the InstaHide
challenge, ``challenge.json`` with the public parameters, and a README. The scorer gets a separate
folder with the private images, partners and coefficients. `making` writes both, and `facts` defines
the hash of a challenge, by which both folders belong together.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

from instahide.attacks.base import EncodingObservation, ThreatModel
from instahide.audit.challenge import facts as files
from instahide.audit.challenge.facts import (
    NEW_COPY,
    PublicFacts,
    SecretFacts,
    authors_facts,
    read_array,
    read_facts,
    require_channels,
)
from instahide.data import ImageTable
from instahide.data.pixels import MOST_CHANNELS
from instahide.encryption.encoders.base import InstanceEncoder
from instahide.encryption.encoders.registry import recorded_encoder
from instahide.encryption.scheme import Scheme
from instahide.errors import DamagedFileError


@dataclass(frozen=True, eq=False, repr=False)
class Challenge:
    """A challenge as attackers receive it.

    Attributes:
        encodings: (N, C, H, W) float32, memory-mapped.
        labels: (N, classes) float32.
        encoder: how they were made; the authors' scheme if the folder does not say.
        facts: id, version, hash, normalization and the other public parameters. The mean is 0 and
            the standard deviation 1 if the challenge does not state them.
    """

    encodings: NDArray[np.float32]
    labels: NDArray[np.float32]
    encoder: InstanceEncoder
    facts: PublicFacts

    def __repr__(self) -> str:
        return f"Challenge({self.facts.id}, version {self.facts.version})"

    @property
    def copies(self) -> int:
        """Encodings of each image."""
        return self.facts.copies

    @property
    def sha256(self) -> str:
        """The hash of everything that attackers get."""
        return self.facts.sha256

    @classmethod
    def open(cls, folder: Path, encoder: str | None = None) -> Challenge:
        """Read a challenge made by this library, or the two files of the authors' challenge.

        Args:
            folder: the challenge.
            encoder: its encoder; needed if it is of another package, whose code is then run.

        Raises:
            DamagedFileError: a file is missing or damaged, or another than its hash says.
            InstaHideError: the encoder is of another package, and was not named.
        """
        path = folder / files.FACTS
        if path.exists():
            facts = read_facts(PublicFacts, path)
        else:
            channels = read_array(folder / files.ENCODINGS, 4).shape[3]
            read_array(folder / files.LABELS, 2)
            facts = authors_facts(folder, channels)
        return cls.read(folder, facts, recorded_encoder(facts.encoder, facts.scheme, encoder))

    @classmethod
    def read(cls, folder: Path, facts: PublicFacts, encoder: InstanceEncoder) -> Challenge:
        """Read the encodings and labels of a challenge with these ``facts``.

        Raises:
            DamagedFileError: as for `open`.
        """
        encodings = read_array(folder / files.ENCODINGS, 4)
        labels = read_array(folder / files.LABELS, 2)
        if len(encodings) != len(labels) or not 1 <= encodings.shape[3] <= MOST_CHANNELS:
            raise DamagedFileError(
                f"{files.ENCODINGS} has the shape {encodings.shape}, {files.LABELS} "
                f"{labels.shape}.",
                "The first is N x H x W x C, the second N x classes.",
            )
        if isinstance(encoder, Scheme):
            require_channels(facts, encodings.shape[3], folder / files.FACTS)
        return cls(encodings.transpose(0, 3, 1, 2), labels, encoder, facts)

    def observation(
        self,
        labels: Literal["soft", "coarse", "none"] = "soft",
        shadow: ImageTable | None = None,
    ) -> EncodingObservation:
        """The observation of an attacker who sees such ``labels``.

        Args:
            labels: as in `ThreatModel`.
            shadow: images of the attacker's own, like the private ones.
        """
        soft = torch.from_numpy(np.array(self.labels, np.float32))
        seen = {"soft": soft, "coarse": (soft > 0).float(), "none": None}[labels]
        threat = ThreatModel(
            labels=labels, public="none", shadow=shadow is not None,
            encodings_per_image=self.copies,
        )  # fmt: skip
        return EncodingObservation(
            self.encoder,
            self.facts.mean,
            self.facts.std,
            threat,
            torch.from_numpy(np.array(self.encodings, np.float32, order="C")),
            seen,
            shadow=shadow,
        )


@dataclass(frozen=True, eq=False, repr=False)
class ChallengeTruth:
    """SECRET: the ground truth of a challenge, for the scorer only.

    Attributes:
        originals: (M, C, H, W) float32 private images, normalized.
        private: (N, private_k) int64 private images of each encoding, the encrypted one first.
        facts: normalization, and id, version and hash of the challenge.
    """

    originals: NDArray[np.float32]
    private: NDArray[np.int64]
    facts: SecretFacts

    @classmethod
    def open(cls, folder: Path) -> ChallengeTruth:
        """Read the folder that `make_challenge` wrote for the scorer.

        Raises:
            DamagedFileError: ``folder`` is not such a folder, or a file is damaged or another than
                its hash says.
        """
        path = folder / files.TRUTH
        if not path.is_file():
            raise DamagedFileError(
                f"{folder} does not hold the truth of a challenge.",
                "Name the folder that `instahide challenge make` got as `truth=`.",
            )
        facts = read_facts(SecretFacts, path)
        originals = read_array(folder / files.ORIGINALS, 4)
        partners = read_array(folder / files.PARTNERS, 2)
        require_channels(facts, originals.shape[3], path)
        private = np.array(partners[:, : facts.private_k])
        if private.dtype.kind != "i" or not np.isin(private, np.arange(len(originals))).all():
            raise DamagedFileError(
                f"{folder / files.PARTNERS} names images that are not there.", NEW_COPY
            )
        return cls(np.array(originals.transpose(0, 3, 1, 2), order="C"), private, facts)

"""Private images from the updates of many rounds of federated learning.

Two attacks in a row: gradient inversion recovers the encodings behind each update, and the
reconstruction attack recovers the private images from the encodings of all rounds.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import ClassVar, NamedTuple, Protocol

import torch
from torch import Tensor

from instahide.attacks.attack_file import REMEDY, read_attack_file, write_attack_file
from instahide.attacks.base import (
    EncodingObservation,
    InvertedUpdate,
    Progress,
    ThreatModel,
    UpdateObservation,
    no_progress,
)
from instahide.attacks.budget import Budget
from instahide.attacks.federated.observation import FederatedObservation, InvertedRounds
from instahide.attacks.gradients.dense_layer import DenseLayer
from instahide.attacks.gradients.dlg import DeepLeakage
from instahide.attacks.reconstruction.attack import ReconstructionAttack
from instahide.errors import DamagedFileError

#: Share of the budget for the inversions.
INVERTING = 0.5
#: An update counts as inverted if at least this share of its encodings is confirmed by the network,
#: and if the squared distance from the update sent to that of what was found is no larger.
CONFIRMED, FAR = 0.5, 1e-4
#: Smaller entries of recovered labels are taken for errors.
FAINT = 1e-2


class Inversion(Protocol):
    """An attack on a single update, such as `DenseLayer` or `DeepLeakage`."""

    def applies(self, observation: UpdateObservation) -> str | None:
        """Why the attack cannot be run on ``observation``; None if it can."""
        ...

    def run(
        self, observation: UpdateObservation, budget: Budget, progress: Progress
    ) -> InvertedUpdate:
        """The encodings that were found when ``budget`` ends."""
        ...


@dataclass(frozen=True)
class FederatedAttack:
    """Recovers private images from the updates that a participant sends in many rounds.

    Attributes:
        inversion: attack on a single update; by default `DenseLayer` where it applies, and else
            `DeepLeakage`.
        reconstruction: attack on the encodings of all updates.
        folder: an existing folder in which to save the encodings of each update and the state of
            the reconstruction, so that a later run on the same updates can resume. It will contain
            private images as far as they are recovered.
    """

    inversion: Inversion | None = None
    reconstruction: ReconstructionAttack = field(default_factory=ReconstructionAttack)
    folder: Path | None = None
    name: str = "federated"
    title: str = "Private images from the updates of many rounds, by way of their encodings"
    paper: str = "Gradient inversion (see dense-layer, dlg), then Carlini et al. (arXiv:2011.05315)"
    observes: ClassVar[type[FederatedObservation]] = FederatedObservation
    volumes: ClassVar[bool] = True

    def applies(self, observation: FederatedObservation) -> str | None:
        """Applies if updates can be inverted, and there are several encodings of an image."""
        if not observation.updates:
            return observation.absent
        first = observation.updates[0]
        return self._inversion(first).applies(first) or self.reconstruction.applies(
            EncodingObservation(
                first.scheme, first.mean, first.std, _threat(observation), torch.zeros(0)
            )
        )

    def run(
        self, observation: FederatedObservation, budget: Budget, progress: Progress
    ) -> InvertedRounds:
        """Invert the updates in up to half of the budget, then reconstruct the private images.

        The statistics are those of the reconstruction, the number of updates, of those inverted,
        and of those whose encodings were used. Updates that were not inverted are left out, unless
        none was.

        Raises:
            InstaHideError: a file in ``folder`` is damaged, or of another attack.
        """
        found = list(self._inverted(observation, budget, progress))
        inverted = [one for one in found if one.convincing]
        used = inverted or found
        encodings = torch.cat([one.found.images for one in used])
        seen = EncodingObservation(
            observation.scheme,
            observation.mean,
            observation.std,
            _threat(observation, len(encodings)),
            encodings,
            _labels(used),
        )
        if seen.labels is None:
            seen = replace(seen, threat=replace(seen.threat, labels="none"))
        images = replace(self.reconstruction, folder=self._reconstruction_folder(encodings)).run(
            seen, budget, lambda what, share: progress(what, INVERTING + (1 - INVERTING) * share)
        )
        updates = torch.cat([torch.full((len(o.found.images),), o.position) for o in used])
        counts = {
            "updates": len(observation.updates),
            "updates_inverted": len(inverted),
            "updates_used": len(used),
        }
        statistics = {**images.statistics, **{name: float(n) for name, n in counts.items()}}
        return InvertedRounds(encodings, updates, images, seen.labels, statistics=statistics)

    def _reconstruction_folder(self, encodings: Tensor) -> Path | None:
        """A folder for these ``encodings``, because with more time there may be more of them."""
        if self.folder is None:
            return None
        digest = hashlib.sha256(encodings.contiguous().numpy().data).hexdigest()
        folder = self.folder / f"reconstruction-{digest[:16]}"
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def _inversion(self, update: UpdateObservation) -> Inversion:
        if self.inversion is not None:
            return self.inversion
        exact = DenseLayer()
        return exact if exact.applies(update) is None else DeepLeakage()

    def _inverted(
        self, observation: FederatedObservation, budget: Budget, progress: Progress
    ) -> Iterator[_Inverted]:
        """The updates that time was enough for: at least one."""
        total, attack = len(observation.updates), self._inversion(observation.updates[0])
        whole = budget.part(INVERTING * budget.left)
        for position, update in enumerate(observation.updates):
            progress("inversion", INVERTING * position / total)
            kept = self._kept(update, position, attack)
            if kept is None and position and whole.over:
                continue
            yield _Inverted(position, kept or self._invert(update, position, attack, whole, total))

    def _invert(
        self,
        update: UpdateObservation,
        position: int,
        attack: Inversion,
        whole: Budget,
        total: int,
    ) -> InvertedUpdate:
        """Invert an update, in its share of the time, and keep the result if it was enough."""
        part = whole.part(whole.left / (total - position))
        found = attack.run(update, part, no_progress)
        if self.folder is not None and part.left > 0 and not part.cut_short:
            _save(_file(self.folder, position), found, _fingerprint(update, attack))
        return found

    def _kept(
        self, update: UpdateObservation, position: int, attack: Inversion
    ) -> InvertedUpdate | None:
        if self.folder is None or not _file(self.folder, position).exists():
            return None
        return _load(_file(self.folder, position), _fingerprint(update, attack))


class _Inverted(NamedTuple):
    """The ``position`` of an update, and what was ``found`` in it."""

    position: int
    found: InvertedUpdate

    @property
    def convincing(self) -> bool:
        """Whether the attacker has reason to believe that these are the encodings."""
        said = self.found.statistics
        return said.get("confirmed", 1.0) >= CONFIRMED and said.get("distance", 0.0) <= FAR


def _threat(observation: FederatedObservation, encodings: int | None = None) -> ThreatModel:
    """The threat model of the encodings in the updates, or of so many ``encodings`` of them."""
    copies = observation.threat.encodings_per_image
    if copies is not None and encodings is not None:
        sent = sum(update.update.training.images for update in observation.updates)
        copies = max(1, round(copies * encodings / sent))
    return ThreatModel(public="none", encodings_per_image=copies)


def _labels(found: list[_Inverted]) -> Tensor | None:
    """The labels of the encodings, if they were recovered with every update."""
    labels = [one.found.class_coefficients for one in found]
    known = [label for label in labels if label is not None]
    if len(known) < len(labels):
        return None
    together = torch.cat(known)
    return together.where(together >= FAINT, torch.zeros(()))


def _file(folder: Path, position: int) -> Path:
    return folder / f"update-{position:05}.safetensors"


def _fingerprint(update: UpdateObservation, attack: Inversion) -> str:
    """An identifier of the update and the attack on it."""
    digest = hashlib.sha256(f"{attack}{update.scheme}{update.update.training}".encode())
    for name, value in sorted(update.update.values.items()):
        digest.update(name.encode())
        digest.update(value.detach().cpu().contiguous().numpy().data)
    return digest.hexdigest()


def _save(path: Path, found: InvertedUpdate, of: str) -> None:
    tensors = {"images": found.images, "labels": found.class_coefficients}
    write_attack_file(path, tensors, of, statistics=dict(found.statistics))


def _load(path: Path, of: str) -> InvertedUpdate:
    tensors, facts = read_attack_file(path, of)
    try:
        return InvertedUpdate(
            tensors["images"],
            tensors.get("labels"),
            statistics={name: float(value) for name, value in facts["statistics"].items()},
        )
    except (AttributeError, KeyError, TypeError, ValueError):
        raise DamagedFileError(f"{path} does not hold recovered encodings.", REMEDY) from None

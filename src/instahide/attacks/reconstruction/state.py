"""The state of the attack, and a file of it, so that an interrupted attack can be resumed."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, fields
from pathlib import Path

import torch
from torch import Tensor

from instahide.attacks.attack_file import REMEDY, read_attack_file, write_attack_file
from instahide.attacks.base import EncodingObservation
from instahide.attacks.reconstruction.recovery.moved_mixing import MovedMixing
from instahide.attacks.reconstruction.recovery.sparse_mixing import SparseMixing
from instahide.errors import DamagedFileError

FILE = "state.safetensors"


@dataclass(eq=False, repr=False)
class AttackState:
    """The current estimate of m images and their occurrence in n encodings.

    Attributes:
        centres: (m, D) typical features of an encoding that contains each image.
        assignment: (n, k) images of each encoding.
        coefficients: (n, k) coefficients of these images.
        images: (m, C, H, W) recovered images; None before the first recovery.
        confidence: (m,) confidence in these images; None before it is computed.
        moves: (n, k, 2) by how many pixels each image of an encoding is moved down and right; None
            if they are not moved.
        step: number of finished steps of the attack.
    """

    centres: Tensor
    assignment: Tensor
    coefficients: Tensor
    images: Tensor | None = None
    confidence: Tensor | None = None
    moves: Tensor | None = None
    step: int = 0

    def mixes(self) -> SparseMixing:
        """The coefficient of each image in each encoding."""
        count = len(self.centres)
        if self.moves is None:
            return SparseMixing(self.assignment, self.coefficients, count)
        padding = int(self.moves.abs().max())
        return MovedMixing(self.assignment, self.coefficients, count, self.moves, padding)

    def canonicalize(self, device: torch.device) -> None:
        """Give all tensors the same memory layout, whether computed or read from a file.

        Rounding depends on the layout, and the choice between two starts can depend on rounding.
        """
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, Tensor):
                setattr(
                    self, field.name, value.to(device).clone(memory_format=torch.contiguous_format)
                )


def fingerprint(observation: EncodingObservation, *settings: object) -> str:
    """An identifier of the observation and settings to which a state belongs."""
    about = observation.scheme, observation.threat, observation.augmentation, settings
    digest = hashlib.sha256("".join(map(str, about)).encode())
    for tensor in (observation.encodings, observation.labels):
        if tensor is not None:
            digest.update(f"{tuple(tensor.shape)}".encode())
            digest.update(tensor.detach().cpu().contiguous().numpy().data)
    return digest.hexdigest()


def save_state(folder: Path, state: AttackState, of: str) -> None:
    """Write the state to ``folder`` atomically; ``of`` is its `fingerprint`."""
    values = {field.name: getattr(state, field.name) for field in fields(state)}
    step = values.pop("step")
    write_attack_file(folder / FILE, values, of, step=step)


def load_state(folder: Path, of: str) -> AttackState | None:
    """Read the state that `save_state` wrote to ``folder``; None if there is none.

    Raises:
        InstaHideError: the file is damaged, or of other encodings or settings.
    """
    path = folder / FILE
    if not path.exists():
        return None
    tensors, facts = read_attack_file(path, of)
    try:
        return AttackState(**tensors, step=int(facts["step"]))
    except (KeyError, TypeError, ValueError):
        raise DamagedFileError(f"{path} does not hold the state of an attack.", REMEDY) from None

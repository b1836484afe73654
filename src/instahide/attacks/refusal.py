"""Whether an attack can be run on an observation."""

from __future__ import annotations

from instahide.attacks.any_encoder.observation import PairObservation
from instahide.attacks.base import (
    Attack,
    EncodingObservation,
    NetworkObservation,
    Observation,
    Seen,
    UpdateObservation,
)
from instahide.attacks.federated.observation import FederatedObservation
from instahide.encryption.encoders.base import InstanceEncoder
from instahide.encryption.scheme import Scheme
from instahide.errors import printable


def refusal(attack: Attack[Seen], observation: Observation) -> str | None:
    """Why ``attack`` cannot be run on ``observation``, which may be of any kind; None if it can."""
    if not isinstance(observation, attack.observes):
        return attack.observes.absent
    return (
        schemes_only(attack, observation.encoder)
        or planar_only(attack, image_shape(observation))
        or unaugmented_only(attack, observation)
        or attack.applies(observation)
    )


def schemes_only(attack: Attack[Seen], encoder: InstanceEncoder) -> str | None:
    """Why ``attack`` cannot be run on encodings of ``encoder``; None if it can.

    An attack uses the structure of InstaHide, unless it has an attribute ``any_encoder`` that is
    true.
    """
    if not isinstance(encoder, Scheme) and not getattr(attack, "any_encoder", False):
        return (
            "The attack uses the structure of InstaHide, and these are encodings of "
            f"{printable(encoder.name)}."
        )
    return None


def planar_only(attack: Attack[Seen], shape: tuple[int, ...]) -> str | None:
    """Why ``attack`` cannot be run on images of ``shape``; None if it can.

    An attack is for images (C, H, W), unless it has an attribute ``volumes`` that is true: then it
    is also for volumes (C, D, H, W).
    """
    if len(shape) > 3 and not getattr(attack, "volumes", False):
        return "The attack is for images of two dimensions, and these are volumes."
    return None


def unaugmented_only(attack: Attack[Seen], observation: Observation) -> str | None:
    """Why ``attack`` cannot be run on encodings of mirrored or cropped images; None if it can.

    An attack is for encodings of images as they are, unless it has an attribute ``augmented`` that
    is true. It would find less in others, which would look like safety.
    """
    augmented = isinstance(observation, EncodingObservation) and bool(observation.augmentation)
    if augmented and not getattr(attack, "augmented", False):
        return "The attack does not undo mirroring and cropping, which other attacks can."
    return None


def image_shape(observation: Observation) -> tuple[int, ...]:
    """(C, H, W) of the images, or (C, D, H, W) of the volumes; empty if there are none."""
    match observation:
        case EncodingObservation():
            return tuple(observation.encodings.shape[1:])
        case PairObservation():
            return tuple(observation.pairs.shape[2:])
        case UpdateObservation():
            return observation.shape
        case FederatedObservation():
            return observation.updates[0].shape if observation.updates else ()
        case NetworkObservation():
            return observation.candidates.shape
        case _:
            return ()

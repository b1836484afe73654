"""The reconstruction attack, which alternates between assignment and recovery of images."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import torch

from instahide.attacks.base import AssignedImages, EncodingObservation, Progress
from instahide.attacks.budget import Budget
from instahide.attacks.reconstruction.cropped.run import CroppedRun
from instahide.attacks.reconstruction.mirrored import (
    merge_mirror_images,
    with_mirror_images,
)
from instahide.attacks.reconstruction.run import RECOVERED, Options, Run
from instahide.attacks.reconstruction.volumes import as_slices, as_volumes

#: Largest move of a crop that is undone, as a share of the shorter side.
MOST_MOVED = 0.25


@dataclass(frozen=True)
class ReconstructionAttack(Options):
    """Recovers private images from many encodings of each, with a confidence for each image.

    Attributes:
        device: device to compute on; by default a GPU, if there is one.
    """

    device: torch.device | str | None = None
    name: str = "reconstruction"
    title: str = "Private images from many encodings of each, by phase retrieval"
    paper: str = "Carlini et al., Is Private Learning Possible with Instance Encoding? (2011.05315)"
    observes: ClassVar[type[EncodingObservation]] = EncodingObservation
    volumes: ClassVar[bool] = True
    augmented: ClassVar[bool] = True

    def applies(self, observation: EncodingObservation) -> str | None:
        """Applies if images are in several encodings, with shadow images for training."""
        copies = observation.threat.encodings_per_image
        # An image is in further encodings as a partner.
        if copies is not None and copies * observation.scheme.private_k < 2:
            return "Every private image is in a single encoding."
        if self.training > 0 and observation.shadow is None:
            return "Training needs shadow images, and the threat model grants none."
        return self._applies_to_crops(observation) if observation.augmentation.padding else None

    def _applies_to_crops(self, observation: EncodingObservation) -> str | None:
        padding = observation.augmentation.padding
        most = int(MOST_MOVED * min(observation.encodings.shape[-2:]))
        if not observation.scheme.mask or self.features is not None:
            why = "this attack undoes only under a mask and by its own features"
        elif padding > most:
            why = f"moved them by up to {padding} pixels; this attack undoes at most {most}"
        else:
            return None
        return (
            f"Images were cropped at random before mixing, which {why}. This does not mean that "
            "such encodings are safe: another attack may undo it."
        )

    def run(
        self, observation: EncodingObservation, budget: Budget, progress: Progress
    ) -> AssignedImages:
        """Run the attack; if the budget ends early, return the images recovered so far.

        Raises:
            InstaHideError: the state in ``folder`` is damaged, or of another attack.
        """
        device = self.device or ("cuda" if torch.cuda.is_available() else "cpu")
        labels = observation.labels
        there = replace(
            observation,
            encodings=observation.encodings.to(device),
            labels=None if labels is None else labels.to(device),
        )
        found = self._run(as_slices(there), budget, progress)
        return replace(found, images=as_volumes(found.images, there.encodings.shape[1:]))

    def _run(
        self, observation: EncodingObservation, budget: Budget, progress: Progress
    ) -> AssignedImages:
        run = CroppedRun if observation.augmentation.padding else Run
        if not observation.augmentation.flip:
            return run(self, observation, budget, progress).reconstruction()
        both = run(self, with_mirror_images(observation), budget, progress).reconstruction()
        return merge_mirror_images(both, RECOVERED)

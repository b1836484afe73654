"""Registration: recovered images are compared in the frame of their originals.

Encodings of images that were mirrored or shifted at random do not show how an image was oriented,
and show its place only roughly. An attacker who has the image mirrored or shifted has the image.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from instahide.audit.ground_truth import GroundTruth
from instahide.audit.scoring import metrics


def registered(images: Tensor, originals: Tensor, truth: GroundTruth) -> Tensor:
    """``images`` (m, C, H, W) or volumes, each moved to be most similar to its original.

    Only moves that the augmentation of the ``truth`` contains are tried. Values at the border are
    repeated where nothing else comes in.
    """
    if truth.moves is None:
        return images
    shift = int(truth.moves[:, :, :2].abs().max())
    mirrored = bool((truth.moves[:, :, 2] > 0).any())
    # The slices of a volume move together, as channels do.
    shape, size = images.shape, images.shape[-2:]
    images, originals = (part.reshape(len(part), -1, *size) for part in (images, originals))
    best, found = torch.full((len(images),), -1.0), images.clone()
    for version in (images, images.flip(-1)) if mirrored else (images,):
        padded = F.pad(version, [shift] * 4, mode="replicate")
        for down in range(2 * shift + 1):
            for right in range(2 * shift + 1):
                moved = padded[:, :, down:, right:][:, :, : size[0], : size[1]]
                likeness = metrics.likeness_of_pairs(moved, originals)
                better = likeness > best
                best = torch.where(better, likeness, best)
                found = torch.where(better[:, None, None, None], moved, found)
    return found.reshape(shape)

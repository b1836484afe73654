"""Averaging many encodings of one image, by which the other images of the mixes average out.

Huang et al. (ICML 2020, section 5) average encodings of one image under Mixup and under InstaHide.
Under Mixup the mean of the encodings is the image itself, scaled, plus the mean of all images.
Under InstaHide the random signs make it zero. The mean of the *squares* does not depend on the
signs and is not zero. If q is the mean square of all images, which are centered,

    E[x~^2] = E[lambda_1^2] x^2 + (E[lambda_2^2] + ... + E[lambda_k^2]) q.

The mean shows the image under any encoder whose encodings are images, or mixes of k images in equal
shares, with independent noise.
"""

from __future__ import annotations

from contextlib import suppress

import numpy as np
import torch
from torch import Tensor

from instahide.attacks.base import EncodingObservation, Progress, RecoveredImages, require
from instahide.attacks.budget import Budget
from instahide.encryption.encoders.base import InstanceEncoder
from instahide.encryption.encoders.checked_calls import naming_failures
from instahide.encryption.scheme import Scheme
from instahide.errors import SchemeError, printable


class Averaging:
    """The mean of an image's encodings, minus the mean of all encodings."""

    name = "averaging"
    title = "Averaging the encodings of an image"
    paper = "Huang et al., InstaHide, ICML 2020, section 5 (arXiv:2010.02772)"
    observes = EncodingObservation
    volumes = True
    any_encoder = True

    def applies(self, observation: EncodingObservation) -> str | None:
        """Applies if the attacker knows which encodings are of one image, and they are images."""
        if observation.groups is None:
            return "The attacker does not know which encodings are of one image."
        if len(np.unique(observation.groups.numpy())) == len(observation):
            return "No two encodings are of one image."
        return _hidden_image(observation.encoder, tuple(observation.encodings.shape[1:]))

    def run(
        self, observation: EncodingObservation, budget: Budget, progress: Progress
    ) -> RecoveredImages:
        """Recover one image per group."""
        groups, means, everything, size = _means(observation, observation.encodings)
        progress("averaging", 1.0)
        statistics = {
            "encodings_per_image": size,
            "rms_of_mean": float(means.square().mean().sqrt()),
            # For the mean of `size` independent values.
            "rms_expected_of_noise": float((observation.encodings.square().mean() / size).sqrt()),
        }
        images = (means - everything) / _own_share(observation.encoder) + everything
        return RecoveredImages(images, groups, statistics=statistics)


class AveragingAbsolute(Averaging):
    """The mean of an image's squared encodings, minus that of all encodings, converted to |x|."""

    name = "averaging-absolute"
    title = "Averaging the absolute values of the encodings of an image"
    paper = "Our extension of Huang et al., InstaHide, ICML 2020, section 5"
    any_encoder = False

    def run(
        self, observation: EncodingObservation, budget: Budget, progress: Progress
    ) -> RecoveredImages:
        """Recover the absolute values of one image per group."""
        groups, means, everything, size = _means(observation, observation.encodings.square())
        weights = (observation.scheme.simulated_coefficients() ** 2).mean(axis=0)
        excess = means - everything
        squares = excess / float(weights[0]) + everything / float(weights.sum())
        progress("averaging", 1.0)
        statistics = {
            "encodings_per_image": size,
            "rms_of_excess": float(excess.square().mean().sqrt()),
            "rms_expected_of_noise": float((observation.encodings.square().var() / size).sqrt()),
        }
        # An estimated square may be negative by chance.
        images = squares.clamp(min=0).sqrt()
        return RecoveredImages(images, groups, absolute=True, statistics=statistics)


def _hidden_image(encoder: InstanceEncoder, shape: tuple[int, ...]) -> str | None:
    """Why means of encodings of this ``shape`` show no image; None if they may."""
    with suppress(SchemeError), naming_failures(encoder, "output_shape"):
        if not encoder.has_data_set_key and tuple(encoder.output_shape(shape)) == shape:
            return None
    return f"Encodings of {printable(encoder.name)} are no images, nor are their means."


def _own_share(encoder: InstanceEncoder) -> float:
    """The mean coefficient of the encrypted image; other encoders than schemes state none."""
    if isinstance(encoder, Scheme):
        return float(encoder.simulated_coefficients()[:, 0].mean())
    return 1 / encoder.private_k


def _means(
    observation: EncodingObservation, values: Tensor
) -> tuple[Tensor, Tensor, Tensor, float]:
    """Group numbers (m,), the mean of each (m, C, H, W) and of all encodings, and the mean size."""
    numbers, places, sizes = np.unique(
        require(observation.groups).numpy(), return_inverse=True, return_counts=True
    )
    sums = torch.zeros(len(numbers), *values.shape[1:])
    sums.index_add_(0, torch.from_numpy(places), values)
    means = sums / torch.from_numpy(sizes).reshape(-1, *[1] * (sums.ndim - 1))
    return torch.from_numpy(numbers), means, values.mean(dim=0), float(sizes.mean())

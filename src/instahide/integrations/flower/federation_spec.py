"""The shape, classes and normalization of images that all participants agree on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self, cast

import numpy as np
from flwr.app import ConfigRecord, MetricRecord
from torch import nn

from instahide.data import ImageTable
from instahide.data.class_names import require_distinct_names
from instahide.data.normalization.normalization import Normalization
from instahide.errors import InstaHideError
from instahide.integrations.flower.config import FederatedSettings
from instahide.integrations.flower.errors import RefusalError
from instahide.integrations.flower.untrusted_values import in_range, printable, whole_number
from instahide.training.data.alignment import align_to_model
from instahide.training.models import build
from instahide.training.models.model_io import NetworkCard

#: Bounds of the values that a server may send. No images have a std below one grey level.
MOST_SIDE, MOST_CLASSES, MOST_TEXT, LEAST_STD = 1 << 16, 10_000, 200, 1 / 255


@dataclass(frozen=True)
class FederationSpec:
    """Shape, classes and normalization of a federation; public, in every message of the server.

    Attributes:
        shape: (C, H, W) of every image.
        classes: names of the network's outputs.
        normalization: of pixel / 255; None until all participants agree on it.
    """

    shape: tuple[int, ...]
    classes: tuple[str, ...]
    normalization: Normalization | None = None

    def to_record(self) -> ConfigRecord:
        """The specification as a record of a message."""
        known = self.normalization
        return ConfigRecord(
            {
                "shape": list(self.shape),
                "classes": list(self.classes),
                "mean": [] if known is None else list(known.mean),
                "std": [] if known is None else list(known.std),
            }
        )

    @classmethod
    def from_record(cls, record: ConfigRecord) -> Self:
        """Read the result of `to_record` from an untrusted server; other keys are ignored.

        Raises:
            RefusalError: a value is missing, of another type, or out of bounds.
        """
        shape, classes, mean, std = (
            _list(record, name) for name in ("shape", "classes", "mean", "std")
        )
        if len(shape) != 3 or not all(whole_number(side, 1, MOST_SIDE) for side in shape):
            raise _unusable("shape", f"three whole numbers from 1 to {MOST_SIDE}")
        if not 1 <= len(classes) <= MOST_CLASSES or len(set(classes)) < len(classes):
            raise _unusable("classes", f"1 to {MOST_CLASSES:,} different names")
        if not all(
            isinstance(name, str) and printable(name, MOST_TEXT) == name for name in classes
        ):
            raise _unusable("classes", "printable names")
        _require_names_apart(classes)
        if not all(in_range(value, 0, 1) for value in mean):
            raise _unusable("mean", "numbers from 0 to 1, in units of pixel / 255")
        if not all(in_range(value, LEAST_STD, 1) for value in std):
            raise _unusable("std", f"numbers from {LEAST_STD:.4f} to 1, in units of pixel / 255")
        if len(mean) != len(std) or len(mean) not in (0, shape[0]):
            raise _unusable("mean", "one number for each channel, and so must `std`")
        normalization = Normalization(mean, std) if mean else None
        return cls(cast(tuple[int, ...], shape), classes, normalization)

    def conform(self, images: ImageTable) -> ImageTable:
        """``images`` with the class numbers and normalization of the federation.

        Classes are matched by name.

        Raises:
            RefusalError: the images have another shape or range of pixels, or a class that the
                federation lacks.
        """
        if images.shape != self.shape:
            raise RefusalError(
                f"This participant's images are {images.shape}, the federation's {self.shape} "
                "(channels, height, width).",
                "Bring them to one size by `size` in the node config.",
            )
        strange = set(images.classes) - set(self.classes)
        if strange:
            # The message lists no class of the participant: a server could probe for them.
            raise RefusalError(
                f"{len(strange)} of this participant's classes are not classes of the federation. "
                "Names must be equal also in case, in space around them and in their Unicode form.",
                f"Its classes are {', '.join(self.classes[:20]):.500}.",
            )
        normalization = self.normalization or images.normalization
        if images.value_range != normalization.value_range:
            # Without the range itself, which says something about the images.
            raise RefusalError(
                "This participant's images are not of 8 bits, of which the federation's "
                "normalization is.",
                "Convert them to 8 bits by one window at all participants.",
            )
        return align_to_model(images, self.shape, self.classes, normalization)

    def network(self, settings: FederatedSettings) -> nn.Module:
        """The network of ``settings`` for such images, with its initial weights."""
        return build(
            settings.model,
            self.shape[0],
            len(self.classes),
            sign_invariant=settings.sign_invariant,
            seed=settings.seed,
            size=self.shape[1:],
        )

    def card(self, settings: FederatedSettings) -> NetworkCard:
        """The description that is saved with the trained network."""
        known = self.normalization
        return NetworkCard(
            settings.model,
            settings.sign_invariant,
            self.shape,
            self.classes,
            () if known is None else known.mean,
            () if known is None else known.std,
            settings.encryption().to_json(),
        )


def _list(record: ConfigRecord, name: str) -> tuple[Any, ...]:
    value = record.get(name)
    if not isinstance(value, list):
        raise _unusable(name, "a list")
    return tuple(value)


def _unusable(name: str, wanted: str) -> RefusalError:
    return RefusalError(f"The server's `{name}` cannot be used.", f"`{name}` must be {wanted}.")


def moments(images: ImageTable) -> MetricRecord:
    """The normalization of a client's images, as the metrics of a reply."""
    return MetricRecord({"num-examples": len(images), "mean": [*images.mean], "std": [*images.std]})


def averaged(answers: Sequence[MetricRecord]) -> Normalization:
    """Mean and standard deviation, per channel, over the images of all clients together.

    Args:
        answers: results of `moments`; at least one.
    """
    counts, means, deviations = (
        np.asarray([answer[name] for answer in answers], np.float64)
        for name in ("num-examples", "mean", "std")
    )
    share = counts / counts.sum()
    mean = share @ means
    square = share @ (deviations**2 + means**2)
    return Normalization(tuple(mean.tolist()), tuple(np.sqrt(square - mean**2).tolist()))


def _require_names_apart(classes: Sequence[str]) -> None:
    try:
        require_distinct_names(classes, " of the federation")
    except InstaHideError as error:
        raise RefusalError(error.problem, error.remedy) from error

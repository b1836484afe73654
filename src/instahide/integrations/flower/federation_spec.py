"""What all participants agree on: shape, classes, task, normalization and unit of values."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self, cast, get_args

import numpy as np
from flwr.app import ConfigRecord
from torch import nn

from instahide.data import ImageTable
from instahide.data.class_names import require_distinct_names
from instahide.data.labels import Task, least_columns
from instahide.data.normalization.normalization import Normalization
from instahide.data.pixels import EIGHT_BIT, UNIT, ValueRange
from instahide.encryption.validation import require_label_mode
from instahide.integrations.flower.config import FederatedSettings
from instahide.integrations.flower.errors import RefusalError, as_refusal
from instahide.integrations.flower.untrusted_values import in_range, printable, whole_number
from instahide.training.data.alignment import align_to_model
from instahide.training.data.target_scale import UNSCALED, TargetScale
from instahide.training.losses import Loss
from instahide.training.models import build
from instahide.training.models.model_io import NetworkCard
from instahide.training.outputs import Outputs

#: Bounds of the values that a server may send. No images have a std below one grey level.
MOST_SIDE, MOST_CLASSES, MOST_TEXT, LEAST_STD = 1 << 16, 10_000, 200, 1 / 255
#: Largest magnitude of a pixel, and of the mean and the standard deviation of a measured value.
MOST_PIXEL, MOST_TARGET = float(np.finfo(np.float32).max), 1e9
#: Smallest standard deviation of a measured value.
LEAST_TARGET_STD = 1e-9
#: Bounds of means and standard deviations in messages: of pixels in the unit range, and of values.
BOUNDS: Mapping[str, tuple[float, float]] = {
    "mean": (0, 1),
    "std": (LEAST_STD, 1),
    "target-mean": (-MOST_TARGET, MOST_TARGET),
    "target-std": (LEAST_TARGET_STD, MOST_TARGET),
}


#: Keys of a specification in a record.
KEYS = frozenset({"shape", "classes", "task", "value-range", *BOUNDS})


@dataclass(frozen=True)
class FederationSpec:
    """What all participants agree on; public, in every message of the server.

    Attributes:
        shape: (C, H, W) of every image, or (C, D, H, W) of every volume.
        classes: names of the network's outputs: classes, findings or values.
        normalization: mean and standard deviation of pixels in the unit range; None until all
            participants agree on it.
        task: what the labels are.
        value_range: the pixel values that are 0 and 1 in the unit range, at all participants.
        target: mean and standard deviation of each value of a regression; empty until all
            participants agree on them, and for other tasks.
    """

    shape: tuple[int, ...]
    classes: tuple[str, ...]
    normalization: Normalization | None = None
    task: Task = "single-label"
    value_range: ValueRange = EIGHT_BIT
    target: TargetScale = UNSCALED

    def to_record(self) -> ConfigRecord:
        """The specification as a record of a message."""
        known = self.normalization
        return ConfigRecord(
            {
                "shape": list(self.shape),
                "classes": list(self.classes),
                "task": self.task,
                "value-range": list(self.value_range),
                "mean": [] if known is None else list(known.mean),
                "std": [] if known is None else list(known.std),
                "target-mean": list(self.target.mean),
                "target-std": list(self.target.std),
            }
        )

    @classmethod
    def from_record(cls, record: ConfigRecord) -> Self:
        """Read the result of `to_record` from an untrusted server; other keys are ignored.

        Raises:
            RefusalError: a value is missing, of another type, or out of bounds.
        """
        shape, value_range = _list(record, "shape"), _list(record, "value-range")
        if len(shape) not in (3, 4) or not all(whole_number(side, 1, MOST_SIDE) for side in shape):
            raise _unusable("shape", f"three or four whole numbers from 1 to {MOST_SIDE}")
        task = record.get("task")
        if not isinstance(task, str) or task not in get_args(Task):
            raise _unusable("task", f"one of {', '.join(get_args(Task))}")
        classes = _classes(record, cast(Task, task))
        if not _is_range(value_range):
            raise _unusable("value-range", "a lowest and a highest value")
        mean, std = _moments(record, "", shape[0])
        target = _moments(record, "target-", len(classes) if task == "regression" else 0)
        return cls(
            cast(tuple[int, ...], shape),
            classes,
            Normalization(mean, std) if mean else None,
            cast(Task, task),
            cast(ValueRange, value_range),
            TargetScale(*target),
        )

    def conform(self, images: ImageTable) -> ImageTable:
        """``images`` with the classes and the normalization of the federation.

        Classes, findings and values are matched by name. Findings that the images do not state are
        unknown.

        Raises:
            RefusalError: the images have another shape, task or range of pixels, a class or finding
                that the federation lacks, or lack one of its values; or no finding is known.
        """
        if images.shape != self.shape:
            raise RefusalError(
                f"This participant's images are {images.shape}, the federation's {self.shape} "
                "(channels, then depth of a volume, height, width).",
                "Bring them to one size by `size` in the node config.",
            )
        if images.task != self.task:
            raise RefusalError(
                f"This participant's labels are {images.task}, the federation's {self.task}.",
                "Name a table with such labels by `labels` in the node config.",
            )
        self._require_classes(images)
        if self.value_range != images.value_range:
            # Without the range itself, which says something about the images.
            low, high = self.value_range
            raise RefusalError(
                "This participant's images have another range of pixels than the federation's, "
                f"{low:g} to {high:g}.",
                "Set `rescale=true` in the node config."
                if self.value_range == UNIT
                else f'If they are in the same unit, set `window="{low:g},{high:g}"` in the node '
                "config.",
            )
        mean, std, _ = self.normalization or images.normalization
        like = Normalization(mean, std, images.value_range)
        return align_to_model(images, self.shape, self.classes, like, self.task)

    def _require_classes(self, images: ImageTable) -> None:
        strange = set(images.classes) - set(self.classes)
        listed = f"Its classes are {', '.join(self.classes[:20])}."[:500]
        if strange:
            # The message lists no class of the participant: a server could probe for them.
            raise RefusalError(
                f"{len(strange)} of this participant's classes are not classes of the federation. "
                "Names must be equal also in case, in space around them and in their Unicode form.",
                listed,
            )
        if self.task == "regression" and len(images.classes) < len(self.classes):
            raise RefusalError(
                f"This participant lacks {len(self.classes) - len(images.classes)} of the values "
                "of the federation.",
                listed,
            )
        if self.task == "multi-label" and np.isnan(images.labels).all():
            raise RefusalError(
                "This participant knows no finding of any image, so it has nothing to teach.",
                "State findings in its table of labels.",
            )

    def complete(self, settings: FederatedSettings) -> FederatedSettings:
        """``settings`` with the defaults of the task.

        Raises:
            RefusalError: the label mode or the weights of the loss do not fit the task.
        """
        with as_refusal():
            require_label_mode(settings.encryption(self.task), self.task)
            replace(self, target=self._any_target).loss(settings)
        return settings.completed(self.task)

    @property
    def _any_target(self) -> TargetScale:
        """The scale of values, or one of the right length if there is none yet."""
        if self.task != "regression" or self.target.mean:
            return self.target
        count = len(self.classes)
        return TargetScale((0.0,) * count, (1.0,) * count)

    @property
    def outputs(self) -> Outputs:
        """What the outputs of the network mean; of a regression, once its scale is agreed on."""
        return Outputs(self.task, len(self.classes), *self.target)

    def loss(self, settings: FederatedSettings) -> Loss:
        """The loss on mixed labels, with the weights of ``settings``."""
        return Loss(
            self.outputs,
            tuple(settings.class_weights or ()),
            tuple(settings.positive_weights or ()),
        )

    def network(self, settings: FederatedSettings) -> nn.Module:
        """The network of ``settings`` for such images, with its initial weights.

        Raises:
            RefusalError: it is not for images of this shape.
        """
        with as_refusal():
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
            settings.encryption(self.task).to_json(),
            self.value_range,
            self.task,
            *self.target,
        )


def _list(record: ConfigRecord, name: str) -> tuple[Any, ...]:
    value = record.get(name)
    if not isinstance(value, list):
        raise _unusable(name, "a list")
    return tuple(value)


def _classes(record: ConfigRecord, task: Task) -> tuple[str, ...]:
    classes = _list(record, "classes")
    least = least_columns(task)
    if not least <= len(classes) <= MOST_CLASSES or len(set(classes)) < len(classes):
        raise _unusable("classes", f"{least} to {MOST_CLASSES:,} different names")
    if not all(isinstance(name, str) and printable(name, MOST_TEXT) == name for name in classes):
        raise _unusable("classes", "printable names")
    with as_refusal():
        require_distinct_names(classes, " of the federation")
    return classes


def _moments(record: ConfigRecord, prefix: str, count: int) -> list[tuple[float, ...]]:
    """Mean and standard deviation of each of ``count`` channels or values; empty if not known."""
    pair = []
    for name in (f"{prefix}mean", f"{prefix}std"):
        values, (least, most) = _list(record, name), BOUNDS[name]
        if not all(in_range(value, least, most) for value in values):
            raise _unusable(name, f"numbers from {least:.4g} to {most:.4g}")
        pair.append(values)
    if len(pair[0]) != len(pair[1]) or len(pair[0]) not in (0, count):
        of = "value of a regression" if prefix else "channel"
        raise _unusable(f"{prefix}mean", f"one number for each {of}, and so must `{prefix}std`")
    return pair


def _is_range(value_range: Sequence[object]) -> bool:
    if len(value_range) != 2:
        return False
    low, high = value_range
    return (
        in_range(low, -MOST_PIXEL, MOST_PIXEL)
        and in_range(high, -MOST_PIXEL, MOST_PIXEL)
        and low < high
        and math.isfinite(high - low)
    )


def _unusable(name: str, wanted: str) -> RefusalError:
    return RefusalError(f"The server's `{name}` cannot be used.", f"`{name}` must be {wanted}.")

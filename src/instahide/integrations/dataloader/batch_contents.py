"""Images and labels of the batches of a user's loader, checked, as arrays that can be mixed."""

from __future__ import annotations

from typing import NamedTuple, TypeAlias, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from instahide.data.labels import Task, as_targets, require_no_masks
from instahide.data.normalization.channel_statistics import ChannelStatistics
from instahide.data.normalization.normalization import (
    Normalization,
    require_consistent_normalization,
    require_sign_balance,
    require_similar_spread,
)
from instahide.errors import DataError
from instahide.integrations.dataloader.batch_fields import (
    BatchFields,
    Leaf,
    Path,
    get_leaf,
    path_text,
    with_channel,
)
from instahide.integrations.dataloader.other_images import require_no_other_images
from instahide.integrations.dataloader.workers import FetchedBatch

#: (m,) class numbers, or (m, columns) soft labels or targets.
Labels: TypeAlias = NDArray[np.int64 | np.float32]
Scalar = TypeVar("Scalar", bound=np.generic)
#: Numbers of channels of pictures: as a third dimension of five, they are those of views.
_CHANNELS = (1, 3)
#: Rounding of float16 shares.
_SUM_TOLERANCE = 0.01


class BatchArrays(NamedTuple):
    """Images with their labels.

    Attributes:
        images: (m, C, H, W) or (m, C, D, H, W) float32.
        labels: (m,) int64 class numbers; or (m, columns) float32 soft labels or targets.
        classes: number of classes.
        dtype: type of the encodings, which is the type of the images in the batch.
        fields: the fields of the batch that hold images and labels.
    """

    images: NDArray[np.float32]
    labels: Labels
    classes: int
    dtype: torch.dtype
    fields: BatchFields


class BatchReader:
    """Reads images and labels from batches of the same structure.

    Args:
        image: path of the images in a batch; by default it is found in the first batch.
        label: path of the labels, likewise.
        classes: number of classes; None takes it from the columns of the labels.
        check: checks the values of all images.
        task: what the labels are.
    """

    def __init__(
        self,
        image: Path | None,
        label: Path | None,
        classes: int | None,
        check: ValueCheck,
        task: Task = "single-label",
    ) -> None:
        self.image = image
        self._label = label
        self._classes = classes
        self._check = check
        self._task: Task = task
        self._fields: BatchFields | None = None

    def read(
        self, fetched: FetchedBatch, own: NDArray[np.int64], others: NDArray[np.int64]
    ) -> BatchArrays:
        """The images of a batch, followed by the partners that they are mixed with.

        Args:
            fetched: the batch, and the batch of partners.
            own: (n,) item numbers of the batch.
            others: (j,) item numbers of the partners.

        Raises:
            InstaHideError: a batch has no images or labels, or they cannot be mixed.
        """
        if len(own) and fetched.refusal is not None:
            raise DataError(*fetched.refusal)
        fields = self._fields or BatchFields.find(
            fetched.targets, len(own), self.image, self._label, self._task
        )
        require_no_other_images(fetched.targets, fields)
        parts = [(fetched.targets, own)] + ([(fetched.partners, others)] if len(others) else [])
        images = _joined([_images(get_leaf(batch, fields.image), rows) for batch, rows in parts])
        labels = _joined(
            [_labels(get_leaf(batch, fields.label), len(rows), self._task) for batch, rows in parts]
        )
        # A Poisson sampler can return an empty batch, which needs no check.
        if len(own):
            _require_own_images(fetched, [path_text(fields.image)] * len(parts))
            self._check.see(images)
            if self._task != "single-label":
                require_no_masks(labels.shape[1], images.shape[1:])
            self._fields = fields
        leaf = get_leaf(fetched.targets, fields.image)
        dtype = leaf.dtype if isinstance(leaf, Tensor) else torch.float32
        return BatchArrays(images, labels, self._class_count(labels), dtype, fields)

    def _class_count(self, labels: Labels) -> int:
        count = self._classes
        if labels.ndim == 2:
            count = count or labels.shape[1]
            if labels.shape[1] != count:
                raise DataError(
                    f"Labels have {labels.shape[1]} columns, but there are {count} classes.",
                    "Give as many classes as the labels have columns.",
                )
            return count
        if count is None:
            raise DataError(
                "The data set does not say how many classes there are.",
                "Give their number or their names as classes=.",
            )
        if labels.size and not 0 <= labels.min() <= labels.max() < count:
            raise DataError(
                f"Labels run from {labels.min()} to {labels.max()}, but there are {count} classes.",
                f"Use labels from 0 to {count - 1}, or give more classes.",
            )
        return count


def _require_own_images(fetched: FetchedBatch, paths: list[str]) -> None:
    """Raise if the images of a batch are not known to be those of its items."""
    if list(fetched.images[: len(paths)]) != paths:
        raise DataError(
            "The images of a batch are not known to be those of its items.",
            "Collate all batches alike, or name the field that holds the images, by `fields=` of a "
            "loader or `image=` of an account.",
        )


def _joined(parts: list[NDArray[Scalar]]) -> NDArray[Scalar]:
    """The arrays of a batch and of its partners, concatenated."""
    if len({part.shape[1:] for part in parts}) > 1:
        raise DataError(
            f"Images or labels of one batch are {parts[0].shape[1:]}, those of their partners "
            f"{parts[1].shape[1:]}.",
            "Bring all images to one size in the transform.",
        )
    return np.concatenate(parts)


def _images(leaf: Leaf, rows: NDArray[np.int64]) -> NDArray[np.float32]:
    values = _values(leaf)
    if values.ndim not in (3, 4, 5) or len(values) != len(rows) or values.dtype.kind != "f":
        raise DataError(
            f"The images of a batch of {len(rows)} are {values.dtype} of shape {values.shape}.",
            "Normalize images to floats (C, H, W), (C, D, H, W) or (H, W) in the transform, and "
            "collate one of every item.",
        )
    values = with_channel(values)
    if values.ndim == 5 and values.shape[1] > 1 and values.shape[2] in _CHANNELS:
        raise DataError(
            f"The images of a batch of {len(rows)} are of shape {values.shape}, as of several "
            "views or crops of each item. Each would be one more encoding that nobody counts.",
            "Return one view of an item, and train for more epochs. Volumes have their channels "
            "before their planes: (C, D, H, W).",
        )
    finite = np.isfinite(values).all(axis=tuple(range(1, values.ndim)))
    if not finite.all():
        raise DataError(
            f"The image of item {rows[~finite][0]} has values that are NaN or infinite.",
            "Look at its file and at what the transform divides by.",
        )
    return np.ascontiguousarray(values, np.float32)


def _labels(leaf: Leaf, count: int, task: Task) -> Labels:
    values = _values(leaf)
    if task != "single-label":
        return _targets(values, count, task)
    whole = values.dtype.kind in "iu"
    if len(values) == count and whole and (values.ndim == 1 or values.shape[1:] == (1,)):
        return values.reshape(count).astype(np.int64)
    if len(values) != count or values.ndim != 2 or values.dtype.kind != "f":
        raise DataError(
            f"The labels of a batch of {count} are {values.dtype} of shape {values.shape}.",
            "Collate one class number, or one row of soft labels, of every item; of several "
            "findings pass `task='multi-label'`, of measured values `task='regression'`.",
        )
    soft = values.astype(np.float32)
    if not (np.isfinite(soft).all() and (soft >= 0).all()):
        raise DataError(
            "Soft labels of a batch are negative, NaN or infinite.",
            "Give each class a share of 0 or more.",
        )
    sums = soft.sum(axis=1)
    if (np.abs(sums - 1) > _SUM_TOLERANCE).any():
        raise DataError(
            f"A row of soft labels sums to {sums[np.abs(sums - 1).argmax()]:.3g}, but the shares "
            "of the classes of an image sum to 1.",
            "Give shares that sum to 1; of several findings pass `task='multi-label'`, of measured "
            "values `task='regression'`.",
        )
    return soft


def _targets(values: NDArray[np.generic], count: int, task: Task) -> NDArray[np.float32]:
    """(count, columns) targets of findings or values, from numbers (count,) or (count, columns)."""
    if values.ndim not in (1, 2) or len(values) != count or values.dtype.kind not in "biuf":
        raise DataError(
            f"The labels of a batch of {count} are {values.dtype} of shape {values.shape}.",
            f"Collate one row of numbers of every item for a {task} task. Segmentation masks are "
            "not supported.",
        )
    targets = as_targets(values.reshape(count, -1))
    known = np.isfinite(targets)
    if task == "multi-label":
        known = np.isnan(targets) | ((targets >= 0) & (targets <= 1))
    if not known.all():
        raise DataError(
            f"The labels of a batch have values that a {task} task does not have.",
            "Use 1 for a present finding, 0 for an absent and NaN for an unknown one."
            if task == "multi-label"
            else "Leave out items whose values are not known.",
        )
    return targets


def _values(leaf: Leaf) -> NDArray[np.generic]:
    if isinstance(leaf, np.ndarray):
        return leaf
    if leaf.device.type != "cpu":
        raise DataError(
            f"The batch is on {leaf.device}, but encodings are made on the CPU.",
            "Let data set and collate leave it there, and move the encodings.",
        )
    # NumPy has no bfloat16.
    return (leaf.float() if leaf.dtype == torch.bfloat16 else leaf).detach().numpy()


class ValueCheck:
    """Checks the value statistics of all images so far, and is updated by every batch.

    A single unusual batch or image is therefore not an error.

    Args:
        moments: the stated normalization of the images; None if it is not needed.
        public: statistics of the public images under the same normalization; None without any.
        mask: whether the images are masked, and so need values of both signs.
    """

    def __init__(
        self, moments: Normalization | None, public: ChannelStatistics | None, *, mask: bool
    ) -> None:
        self._normalization = moments and Normalization(*moments)
        self._public = public
        self._mask = mask
        self._seen: ChannelStatistics | None = None

    def see(self, images: NDArray[np.float32]) -> None:
        """Add a batch of finite images (m, C, H, W), and check the images so far.

        Raises:
            InstaHideError: their values do not match the stated normalization, have mostly one
                sign, or are far larger or smaller than those of the public images.
        """
        if not len(images):
            return
        batch = ChannelStatistics.of_values(images)
        seen = batch if self._seen is None else self._seen + batch
        if self._normalization is not None:
            require_consistent_normalization(seen, self._normalization)
        if self._public is not None:
            require_similar_spread(seen, self._public)
        if self._mask:
            require_sign_balance(seen, "Add Normalize(mean, std) to the end of the transform.")
        self._seen = seen

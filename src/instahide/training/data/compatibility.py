"""Checks that encodings of several participants can be trained on together."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from itertools import combinations

import numpy as np

from instahide.data.class_names import require_distinct_names
from instahide.data.normalization.normalization import Normalization
from instahide.encodings.folder import EncodedFolder
from instahide.encodings.manifest import Manifest
from instahide.errors import DataError
from instahide.training.settings import TrainSettings

#: Settings of a scheme, and those that only whoever encrypts needs.
_SCHEME = (
    "scheme", "k", "private_k", "c1", "c2", "label_mode", "coefficient_distribution", "noise",
)  # fmt: skip
_ENCODER = ("encoder", "encoder_settings")
_MADE_WITH = (*_SCHEME, *_ENCODER, "copies", "public")


def class_union(folders: Sequence[EncodedFolder]) -> tuple[str, ...]:
    """The names of all classes: the first folder's in its order, then what others add."""
    return tuple(dict.fromkeys(name for folder in folders for name in folder.manifest.classes))


def require_poolable(folders: Sequence[EncodedFolder]) -> None:
    """Check that one network can learn from all of ``folders``.

    Schemes may differ, and folders may lack some classes or findings. A folder that has no class in
    common with the others probably uses other names for the same classes, and is an error.

    Raises:
        DataError: there is no folder, a folder occurs twice, shapes, kinds of labels or measured
            values differ, a folder has no class in common with the others, or two class names
            differ only in case, space or Unicode form. The message names both folders and the
            difference.
    """
    if not folders:
        raise DataError("There is nothing to learn from.", "Give at least one folder.")
    for one, other in combinations(folders, 2):
        if one.manifest.publication == other.manifest.publication:
            raise DataError(
                f"{one.location} and {other.location} hold the same encodings.",
                "Name every folder once.",
            )
        if one.manifest.shape != other.manifest.shape:
            _refuse(one, other, "shape", *(str(f.manifest.shape) for f in (one, other)))
        tasks = one.manifest.task, other.manifest.task
        if tasks[0] != tasks[1]:
            _refuse(one, other, "labels", *tasks)
        columns = one.manifest.classes, other.manifest.classes
        if tasks[0] == "regression" and set(columns[0]) != set(columns[1]):
            _refuse(one, other, "values", *(", ".join(names[:10]) for names in columns))
        keyed = [f for f in (one, other) if f.manifest.data_set_key]
        if keyed:
            raise DataError(
                f"{one.location} and {other.location} cannot be pooled: all encodings of "
                f"{keyed[0].location} share a key, and a network learns from one key alone.",
                "Train on it alone.",
            )
        ranges = one.manifest.value_range, other.manifest.value_range
        if ranges[0] != ranges[1]:
            _refuse(one, other, "pixels from", *(f"{low:g} to {high:g}" for low, high in ranges))
    where = f" of {' and '.join(str(folder.location) for folder in folders[:4])}"
    require_distinct_names(class_union(folders), where)
    for folder in folders if len(folders) > 1 else ():
        others = [other for other in folders if other is not folder]
        if not set(folder.manifest.classes) & set(class_union(others)):
            lists = [", ".join(f.manifest.classes[:10]) for f in (folder, others[0])]
            _refuse(folder, others[0], "classes", *lists)


def is_masked(manifest: Manifest) -> bool:
    """Whether encodings have random signs."""
    return manifest.of_scheme and manifest.encryption().mask


def require_same_masking(folders: Sequence[EncodedFolder]) -> None:
    """Check that either all encodings have random signs, or none.

    Raises:
        DataError: some folders have masked encodings and others have not.
    """
    masks = {is_masked(folder.manifest): folder.location for folder in folders}
    if len(masks) == 2:
        raise DataError(
            f"{masks[True]} and {masks[False]} cannot be pooled as they are: mask True in the one, "
            "False in the other.",
            "Use `sign_invariant=True`, so that the network sees |x| of both.",
        )


def warn_of_differences(folders: Sequence[EncodedFolder]) -> None:
    """Warn of folders whose scheme or normalization differs from the first one's."""
    first = folders[0]
    for other in folders[1:]:
        differences = _differences(first.manifest, other.manifest)
        if differences:
            warnings.warn(
                f"{first.location} and {other.location} differ: {'; '.join(differences)}.",
                stacklevel=2,
            )


def normalization(folders: Sequence[EncodedFolder]) -> Normalization:
    """Mean and std per channel, averaged over the folders with their numbers of encodings."""
    weights = [len(folder) for folder in folders]
    mean, std = (
        weighted([getattr(folder.manifest, name) for folder in folders], weights)
        for name in ("mean", "std")
    )
    return Normalization(mean, std, folders[0].manifest.value_range)


def weighted(values: Sequence[Sequence[float]], weights: Sequence[int]) -> tuple[float, ...]:
    """The weighted mean of ``values``, per channel."""
    return tuple(np.average(values, axis=0, weights=weights).tolist())


def _refuse(one: EncodedFolder, other: EncodedFolder, what: str, ours: str, theirs: str) -> None:
    raise DataError(
        f"{one.location} and {other.location} cannot be pooled: {what} {ours} in the one, "
        f"{theirs} in the other.",
        "Agree on size, channels, the range of pixels and class names before images are encrypted. "
        "A `window=` of each scanner and `rescale=True` bring pixels of any range to 0 to 1.",
    )


def _differences(one: Manifest, other: Manifest) -> list[str]:
    """The differences between two folders, each as ``k 4 and 6``."""
    ours, theirs = (
        {"encoder": manifest.encoder, **manifest.scheme}
        | {"mean": manifest.mean, "std": manifest.std}
        for manifest in (one, other)
    )
    return [
        f"{name} {ours[name]} and {theirs.get(name)}"
        for name in ours
        if ours[name] != theirs.get(name)
    ]


def require_made_as(settings: TrainSettings, folders: Sequence[EncodedFolder]) -> TrainSettings:
    """The ``settings`` for ``folders``, after a check that the folders were made as they say.

    So one file of settings serves for encryption and for training on the encodings.

    Raises:
        DataError: a folder was made by another scheme or encoder, or has more encodings of each
            image.
    """
    stated = settings.model_fields_set
    for folder in folders:
        manifest = folder.manifest
        if stated & {*_SCHEME, *_ENCODER}:
            wanted = settings.instance_encoder(manifest.task)
            if (wanted.name, dict(wanted.settings)) != (manifest.encoder, dict(manifest.scheme)):
                found = manifest.encryption() if manifest.of_scheme else manifest.encoder
                _refuse_settings(folder, f"the encryption {wanted}", str(found))
        if settings.copies is not None and manifest.copies > settings.copies:
            _refuse_settings(folder, f"{settings.copies} encodings of each image", manifest.copies)
    kept = settings.model_dump(exclude_unset=True, exclude=set(_MADE_WITH))
    return TrainSettings.from_values(kept)


def _refuse_settings(folder: EncodedFolder, wanted: str, found: object) -> None:
    raise DataError(
        f"The settings ask for {wanted}; {folder.location} has {found}.",
        "Encrypt the images with these settings, or leave out those of the encryption.",
    )

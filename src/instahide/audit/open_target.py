"""Opens the target of an audit: a training run or a folder of encodings."""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import nn

from instahide.audit.label_classes import findings_as_classes
from instahide.audit.target import MOST_ENCODINGS, AuditTarget, PublishedEncodings
from instahide.data import ImageTable, open_images, open_pool, open_split, open_test
from instahide.data.class_names import with_classes
from instahide.data.labels import Task
from instahide.data.read_settings import ReadSettings
from instahide.encodings.folder import EncodedFolder
from instahide.encodings.manifest import Manifest
from instahide.encryption.encoders.base import InstanceEncoder
from instahide.encryption.encoders.registry import is_builtin
from instahide.errors import DamagedFileError, DataError, InstaHideError, failure_reason
from instahide.training.data.alignment import to_value_range
from instahide.training.data.fingerprint import fingerprint
from instahide.training.data.held_out import hold_out
from instahide.training.data.pooled import holds_encodings
from instahide.training.models.model_io import NetworkCard, load_network
from instahide.training.run_folder import RunFolder, begun_copies
from instahide.training.settings import TrainSettings
from instahide.utils.atomic_write import read_regular

#: What a report says of images with several findings.
_SAID_OF_FINDINGS = {
    "labels": "Each combination of findings counts as a class in what is encrypted for the audit; "
    "this reveals at least as much as the mixed findings. The published encodings are attacked "
    "without their labels, and a network of findings is not attacked."
}
#: What a report says of a run whose count of the encodings of each image is missing.
_NOT_COUNTED = (
    "By the epochs of the run, whose record of those that it began is missing. If it was "
    "interrupted and resumed, it made more."
)
#: What a report says of images that do not have the normalization of a folder.
_OTHER_MOMENTS = (
    "Their mean and std are not those in the manifest. Unless these were stated when the images "
    "were encrypted, as participants agree on them, these are other images or have been changed, "
    "and this report says nothing about the folder."
)
#: What a report says of a run whose images were not compared with those given.
_NOT_COMPARED = (
    "Several processes trained, each on images of its own. Whether those are these is not known."
)
#: Largest size of a run's results in bytes.
MOST_RESULTS = 1 << 26


class PrivateImages(NamedTuple):
    """The images behind a target.

    Attributes:
        source: the private images, as for `open_images`.
        reading: how they are read. For a run, what is not set is as in the run.
        public: the public pool; None for that of the run, or the built-in photographs.
        model: the network of the run; see `load_network`.
        encoder: the encoder that the target was made by; needed if it is of another package, whose
            code is then run.
    """

    source: str
    reading: ReadSettings
    public: str | None = None
    model: str | None = None
    encoder: str | None = None


def open_target(target: str, given: PrivateImages) -> AuditTarget:
    """Open the folder ``target`` together with the images from which it was made.

    Raises:
        InstaHideError: ``target`` is neither a run nor a folder of encodings, or the images do not
            fit it.
    """
    if (Path(target) / "settings.json").is_file():
        return _of_run(Path(target), given)
    if holds_encodings(target):
        return _of_encodings(target, given)
    raise InstaHideError(
        f"{target} is neither a training run nor a folder of encodings.",
        "Name a folder that `instahide train` or `instahide encrypt` wrote.",
    )


def _of_run(folder: Path, given: PrivateImages) -> AuditTarget:
    settings = TrainSettings.load(folder / "settings.json")
    if settings.pooled:
        raise InstaHideError(
            f"The run in {folder} was trained on folders of encodings.",
            f"Audit each of those: {', '.join(settings.data)}.",
        )
    network, card = _network(folder, given.model)
    images, others = _images_of_run(settings, given)
    compared = _compared_with_run(RunFolder(folder, settings), images, given.source)
    encoder = _encoder_of_run(settings, given.encoder, images.task)
    if card is not None and not card.data_set_key:
        _require_fit(images, card.shape, card.classes, str(folder))
        images, others = (
            to_value_range(part, card.value_range).normalized_like(card)
            for part in (images, others)
        )
    results = _results(folder)
    copies, counted = _copies_of_run(folder, settings, results)
    said = _said_of_run(settings, results) | counted | compared
    if images.task == "multi-label":
        # Attackers compare the network's outputs with classes.
        network, said = None, said | _SAID_OF_FINDINGS
    images, others = findings_as_classes(images, others)
    pool = given.public or settings.public
    return AuditTarget(
        name=str(folder),
        kind="run",
        source=given.source,
        images=images,
        public=open_pool(pool, images.shape) if encoder.uses_public else None,
        encoder=encoder,
        copies=copies,
        others=others if len(others) else None,
        network=network,
        withheld="A training run keeps no encodings; all that it made are taken to have been seen.",
        settings=said,
        limited=_is_uneven(settings, results),
    )


def _encoder_of_run(settings: TrainSettings, named: str | None, task: Task) -> InstanceEncoder:
    """The encoder of a run; one of another package only if the user has named it."""
    if named is None and settings.encoder is not None and not is_builtin(settings.encoder):
        raise InstaHideError(
            f"The run used the encoder {settings.encoder}, whose package would be imported.",
            f"If you trust the package, name it: `encoder='{settings.encoder}'`.",
        )
    if named not in (None, settings.encoder):
        raise InstaHideError(
            f"The run used the encoder {settings.encoder or settings.scheme}, not {named}.",
            "Name the encoder of the run.",
        )
    return settings.instance_encoder(task)


def _images_of_run(settings: TrainSettings, given: PrivateImages) -> tuple[ImageTable, ImageTable]:
    """The images that were encrypted, and other images, which were used for testing."""
    said = given.reading.model_fields_set & ReadSettings.model_fields.keys()
    how = settings.model_copy(
        update={name: getattr(given.reading, name) for name in said}
    ).read_options()
    if settings.test is None:
        split = open_split(given.source, test_share=settings.test_share, **how)
        # Images that were held out went into no encoding.
        return hold_out(settings, split.train)[0], split.test
    images = hold_out(settings, open_images(given.source, **how))[0]
    try:
        others = open_test(settings.test, **how)
    except InstaHideError:
        # They help some attackers, but the audit can do without them.
        return images, images.subset(slice(0, 0))
    alike = others.shape == images.shape and others.pixels.dtype == images.pixels.dtype
    return images, others if alike else images.subset(slice(0, 0))


def _compared_with_run(run: RunFolder, images: ImageTable, source: str) -> dict[str, str]:
    """What the report says of the comparison of ``images`` with those of the run.

    Raises:
        DataError: the run was of others. What attacks on its network find would be of nothing.
        DamagedFileError: the run's fingerprints cannot be read.
    """
    salt, begun = run.data()
    if len(begun) > 1:
        return {"images of the run": _NOT_COMPARED}
    if begun and begun[0][0] != fingerprint(salt, [images]):
        raise DataError(
            f"The images, labels or groups of {source} are not those that the run in {run.path} "
            "was trained on.",
            "Name the images of the run as they were, and read them with the same options.",
        )
    return {}


def _copies_of_run(
    folder: Path, settings: TrainSettings, results: Mapping[str, object]
) -> tuple[int, dict[str, str]]:
    """The encodings of each image that the run made, and what the report says of the count.

    An epoch that was interrupted is repeated with other encodings, so that a run makes more of them
    than it has epochs. A run that is not finished counts with all of its planned epochs.
    """
    epochs = results.get("epochs")
    planned = (len(epochs) if isinstance(epochs, list) else 0) or settings.epochs
    planned = min(planned, settings.copies or planned)
    begun = begun_copies(folder)
    if begun is None:
        return planned, {"encodings of each image": _NOT_COUNTED}
    return max(begun, planned), {}


def _is_uneven(settings: TrainSettings, results: Mapping[str, object]) -> bool:
    """Whether some images of the run may be in more encodings than its epochs and partners give.

    Such as those that the run's ledger counts together with others, which an unfinished run has not
    said yet.
    """
    limited = settings.max_exposure is not None or settings.min_mse is not None
    return limited or results.get("images_counted_together") is not False


def _said_of_run(settings: TrainSettings, results: Mapping[str, object]) -> dict[str, str]:
    said = {
        name: str(getattr(settings, name))
        for name in ("data", "test", "public", "epochs", "model", "crop_padding", "flip")
    }
    exposure = results.get("exposure")
    if isinstance(exposure, dict):
        said["exposure, by the ledger"] = f"{exposure.get('least')} to {exposure.get('most')}"
    return said


def _of_encodings(target: str, given: PrivateImages) -> AuditTarget:
    folder = EncodedFolder.open(target)
    manifest = folder.manifest
    images = open_images(given.source, **given.reading.read_options())
    if set(images.classes) < set(manifest.classes):
        # A participant may have images of some classes only.
        images = with_classes(images, manifest.classes)
    _require_fit(images, manifest.image_shape or manifest.shape, manifest.classes, target)
    images = to_value_range(images, manifest.value_range)
    if len(images) != manifest.private_images:
        raise DataError(
            f"{target} was made of {manifest.private_images:,} images; {given.source} holds "
            f"{len(images):,}.",
            "Name all of the images that the encodings were made of.",
        )
    compared = _compared_with_manifest(images, manifest)
    images = images.normalized_like(manifest)
    said = {"created": manifest.created, "library": manifest.library,
            "stored as": manifest.values, "participant": manifest.participant}  # fmt: skip
    said |= compared
    if images.task == "multi-label":
        said |= _SAID_OF_FINDINGS
    encoder = manifest.instance_encoder(given.encoder)
    few = len(folder) <= MOST_ENCODINGS
    return AuditTarget(
        name=target,
        kind="encodings",
        source=given.source,
        images=findings_as_classes(images)[0],
        public=open_pool(given.public or "photos", images.shape) if encoder.uses_public else None,
        encoder=encoder,
        copies=max(1, math.ceil(len(folder) / manifest.private_images)),
        published=_published(folder, images.task) if few else None,
        withheld=None
        if few
        else f"There are {len(folder):,}; the attack as it stands here gets through "
        f"{MOST_ENCODINGS:,} in minutes.",
        settings=said,
        limited=manifest.limited or manifest.ended == "limit",
    )


def _compared_with_manifest(images: ImageTable, manifest: Manifest) -> dict[str, str]:
    """What the report says of images that do not seem to be those of the manifest."""
    measured = images.measured()
    pairs = (measured.mean, manifest.mean), (measured.std, manifest.std)
    # Rescaled pixels are rounded, and so are their moments.
    if all(np.allclose(here, there, rtol=1e-5, atol=1e-6) for here, there in pairs):
        return {}
    warnings.warn(f"Of the images: {_OTHER_MOMENTS}", stacklevel=2)
    return {"images": _OTHER_MOMENTS}


def _published(folder: EncodedFolder, task: Task) -> PublishedEncodings:
    """All encodings; with their labels, if these are classes."""
    shards = [folder.shard(number) for number in range(len(folder.manifest.shards))]
    return PublishedEncodings(
        torch.cat([folder.decoded(images) for images, _ in shards]),
        torch.cat([labels for _, labels in shards]).float() if task == "single-label" else None,
    )


def _require_fit(
    images: ImageTable, shape: tuple[int, ...], classes: Sequence[str], folder: str
) -> None:
    if images.shape != tuple(shape):
        raise DataError(
            f"The images are {images.shape}, those of {folder} were {tuple(shape)}: channels, then "
            "the spatial dimensions.",
            f"Name the images that it was made of; `size={min(shape[1:])}` resizes them.",
        )
    if images.classes != tuple(classes) or len(np.unique(images.labels)) == 0:
        raise DataError(
            f"The classes of the images ({', '.join(images.classes[:10])}) are not those of "
            f"{folder} ({', '.join(classes[:10])}).",
            "Name the images that it was made of.",
        )


def _network(folder: Path, model: str | None) -> tuple[nn.Module, NetworkCard] | tuple[None, None]:
    """The network of a finished run and its card; None for a run that is not finished."""
    path = folder / "model.safetensors"
    return load_network(path, model=model) if path.exists() else (None, None)


def _results(folder: Path) -> Mapping[str, object]:
    """The results of a finished run; empty for a run that is not finished."""
    path = folder / "results.json"
    if not path.exists():
        return {}
    try:
        found = json.loads(read_regular(path, MOST_RESULTS))
    except (OSError, ValueError, RecursionError) as error:
        raise DamagedFileError(
            f"{path} is damaged ({failure_reason(error)}).",
            "Resume the run with `instahide train` and `resume=True`.",
        ) from error
    return found if isinstance(found, dict) else {}

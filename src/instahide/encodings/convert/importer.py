"""Imports encodings from files in another format.

Types, shapes, values and labels are validated like those of untrusted shards. How the encodings
were made is stated by the manifest next to the files, or must be given by the caller.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from pydantic import ValidationError

from instahide.data.labels import Task
from instahide.data.pixels import EIGHT_BIT, ValueRange
from instahide.encodings.convert.exporter import require_free
from instahide.encodings.convert.formats import FORMATS, Name
from instahide.encodings.folder import (
    EncodedFolder,
    FolderWriter,
    new_publication,
    new_shard_name,
    read_manifest,
    store_shard,
    writing_encodings,
)
from instahide.encodings.manifest import NAME, Manifest, Values
from instahide.encodings.publish import encodings_a_shard
from instahide.encodings.shards import EncodedArrays, max_quantization_error
from instahide.encodings.storage import open_store
from instahide.encodings.verification.value_ranges import value_problems
from instahide.encryption.encoder import Encoded
from instahide.encryption.scheme import Scheme
from instahide.errors import DamagedFileError, DataError, InstaHideError, first_validation_error
from instahide.utils.atomic_write import atomic_directory


@dataclass(frozen=True)
class Provenance:
    """How encodings without a manifest were made.

    Attributes:
        scheme: made them.
        private_images: how many were encrypted.
        copies: encodings of each.
        mean: per channel, of pixels in the unit range, before encryption.
        std: the same.
        participant: who published them.
        value_range: the lowest and the highest value of a pixel.
        task: what the labels are.
    """

    scheme: Scheme
    private_images: int
    copies: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    participant: str = ""
    value_range: ValueRange = EIGHT_BIT
    task: Task = "single-label"


@dataclass(frozen=True)
class ExternalEncodings:
    """Encodings in files of another format. Use `open`.

    Attributes:
        source: the folder of the files.
        form: their format.
        manifest: manifest of the folder that they were exported from, or one from `Provenance`.
        count: required number of encodings.
    """

    source: Path
    form: Name
    manifest: Manifest
    count: int

    @classmethod
    def open(cls, source: Path, form: Name, origin: Provenance | None = None) -> ExternalEncodings:
        """Read or create the manifest of the files in ``source``.

        An existing manifest keeps its publication identifier, because the encodings are the same.
        Otherwise classes are named 0, 1, 2 and so on, and values are stored in their own type.

        Args:
            source: a folder of files.
            form: one of `FORMATS`.
            origin: how the encodings were made, if ``source`` has no manifest.

        Raises:
            InstaHideError: there are both a manifest and ``origin``, or neither; the manifest is of
                an unfinished folder; the files cannot be read; or a package for the format is
                missing.
        """
        if not source.is_dir():
            raise InstaHideError(f"{source} is not a folder.", "Pass the folder of the files.")
        store = open_store(source)
        if NAME not in store.names():
            manifest = _described(source, form, origin)
            return cls(source, form, manifest, manifest.total)
        if origin is not None:
            raise InstaHideError(
                f"{source} contains a {NAME}, which already describes its encodings.",
                "Omit all options that describe the encodings.",
            )
        manifest = read_manifest(store)
        if manifest.ended is None:
            raise DamagedFileError(
                f"{source} comes from a folder that was not finished: {len(manifest)} of "
                f"{manifest.total} encodings.",
                "Ask the publisher for a new copy.",
            )
        return cls(source, form, manifest, len(manifest))

    def convert(
        self, target: Path, progress: Callable[[int], None] = lambda _: None
    ) -> EncodedFolder:
        """Write the encodings to the new folder ``target``, in the same order, in bounded memory.

        Args:
            target: a folder that does not exist yet, or is empty; it is written atomically.
            progress: called with the number of encodings of each written block.

        Raises:
            InstaHideError: files cannot be read or have unexpected content; or ``target`` is not
                empty or cannot be written.
        """
        require_free(target)
        begun = self.manifest.model_copy(update={"shards": (), "ended": None})
        with atomic_directory(target) as partial, writing_encodings(partial, begun) as writer:
            for block in _blocks(self.source, self.form, encodings_a_shard(begun)):
                encoded = self._checked(block)
                self._require(len(writer.manifest) + len(encoded.labels) <= self.count)
                _write(encoded, writer)
                progress(len(encoded.labels))
            self._require(len(writer.manifest) == self.count)
            writer.finish("all" if self.count == begun.total else "limit")
        return EncodedFolder.open(target)

    def _checked(self, block: EncodedArrays) -> Encoded:
        """The validated block as float32 tensors."""
        shapes = [array.shape[1:] for array in block]
        if shapes != [self.manifest.shape, (len(self.manifest.classes),)]:
            raise DamagedFileError(
                f"{self.source} holds images of the shape {shapes[0]} and labels of the shape "
                f"{shapes[1]}, not {self.manifest.shape} and {len(self.manifest.classes)} classes.",
                "Ask the publisher for a new copy.",
            )
        with np.errstate(over="ignore"):  # Infinite values are detected below.
            images, labels = (torch.from_numpy(np.array(a, np.float32, order="C")) for a in block)
        reason = value_problems(images, labels, self.manifest)
        if reason:
            raise DamagedFileError(
                f"{self.source} is not of this scheme and normalization: {reason}.",
                "Check how the encodings were made, or ask the publisher for a new copy.",
            )
        return Encoded(images, labels)

    def _require(self, right_count: bool) -> None:
        if not right_count:
            raise DamagedFileError(
                f"{self.source} does not hold {self.count} encodings.",
                "Check that all files are there, and the number of private images and copies.",
            )


def _described(source: Path, form: Name, origin: Provenance | None) -> Manifest:
    """A manifest from ``origin`` and the first encoding."""
    if origin is None:
        raise InstaHideError(
            f"{source} contains no {NAME}, so it is unknown how its encodings were made.",
            "Give scheme, private_images, copies, mean and std.",
        )
    first = next(_blocks(source, form, 1), None)
    if first is None:
        raise DataError(
            f"{source} holds no encodings in the format {form}.", "Check the path and `format=`."
        )
    images, labels = first
    values: Values = "float16" if images.dtype == np.float16 else "float32"
    try:
        manifest = Manifest(
            **asdict(origin),
            publication=new_publication(),
            shape=images.shape[1:],
            classes=tuple(str(number) for number in range(labels.shape[1])),
            values=values,
            max_quantization_error=0.0,
            # How often another program drew each image is not known.
            limited=True,
        )
    except ValidationError as error:
        raise InstaHideError(
            f"What was said of {source} cannot be true ({first_validation_error(error)}).",
            "Check the number of private images and copies, mean and std.",
        ) from None
    return manifest.model_copy(
        update={"max_quantization_error": max_quantization_error(values, manifest.max_abs)}
    )


def _blocks(source: Path, form: Name, most: int) -> Iterator[EncodedArrays]:
    """Images (n, C, H, W) and labels (n, classes), floats of any kind."""
    try:
        for images, labels in FORMATS[form].read(source, most):
            kinds = (labels.ndim, images.dtype.kind, labels.dtype.kind)
            known = images.ndim in (4, 5) and kinds == (2, "f", "f")
            if not known or len(images) != len(labels):
                raise DamagedFileError(
                    f"{source} holds {images.dtype} images {images.shape} and {labels.dtype} "
                    f"labels {labels.shape}.",
                    "Save images (n, C, H, W) or volumes (n, C, D, H, W), and labels (n, classes), "
                    "as float32 or float16.",
                )
            yield images, labels
    except InstaHideError:
        raise
    except Exception as error:  # Every library raises its own errors on damaged files.
        raise DamagedFileError(
            f"{source} cannot be read as {form} ({error}).", "Check the path and `format=`."
        ) from error


def _write(encoded: Encoded, writer: FolderWriter) -> None:
    manifest = writer.manifest
    shard = store_shard(writer.store, new_shard_name(), encoded, manifest.values, manifest.max_abs)
    writer.commit(shard)

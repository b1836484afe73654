"""Exports a folder of encodings to another format."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import torch

from instahide.encodings.convert.formats import FORMATS, Name
from instahide.encodings.folder import EncodedFolder
from instahide.encodings.manifest import NAME
from instahide.encodings.shards import EncodedArrays
from instahide.errors import InstaHideError
from instahide.utils.atomic_write import atomic_directory


def export_encodings(
    folder: EncodedFolder,
    target: Path,
    form: Name,
    progress: Callable[[int], None] = lambda _: None,
) -> None:
    """Export ``folder`` and its manifest to the new folder ``target``, in bounded memory.

    Values are float16 if they are stored as float16, except in the challenge format, else float32.

    Args:
        folder: the encodings to export.
        target: a folder that does not exist yet, or is empty; it is written atomically.
        form: one of `FORMATS`.
        progress: called with the number of encodings of each written block.

    Raises:
        InstaHideError: ``target`` is not empty or cannot be written, a shard is damaged, or a
            package for the format is missing.
    """
    require_free(target)
    with atomic_directory(target) as partial:
        FORMATS[form].write(_blocks(folder, progress), folder.manifest, partial)
        (partial / NAME).write_bytes(folder.manifest.to_json())


def require_free(target: Path) -> None:
    """Check that ``target`` can be created without overwriting anything.

    Raises:
        InstaHideError: ``target`` is a file or a folder that is not empty.
    """
    if target.exists() and not (target.is_dir() and not any(target.iterdir())):
        raise InstaHideError(f"{target} is there already.", "Choose another `out=`.")


def _blocks(folder: EncodedFolder, progress: Callable[[int], None]) -> Iterator[EncodedArrays]:
    for number, shard in enumerate(folder.manifest.shards):
        images, labels = folder.shard(number)
        values = images if images.dtype == torch.float16 else folder.decoded(images)
        yield values.numpy(), labels.numpy()
        progress(shard.encodings)

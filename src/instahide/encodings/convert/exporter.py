"""A folder of encodings, written in another format."""

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
    """Write ``folder`` to the new folder ``target``, its manifest beside, in bounded memory.

    Values stay as they are: float16 where they are stored so (but in the challenge's files, which
    are float32), float32 otherwise.

    Args:
        folder: what to export.
        target: a folder that does not exist yet, or is empty; whole or not there at all.
        form: one of `FORMATS`.
        progress: called with numbers of encodings as they are written.

    Raises:
        InstaHideError: ``target`` is taken or cannot be written, a shard is damaged, or a package
            that the format needs is missing.
    """
    require_free(target)
    with atomic_directory(target) as partial:
        FORMATS[form].write(_blocks(folder, progress), folder.manifest, partial)
        (partial / NAME).write_bytes(folder.manifest.to_json())


def require_free(target: Path) -> None:
    """Check that nothing is lost where a new folder goes.

    Raises:
        InstaHideError: it is a file, or a folder of files.
    """
    if target.exists() and not (target.is_dir() and not any(target.iterdir())):
        raise InstaHideError(f"{target} is there already.", "Choose another `out=`.")


def _blocks(folder: EncodedFolder, progress: Callable[[int], None]) -> Iterator[EncodedArrays]:
    for number, shard in enumerate(folder.manifest.shards):
        images, labels = folder.shard(number)
        values = images if images.dtype == torch.float16 else folder.decoded(images)
        yield values.numpy(), labels.numpy()
        progress(shard.encodings)

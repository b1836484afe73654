"""WebDataset: tar files of samples, each with an ``image.npy`` and a ``label.npy``.

The standard library is enough, because the format consists of names in a tar file. Source:
https://github.com/webdataset/webdataset, "The WebDataset Format".
"""

from __future__ import annotations

import io
import math
import tarfile
from collections.abc import Iterable, Iterator
from itertools import groupby, islice
from operator import itemgetter
from pathlib import Path

import numpy as np
from numpy.lib import format as npy

from instahide.data.readers.arrays.npy_file import load_npy
from instahide.encodings.manifest import Manifest
from instahide.encodings.shards import EncodedArrays
from instahide.errors import DamagedFileError
from instahide.utils.atomic_write import open_regular

PARTS = ("image.npy", "label.npy")

#: Largest size of a tar file, unless a single sample is larger.
TAR_BYTES = 1 << 28

#: Largest overhead of a sample: for each part, headers of tar and NumPy, and padding.
_OVERHEAD = len(PARTS) * (512 + 128 + 512)

Sample = EncodedArrays


def write(blocks: Iterable[EncodedArrays], manifest: Manifest, folder: Path) -> None:
    """Write numbered tar files."""
    sample = 4 * (math.prod(manifest.shape) + len(manifest.classes)) + _OVERHEAD
    many = max(1, TAR_BYTES // sample)
    samples = (pair for block in blocks for pair in zip(*block, strict=True))
    tars = groupby(enumerate(samples), lambda numbered: numbered[0] // many)
    for tar, numbered in tars:
        with tarfile.open(folder / f"encodings-{tar:06d}.tar", "w") as file:
            for number, pair in numbered:
                _add(file, number, pair)


def read(folder: Path, most: int) -> Iterator[EncodedArrays]:
    """Blocks of ``most`` encodings, from the tars in the order of their names.

    Raises:
        InstaHideError: a sample has no image or no label.
    """
    samples = (sample for path in sorted(folder.glob("*.tar")) for sample in _samples(path))
    while block := list(islice(samples, most)):
        images, labels = zip(*block, strict=True)
        yield np.stack(images), np.stack(labels)


def _add(tar: tarfile.TarFile, number: int, sample: Sample) -> None:
    for part, array in zip(PARTS, sample, strict=True):
        content = io.BytesIO()
        npy.write_array(content, array, version=(1, 0), allow_pickle=False)
        # Without time and owner, which would reveal something about the publisher.
        member = tarfile.TarInfo(f"{number:012d}.{part}")
        member.size = content.tell()
        content.seek(0)
        tar.addfile(member, content)
    _forget(tar)


def _samples(path: Path) -> Iterator[Sample]:
    """The samples of a tar file; parts other than image and label are ignored."""
    with open_regular(path) as file, tarfile.open(fileobj=file, mode="r:") as tar:
        for key, parts in groupby(_parts(tar), itemgetter(0)):
            sample = {part: content for _, part, content in parts}
            if len(sample) != len(PARTS):
                raise DamagedFileError(
                    f"Sample {key!r} of {path} is not complete.",
                    f"A sample is one {' and one '.join(PARTS)}.",
                )
            image, label = (load_npy(sample[part]) for part in PARTS)
            yield image, label


def _parts(tar: tarfile.TarFile) -> Iterator[tuple[str, str, bytes]]:
    """The sample, name and content of every part."""
    while member := tar.next():
        _forget(tar)
        folder, slash, name = member.name.rpartition("/")
        key, _, part = name.partition(".")
        # A sparse member may be far larger than the tar file.
        file = tar.extractfile(member) if member.isreg() and not member.issparse() else None
        if file is not None and part in PARTS:
            yield folder + slash + key, part, file.read()


def _forget(tar: tarfile.TarFile) -> None:
    """Drop the list of members, which is not used and grows with the file."""
    tar.members.clear()  # type: ignore[attr-defined]  # Python 3.13 has `stream=True` for it.

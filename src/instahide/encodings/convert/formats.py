"""The formats that encodings can be exchanged in."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Literal, NamedTuple

from instahide.encodings.convert import huggingface, numpy, webdataset
from instahide.encodings.manifest import Manifest
from instahide.encodings.shards import EncodedArrays

Name = Literal["challenge", "webdataset", "huggingface", "parquet"]


class Format(NamedTuple):
    """How encodings are written and read, in blocks of images (n, C, H, W) and labels (n, classes).

    Attributes:
        write: puts all blocks of the manifest, float16 or float32, into an empty folder.
        read: the blocks in a folder, of so many encodings at the most. Whatever it finds, it
            allocates no more than a block and runs no code. It raises what its library raises.
    """

    write: Callable[[Iterable[EncodedArrays], Manifest, Path], None]
    read: Callable[[Path, int], Iterator[EncodedArrays]]


FORMATS: dict[Name, Format] = {
    "challenge": Format(numpy.write, numpy.read),
    "webdataset": Format(webdataset.write, webdataset.read),
    "huggingface": Format(huggingface.write_arrow, huggingface.read_arrow),
    "parquet": Format(huggingface.write_parquet, huggingface.read_parquet),
}

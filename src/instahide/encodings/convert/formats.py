"""The formats to and from which encodings can be converted."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Literal, NamedTuple

from instahide.encodings.convert import huggingface, numpy, webdataset
from instahide.encodings.manifest import Manifest
from instahide.encodings.shards import EncodedArrays

Name = Literal["challenge", "webdataset", "huggingface", "parquet"]


class Format(NamedTuple):
    """The writer and reader of a format, for blocks of images (n, C, H, W) and labels (n, classes).

    Attributes:
        write: writes all blocks, float16 or float32, into an empty folder.
        read: yields the blocks of a folder with at most so many encodings each. Whatever the files
            hold, it allocates at most one block and executes no code from them. Errors are those
            of its library.
    """

    write: Callable[[Iterable[EncodedArrays], Manifest, Path], None]
    read: Callable[[Path, int], Iterator[EncodedArrays]]


FORMATS: dict[Name, Format] = {
    "challenge": Format(numpy.write, numpy.read),
    "webdataset": Format(webdataset.write, webdataset.read),
    "huggingface": Format(huggingface.write_arrow, huggingface.read_arrow),
    "parquet": Format(huggingface.write_parquet, huggingface.read_parquet),
}

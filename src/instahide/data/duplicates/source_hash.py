"""Hashes of the source image of a row, independent of its size, file name and format."""

from __future__ import annotations

import os
from typing import IO, TYPE_CHECKING

import xxhash

from instahide.data.duplicates.content_hash import content_hash

if TYPE_CHECKING:
    from PIL.Image import Image

#: Hashes of an image file: of its upright 8-bit pixels, and of the compressed data of a JPEG.
FILE_HASHES = 2
#: An unknown hash.
UNKNOWN = bytes(16)

#: Bytes of a file that are read at a time; most photographs are smaller.
READ = 1 << 22

_START_OF_SCAN, _COMMENT, _ADOBE = 0xDA, 0xFE, 0xEE
_APPLICATION = range(0xE0, 0xF0)


def pixels_hash(image: Image) -> bytes:
    """The hash of the pixels of an image in mode L or RGB, before resizing."""
    channels = tuple(image.tobytes("raw", channel) for channel in image.getbands())
    return content_hash(channels, image.height, image.width)


def jpeg_hash(file: IO[bytes]) -> bytes:
    """The hash of a JPEG file's data without comments and metadata.

    A JPEG may be decoded at a reduced size, so the hash of its pixels depends on the size. The hash
    of its data does not. The position in ``file`` is restored.
    """
    position = file.tell()
    whole = xxhash.xxh3_128(seed=2**63)
    try:
        # Allocates no more memory than the file needs.
        size = file.seek(0, os.SEEK_END)
        file.seek(0)
        content = memoryview(file.read(min(size, READ)))
        scan = _scan_start(content, whole)
        whole.update(content[scan:])
        while part := file.read(READ):
            whole.update(part)
    finally:
        file.seek(position)
    return whole.digest()


def _scan_start(content: memoryview, whole: xxhash.xxh3_128) -> int:
    """The offset of the compressed pixels; the headers before it are added to ``whole``."""
    at = 2
    while at + 4 <= len(content) and content[at] == 0xFF and content[at + 1] != _START_OF_SCAN:
        marker = content[at + 1]
        end = at + 2 + max(2, int.from_bytes(content[at + 2 : at + 4], "big"))
        if (marker not in _APPLICATION or marker == _ADOBE) and marker != _COMMENT:
            whole.update(content[at:end])
        at = end
    return at

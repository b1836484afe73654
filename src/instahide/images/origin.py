"""From which image the pixels of a row come, whatever its size, file name or format."""

from __future__ import annotations

from typing import IO, TYPE_CHECKING

import xxhash

from instahide.images.pictures import image_hash

if TYPE_CHECKING:
    from PIL.Image import Image

#: Hashes of an image file: of its upright 8-bit pixels, and of the compressed data of a JPEG.
FILE_HASHES = 2
#: Stands for a hash that is not known.
UNKNOWN = bytes(16)

_START_OF_SCAN, _COMMENT, _ADOBE = 0xDA, 0xFE, 0xEE
_APPLICATION = range(0xE0, 0xF0)


def pixels_hash(image: Image) -> bytes:
    """The hash of the pixels of an image of mode L or RGB, before it is resized."""
    channels = tuple(image.tobytes("raw", channel) for channel in image.getbands())
    return image_hash(channels, image.height, image.width)


def jpeg_hash(file: IO[bytes]) -> bytes:
    """The hash of what a JPEG file shows: of all its data but for comments and metadata.

    A JPEG is decoded at a part of its size where that is enough, so that its pixels have another
    hash at another size. Its data have not. The position in ``file`` is left as it was.
    """
    position = file.tell()
    whole = xxhash.xxh3_128(seed=2**63)
    try:
        file.seek(2)
        while len(head := file.read(4)) == 4 and head[0] == 0xFF:
            body = file.read(max(0, int.from_bytes(head[2:], "big") - 2))
            described = head[1] in _APPLICATION and head[1] != _ADOBE
            if not described and head[1] != _COMMENT:
                whole.update(head + body)
            if head[1] == _START_OF_SCAN:
                break
        while part := file.read(1 << 16):
            whole.update(part)
    finally:
        file.seek(position)
    return whole.digest()

"""How large the content of a file may be, decided before it is decoded or unpacked."""

from __future__ import annotations

import io
from typing import BinaryIO

from instahide.errors import printable

#: Decoded content up to this size is accepted from a file of any size: ten million pixels in
#: colour, for which a blank page of paper may be scanned.
FREE_BYTES = 40 << 20
#: Beyond `FREE_BYTES`, decoded content may be so many times as large as its file. Photographs
#: stay below 50, blank images and constant arrays do not.
MOST_RATIO = 100
#: Characters of another library's message that a message of this one repeats.
MOST_REASON = 200


def max_decoded_bytes(file_bytes: int) -> int:
    """Bytes that a file of ``file_bytes`` may decode or unpack to."""
    return max(FREE_BYTES, MOST_RATIO * file_bytes)


def require_plausible_size(decoded_bytes: int, file_bytes: int) -> None:
    """Check what a file claims to hold against the size of the file.

    Raises:
        ValueError: it would become far larger than its file.
    """
    if decoded_bytes > max_decoded_bytes(file_bytes):
        raise ValueError(
            f"{file_bytes:,} bytes that would become {decoded_bytes:,} may be a decompression bomb"
        )


def failure_reason(error: BaseException) -> str:
    """The message of an error that a decoder raised, short and on one line."""
    text = " ".join(str(error).split()) or type(error).__name__
    text = printable(text)
    return text if len(text) <= MOST_REASON else text[:MOST_REASON] + "..."


class LimitedReader(io.RawIOBase):
    """Reads at most ``most`` bytes of ``source``, such as a decompressed stream.

    Raises:
        ValueError: on reading, if there are more.
    """

    def __init__(self, source: BinaryIO, most: int) -> None:
        self._source = source
        self._left = most

    def readable(self) -> bool:
        """It is."""
        return True

    def readinto(self, buffer: object) -> int:
        """Read into ``buffer``; returns how many bytes, 0 at the end."""
        view = memoryview(buffer).cast("B")  # type: ignore[arg-type]
        part = self._source.read(min(len(view), self._left + 1, 1 << 20))
        if len(part) > self._left:
            raise ValueError("it unpacks to more than its size allows and may be a bomb")
        view[: len(part)] = part
        self._left -= len(part)
        return len(part)

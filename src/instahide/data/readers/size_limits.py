"""Limits of the decoded size of a file, checked before it is decoded or unpacked."""

from __future__ import annotations

import io
from typing import BinaryIO

#: Decoded size that is accepted for a file of any size: ten million color pixels, such as the scan
#: of a blank page.
FREE_BYTES = 40 << 20
#: Largest ratio of decoded size to file size beyond `FREE_BYTES`. It is below 50 for photographs,
#: but not for blank images and constant arrays.
MOST_RATIO = 100


def max_decoded_bytes(file_bytes: int) -> int:
    """The largest decoded size of a file of ``file_bytes`` bytes."""
    return max(FREE_BYTES, MOST_RATIO * file_bytes)


def require_plausible_size(decoded_bytes: int, file_bytes: int) -> None:
    """Check the decoded size that a file states against its file size.

    Raises:
        ValueError: the decoded size is implausibly large.
    """
    if decoded_bytes > max_decoded_bytes(file_bytes):
        raise ValueError(
            f"{file_bytes:,} bytes that would become {decoded_bytes:,} may be a decompression bomb"
        )


class LimitedReader(io.RawIOBase):
    """Reads at most ``most`` bytes of ``source``, such as a decompressed stream.

    Raises:
        ValueError: on reading, if there are more.
    """

    def __init__(self, source: BinaryIO, most: int) -> None:
        self._source = source
        self._left = most

    def readable(self) -> bool:
        """Always true."""
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

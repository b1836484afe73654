"""Sizes of compressed frames, checked before a decoder takes memory for them."""

from __future__ import annotations

_JPEG, _JPEG_2000 = b"\xff\xd8", b"\xff\x4f\xff\x51"
_JPEG_2000_BOX = b"\x00\x00\x00\x0cjP  "
#: Markers of a JPEG or JPEG-LS file that state its size: start of frame.
_FRAMES = frozenset({*range(0xC0, 0xD0), 0xF7} - {0xC4, 0xC8, 0xCC})
_WITHOUT_LENGTH = frozenset({0x01, *range(0xD0, 0xD9)})


def require_frame_sizes(content: bytes, frames: int, rows: int, columns: int, samples: int) -> None:
    """Check that the frames of encapsulated pixel data have the size that the data set states.

    Args:
        content: the pixel data.
        frames: the number of frames.
        rows: the height of a frame.
        columns: its width.
        samples: its channels.

    Raises:
        ValueError: a frame has another size. Of other compressions than JPEG, JPEG-LS and
            JPEG 2000 the size is not looked for: their decoders take it from the data set.
    """
    from pydicom.encaps import generate_frames

    for frame in generate_frames(content, number_of_frames=frames):
        found = _size(frame)
        if found is not None and found != (rows, columns, samples):
            raise ValueError("a compressed frame has another size than the file states")


def _size(frame: bytes) -> tuple[int, int, int] | None:
    """Height, width and channels of a JPEG, JPEG-LS or JPEG 2000 frame; None of other kinds."""
    if frame.startswith(_JPEG):
        return _jpeg_size(frame)
    if frame.startswith((_JPEG_2000, _JPEG_2000_BOX)):
        at = frame.find(_JPEG_2000)
        if at < 0:
            raise ValueError("a compressed frame states no size")
        return _jpeg_2000_size(frame[at + len(_JPEG_2000) :])
    return None


def _jpeg_size(frame: bytes) -> tuple[int, int, int]:
    at = len(_JPEG)
    while at + 10 <= len(frame) and frame[at] == 0xFF:
        marker = frame[at + 1]
        if marker in _FRAMES:
            height, width = (int.from_bytes(frame[at + n : at + n + 2]) for n in (5, 7))
            return height, width, frame[at + 9]
        if marker == 0xFF:  # Padding.
            at += 1
        elif marker in _WITHOUT_LENGTH:
            at += 2
        else:
            at += 2 + int.from_bytes(frame[at + 2 : at + 4])
    raise ValueError("a compressed frame states no size")


def _jpeg_2000_size(segment: bytes) -> tuple[int, int, int]:
    """From what follows the marker of the size segment: its length, capabilities and sizes."""
    width, height, left, top = (int.from_bytes(segment[n : n + 4]) for n in (4, 8, 12, 16))
    return height - top, width - left, int.from_bytes(segment[36:38])

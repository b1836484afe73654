"""PUBLIC: how far an image may be moved before it is mixed."""

from __future__ import annotations

from dataclasses import dataclass

from instahide.errors import InstaHideError


@dataclass(frozen=True)
class Augmentation:
    """Random crop and flip of every image of a mix, each drawn anew from the key stream.

    Attributes:
        padding: the crop moves by up to this many pixels each way; black comes in at the border.
        flip: whether half of the images are mirrored, left to right.
    """

    padding: int = 0
    flip: bool = False

    def __post_init__(self) -> None:
        # A move is kept in a signed byte.
        if not 0 <= self.padding <= 127:
            raise InstaHideError(
                f"A padding of {self.padding} pixels is out of range.", "Use 0 to 127; 4 is usual."
            )

    def __bool__(self) -> bool:
        return self.padding > 0 or self.flip

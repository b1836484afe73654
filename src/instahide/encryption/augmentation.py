"""PUBLIC: the random crop and flip of an image before it is mixed."""

from __future__ import annotations

from dataclasses import dataclass

from instahide.errors import InstaHideError


@dataclass(frozen=True)
class Augmentation:
    """Random crop and flip of every image of a mix, drawn from the key stream for each encoding.

    Attributes:
        padding: largest shift of the crop in each direction, in pixels; pixels from outside the
            image are black.
        flip: whether each image is mirrored left to right with probability 1/2.

    Raises:
        InstaHideError: ``padding`` is not between 0 and 127.

    Examples:
        >>> from instahide import Augmentation, Encoder, Scheme, open_split
        >>> images = open_split("digits").train
        >>> Encoder(Scheme.inside(4), images, augmentation=Augmentation(padding=1)).augmentation
        Augmentation(padding=1, flip=False)
    """

    padding: int = 0
    flip: bool = False

    def __post_init__(self) -> None:
        # A shift is stored in a signed byte.
        if not 0 <= self.padding <= 127:
            raise InstaHideError(
                f"A padding of {self.padding} pixels is out of range.", "Use 0 to 127; 4 is usual."
            )

    def __bool__(self) -> bool:
        return self.padding > 0 or self.flip

"""The largest number of encodings of a publication."""

from __future__ import annotations

from instahide.errors import InstaHideError

#: Largest number of encodings of a publication. Their order takes about 30 bytes of memory each.
MOST_ENCODINGS = 1 << 28


def require_few(images: int, copies: int) -> None:
    """Check that ``copies`` encodings of each of ``images`` are at most `MOST_ENCODINGS`.

    Raises:
        InstaHideError: there are more.
    """
    if images * copies <= MOST_ENCODINGS:
        return
    most = MOST_ENCODINGS // images
    raise InstaHideError(
        f"copies = {copies:,} of {images:,} images would be {images * copies:,} encodings; a "
        f"publication has at most {MOST_ENCODINGS:,}.",
        f"Use at most `copies={most}`." if most else "Publish the images in several parts.",
    )

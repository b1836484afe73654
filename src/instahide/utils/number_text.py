"""Numbers in texts of files and options, without the spellings that only Python accepts."""

from __future__ import annotations


def plain_float(text: str) -> float:
    """The number that ``text`` holds in ASCII digits, as other programs read it.

    Python also reads ``1_0`` as 10, and digits of other scripts, which are refused here.

    Raises:
        ValueError: ``text`` is not such a number.

    Examples:
        >>> from instahide.utils.number_text import plain_float
        >>> plain_float("-1.5e3")
        -1500.0
    """
    return float(_plain(text))


def plain_int(text: str) -> int:
    """As `plain_float`, for an integer.

    Raises:
        ValueError: ``text`` is not such a number.
    """
    return int(_plain(text))


def _plain(text: str) -> str:
    if "_" in text or not text.isascii():
        raise ValueError(f"{text[:40]!r} is not a number in the digits 0 to 9")
    return text

"""Text and numbers from other machines: made safe to print, and checked before they are used."""

from __future__ import annotations

from typing import TypeGuard

#: Characters of a name or a reason that are kept.
MOST_NAME, MOST_REASON = 80, 500


def printable(text: object, most: int = MOST_NAME) -> str:
    """At most ``most`` characters of ``text``; control and bidirectional ones become ``?``."""
    shown = str(text)[: most + 1]
    shown = "".join(character if character.isprintable() else "?" for character in shown)
    return shown if len(shown) <= most else shown[: most - 3] + "..."


def in_range(value: object, least: float, most: float) -> TypeGuard[float]:
    """Whether ``value`` is a number, and no bool, from ``least`` to ``most``; NaN is not."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return bool(least <= value <= most)


def whole_number(value: object, least: int, most: int) -> TypeGuard[int]:
    """Whether ``value`` is an int, and no bool, from ``least`` to ``most``."""
    return type(value) is int and least <= value <= most

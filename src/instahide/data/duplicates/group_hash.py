"""Hashes of the names of groups, such as patients: the unit that exposure is counted for."""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from instahide.data.duplicates.content_hash import Hashes, hashes_from_bytes
from instahide.errors import DataError

#: The group of each item of a data set: names in order, or a function from item number to name.
Groups: TypeAlias = Sequence[str] | NDArray[np.generic] | Callable[[int], object]

#: Makes the hash of a name differ from that of any pixels.
_KIND = b"instahide group\0"


def group_hashes(groups: Groups, count: int) -> Hashes:
    """(``count``, 2) hashes of the names of groups; zeros for an empty name, which is in no group.

    Spaces at both ends of a name and the Unicode form of its characters make no difference, and a
    whole number is its digits. NaN and None are empty names.

    Raises:
        DataError: there are not ``count`` names, or one is neither text nor a whole number.
    """
    if isinstance(groups, str):
        raise DataError("The groups are one text.", "Give a name for each image.")
    names: Iterable[object] = map(groups, range(count)) if callable(groups) else groups
    digests = [_digest(_name(name, number)) for number, name in enumerate(names)]
    if len(digests) != count:
        raise DataError(
            f"There are {count} images but the groups of {len(digests)}.",
            "Name one group for each image.",
        )
    return hashes_from_bytes(b"".join(digests), 1)[:, 0]


def require_hashes(sources: Hashes | None, groups: Hashes | None, count: int) -> None:
    """Check the hashes of the sources and of the groups of ``count`` images of a table.

    Raises:
        DataError: they have another type or shape.
    """
    if sources is not None and (
        sources.dtype != np.uint64 or sources.ndim != 3 or sources.shape[::2] != (count, 2)
    ):
        raise DataError(
            f"There are {count} images but {sources.dtype} hashes of their sources of shape "
            f"{sources.shape}.",
            "Leave them out, or give (N, m, 2) uint64.",
        )
    if groups is not None and (groups.dtype != np.uint64 or groups.shape != (count, 2)):
        raise DataError(
            f"There are {count} images but {groups.dtype} hashes of their groups of shape "
            f"{groups.shape}.",
            "Group them by `ImageTable.grouped`.",
        )


def _name(name: object, number: int) -> str:
    if name is None or (isinstance(name, (float, np.floating)) and np.isnan(name)):
        return ""
    whole = isinstance(name, (int, np.integer)) and not isinstance(name, bool)
    if whole or isinstance(name, str):
        return unicodedata.normalize("NFKC", str(name)).strip()
    # The value itself may identify a person, so the message does not show it.
    raise DataError(
        f"The group of image {number} is a {type(name).__name__}, not a name.",
        "Give text or whole numbers; numbers with a point may be written in several ways.",
    )


def _digest(name: str) -> bytes:
    if not name:
        return bytes(16)
    return hashlib.sha256(_KIND + name.encode("utf-8", "surrogatepass")).digest()[:16]

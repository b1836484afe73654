"""Names of the files and groups of a table's rows, which are kept apart from the table."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from instahide.data.readers.listing import Listing
from instahide.data.table import ImageTable
from instahide.errors import DataError


@dataclass(frozen=True, repr=False)
class RowNames:
    """What the rows of a table are called where they were read.

    Names may tell who is shown. They are no part of an `ImageTable`, which is stored and sent to
    other processes.

    Attributes:
        files: (N,) names of files, as a table of labels writes them, or relative to the folder.
        groups: (N,) names of groups, empty for an image in none; empty if no groups are named.
    """

    files: tuple[str, ...]
    groups: tuple[str, ...] = ()

    def __repr__(self) -> str:
        """Only the number, because a log must not hold the names."""
        return f"RowNames({len(self.files)} files)"

    @property
    def columns(self) -> Mapping[str, tuple[str, ...]]:
        """The names by column: ``file``, and ``group`` if there are groups."""
        return {"file": self.files} | ({"group": self.groups} if self.groups else {})

    @property
    def description(self) -> str:
        """What is named."""
        return f"the names of files{' and groups' if self.groups else ''}"


class NamedImages(NamedTuple):
    """Images and the names of their rows; None if the source has no image files."""

    images: ImageTable
    names: RowNames | None = None


def row_names(folder: Path, listing: Listing, count: int) -> RowNames:
    """The names of the files that were read from ``folder``.

    Args:
        folder: the folder that the user named, which ``listing`` is of, or of a part of.
        listing: the files, in the order of the rows.
        count: number of rows.

    Raises:
        DataError: there are more or fewer files than rows.
    """
    if len(listing.files) != count:
        raise DataError(
            f"{count} images of {folder} were decoded, but {len(listing.files)} files are there.",
            "Try again while no other program reads or changes the folder.",
        )
    files = listing.names or tuple(path.relative_to(folder).as_posix() for path in listing.files)
    return RowNames(files, listing.groups)

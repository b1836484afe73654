"""Reads a folder of class folders; decoded images are cached as a memory-mapped table."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from instahide.data.cache import cache_folder, cached_table, digest, memory_mapped
from instahide.data.duplicates.content_hash import hashes_from_bytes
from instahide.data.duplicates.source_hash import FILE_HASHES
from instahide.data.readers.image_file import Decoded, decode_file, require_one_depth
from instahide.data.readers.listing import Listing, list_classes
from instahide.data.readers.skipped import (
    FRAMES,
    OTHER_FOLDERS,
    UNREADABLE,
    Notes,
    Skipped,
    read_notes,
    warn_of_skipped,
    write_notes,
)
from instahide.data.readers.split_folders import (
    SplitFolders,
    find_split_folders,
    require_no_split_classes,
)
from instahide.data.splits import Split, make_split, stratified_split, table_from_arrays
from instahide.data.table import ImageTable
from instahide.errors import DataError, InstaHideError
from instahide.utils.parallel import parallel_map, with_progress

Read = TypeVar("Read")

#: Version of the decoded tables, part of their name in the cache.
FORMAT = 3
#: Minimum number of seconds between two changes of a file that its timestamps distinguish.
CLOCK_TICK = 0.02


@dataclass(frozen=True)
class Decoding:
    """Settings for decoding image files.

    Attributes:
        size: side of the square in pixels to which images are resized and cropped; None to keep
            their size.
        skip_bad: skip files that cannot be read.
        progress: show a progress bar.
        classes: names of the class folders, in the order of their label numbers; None for all.
    """

    size: int | None = None
    skip_bad: bool = False
    progress: bool = True
    classes: tuple[str, ...] | None = None


class _Opened(NamedTuple):
    """A table, and the bit depths of its 16-bit images, each with the path of one of them."""

    table: ImageTable
    depths: dict[int, str]


@dataclass
class _Found:
    """Metadata of the decoded files, see `Decoded`; ``kept`` are the indices of readable files."""

    kept: list[int] = field(default_factory=list)
    skipped: list[Skipped] = field(default_factory=list)
    depths: dict[int, str] = field(default_factory=dict)
    sources: bytearray = field(default_factory=bytearray)
    coloured: bool = False

    def add(self, number: int, image: Decoded, path: Path) -> None:
        self.kept.append(number)
        self.sources += image.sources
        self.coloured |= image.pixels.ndim == 3
        if image.further:
            self.skipped.append(Skipped(FRAMES, str(path)))
        if image.depth:
            self.depths.setdefault(image.depth, str(path))
            require_one_depth(self.depths)


def open_folder(folder: Path, how: Decoding) -> ImageTable:
    """Open the images of a folder of class folders, or of its training folder if it has one."""
    parts = find_split_folders(folder, how.classes)
    return _table(
        _listing(parts.train if parts else folder, how, _other_folders(parts)), "all", how
    )


def open_test_folder(folder: Path, how: Decoding) -> ImageTable:
    """Open the images of a folder's test folder if it has one, otherwise all images."""
    parts = find_split_folders(folder, how.classes)
    if parts is None:
        return open_folder(folder, how)
    trained = replace(how, classes=_listing(parts.train, how).classes)
    return _table(_listing(parts.test, trained, _other_folders(parts)), "all", how)


def split_folder(folder: Path, how: Decoding, test_share: float) -> Split:
    """Open the training and test folders of ``folder``, or split it with stratified sampling."""
    parts = find_split_folders(folder, how.classes)
    if parts:
        train = _listing(parts.train, how, _other_folders(parts))
        test = _listing(parts.test, replace(how, classes=train.classes))
        return _pair(_open(train, "all", how), _open(test, "all", how))
    whole = _listing(folder, how)
    train_rows, test_rows = stratified_split(whole.labels, test_share)
    # The warning of skipped files is shown only once.
    test = replace(whole.subset(test_rows), skipped=())
    return _pair(_open(whole.subset(train_rows), "train", how), _open(test, "test", how))


def _pair(train: _Opened, test: _Opened) -> Split:
    require_one_depth({**train.depths, **test.depths})
    return make_split(train.table, test.table)


def decode_listing(
    files: tuple[Path, ...],
    read: Callable[[Path], Read],
    skipped: list[Skipped] | None,
    *,
    workers: int | None = None,
    shown: bool = True,
    title: str = "Reading images",
) -> Generator[tuple[int, Read], None, None]:
    """Yield (index of the file, result of ``read``) in order; files are read by threads.

    Files for which ``read`` raises an `InstaHideError` are added to ``skipped``.

    Raises:
        InstaHideError: ``read`` cannot read a file, and ``skipped`` is None.
    """

    def attempt(path: Path) -> Read | InstaHideError:
        try:
            return read(path)
        except InstaHideError as error:
            return error

    results = with_progress(parallel_map(attempt, files, workers), title, len(files), shown)
    with closing(results):
        for number, result in enumerate(results):
            if not isinstance(result, InstaHideError):
                yield number, result
            elif skipped is not None:
                skipped.append(Skipped(UNREADABLE, result.problem))
            else:
                raise result


def _listing(folder: Path, how: Decoding, others: Sequence[Skipped] = ()) -> Listing:
    listing = list_classes(folder, how.classes, skip_bad=how.skip_bad)
    require_no_split_classes(folder)
    return replace(listing, skipped=(*others, *listing.skipped))


def _other_folders(parts: SplitFolders | None) -> list[Skipped]:
    return [Skipped(OTHER_FOLDERS, str(path)) for path in parts.others] if parts else []


def _table(listing: Listing, part: str, how: Decoding) -> ImageTable:
    return _open(listing, part, how).table


def _open(listing: Listing, part: str, how: Decoding) -> _Opened:
    """The decoded images, from the cache if possible; warns of skipped files."""
    name = f"folder-{digest([FORMAT, str(listing.root.resolve()), part, how.size, how.skip_bad])}"
    state = _state(listing)
    path = cache_folder() / name / f".notes-{state}.json"
    make = partial(_decode_unchanged, listing, how, path, state)
    table = cached_table(name, state, make, source=listing.root)
    # The warning is shown at every opening, not only when the files are decoded.
    notes = read_notes(path)
    _warn(listing, notes.skipped)
    return _Opened(table, notes.depths)


def _warn(listing: Listing, skipped: Sequence[Skipped]) -> None:
    gone = sum(reason == UNREADABLE for reason, _ in listing.skipped)
    warn_of_skipped(listing.root, [*listing.skipped, *skipped], len(listing.files) + gone)


def _decode_unchanged(listing: Listing, how: Decoding, notes: Path, state: str) -> ImageTable:
    """`_decode`, with a check that no file changed during it.

    Raises:
        DataError: a file changed, so that the decoded images do not belong to ``state``.
    """
    table = _decode(listing, how, notes)
    if _state(listing) != state:
        raise DataError(
            f"Files of {listing.root} were changed while they were read.",
            "Try again while no other program changes the folder.",
        )
    return table


def _decode(listing: Listing, how: Decoding, notes: Path) -> ImageTable:
    found = _Found()
    pixels = memory_mapped(_rows(listing, how, found), cache_folder())
    if not found.kept:
        _warn(listing, found.skipped)
        raise DataError(
            f"No image of {listing.root} can be read.", "Check that the files are images."
        )
    write_notes(notes, Notes(found.skipped, found.depths))
    # Only now is it known whether any image has colors; gray images were written with 3 channels.
    pixels = pixels if found.coloured else pixels[:, :1]
    hashes = hashes_from_bytes(found.sources, FILE_HASHES)
    return table_from_arrays(pixels, listing.labels[found.kept], listing.classes, hashes)


def _rows(
    listing: Listing, how: Decoding, found: _Found
) -> Generator[NDArray[np.uint8], None, None]:
    """Yield (3, H, W) pixels of every readable file; ``found`` collects the metadata."""
    read: Callable[[Path], Decoded] = partial(decode_file, size=how.size)
    first: tuple[int, ...] = ()
    bad: list[Skipped] | None = found.skipped if how.skip_bad else None
    with closing(decode_listing(listing.files, read, bad, shown=how.progress)) as images:
        for number, image in images:
            shape = image.pixels.shape[:2]
            first = first or shape
            if shape != first:
                before = listing.files[found.kept[0]]
                raise _sizes_differ(before, first, listing.files[number], shape)
            found.add(number, image, listing.files[number])
            yield np.broadcast_to(np.atleast_3d(image.pixels).transpose(2, 0, 1), (3, *shape))


def _state(listing: Listing) -> str:
    """A digest of the files' metadata, which changes if any file is replaced or changed.

    Programs that copy or unpack files set the modification time (mtime). The change time (ctime)
    cannot be set.
    """
    facts, newest = _facts(listing)
    if abs(time.time() - newest) < CLOCK_TICK:
        # Another change within the same tick of the file system's clock would not be detected.
        time.sleep(CLOCK_TICK)
        facts, _ = _facts(listing)
    return digest([facts, listing.classes])


def _facts(listing: Listing) -> tuple[list[list[object]], float]:
    """The metadata of each file, and the latest change time of all files."""
    facts: list[list[object]] = []
    newest = 0.0
    for path in listing.files:
        try:
            status = path.stat()
        except OSError as error:
            raise DataError(
                f"{path} cannot be read ({error.strerror or error}).",
                "Try again while no other program changes the folder.",
            ) from error
        name = path.relative_to(listing.root).as_posix()
        times = status.st_mtime_ns, status.st_ctime_ns
        facts.append([name, status.st_size, *times, status.st_ino])
        newest = max(newest, status.st_ctime)
    return facts, newest


def _sizes_differ(
    first: Path, shape: tuple[int, ...], other: Path, other_shape: tuple[int, ...]
) -> DataError:
    return DataError(
        f"Images differ in size: {first} is {shape[1]} x {shape[0]}, "
        f"but {other} is {other_shape[1]} x {other_shape[0]} pixels.",
        "Use `size=32` to resize the short side to 32 pixels and crop the centre.",
    )

"""Reads a folder of labelled images; decoded images are cached as a memory-mapped table."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import numpy as np

from instahide.data.cache import (
    cache_folder,
    cached_table,
    digest,
    forget_table,
    memory_mapped,
)
from instahide.data.duplicates.content_hash import hashes_from_bytes
from instahide.data.duplicates.source_hash import FILE_HASHES
from instahide.data.labels import strata
from instahide.data.pixels import Pixels, ValueRange, channel_moments, full_range
from instahide.data.readers.any_image import read_image
from instahide.data.readers.decode_listing import decode_listing
from instahide.data.readers.decoded import Decoded
from instahide.data.readers.folder_state import listing_state
from instahide.data.readers.listing import Listing, list_classes
from instahide.data.readers.quiet import quiet_libraries
from instahide.data.readers.row_names import NamedImages, row_names
from instahide.data.readers.skipped import (
    FRAMES,
    OTHER_FOLDERS,
    UNREADABLE,
    UNUSED_PART,
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
from instahide.data.readers.tables.label_table import LabelTable, Parts, list_labelled, split_groups
from instahide.data.readers.window import Window, percentile_range, windowed
from instahide.data.splits import Split, make_split, stratified_split
from instahide.data.table import ImageTable
from instahide.errors import DataError
from instahide.utils.parallel import with_status

#: Version of the decoded tables, part of their name in the cache.
FORMAT = 6


@dataclass(frozen=True)
class Decoding:
    """Settings for decoding image files.

    Attributes:
        size: side of the square in pixels to which images are resized and cropped; None to keep
            their size.
        skip_bad: skip files that cannot be read.
        progress: show a progress bar.
        classes: names of the classes, in the order of their label numbers; None for all.
        window: the range that pixels are clipped to.
        labels: the labels of the files; by default they are the names of their folders.
    """

    size: int | None = None
    skip_bad: bool = False
    progress: bool = True
    classes: tuple[str, ...] | None = None
    window: Window = "full"
    labels: LabelTable | None = None

    def part(self, name: str) -> str:
        """What the cache calls a part of a folder: with a table of labels both are in it."""
        return "all" if self.labels is None else f"labelled {name}"


@dataclass
class _Found:
    """Metadata of the decoded files, see `Decoded`; ``kept`` are the indices of readable files."""

    kept: list[int] = field(default_factory=list)
    skipped: list[Skipped] = field(default_factory=list)
    windows: dict[ValueRange | None, int] = field(default_factory=dict)
    sources: bytearray = field(default_factory=bytearray)
    colored: bool = False

    def add(self, number: int, image: Decoded, name: str) -> None:
        self.kept.append(number)
        self.sources += image.sources
        self.colored |= image.pixels.shape[0] > 1
        self.windows.setdefault(image.window, number)
        if image.further:
            self.skipped.append(Skipped(FRAMES, name))


def open_folder(folder: Path, how: Decoding) -> ImageTable:
    """The images of a folder, or of its training part if it has one."""
    return _open(_parts(folder, how).train, how.part("train"), how)


def open_test_folder(folder: Path, how: Decoding) -> NamedImages:
    """The test images of a folder that comes in two parts, or all images of any other.

    Raises:
        DataError: the images cannot be read.
    """
    images, listing = _open_test(folder, how)
    return NamedImages(images, row_names(folder, listing, len(images)))


def _open_test(folder: Path, how: Decoding) -> tuple[ImageTable, Listing]:
    train, test, split = _parts(folder, how)
    if not split:
        return _open_listed(train, how.part("train"), how)
    # What is beside both parts, and missing files of a table, which are listed once.
    said = {OTHER_FOLDERS, UNUSED_PART} | ({UNREADABLE} if how.labels else set())
    left = [each for each in train.skipped if each.reason in said]
    test = replace(test, skipped=(*left, *test.skipped))
    if how.window == "full" or isinstance(how.window[0], float | int):
        return _open_listed(test, how.part("test"), how)
    shown = _open(train, how.part("train"), how).value_range
    return _open_listed(test, how.part("test"), replace(how, window=shown))


def split_folder(folder: Path, how: Decoding, test_share: float) -> Split:
    """The split that ``folder`` comes in, else a stratified one."""
    train, test, split = _parts(folder, how)
    if split:
        return _pair(train, test, how.part("train"), how.part("test"), how)
    if how.labels is not None:
        return _pair(*split_groups(train, test_share), "drawn train", "drawn test", how)
    train_rows, test_rows = stratified_split(strata(train.labels), test_share)
    # What was left out is said once.
    rest = replace(train.subset(test_rows), skipped=())
    return _pair(train.subset(train_rows), rest, "train", "test", how)


def _parts(folder: Path, how: Decoding) -> Parts:
    """The files of ``folder`` for training and for testing."""
    with with_status("Looking for image files", how.progress):
        return _found_parts(folder, how)


def _found_parts(folder: Path, how: Decoding) -> Parts:
    if how.labels is not None:
        return list_labelled(folder, how.labels, how.classes, skip_bad=how.skip_bad)
    parts = find_split_folders(folder, how.classes)
    if parts is None:
        whole = _listing(folder, how)
        return Parts(whole, whole, split=False)
    train = _listing(parts.train, how, _other_folders(parts))
    return Parts(train, _listing(parts.test, replace(how, classes=train.classes)), split=True)


def _pair(train: Listing, test: Listing, first: str, second: str, how: Decoding) -> Split:
    trained = _open(train, first, how)
    if how.window != "full":
        # Test images are shown through the window of the training images.
        how = replace(how, window=trained.value_range)
    return make_split(trained, _open(test, second, how))


def _listing(folder: Path, how: Decoding, others: Sequence[Skipped] = ()) -> Listing:
    listing = list_classes(folder, how.classes, skip_bad=how.skip_bad)
    require_no_split_classes(folder)
    return replace(listing, skipped=(*others, *listing.skipped))


def _other_folders(parts: SplitFolders) -> list[Skipped]:
    return [Skipped(OTHER_FOLDERS, str(path)) for path in parts.others]


def _open(listing: Listing, part: str, how: Decoding) -> ImageTable:
    """The decoded images, from the cache if they are there; warns of what was left out."""
    return _open_listed(listing, part, how)[0]


def _open_listed(listing: Listing, part: str, how: Decoding) -> tuple[ImageTable, Listing]:
    """As `_open`, with the files that were read: one for each row, in order."""
    options = [part, how.size, how.skip_bad, how.window]
    name = f"folder-{digest([FORMAT, str(listing.root.resolve()), *options])}"
    with with_status("Checking image files", how.progress):
        state = listing_state(listing)
    path = cache_folder() / name / f".notes-{state}.json"
    make = partial(_decode_unchanged, listing, how, path, state)
    table = cached_table(name, state, make, source=listing.root)
    notes = read_notes(path)
    if len(notes.kept or listing.files) != len(table):
        # Without its notes nobody knows which rows are which files.
        forget_table(name, state)
        table = cached_table(name, state, make, source=listing.root)
        notes = read_notes(path)
    # The warning is shown at every opening, not only when the files are decoded.
    _warn(listing, notes.skipped)
    read = listing.subset(np.asarray(notes.kept, np.int64)) if notes.kept else listing
    # Not in the cache: it holds no names, nor hashes of names that could be guessed.
    return table.grouped(read.groups) if read.groups else table, read


def _warn(listing: Listing, skipped: Sequence[Skipped]) -> None:
    gone = sum(reason == UNREADABLE for reason, _ in listing.skipped)
    warn_of_skipped(listing.root, [*listing.skipped, *skipped], len(listing.files) + gone)


def _decode_unchanged(listing: Listing, how: Decoding, notes: Path, state: str) -> ImageTable:
    """`_decode`, with a check that no file changed during it.

    Raises:
        DataError: a file changed, so that the decoded images do not belong to ``state``.
    """
    table = _decode(listing, how, notes)
    if listing_state(listing) != state:
        raise DataError(
            f"Files of {listing.root} were changed while they were read.",
            "Try again while no other program changes the folder.",
        )
    return table


def _decode(listing: Listing, how: Decoding, notes: Path) -> ImageTable:
    found = _Found()
    with quiet_libraries():
        pixels = memory_mapped(_rows(listing, how, found), cache_folder())
    if not found.kept:
        _warn(listing, found.skipped)
        raise DataError(
            f"No image of {listing.root} can be read.", "Check that the files are images."
        )
    write_notes(notes, Notes(found.skipped, found.kept))
    # Color is known only at the end: grey images were written three times over.
    pixels = pixels if found.colored else pixels[:, :1]
    value_range = _value_range(pixels, how.window, found, listing)
    pixels = windowed(pixels, value_range, cache_folder())
    mean, std = channel_moments(pixels, value_range)
    return ImageTable(
        pixels,
        listing.labels[found.kept],
        listing.classes,
        mean,
        std,
        hashes_from_bytes(found.sources, FILE_HASHES),
        value_range,
        listing.task,
    )


def _value_range(pixels: Pixels, window: Window, found: _Found, listing: Listing) -> ValueRange:
    if window == "full":
        return full_range(pixels)
    if window == "file":
        return _stated(found, listing)
    first, second = window
    if isinstance(first, str) and isinstance(second, str):
        return percentile_range(pixels, (first, second))
    return float(first), float(second)


def _stated(found: _Found, listing: Listing) -> ValueRange:
    """The window that all files state."""
    (window, first), *others = found.windows.items()
    if window is None or others:
        name = listing.name(first)
        problem = f"{name} states no window of values"
        if others:
            number = others[0][1]
            problem = f"{name} states another window of values than {listing.name(number)}"
        raise DataError(
            f"{problem}.", "Give the same for all, as in `window=(-1000, 400)` or ('1%', '99%')."
        )
    return window


def _rows(listing: Listing, how: Decoding, found: _Found) -> Generator[Pixels, None, None]:
    """The pixels of every file that can be read; ``found`` takes the rest."""
    read: Callable[[Path], Decoded] = partial(read_image, size=how.size)
    first: tuple[tuple[int, ...], str] | None = None
    bad: list[Skipped] | None = found.skipped if how.skip_bad else None
    images = decode_listing(listing.files, read, bad, shown=how.progress, rows=listing.rows)
    with closing(images):
        for number, image in images:
            pixels = _colors(image.pixels)
            kind = pixels.shape, pixels.dtype.name
            first = first or kind
            if kind != first:
                raise _kinds_differ(listing, found.kept[0], first, number, kind)
            found.add(number, image, listing.name(number))
            yield pixels


def _colors(pixels: Pixels) -> Pixels:
    """Grey 8-bit images as color, which others of the folder may be."""
    if pixels.dtype != np.uint8 or pixels.shape[0] != 1 or pixels.ndim != 3:
        return pixels
    return np.broadcast_to(pixels, (3, *pixels.shape[1:]))


def _kinds_differ(
    listing: Listing,
    first: int,
    kind: tuple[tuple[int, ...], str],
    other: int,
    other_kind: tuple[tuple[int, ...], str],
) -> DataError:
    names = listing.name(first), listing.name(other)
    if kind[0][:-2] == other_kind[0][:-2] and kind[1] == other_kind[1]:
        (*_, height, width), (*_, other_height, other_width) = kind[0], other_kind[0]
        return DataError(
            f"Images differ in size: {names[0]} is {width} x {height}, "
            f"but {names[1]} is {other_width} x {other_height} pixels.",
            "Use `size=32` to resize the short side to 32 pixels and crop the centre.",
        )
    return DataError(
        f"Images differ in kind: {names[0]} is {_quoted(*kind)}, "
        f"but {names[1]} is {_quoted(*other_kind)}.",
        "Bring all images to one type and one number of channels and slices.",
    )


def _quoted(shape: tuple[int, ...], dtype: str) -> str:
    return f"{dtype} of {' x '.join(map(str, shape))}"

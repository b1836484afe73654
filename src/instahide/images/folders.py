"""A folder of class folders, decoded once and kept as a memory-mapped table."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from instahide.errors import InstaHideError
from instahide.images.cache import cache_folder, cached, digest, stored
from instahide.images.decode import Decoded, decode_file, require_one_depth
from instahide.images.listing import Listing, list_classes
from instahide.images.origin import FILE_HASHES
from instahide.images.parallel import in_order, tracked
from instahide.images.parts import Parts, find_parts, require_classes_apart
from instahide.images.pictures import from_bytes
from instahide.images.skipped import (
    BESIDE,
    FRAMES,
    UNREADABLE,
    Skipped,
    read_skipped,
    warn_of_skipped,
    write_skipped,
)
from instahide.images.splits import Split, labelled, paired, stratified
from instahide.images.table import ImageTable

Read = TypeVar("Read")

#: Part of a decode's name in the cache: an older release kept no hashes of sources.
FORMAT = 2


@dataclass(frozen=True)
class Decoding:
    """How image files become rows.

    Attributes:
        size: of the square that images are brought to; none: as they are.
        skip_bad: leave out files that cannot be read.
        progress: show a bar.
        classes: the class folders there may be, in the order of their numbers.
    """

    size: int | None = None
    skip_bad: bool = False
    progress: bool = True
    classes: tuple[str, ...] | None = None


def open_folder(folder: Path, how: Decoding) -> ImageTable:
    """The images of a folder of class folders, or of its training folder if it has one."""
    parts = find_parts(folder, how.classes)
    return _table(_listing(parts.train if parts else folder, how, _beside(parts)), "all", how)


def open_test_folder(folder: Path, how: Decoding) -> ImageTable:
    """The test images of a folder that comes in two parts, or all images of any other."""
    parts = find_parts(folder, how.classes)
    if parts is None:
        return open_folder(folder, how)
    trained = replace(how, classes=_listing(parts.train, how).classes)
    return _table(_listing(parts.test, trained, _beside(parts)), "all", how)


def split_folder(folder: Path, how: Decoding, test_share: float) -> Split:
    """The split that ``folder`` comes in, else a stratified one."""
    parts = find_parts(folder, how.classes)
    if parts:
        train = _listing(parts.train, how, _beside(parts))
        test = _listing(parts.test, replace(how, classes=train.classes))
        return paired(_table(train, "all", how), _table(test, "all", how))
    whole = _listing(folder, how)
    train_rows, test_rows = stratified(whole.labels, test_share)
    return paired(
        _table(whole.subset(train_rows), "train", how),
        # What was left out is said once.
        _table(replace(whole.subset(test_rows), skipped=()), "test", how),
    )


def decoded(
    files: tuple[Path, ...],
    read: Callable[[Path], Read],
    skipped: list[Skipped] | None,
    *,
    workers: int | None = None,
    shown: bool = True,
) -> Generator[tuple[int, Read], None, None]:
    """(number of the file, what ``read`` made of it), in order, read on threads.

    Files that ``read`` refuses are added to ``skipped``.

    Raises:
        InstaHideError: ``read`` refuses a file and ``skipped`` is None.
    """

    def attempt(path: Path) -> Read | InstaHideError:
        try:
            return read(path)
        except InstaHideError as error:
            return error

    results = tracked(in_order(attempt, files, workers), "Reading images", len(files), shown)
    with closing(results):
        for number, result in enumerate(results):
            if not isinstance(result, InstaHideError):
                yield number, result
            elif skipped is not None:
                skipped.append(Skipped(UNREADABLE, result.problem))
            else:
                raise result


def _listing(folder: Path, how: Decoding, beside: Sequence[Skipped] = ()) -> Listing:
    listing = list_classes(folder, how.classes, skip_bad=how.skip_bad)
    require_classes_apart(folder)
    return replace(listing, skipped=(*beside, *listing.skipped))


def _beside(parts: Parts | None) -> list[Skipped]:
    return [Skipped(BESIDE, str(path)) for path in parts.others] if parts else []


def _table(listing: Listing, part: str, how: Decoding) -> ImageTable:
    name = f"folder-{digest([FORMAT, str(listing.root.resolve()), part, how.size, how.skip_bad])}"
    state = _state(listing)
    notes = cache_folder() / name / f".skipped-{state}.json"
    table = cached(name, state, partial(_decode, listing, how, notes), source=listing.root)
    # Said at every opening, not only when the files are decoded.
    _warn(listing, read_skipped(notes))
    return table


def _warn(listing: Listing, skipped: Sequence[Skipped]) -> None:
    gone = sum(reason == UNREADABLE for reason, _ in listing.skipped)
    warn_of_skipped(listing.root, [*listing.skipped, *skipped], len(listing.files) + gone)


def _decode(listing: Listing, how: Decoding, notes: Path) -> ImageTable:
    kept: list[int] = []
    colours: set[bool] = set()
    skipped: list[Skipped] = []
    sources = bytearray()
    pixels = stored(_rows(listing, how, kept, colours, skipped, sources), cache_folder())
    if not kept:
        _warn(listing, skipped)
        raise InstaHideError(
            f"No image of {listing.root} can be read.", "Check that the files are images."
        )
    write_skipped(notes, skipped)
    # Colour is known only at the end: grey images were written three times over.
    pixels = pixels if True in colours else pixels[:, :1]
    hashes = from_bytes(sources, FILE_HASHES)
    return labelled(pixels, listing.labels[kept], listing.classes, hashes)


def _rows(
    listing: Listing,
    how: Decoding,
    kept: list[int],
    colours: set[bool],
    skipped: list[Skipped],
    sources: bytearray,
) -> Generator[NDArray[np.uint8], None, None]:
    """(3, H, W) of every file.

    ``kept`` takes its number, ``colours`` whether it has colour, ``skipped`` what was left out,
    ``sources`` its hashes.
    """
    read: Callable[[Path], Decoded] = partial(decode_file, size=how.size)
    first: tuple[int, ...] = ()
    depths: dict[int, Path] = {}
    bad: list[Skipped] | None = skipped if how.skip_bad else None
    with closing(decoded(listing.files, read, bad, shown=how.progress)) as images:
        for number, (image, further, depth, hashes) in images:
            require_one_depth(depths, depth, listing.files[number])
            if further:
                skipped.append(Skipped(FRAMES, str(listing.files[number])))
            shape = image.shape[:2]
            first = first or shape
            if shape != first:
                raise _sizes_differ(listing.files[kept[0]], first, listing.files[number], shape)
            kept.append(number)
            sources += hashes
            colours.add(image.ndim == 3)
            yield np.broadcast_to(np.atleast_3d(image).transpose(2, 0, 1), (3, *shape))


def _state(listing: Listing) -> str:
    facts = []
    for path in listing.files:
        try:
            status = path.stat()
        except OSError as error:
            raise InstaHideError(
                f"{path} cannot be read ({error.strerror or error}).",
                "Try again when nobody changes the folder.",
            ) from error
        name = path.relative_to(listing.root).as_posix()
        facts.append([name, status.st_size, status.st_mtime_ns])
    return digest([facts, listing.classes])


def _sizes_differ(
    first: Path, shape: tuple[int, ...], other: Path, other_shape: tuple[int, ...]
) -> InstaHideError:
    return InstaHideError(
        f"Images differ in size: {first} is {shape[1]} x {shape[0]}, "
        f"but {other} is {other_shape[1]} x {other_shape[0]} pixels.",
        "Use --size N to resize the short side to N pixels and crop the centre.",
    )

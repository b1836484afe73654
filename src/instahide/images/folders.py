"""A folder of class folders, decoded once and kept as a memory-mapped table."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from instahide.errors import InstaHideError
from instahide.images.cache import cache_folder, cached, digest, stored
from instahide.images.decode import decode, report_skipped
from instahide.images.listing import Listing, list_classes
from instahide.images.parallel import in_order, tracked
from instahide.images.splits import Split, labelled, paired, stratified
from instahide.images.table import ImageTable

TEST_FOLDERS = ("test", "val", "valid", "validation")


@dataclass(frozen=True)
class Decoding:
    """How image files become rows: square size or as they are, bad ones skipped or refused."""

    size: int | None = None
    skip_bad: bool = False
    progress: bool = True


def open_folder(folder: Path, how: Decoding) -> ImageTable:
    """The images of a folder of class folders, or of its ``train`` folder if it has one."""
    parts = _parts(folder)
    return _table(list_classes(parts[0] if parts else folder), "all", how)


def open_test_folder(folder: Path, how: Decoding) -> ImageTable:
    """The test images of a folder that comes in two parts, or all images of any other."""
    parts = _parts(folder)
    if parts is None:
        return open_folder(folder, how)
    return _table(list_classes(parts[1], list_classes(parts[0]).classes), "all", how)


def split_folder(folder: Path, how: Decoding, test_share: float) -> Split:
    """The split that ``folder`` comes in (``train`` and ``test``), else a stratified one."""
    parts = _parts(folder)
    if parts:
        train = list_classes(parts[0])
        test = list_classes(parts[1], train.classes)
        return paired(_table(train, "all", how), _table(test, "all", how))
    whole = list_classes(folder)
    train_rows, test_rows = stratified(whole.labels, test_share)
    return paired(
        _table(whole.subset(train_rows), "train", how),
        _table(whole.subset(test_rows), "test", how),
    )


def decoded(
    files: tuple[Path, ...],
    read: Callable[[Path], NDArray[np.uint8]],
    skip_bad: bool,
    *,
    workers: int | None = None,
    shown: bool = True,
) -> Generator[tuple[int, NDArray[np.uint8]], None, None]:
    """(number of the file, what ``read`` made of it), in order, read on threads.

    Raises:
        InstaHideError: ``read`` refuses a file and ``skip_bad`` is off.
    """

    def attempt(path: Path) -> NDArray[np.uint8] | InstaHideError:
        try:
            return read(path)
        except InstaHideError as error:
            return error

    skipped: list[InstaHideError] = []
    results = tracked(in_order(attempt, files, workers), "Reading images", len(files), shown)
    with closing(results):
        for number, result in enumerate(results):
            if not isinstance(result, InstaHideError):
                yield number, result
            elif skip_bad:
                skipped.append(result)
            else:
                raise result
    report_skipped(skipped, len(files))


def _parts(folder: Path) -> tuple[Path, Path] | None:
    tests = [folder / name for name in TEST_FOLDERS if (folder / name).is_dir()]
    return (folder / "train", tests[0]) if tests and (folder / "train").is_dir() else None


def _table(listing: Listing, part: str, how: Decoding) -> ImageTable:
    name = digest([str(listing.root.resolve()), part, how.size, how.skip_bad])
    make = partial(_decode, listing, how)
    return cached(f"folder-{name}", _state(listing), make, source=listing.root)


def _decode(listing: Listing, how: Decoding) -> ImageTable:
    kept: list[int] = []
    colours: set[bool] = set()
    pixels = stored(_rows(listing, how, kept, colours), cache_folder())
    if not kept:
        raise InstaHideError(
            f"No image of {listing.root} can be read.", "Check that the files are images."
        )
    # Colour is known only at the end: grey images were written three times over.
    pixels = pixels if True in colours else pixels[:, :1]
    return labelled(pixels, listing.labels[kept], listing.classes)


def _rows(
    listing: Listing, how: Decoding, kept: list[int], colours: set[bool]
) -> Generator[NDArray[np.uint8], None, None]:
    """(3, H, W) of every file; ``kept`` takes its number, ``colours`` whether it has colour."""
    read = partial(decode, size=how.size)
    first: tuple[int, ...] = ()
    with closing(decoded(listing.files, read, how.skip_bad, shown=how.progress)) as images:
        for number, image in images:
            shape = image.shape[:2]
            first = first or shape
            if shape != first:
                raise _sizes_differ(listing.files[kept[0]], first, listing.files[number], shape)
            kept.append(number)
            colours.add(image.ndim == 3)
            yield np.broadcast_to(np.atleast_3d(image).transpose(2, 0, 1), (3, *shape))


def _state(listing: Listing) -> str:
    facts = []
    for path in listing.files:
        status = path.stat()
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

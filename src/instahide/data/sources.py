"""Opening labelled images by name, path or URL: `open_images`, `open_split`, `open_test`."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypedDict, Unpack

import numpy as np
from numpy.typing import NDArray

from instahide.data.builtin import BUILTIN
from instahide.data.cache import cache_folder, memory_mapped
from instahide.data.class_names import class_list, with_classes
from instahide.data.pixels import UNIT, convert_pixels
from instahide.data.readers.arrays.cifar import (
    is_cifar_folder,
    read_cifar_archive,
    read_cifar_folder,
)
from instahide.data.readers.arrays.idx import idx_files, labels_names, read_idx, read_idx_folder
from instahide.data.readers.arrays.numpy import labels_name, read_npy, read_npz
from instahide.data.readers.decoded import resize
from instahide.data.readers.image_folder import (
    Decoding,
    open_folder,
    open_test_folder,
    split_folder,
)
from instahide.data.readers.row_names import NamedImages
from instahide.data.readers.tables.label_table import LabelTable
from instahide.data.readers.window import (
    Window,
    clipped,
    is_stated,
    percentile_range,
    require_window,
)
from instahide.data.remote.downloads import local_copy
from instahide.data.splits import Split, make_split, require_trainable, split_table
from instahide.data.table import ImageTable
from instahide.errors import DataError, InstaHideError

#: Share of every class that becomes test images, where a source has no test part.
TEST_SHARE = 0.2


class ReadOptions(TypedDict, total=False):
    """Arguments that `open_images`, `open_split` and `open_test` share."""

    size: int | None
    skip_bad: bool
    progress: bool
    window: Window
    rescale: bool
    labels: LabelTable | None


def open_images(
    source: str | Path,
    *,
    size: int | None = None,
    skip_bad: bool = False,
    progress: bool = True,
    classes: Sequence[str] | None = None,
    window: Window = "full",
    rescale: bool = False,
    labels: LabelTable | None = None,
) -> ImageTable:
    """Open labelled images. A source with training and test images gives its training images.

    A `SkippedWarning` lists parts of the source that were not read: files of other types, further
    frames or pages of an image file, folders next to the training and test images.

    Args:
        source: a built-in name (`digits`, `mnist-5k`, `fashion-mnist`); the path of a folder of
            class folders, of a ``.npy`` or ``.npz`` file, of IDX files, or of CIFAR-10 or CIFAR-100
            (python version); or a URL of one, such as ``s3://bucket/images.npz``, which is copied
            to the cache. For a folder that has a built-in name, write ``./digits``.
        size: resize the short side to this many pixels and crop the centre; None keeps the size.
        skip_bad: warn of image files that cannot be read and skip them, instead of raising.
        progress: show a progress bar while image files are downloaded and decoded.
        classes: the names of all classes, in the order that participants agreed on. The source may
            lack some of them, but may have no others. By default the names in the source.
        window: the range of values that pixels are clipped to, which becomes the `value_range`:
            ``full`` (0 to 255 for 8-bit pixels, else all values that there are), two values as in
            ``(-1000, 400)``, two percentiles of all pixels as in ``("1%", "99%")``, or ``file``
            (the window that DICOM files state). The type of the pixels is kept.
        rescale: scale pixels linearly, the range that ``window`` keeps to 0 to 1, as float32.
            Images of scanners with different bit depths or units are then alike. The window must be
            two values or ``file``, or the pixels have 8 bits.
        labels: a CSV or Parquet file with the labels of the images in a folder, which then needs no
            class folders.

    Raises:
        InstaHideError: the source is missing, damaged, or of no known format; ``size`` is below 1;
            or the source has a class that is not in ``classes``.

    Examples:
        >>> from instahide import open_images
        >>> open_images("digits")
        ImageTable(1438 of (1, 8, 8), 10 classes)
    """
    how = _decoding(size, skip_bad, progress, classes, window, labels)
    source = local_copy(source, companions=_labels_of, progress=progress)
    if _is_image_folder(source):
        table = open_folder(Path(source), how)
    else:
        read = _read(source, labels)
        table = _prepared(read.train if isinstance(read, Split) else read, how)
    return rescaled(table, window) if rescale else table


def open_split(
    source: str | Path,
    *,
    size: int | None = None,
    test_share: float = TEST_SHARE,
    skip_bad: bool = False,
    progress: bool = True,
    classes: Sequence[str] | None = None,
    window: Window = "full",
    rescale: bool = False,
    labels: LabelTable | None = None,
) -> Split:
    """Open training and test images.

    A source with two parts keeps them: IDX and CIFAR files, arrays, and a folder that holds
    ``train`` and ``test`` or ``val`` (other spellings such as `Training` are recognised).
    Otherwise ``test_share`` of every class becomes test images, the same ones every time.

    Args:
        source: as for `open_images`.
        size: as for `open_images`.
        test_share: share of every class, between 0 and 1, that becomes test images if the source
            has no test part.
        skip_bad: as for `open_images`.
        progress: as for `open_images`.
        classes: as for `open_images`.
        window: as for `open_images`; measured on the training images.
        rescale: as for `open_images`.
        labels: as for `open_images`; its split column names the parts. Without one, all images of
            a group come into one part.

    Returns:
        A `Split`: ``train`` and ``test``, both of type `ImageTable` and with the normalization of
        the training images.

    Raises:
        InstaHideError: as for `open_images`; or there are too few images for two parts, or fewer
            than two classes.

    Examples:
        >>> from instahide import open_split
        >>> train, test = open_split("digits")
        >>> len(train), len(test)
        (1438, 359)
    """
    how = _decoding(size, skip_bad, progress, classes, window, labels)
    source = local_copy(source, companions=_labels_of, progress=progress)
    if _is_image_folder(source):
        split = split_folder(Path(source), how, test_share)
    else:
        split = _prepared_split(_read(source, labels), how, test_share)
    if rescale:
        split = Split(rescaled(split.train, window), rescaled(split.test, window))
    return require_trainable(split)


def open_test(
    source: str | Path,
    *,
    size: int | None = None,
    skip_bad: bool = False,
    progress: bool = True,
    classes: Sequence[str] | None = None,
    window: Window = "full",
    rescale: bool = False,
    labels: LabelTable | None = None,
) -> ImageTable:
    """Open test images: the test images of a source, or all images if it has no test part.

    Built-in sets have a test part, and so do sources with two parts; see `open_split`.

    Raises:
        InstaHideError: as `open_images`.
    """
    how = _decoding(size, skip_bad, progress, classes, window, labels)
    return _open_test(source, how, rescale=rescale).images


def open_named_test(source: str | Path, **options: Unpack[ReadOptions]) -> NamedImages:
    """As `open_test`, with the names of the files and groups of a folder of images.

    The names are apart from the table, so that no copy of the table holds them: neither a file, nor
    what is sent to another process.

    Raises:
        InstaHideError: as `open_images`.

    Examples:
        >>> from instahide.data.sources import open_named_test
        >>> images, names = open_named_test("digits")
        >>> len(images), names
        (359, None)
    """
    how = _decoding(
        options.get("size"), options.get("skip_bad", False), options.get("progress", True), None,
        options.get("window", "full"), options.get("labels"),
    )  # fmt: skip
    return _open_test(source, how, rescale=options.get("rescale", False))


def _open_test(source: str | Path, how: Decoding, *, rescale: bool) -> NamedImages:
    builtin = str(source) in BUILTIN
    source = local_copy(source, companions=_labels_of, progress=how.progress)
    names = None
    if _is_image_folder(source):
        images, names = open_test_folder(Path(source), how)
    else:
        read = _read(source, how.labels)
        if builtin or isinstance(read, Split):
            images = require_trainable(_prepared_split(read, how)).test
        else:
            images = _prepared(read, how)
    return NamedImages(rescaled(images, how.window) if rescale else images, names)


def _labels_of(name: str) -> tuple[str, ...]:
    """Names of files that may hold the labels of the image file ``name``."""
    if name.endswith(".npy"):
        return (labels_name(name),)
    return labels_names(name) if "idx3" in name else ()


def _is_image_folder(source: str | Path) -> bool:
    path = Path(source)
    try:
        folder = str(source) not in BUILTIN and path.is_dir()
    except OSError as error:  # The name is too long, or the folder is not accessible.
        raise DataError(
            f"Cannot read {source} ({error.strerror or error}).",
            "Check the path and its permissions.",
        ) from error
    return folder and not idx_files(path) and not is_cifar_folder(path)


def _read(source: str | Path, labels: LabelTable | None) -> ImageTable | Split:
    path = Path(source)
    if labels is not None:
        raise DataError(
            f"{source} has labels of its own, and is no folder of image files.",
            "Leave out `labels=`.",
        )
    if str(source) in BUILTIN:
        return BUILTIN[str(source)]()
    if path.is_dir():
        return read_cifar_folder(path) if is_cifar_folder(path) else read_idx_folder(path)
    if not path.exists():
        raise DataError(
            f"There is no {source}.",
            f"Give the path of a folder or file, or one of {', '.join(BUILTIN)}.",
        )
    if path.suffix == ".npz":
        return read_npz(path)
    if path.suffix == ".npy":
        return read_npy(path)
    if path.suffix in (".tar", ".tgz") or path.name.endswith(".tar.gz"):
        return read_cifar_archive(path)
    if "idx3" in path.name:
        return read_idx(path)
    raise DataError(
        f"The format of {path} is not supported.",
        "Give a folder of class folders, .npz, .npy, IDX files, or a CIFAR archive.",
    )


def _decoding(
    size: int | None,
    skip_bad: bool,
    progress: bool,
    classes: Sequence[str] | None,
    window: Window,
    labels: LabelTable | None,
) -> Decoding:
    if size is not None and size < 1:
        raise InstaHideError(f"size must be at least 1, not {size}.", "Use `size=32`, say.")
    return Decoding(size, skip_bad, progress, class_list(classes), require_window(window), labels)


def _prepared(table: ImageTable, how: Decoding) -> ImageTable:
    """``table`` in the size, window and classes of ``how``."""
    return with_classes(_windowed(_resized(table, how.size), how.window), how.classes)


def _prepared_split(
    read: ImageTable | Split, how: Decoding, test_share: float = TEST_SHARE
) -> Split:
    """Both parts in the size, classes and window of ``how``, measured on the training images."""
    whole = read if isinstance(read, Split) else split_table(read, test_share)
    train = _prepared(whole.train, how)
    shown = how if how.window == "full" else replace(how, window=train.value_range)
    return make_split(train, _prepared(whole.test, shown))


def _resized(table: ImageTable, size: int | None) -> ImageTable:
    if size is None or table.shape[1:] == (size, size):
        return table
    return table.with_pixels(resize(table.pixels, size), table.value_range).measured()


def _windowed(table: ImageTable, window: Window) -> ImageTable:
    """``table`` with its pixels clipped to ``window``."""
    if require_window(window) == "full":
        return table
    if isinstance(window, str):
        raise DataError("Only DICOM files state a window.", "Use `window=(0, 4095)`, say.")
    first, second = window
    if isinstance(first, str) and isinstance(second, str):
        value_range = percentile_range(table.pixels, (first, second))
    else:
        value_range = float(first), float(second)
    return clipped(table, value_range).measured()


def rescaled(table: ImageTable, window: Window) -> ImageTable:
    """``table`` with float32 pixels from 0 to 1, in place of its range of values.

    Mean and std stay, as they are in this unit already.

    Args:
        table: images.
        window: the window with which they were read.

    Raises:
        DataError: the range was measured, so that 0 and 1 would mean something else for other
            images of the same scanner.
    """
    if not is_stated(window, table.pixels):
        raise DataError(
            "Pixels are to be rescaled, but the range of their scanner is not stated. A range that "
            "is measured differs from one set of images to the next.",
            "State it by two values, as in `window=(0, 4095)`.",
        )

    def rows() -> Generator[NDArray[np.float32], None, None]:
        for row in table.pixels:
            unit = convert_pixels(row[None], table.value_range, np.dtype(np.float32), UNIT)
            yield unit[0].astype(np.float32, copy=False)

    return table.with_pixels(memory_mapped(rows(), cache_folder()), UNIT)

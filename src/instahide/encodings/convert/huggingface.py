"""Hugging Face `datasets`: a column ``image`` (C, H, W) and a column ``label`` (classes).

Either a folder of Arrow files, as of ``save_to_disk``, or Parquet. Untrusted files are read by
Arrow without their metadata, because a "feature" in it may name a file to open.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from instahide.encodings.convert.arrow_limits import (
    require_plain_stream,
    require_plausible_parquet,
)
from instahide.encodings.manifest import Manifest
from instahide.encodings.shards import EncodedArrays
from instahide.errors import DamagedFileError
from instahide.utils.atomic_write import require_regular
from instahide.utils.optional_deps import requires_extra

if TYPE_CHECKING:
    import pyarrow
    from datasets import Dataset

COLUMNS = ("image", "label")


def write_arrow(blocks: Iterable[EncodedArrays], manifest: Manifest, folder: Path) -> None:
    """Write a folder for ``datasets.load_from_disk``.

    Raises:
        InstaHideError: `datasets` is not installed.
    """
    _require_datasets()
    from datasets import concatenate_datasets, load_from_disk

    with _quietly(), tempfile.TemporaryDirectory(dir=folder) as staged:
        parts = []
        for number, block in enumerate(blocks):
            part = f"{staged}/{number}"
            _dataset(block).save_to_disk(part)
            # Memory-mapped from now on.
            parts.append(load_from_disk(part))
        concatenate_datasets(parts).save_to_disk(folder)


def write_parquet(blocks: Iterable[EncodedArrays], manifest: Manifest, folder: Path) -> None:
    """Write a folder for ``datasets.load_dataset``, with the split ``train``.

    Raises:
        InstaHideError: `datasets` is not installed.
    """
    _require_datasets()
    from pyarrow import parquet

    for number, block in enumerate(blocks):
        # Uncompressed, because encodings look like noise.
        parquet.write_table(
            _dataset(block).data.table,
            folder / f"train-{number:05d}-of-{len(manifest.shards):05d}.parquet",
            compression="none",
            use_dictionary=False,
        )


def read_arrow(folder: Path, most: int) -> Iterator[EncodedArrays]:
    """Blocks of ``most`` encodings from the Arrow files of a folder, memory-mapped.

    Raises:
        InstaHideError: `datasets` is not installed, or columns are missing.
    """
    _require_datasets()
    import pyarrow

    for path in sorted(folder.glob("*.arrow")):
        require_regular(path)
        with pyarrow.memory_map(str(path)) as file:
            require_plain_stream(file)
            file.seek(0)
            table = pyarrow.ipc.open_stream(file).read_all()
        for start in range(0, len(table), most):
            yield _block(table.slice(start, most), path)


def read_parquet(folder: Path, most: int) -> Iterator[EncodedArrays]:
    """Blocks of ``most`` encodings from the Parquet files of a folder.

    Raises:
        InstaHideError: `datasets` is not installed, or columns are missing.
    """
    _require_datasets()
    import pyarrow
    from pyarrow.parquet import ParquetFile

    for path in sorted(folder.glob("*.parquet")):
        require_regular(path)
        with ParquetFile(path) as file:
            require_plausible_parquet(file, path.stat().st_size)
            for batch in file.iter_batches(most):
                yield _block(pyarrow.Table.from_batches([batch]), path)


def _require_datasets() -> None:
    with requires_extra("datasets", "huggingface"):
        import datasets  # noqa: F401


def _dataset(block: EncodedArrays) -> Dataset:
    from datasets import Array3D, Array4D, Dataset, Features, List, Value

    images, labels = block
    array = Array4D if images.ndim == 5 else Array3D
    features = Features(
        image=array(images.shape[1:], str(images.dtype)),
        label=List(Value("float32"), length=labels.shape[1]),
    )
    return Dataset.from_dict({"image": images, "label": labels}, features)


def _block(table: pyarrow.Table, path: Path) -> EncodedArrays:
    from datasets import Dataset

    if not set(COLUMNS) <= set(table.column_names):
        raise DamagedFileError(
            f"{path} has the columns {', '.join(table.column_names)}.",
            f"Name them {' and '.join(COLUMNS)}.",
        )
    table = table.select(COLUMNS).replace_schema_metadata(None)
    table.validate(full=True)
    rows = Dataset(table).with_format("numpy")[:]
    images, labels = (rows[name] for name in COLUMNS)
    return images, labels


@contextmanager
def _quietly() -> Iterator[None]:
    """Disable the progress bars of `datasets`; the caller shows its own."""
    from datasets import (
        are_progress_bars_disabled,
        disable_progress_bars,
        enable_progress_bars,
    )

    if are_progress_bars_disabled():
        yield
        return
    disable_progress_bars()
    try:
        yield
    finally:
        enable_progress_bars()

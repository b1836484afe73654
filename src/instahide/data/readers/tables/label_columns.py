"""Columns of a CSV or Parquet file as texts."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from instahide.data.readers.size_limits import require_plausible_size
from instahide.errors import DataError
from instahide.utils.atomic_write import open_regular, read_regular
from instahide.utils.optional_deps import requires_extra

if TYPE_CHECKING:
    import pyarrow as pa

#: Columns by name, with one text for each row; empty for a missing value.
Columns: TypeAlias = dict[str, list[str]]

#: Largest size of a CSV file in bytes: ten million rows of 25 bytes.
MOST_BYTES = 1 << 28
#: Largest number of rows.
MOST_ROWS = 10_000_000


def read_columns(path: Path, wanted: Sequence[str]) -> Columns:
    """The ``wanted`` columns of a table, with the texts of all rows; a name may occur twice.

    Raises:
        DataError: the file cannot be read, or lacks a column.
    """
    wanted = list(dict.fromkeys(wanted))
    if path.suffix.lower() in (".parquet", ".pq"):
        return _from_parquet(path, wanted)
    try:
        text = read_regular(path, MOST_BYTES).decode("utf-8-sig")
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "it is too large or not UTF-8"
        raise DataError(
            f"The table {path} cannot be read ({reason}).", "Name a CSV or Parquet file."
        ) from None
    return _from_csv(path, text, wanted)


def _from_csv(path: Path, text: str, wanted: Sequence[str]) -> Columns:
    head = text.split("\n", 1)[0]
    lines = csv.reader(io.StringIO(text, newline=""), delimiter=max(",;\t", key=head.count))
    try:
        header = [name.strip() for name in next(lines, [])]
        places = [_place(path, header, name) for name in wanted]
        columns: Columns = {name: [] for name in wanted}
        for number, fields in enumerate(filter(None, lines), 1):
            if len(fields) != len(header):
                raise DataError(
                    f"Row {number} of {path} has {len(fields)} fields, but the first line names "
                    f"{len(header)} columns.",
                    "Write all fields of every row; quote texts that contain a separator.",
                )
            if number > MOST_ROWS:
                raise DataError(
                    f"The table {path} has more than {MOST_ROWS:,} rows.", "Divide it into parts."
                )
            for name, place in zip(wanted, places, strict=True):
                columns[name].append(fields[place].strip())
    except csv.Error as error:
        raise DataError(
            f"The table {path} is not a readable CSV file ({error}).", "Save it as CSV again."
        ) from None
    return columns


def _place(path: Path, header: list[str], name: str) -> int:
    if header.count(name) != 1:
        raise DataError(
            f"{path} has {header.count(name) or 'no'} columns named {name!r}.",
            f"Its first line names {', '.join(header[:20])}; see `image_column=`, "
            "`label_columns=`, `group_column=` and `split_column=`.",
        )
    return header.index(name)


def _from_parquet(path: Path, columns: Sequence[str]) -> Columns:
    with requires_extra("pyarrow", "medical"):
        import pyarrow as pa
        import pyarrow.parquet as pq

    problem = f"The table {path} is not a readable Parquet file."
    try:
        with open_regular(path) as file:
            file_bytes = file.seek(0, 2)
            file.seek(0)
            parquet = pq.ParquetFile(file)
            names = parquet.schema_arrow.names
            missing = [name for name in columns if names.count(name) != 1]
            if not missing:
                if parquet.metadata.num_rows > MOST_ROWS:
                    raise ValueError("too many rows")
                groups = range(parquet.metadata.num_row_groups)
                unpacked = sum(parquet.metadata.row_group(n).total_byte_size for n in groups)
                require_plausible_size(unpacked, file_bytes)
                # Texts that repeat are kept once, until their whole length is known.
                file.seek(0)
                parquet = pq.ParquetFile(file, read_dictionary=list(columns))
                table = parquet.read(columns=list(columns))
                for name in columns:
                    require_plausible_size(_characters(table.column(name)), file_bytes)
                return {name: _texts(table.column(name), pa.string()) for name in columns}
    except Exception:  # pyarrow raises many kinds of errors, whose texts quote values
        raise DataError(problem, "Save it again, or as CSV.") from None
    raise DataError(
        f"{path} has no single column named {missing[0]!r}.",
        f"Its columns are {', '.join(map(str, names[:20]))}.",
    )


def _characters(column: pa.ChunkedArray) -> int:
    """Characters of all texts of a column, however often each is there; bytes of other values."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if not pa.types.is_dictionary(column.type):
        return int(column.nbytes)
    total = 0
    for chunk in column.chunks:
        lengths = pc.binary_length(chunk.dictionary.cast(pa.string()))
        total += pc.sum(pc.take(lengths, chunk.indices)).as_py() or 0
    return total


def _texts(column: object, text: object) -> list[str]:
    values = column.cast(text).to_pylist()  # type: ignore[attr-defined]
    return ["" if value is None else value.strip() for value in values]

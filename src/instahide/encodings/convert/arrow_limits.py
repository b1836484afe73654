"""Limits of the decompressed size of untrusted Arrow and Parquet files, checked before reading."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from instahide.data.readers.size_limits import require_plausible_size

if TYPE_CHECKING:
    import pyarrow
    from pyarrow.parquet import ParquetFile

#: Largest number of messages of a stream; `datasets` writes one per thousand rows.
MOST_MESSAGES = 1 << 20
#: Smallest number of bytes of a row.
_ROW_BYTES = 8
#: Field numbers in Arrow's Message.fbs: the header of a message, and its compression.
_HEADER_FIELD, _COMPRESSION_FIELD = 2, 3


def require_plain_stream(file: pyarrow.NativeFile) -> None:
    """Check that no record batch of an Arrow stream is compressed; `datasets` never compresses.

    A compressed buffer states itself how much memory is allocated for it.

    Raises:
        ValueError: a record batch is compressed or damaged, or there are too many.
    """
    import pyarrow

    reader = pyarrow.ipc.MessageReader.open_stream(file)
    for count, message in enumerate(reader):
        if count >= MOST_MESSAGES:
            raise ValueError("it has too many record batches")
        if message.type in ("record batch", "dictionary") and _compressed(message):
            raise ValueError("it is compressed; save it without compression")
        if message.type == "dictionary":
            raise ValueError("it has dictionaries; save plain columns")


def require_plausible_parquet(file: ParquetFile, file_bytes: int) -> None:
    """Check the stated number of rows of a Parquet file, and their stated bytes.

    Raises:
        ValueError: the file is too small for them.
    """
    # Metadata of columns is not read, because damaged columns crash the process.
    facts = file.metadata
    groups = [facts.row_group(number) for number in range(facts.num_row_groups)]
    require_plausible_size(sum(group.total_byte_size for group in groups), file_bytes)
    require_plausible_size(_ROW_BYTES * sum(group.num_rows for group in groups), file_bytes)


def _compressed(message: pyarrow.Message) -> bool:
    """Whether a record batch has the field of its compression."""
    data = message.metadata.to_pybytes()
    try:
        (root,) = struct.unpack_from("<I", data)
        header = _field(data, root, _HEADER_FIELD)
        batch = header + struct.unpack_from("<I", data, header)[0] if header else 0
        return not batch or bool(_field(data, batch, _COMPRESSION_FIELD))
    except struct.error:
        raise ValueError("a record batch is damaged") from None


def _field(data: bytes, table: int, number: int) -> int:
    """The position of a field of a flatbuffer table; 0 if absent."""
    (back,) = struct.unpack_from("<i", data, table)
    start = table - back
    (length,) = struct.unpack_from("<H", data, start)
    if 4 + 2 * number >= length:
        return 0
    (offset,) = struct.unpack_from("<H", data, start + 4 + 2 * number)
    return table + int(offset) if offset else 0

"""The state of the files of a folder, which changes when any of them does."""

from __future__ import annotations

import hashlib
import time
from stat import S_ISDIR

import numpy as np

from instahide.data.cache import digest
from instahide.data.readers.listing import Listing
from instahide.data.readers.medical.dicom_series import series_files
from instahide.errors import DataError

#: Seconds between two changes of a file that its times tell apart, at the least.
CLOCK_TICK = 0.02


def listing_state(listing: Listing) -> str:
    """Changes with the files and the labels: whoever replaces one file cannot keep it.

    A modification time can be set, as programs that copy or unpack files do. The time of the last
    change of the file's entry cannot.

    Raises:
        DataError: a file cannot be read.
    """
    facts, newest = _facts(listing)
    if abs(time.time() - newest) < CLOCK_TICK:
        # Another change within the same tick of the file system's clock would go unseen.
        time.sleep(CLOCK_TICK)
        facts, _ = _facts(listing)
    labels = hashlib.sha256(np.ascontiguousarray(listing.labels).data).hexdigest()
    return digest([facts, listing.classes, listing.task, labels])


def _facts(listing: Listing) -> tuple[list[list[object]], float]:
    """The state of each file, and when any of them was changed last."""
    facts: list[list[object]] = []
    newest = 0.0
    root = len(str(listing.root)) + 1
    for number, path in enumerate(listing.files):
        try:
            status = path.stat()
            parts = series_files(path) if S_ISDIR(status.st_mode) else []
            for part, state in [(path, status), *((part, part.stat()) for part in parts)]:
                times = state.st_mtime_ns, state.st_ctime_ns
                facts.append([str(part)[root:], state.st_size, *times, state.st_ino])
                newest = max(newest, state.st_ctime)
        except OSError as error:
            raise DataError(
                f"{listing.name(number)} cannot be read ({error.strerror or error}).",
                "Try again when nobody changes the folder.",
            ) from error
    return facts, newest

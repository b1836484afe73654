"""Fingerprints by which a resumed run, and the audit of a run, recognize its data."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable

from instahide.data import ImageTable


def fingerprint(salt: str, tables: Iterable[ImageTable], ledger: bytes = b"") -> str:
    """A hash of the images of ``tables``, their order, labels and groups, and of ``ledger``.

    Args:
        salt: random hexadecimal digits. Without them, a fingerprint would show who else has the
            same images.
        tables: the images.
        ledger: identifies the ledger that counts them, as `LedgerAccount.identity`.

    Examples:
        >>> from instahide import open_split
        >>> from instahide.training.data.fingerprint import fingerprint
        >>> split = open_split("digits")
        >>> fingerprint("00", [split.train]) == fingerprint("00", [split.test])
        False
    """
    digest = hashlib.blake2b(ledger, key=bytes.fromhex(salt), digest_size=32)
    for table in tables:
        facts = [len(table), table.shape, table.classes, table.value_range, table.task]
        digest.update(json.dumps(facts).encode())
        parts = (table.content_hashes, table.labels, table.groups)
        for part in parts:
            digest.update(b"" if part is None else part.tobytes())
    return digest.hexdigest()

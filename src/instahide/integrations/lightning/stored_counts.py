"""Reads the state of `InstaHideCallback` from a checkpoint, which may be damaged or forged."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from instahide.encryption.scheme import Scheme
from instahide.errors import DamagedFileError
from instahide.integrations.dataloader.item_contents import ItemContents

#: Largest stored count. Sums of such counts fit into 64 bits.
MOST = 1 << 32
_INTEGERS = frozenset(
    {
        torch.uint8, torch.uint16, torch.uint32, torch.uint64,
        torch.int8, torch.int16, torch.int32, torch.int64,
    }
)  # fmt: skip


class StoredCounts(NamedTuple):
    """What a checkpoint says of its run.

    Attributes:
        scheme: how the run encrypted.
        run: a random name of the run.
        counts: (N,) encodings of each item, by the place of the training loader.
        shared: the place of the counts of each training loader that has none of its own, because
            its items are those of another one.
        items: which images these items were, by the same places; empty if they were not known.
        ledger: whether the run counted in a ledger.
    """

    scheme: Scheme
    run: str
    counts: dict[int, NDArray[np.int64]]
    items: dict[int, list[ItemContents]]
    ledger: bool
    shared: dict[int, int]


def as_stored(contents: Iterable[ItemContents]) -> list[dict[str, object]]:
    """``contents`` as a checkpoint holds them, which `read_counts` reads."""
    return [
        {"known": torch.from_numpy(known.copy()), "salt": salt, "digest": digest}
        for known, salt, digest in contents
    ]


def read_counts(state: object) -> StoredCounts:
    """Read what `InstaHideCallback.state_dict` returned.

    Raises:
        DamagedFileError: an entry is missing or of another type, or a count is not an integer from
            0 to `MOST`.
        SchemeError: the scheme is not valid.
    """
    if not isinstance(state, Mapping):
        raise _damaged("it is not a mapping")
    scheme, run, counts = (state.get(name) for name in ("scheme", "run", "counts"))
    ledger = state.get("ledger", False)
    if not isinstance(scheme, str):
        raise _damaged("it names no scheme")
    if not isinstance(run, str) or not run:
        raise _damaged("it names no run")
    if not isinstance(counts, Mapping):
        raise _damaged("it has no counts")
    if not isinstance(ledger, bool):
        raise _damaged("it does not say whether the run had a ledger")
    checked = {_place(place): _counts(stored) for place, stored in counts.items()}
    items = _items(state.get("items"), checked)
    shared = _shared(state.get("shared", {}), checked)
    return StoredCounts(Scheme.from_json(scheme), run, checked, items, ledger, shared)


def _place(place: object) -> int:
    if type(place) is not int or place < 0:
        raise _damaged("its counts are not of numbered training loaders")
    return place


def _shared(stored: object, counts: Mapping[int, NDArray[np.int64]]) -> dict[int, int]:
    if not isinstance(stored, Mapping):
        raise _damaged("it does not say which training loaders share counts")
    shared = {_place(place): _place(first) for place, first in stored.items()}
    if not set(shared.values()) <= set(counts) or set(shared) & set(counts):
        raise _damaged("training loaders share counts that it does not have")
    return shared


def _counts(stored: object) -> NDArray[np.int64]:
    if (
        not isinstance(stored, torch.Tensor)
        or stored.dtype not in _INTEGERS
        or stored.layout != torch.strided
        or stored.dim() != 1
    ):
        raise _damaged("its counts are not lists of integers")
    counts = stored.cpu().numpy()
    if len(counts) and not 0 <= int(counts.min()) <= int(counts.max()) <= MOST:
        raise _damaged(f"a count is not from 0 to {MOST:,}")
    return counts.astype(np.int64)


def _items(
    stored: object, counts: Mapping[int, NDArray[np.int64]]
) -> dict[int, list[ItemContents]]:
    if not isinstance(stored, Mapping) or set(stored) != set(counts):
        raise _damaged("it does not say which images were counted")
    return {place: _contents(stored[place], len(found)) for place, found in counts.items()}


def _contents(stored: object, count: int) -> list[ItemContents]:
    if not isinstance(stored, list) or not all(isinstance(each, Mapping) for each in stored):
        raise _damaged("it does not list the images that were counted")
    return [_content(each, count) for each in stored]


def _content(stored: Mapping[object, object], count: int) -> ItemContents:
    known, salt, digest = (stored.get(name) for name in ("known", "salt", "digest"))
    if not isinstance(known, torch.Tensor) or known.dtype != torch.bool:
        raise _damaged("it does not say which items have known images")
    if known.layout != torch.strided or known.shape != (count,):
        raise _damaged("its images are not those of its counts")
    if not isinstance(salt, str) or not isinstance(digest, str):
        raise _damaged("it has no digest of the images")
    return ItemContents(known.cpu().numpy(), salt, digest)


def _damaged(reason: str) -> DamagedFileError:
    return DamagedFileError(
        f"The checkpoint's count of the encodings of each item is damaged ({reason}).",
        "Resume from another checkpoint of the run, or start a new run.",
    )

"""A damaged or forged checkpoint never lowers the counts of a run."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from instahide import Scheme
from instahide.errors import DamagedFileError, InstaHideError
from instahide.integrations.lightning.callback import InstaHideCallback
from instahide.integrations.lightning.stored_counts import MOST, read_counts

SCHEME = Scheme.inside(2)
MISSING = object()
ITEMS = {"known": torch.tensor([True, False, True]), "salt": "a", "digest": "b"}


def state(**changes: Any) -> dict[str, Any]:
    whole = {
        "scheme": SCHEME.to_json(),
        "run": "another",
        "counts": {0: torch.tensor([3, 0, 1])},
        "items": {0: [dict(ITEMS)]},
    }
    return {name: value for name, value in {**whole, **changes}.items() if value is not MISSING}


@pytest.mark.parametrize("dtype", [torch.int64, torch.int32, torch.uint8, torch.uint32])
def test_counts_of_any_integers_are_taken(dtype: torch.dtype) -> None:
    callback = InstaHideCallback(SCHEME)
    for _ in range(2):
        callback.load_state_dict(state(counts={0: torch.tensor([3, 0, 1]).to(dtype)}))
    assert callback.exposures[0].counts.tolist() == [6, 0, 2]


@pytest.mark.parametrize(
    "counts",
    [
        torch.tensor([5, -1000, 0]),
        torch.full((3,), 2.7),
        torch.full((3,), float("nan")),
        torch.tensor([True, False, True]),
        torch.ones(3, dtype=torch.complex64),
        torch.ones(3, dtype=torch.bfloat16),
        torch.tensor([0, 0, MOST + 1]),
        torch.full((3,), torch.iinfo(torch.int64).min),
        torch.full((3,), torch.iinfo(torch.uint64).max, dtype=torch.uint64),
        torch.ones(3, 1, dtype=torch.int64),
        torch.tensor(3),
        torch.tensor([1, 0, 1]).to_sparse(),
        [1, 2, 3],
        3,
        None,
    ],
)
@pytest.mark.parametrize("own", [False, True])
def test_other_counts_are_refused_and_change_none(counts: Any, own: bool) -> None:
    callback = InstaHideCallback(SCHEME, max_exposure=5)
    callback.load_state_dict(state())
    run = callback.state_dict()["run"] if own else "another"
    with pytest.raises(DamagedFileError, match="checkpoint's count"):
        callback.load_state_dict(state(run=run, counts={0: counts}))
    assert callback.exposures[0].counts.tolist() == [3, 0, 1]


@pytest.mark.parametrize(
    "changes",
    [
        *({name: MISSING} for name in ("scheme", "run", "counts", "items")),
        *({name: None} for name in ("scheme", "run", "counts", "items", "ledger")),
        {"run": ""},
        {"run": 7},
        {"run": b"another"},
        {"counts": torch.ones(3)},
        {"counts": {"0": torch.ones(3, dtype=torch.int64)}},
        {"counts": {True: torch.ones(3, dtype=torch.int64)}},
        {"counts": {-1: torch.ones(3, dtype=torch.int64)}},
        {"ledger": 1},
        *(
            {"shared": shared}
            for shared in (None, [1], {1: 7}, {0: 0}, {1: "0"}, {-1: 0}, {True: 0})
        ),
        {"items": {}},
        {"items": {0: [ITEMS], 1: [ITEMS]}},
        {"items": {0: None}},
        {"items": {0: ITEMS}},
        {"items": {0: [None]}},
        *({"items": {0: [ITEMS | {name: None}]}} for name in ITEMS),
        {"items": {0: [ITEMS | {"known": torch.ones(3)}]}},
        {"items": {0: [ITEMS | {"known": torch.ones(2, dtype=torch.bool)}]}},
        {"items": {0: [ITEMS | {"known": torch.ones(3, 1, dtype=torch.bool)}]}},
        {"items": {0: [ITEMS | {"known": torch.ones(3, dtype=torch.bool).to_sparse()}]}},
    ],
)
def test_a_state_that_lacks_an_entry_or_has_another_type_is_refused(
    changes: dict[str, Any],
) -> None:
    callback = InstaHideCallback(SCHEME)
    with pytest.raises(DamagedFileError, match="checkpoint's count"):
        callback.load_state_dict(state(**changes))
    assert callback.exposures == ()


@pytest.mark.parametrize("found", [None, [], "text", {}])
def test_what_is_no_state_is_refused(found: object) -> None:
    with pytest.raises(InstaHideError):
        read_counts(found)


def test_shared_counts_are_taken_for_both_places() -> None:
    callback = InstaHideCallback(SCHEME)
    callback.load_state_dict(state(shared={2: 0}))
    one, other = callback.exposures
    assert one is other
    assert one.counts.tolist() == [3, 0, 1]
    assert callback.state_dict()["shared"] == {2: 0}
    callback.load_state_dict(state(counts={2: torch.tensor([0, 4, 0])}, items={2: []}))
    assert one.counts.tolist() == [3, 4, 1]

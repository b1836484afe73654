"""Image numbers are read as NumPy reads them, or refused: never otherwise."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from instahide import Encoder, ImageDataset, ImageTable, InstaHideError, Scheme
from instahide.encryption.known_keys import encode_with_known_keys

COUNT = 20
TABLE = ImageTable.from_arrays(
    np.random.default_rng(0).integers(0, 256, (COUNT, 4, 4), dtype=np.uint8),
    np.arange(COUNT),
)
ITEMS = ImageDataset(
    list(zip(TABLE.normalized(), TABLE.labels, strict=True)), classes=TABLE.classes, workers=1
)
PLAIN = Scheme.plain()


def encoded(indices: Any) -> Any:
    return Encoder(PLAIN, TABLE).encode(indices).labels.argmax(1)


def streamed(indices: Any) -> Any:
    blocks = list(Encoder(PLAIN, TABLE).stream([indices]))
    return torch.cat([block.labels.argmax(1) for block in blocks])


def of_items(indices: Any) -> Any:
    return Encoder(PLAIN, ITEMS).encode(indices).labels.argmax(1)


def normalized(indices: Any) -> Any:
    given = TABLE.normalized(indices)
    return [int(np.flatnonzero((TABLE.normalized() == each).all((1, 2, 3)))[0]) for each in given]


USES: dict[str, Callable[[Any], Any]] = {
    "Encoder.encode": encoded,
    "Encoder.stream": streamed,
    "Encoder.encode of a data set": of_items,
    "ImageTable.subset": lambda indices: TABLE.subset(indices).labels,
    "ImageTable.normalized": normalized,
    "ImageTable.rows": lambda indices: TABLE.rows(indices).labels,
    "ImageDataset.rows": lambda indices: ITEMS.rows(indices).labels,
    "rehearse": lambda indices: encode_with_known_keys(
        PLAIN, TABLE, None, indices
    ).encoded.labels.argmax(1),
}


@pytest.mark.parametrize("use", USES)
@pytest.mark.parametrize("kind", [np.asarray, list, torch.as_tensor])
def test_a_mask_names_its_true_rows(use: str, kind: Any) -> None:
    mask = np.random.default_rng(1).random(COUNT) < 0.5
    assert np.asarray(USES[use](kind(mask))).tolist() == np.flatnonzero(mask).tolist()
    nothing = np.zeros(COUNT, bool)
    assert len(TABLE.subset(nothing)) == len(TABLE.rows(nothing).labels) == 0


@given(st.lists(st.integers(0, COUNT - 1), min_size=1, max_size=30), st.sampled_from("bBhHiIlLqQ"))
def test_whole_numbers_of_any_type_are_rows(indices: list[int], kind: str) -> None:
    numbers = np.asarray(indices, kind)
    for use in ("Encoder.encode", "ImageTable.subset", "ImageTable.rows"):
        assert np.asarray(USES[use](numbers)).tolist() == indices


WRONG: list[Any] = [
    np.asarray([0.0, 1.0]), np.asarray([0.7]), [1.5], np.asarray([-1]), [COUNT], [0, -COUNT],
    np.ones(COUNT - 1, bool), np.ones(COUNT + 1, bool), np.ones((COUNT, 1), bool), [True, False],
    ["1"], np.asarray([None]), np.asarray([np.nan]), np.asarray([2**63], np.uint64),
    torch.tensor([0.5]), np.asarray([1j]), np.asarray(["a"]),
]  # fmt: skip


@pytest.mark.parametrize("use", USES)
@pytest.mark.parametrize("case", range(len(WRONG)))
def test_anything_else_is_refused(use: str, case: int) -> None:
    with pytest.raises(InstaHideError):
        USES[use](WRONG[case])


def test_nothing_is_counted_for_indices_that_are_refused() -> None:
    encoder = Encoder(Scheme.inside(2), TABLE)
    for wrong in WRONG:
        with pytest.raises(InstaHideError):
            encoder.encode(wrong)
    assert not encoder.exposure.counts.any()
    assert len(encoder.encode(np.asarray([], int)).images) == 0


def test_numbers_have_one_dimension_where_each_is_one_image() -> None:
    for wrong in (np.zeros((2, 2), int), np.asarray(3)):
        for use in ("Encoder.encode", "ImageTable.subset", "ImageTable.normalized"):
            with pytest.raises(InstaHideError):
                USES[use](wrong)

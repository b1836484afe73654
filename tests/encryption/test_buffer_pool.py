"""Memory for encodings."""

from __future__ import annotations

import threading
import weakref
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from instahide.data import ImageTable
from instahide.encryption import buffer_pool, encoder
from instahide.encryption.buffer_pool import allocate
from instahide.encryption.encoder import Encoder
from instahide.encryption.scheme import Scheme

#: Of as many bytes as are kept.
LARGE = (buffer_pool.LEAST // 64, 4, 4, 4)


def large(shape: tuple[int, ...] = LARGE) -> Tensor:
    return allocate(shape, torch.float32, pin_memory=False)


@pytest.fixture(autouse=True)
def nothing_spare() -> None:
    buffer_pool._spare.clear()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("shape", [(0, 3, 8, 8), (1, 1, 1, 1), (5, 3, 7, 9), LARGE])
def test_room_is_of_the_shape_and_type_asked_for(
    shape: tuple[int, ...], dtype: torch.dtype
) -> None:
    for _ in range(2):
        made = allocate(shape, dtype, pin_memory=False)
        assert (tuple(made.shape), made.dtype, made.is_contiguous()) == (shape, dtype, True)
        made.fill_(1)
        assert bool((made == 1).all())
        del made


def test_memory_is_used_again_when_it_was_dropped() -> None:
    made = large()
    place = made.data_ptr()
    del made
    shorter = (LARGE[0] - 1, *LARGE[1:])
    again = large(shorter)
    assert (again.data_ptr(), tuple(again.shape)) == (place, shorter)


@pytest.mark.parametrize(
    "part",
    [
        lambda made: made[5],
        lambda made: made[:, 0].mT,
        lambda made: made.view(torch.int32),
        lambda made: made[3].numpy()[1:],
        lambda made: made.detach(),
        lambda made: np.from_dlpack(made),
        lambda made: torch.utils.data.default_convert({"images": made}),
    ],
)
def test_memory_that_anybody_holds_a_part_of_is_not_used(part: object) -> None:
    held = part(large())  # type: ignore[operator]
    others = [large() for _ in range(2 * buffer_pool.SPARE)]
    assert not buffer_pool._spare
    del held
    assert len(buffer_pool._spare) == 1
    del others
    assert len(buffer_pool._spare) == buffer_pool.SPARE


def test_other_sizes_take_memory_of_their_own() -> None:
    place = large().data_ptr()
    assert large((3 * LARGE[0], *LARGE[1:])).data_ptr() != place
    assert large((1, *LARGE[1:])).data_ptr() != place


@pytest.mark.slow
def test_threads_never_share_memory() -> None:
    def use(number: int) -> bool:
        fine = True
        for _ in range(200):
            mine = large().fill_(number)
            fine &= bool((mine == number).all())
        return fine

    with ThreadPoolExecutor(8) as threads:
        assert all(threads.map(use, range(8)))


def table_and_rows(blocks: int) -> tuple[ImageTable, list[NDArray[np.int64]]]:
    pixels = np.random.default_rng(0).integers(0, 256, (16, 3, 8, 8), np.uint8)
    return ImageTable.from_arrays(pixels, np.arange(16) % 2), [np.arange(16)] * blocks


def test_a_stream_has_memory_for_few_blocks_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    table, rows = table_and_rows(40)
    alive: set[int] = set()
    most = 0

    def noted(*arguments: Any, **more: Any) -> Tensor:
        nonlocal most
        made, number = allocate(*arguments, **more), next(numbers)
        alive.add(number)
        weakref.finalize(made, alive.discard, number)
        most = max(most, len(alive))
        return made

    numbers = count()
    monkeypatch.setattr(encoder, "allocate", noted)
    for block in Encoder(Scheme.inside(2), table).stream(rows):
        assert len(block.images) == 16
    assert next(numbers) == 40
    assert most <= encoder.BLOCKS_AHEAD + 1


@pytest.mark.parametrize("seen", [0, 1, 2, 5])
def test_a_stream_that_is_left_early_ends_its_threads(seen: int) -> None:
    table, rows = table_and_rows(40)
    stream = Encoder(Scheme.inside(2), table).stream(rows)
    for _ in range(seen):
        next(stream)
    stream.close()
    assert not [one for one in threading.enumerate() if one.name.startswith("instahide-prefetch")]

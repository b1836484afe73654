"""Memory for encodings."""

from __future__ import annotations

import pytest
import torch

from instahide.encryption.mixing import room


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("shape", [(0, 3, 8, 8), (1, 1, 1, 1), (5, 3, 7, 9)])
def test_room_is_of_the_shape_and_type_asked_for(
    shape: tuple[int, ...], dtype: torch.dtype
) -> None:
    made = room(shape, dtype, pin_memory=False)
    assert (tuple(made.shape), made.dtype, made.is_contiguous()) == (shape, dtype, True)
    made.fill_(1)
    assert bool((made == 1).all())

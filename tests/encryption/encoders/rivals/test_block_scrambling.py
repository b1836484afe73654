"""Block scrambling, compared with a transform that is written out block by block."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from instahide.encryption.encoders.rivals.block_scrambling import BlockKey, BlockScrambling
from instahide.encryption.encoders.secret_random import SecretRandom
from instahide.errors import SchemeError


def pictures(channels: int = 3, side: int = 8, count: int = 5) -> Tensor:
    return torch.randn(count, channels, side, side, generator=torch.Generator().manual_seed(1))


def slowly(images: Tensor, key: BlockKey, block: int) -> Tensor:
    """The paper's steps for each block: move, turn, mirror, invert, shuffle channels."""
    columns = images.shape[3] // block
    out = torch.empty_like(images)
    for place, source in enumerate(key.places.tolist()):
        rows, cols = divmod(source, columns)
        part = images[:, :, rows * block : (rows + 1) * block, cols * block : (cols + 1) * block]
        moved = np.rot90(part.numpy(), int(key.turns[place]), axes=(2, 3))
        moved = moved[..., ::-1] if key.mirrors[place] else moved
        moved = -moved if key.negatives[place] else moved
        moved = moved[:, key.channels[place].numpy()]
        rows, cols = divmod(place, columns)
        out[:, :, rows * block : (rows + 1) * block, cols * block : (cols + 1) * block] = (
            torch.from_numpy(moved.copy())
        )
    return out


@pytest.mark.parametrize("same", [False, True])
@pytest.mark.parametrize(("channels", "block"), [(1, 2), (3, 4), (3, 8), (2, 1)])
def test_it_does_the_steps_of_the_paper(channels: int, block: int, same: bool) -> None:
    method, random = BlockScrambling(block, same=same), SecretRandom()
    images = pictures(channels)
    key = method.draw_key(tuple(images.shape[1:]), random)
    assert torch.equal(method.transform(images, key, random), slowly(images, key, block))


def test_without_its_steps_it_is_the_identity() -> None:
    method = BlockScrambling(4, shuffle=False, turn=False, negative=False, colors=False)
    random = SecretRandom()
    key = method.draw_key((3, 8, 8), random)
    assert torch.equal(method.transform(pictures(), key, random), pictures())


def test_each_step_happens_and_can_be_left_out() -> None:
    random = SecretRandom()
    whole = [BlockScrambling(2).draw_key((3, 16, 16), random) for _ in range(3)]
    assert all(not torch.equal(key.places, torch.arange(64)) for key in whole)
    turns = torch.cat([key.turns for key in whole])
    assert set(turns.tolist()) == {0, 1, 2, 3}
    for values in (key.mirrors for key in whole):
        assert 0 < int(values.sum()) < 64
    for values in (key.negatives for key in whole):
        assert 0 < int(values.sum()) < 64
    none = BlockScrambling(2, negative=False).draw_key((3, 16, 16), random)
    assert not none.negatives.any()


def test_copies_are_equal_under_one_key_and_differ_under_another() -> None:
    method, random, images = BlockScrambling(2), SecretRandom(), pictures()
    one, other = (method.draw_key((3, 8, 8), random) for _ in range(2))
    first, second = (method.transform(images, one, random) for _ in range(2))
    assert torch.equal(first, second)
    assert not torch.equal(first, method.transform(images, other, random))


def test_all_blocks_are_treated_alike_where_a_patch_embedding_needs_it() -> None:
    key = BlockScrambling(2, same=True).draw_key((3, 8, 8), SecretRandom())
    for values in (key.turns, key.mirrors, key.negatives[:, 0, 0, 0]):
        assert len(set(values.tolist())) == 1


@pytest.mark.parametrize("shape", [(1, 9, 8), (1, 8, 9), (1, 8, 8, 8)])
def test_images_that_blocks_do_not_divide_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(SchemeError, match="not divided by blocks"):
        BlockScrambling(4).output_shape(shape)

"""Block-wise scrambling: images stay images, and blocks of pixels are shuffled under one key.

Encryption-then-compression divides an image into blocks of M x M pixels and, under a key, shuffles
the blocks, rotates and inverts (mirrors) each, applies a negative-positive transform to each, and
shuffles the color channels of each (Kurihara, Kikuchi, Imaizumi, Shiota and Kiya, "An
Encryption-then-Compression System for JPEG/Motion JPEG Standard", IEICE Trans. Fundamentals E98-A,
2015; Chuman, Sirichotedumrong and Kiya, arXiv:1811.00236). Networks with patch embeddings, such as
vision transformers, learn from such images if all of them have the same key, which permutes the
patches in the same way (Qi, MaungMaung, Kinoshita and Kiya, "Privacy-Preserving Image
Classification Using Vision Transformer", EUSIPCO 2022, arXiv:2205.12041).

The encoder is deterministic under its key: two encodings of an image are equal.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from instahide.encryption.encoders.base import ImageEncoder
from instahide.encryption.encoders.secret_random import SecretRandom
from instahide.errors import SchemeError


class BlockKey(NamedTuple):
    """SECRET: the key of a data set, for B blocks of an image with C channels.

    Attributes:
        places: (B,) the block that moves to each place.
        turns: (B,) quarter turns of each block.
        mirrors: (B,) 0, or 1 for a block that is mirrored left to right.
        negatives: (B, C, 1, 1) bool, whether the values of a block are inverted.
        channels: (B, C) the channel that moves to each channel.
    """

    places: Tensor
    turns: Tensor
    mirrors: Tensor
    negatives: Tensor
    channels: Tensor

    def __repr__(self) -> str:
        return "BlockKey(hidden)"


@dataclass(frozen=True)
class BlockScrambling(ImageEncoder):
    """Blocks shuffled, rotated, mirrored, inverted and with shuffled channels, under one key.

    The negative of a normalized value x is -x. Of a pixel p it is 1 - p, which is the same up to
    the mean of the normalization.

    Attributes:
        block: side of a block in pixels; it must divide height and width.
        shuffle: whether blocks change their places.
        turn: whether blocks are rotated and mirrored.
        negative: whether the values of a block are inverted with probability one half.
        colors: whether the channels of a block are shuffled.
        same: whether all blocks of an image are turned, inverted and recolored in the same way, as
            a network needs that applies the same patch embedding to all blocks. Otherwise each
            block has its own transform, as in encryption-then-compression.

    Raises:
        SchemeError: ``block`` is below 1.

    Examples:
        >>> from instahide.encryption.encoders.rivals.block_scrambling import BlockScrambling
        >>> BlockScrambling(block=4).output_shape((3, 32, 32))
        (3, 32, 32)
    """

    block: int = 4
    shuffle: bool = True
    turn: bool = True
    negative: bool = True
    colors: bool = True
    same: bool = False

    name: ClassVar[str] = "block-scrambling"
    title: ClassVar[str] = "Block-wise scrambling (encryption-then-compression)"
    paper: ClassVar[str] = (
        "Kurihara et al., IEICE Trans. E98-A, 2015; Chuman et al., arXiv:1811.00236"
    )
    has_data_set_key: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.block < 1:
            raise SchemeError(f"block = {self.block} is below 1.", "Use 4, say.")

    def output_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """The shape of the image.

        Raises:
            SchemeError: the images are volumes, or blocks do not divide them.
        """
        if len(shape) != 3 or shape[1] % self.block or shape[2] % self.block:
            raise SchemeError(
                f"Images of shape {shape} are not divided by blocks of {self.block} pixels.",
                "Use a block that divides height and width, or resize the images with `size=`.",
            )
        return shape

    def draw_key(self, shape: tuple[int, ...], random: SecretRandom) -> BlockKey:
        """A new key for images of ``shape``."""
        channels = shape[0]
        blocks = (shape[1] // self.block) * (shape[2] // self.block)
        kinds = 1 if self.same else blocks
        one = torch.arange(blocks)
        places = torch.from_numpy(random.permutations(1, blocks)[0]) if self.shuffle else one
        order = torch.from_numpy(random.permutations(kinds, channels))
        turns, mirrors, negatives = (
            torch.from_numpy(random.integers(bound, (kinds,))) for bound in (4, 2, 2)
        )
        return BlockKey(
            places,
            (turns if self.turn else torch.zeros_like(turns)).expand(blocks),
            (mirrors if self.turn else torch.zeros_like(mirrors)).expand(blocks),
            (negatives.bool() & self.negative).expand(blocks)[:, None, None, None],
            (order if self.colors else torch.arange(channels)[None]).expand(blocks, channels),
        )

    def transform(self, images: Tensor, key: BlockKey, random: SecretRandom) -> Tensor:
        """The scrambled ``images`` (n, C, H, W)."""
        count, channels, height, width = images.shape
        rows, columns, side = height // self.block, width // self.block, self.block
        blocks = images.reshape(count, channels, rows, side, columns, side)
        blocks = blocks.permute(2, 4, 0, 1, 3, 5).reshape(
            rows * columns, count, channels, side, side
        )
        blocks = blocks[key.places]
        parts = [
            _turned(part[:, key.channels[place]], int(key.turns[place]), int(key.mirrors[place]))
            for place, part in enumerate(blocks)
        ]
        moved = torch.stack(parts)
        moved = torch.where(key.negatives[..., None], -moved, moved)
        moved = moved.reshape(rows, columns, count, channels, side, side).permute(2, 3, 0, 4, 1, 5)
        return moved.reshape(images.shape).contiguous()


def _turned(blocks: Tensor, turns: int, mirror: int) -> Tensor:
    """Blocks (n, C, M, M), turned and perhaps mirrored."""
    turned = torch.rot90(blocks, turns, (2, 3))
    return turned.flip(3) if mirror else turned

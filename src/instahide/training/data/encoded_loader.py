"""A drop-in for a `DataLoader`: encodings and soft labels, under new keys every epoch."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from instahide.encryption.encoder import Encoded, Encoder
from instahide.encryption.exposure import limit_error
from instahide.errors import InstaHideError

#: A block is as many whole batches as stay below so many encodings and so many values: long enough
#: to forget what a block costs, short enough to fit into memory a few times.
BLOCK, BLOCK_VALUES = 2048, 1 << 23


class EncodedLoader:
    """Iterate over it once an epoch, as over a `DataLoader`; gives ``(images, soft_labels)``.

    The next blocks are encoded in the background while the current one is used. The last batch may
    be short; its encodings are made for it alone.

    Args:
        encoder: makes the encodings.
        batch_size: encodings in a batch.
        shuffle: whether every epoch has a new order, drawn from the key stream.
        drop_last: whether a short last batch is left out.
        pin_memory: put the encodings into page-locked memory, for faster copies to a GPU.

    Raises:
        InstaHideError: a batch size below 1; and, while it is iterated over, an image that came to
            its exposure limit.
    """

    def __init__(
        self,
        encoder: Encoder,
        batch_size: int,
        *,
        shuffle: bool = True,
        drop_last: bool = False,
        pin_memory: bool = False,
    ) -> None:
        if batch_size < 1:
            raise InstaHideError(
                f"A batch of {batch_size} is empty.", "Use a batch size of 1 or more."
            )
        self.encoder = encoder
        self.batch_size = batch_size
        self.shuffle = shuffle
        self.drop_last = drop_last
        self.pin_memory = pin_memory

    def __len__(self) -> int:
        """Batches in an epoch."""
        images = len(self.encoder.images)
        return images // self.batch_size if self.drop_last else -(-images // self.batch_size)

    def __iter__(self) -> Iterator[Encoded]:
        self.encoder.next_epoch()
        blocks = self._blocks()
        encoded = self.encoder.stream(blocks, pin_memory=self.pin_memory)
        for rows, block in zip(blocks, encoded, strict=True):
            for start in range(0, len(block.images), self.batch_size):
                part = slice(start, start + self.batch_size)
                yield Encoded(block.images[part], block.labels[part])
            if len(block.images) < len(rows):
                raise limit_error(self.encoder.exposure)

    def _blocks(self) -> list[NDArray[np.int64]]:
        """Which images each block encodes."""
        count = len(self.encoder.images)
        order = self.encoder.permutation() if self.shuffle else np.arange(count)
        used = len(self) * self.batch_size if self.drop_last else count
        most = min(BLOCK, BLOCK_VALUES // math.prod(self.encoder.images.shape))
        size = self.batch_size * max(1, most // self.batch_size)
        return [order[start : min(start + size, used)] for start in range(0, used, size)]

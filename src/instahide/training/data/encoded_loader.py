"""A loader of encodings and soft labels, under new keys every epoch."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from instahide.encryption.encoder import Encoded, Encoder
from instahide.encryption.encoders.table_encoder import TableEncoder
from instahide.encryption.exposure import limit_error
from instahide.errors import InstaHideError

#: Most encodings and most values of a block, which holds whole batches: large enough that the cost
#: of starting a block is negligible, small enough that several blocks fit into memory.
BLOCK, BLOCK_VALUES = 2560, 1 << 23


class EncodedLoader:
    """Batches of encodings and soft labels, to use like a `torch.utils.data.DataLoader`.

    Each pass is an epoch and encodes every private image once, under new keys. The next batches
    are encoded in the background while the current one is used.

    Args:
        encoder: makes the encodings.
        batch_size: encodings in a batch; the last batch of an epoch may be smaller.
        shuffle: whether every epoch has a new random order, drawn from the key stream.
        drop_last: whether to skip a last batch that is smaller than ``batch_size``.
        pin_memory: put the encodings into page-locked memory, for faster copies to a GPU.

    Attributes:
        before_epoch: called at the start of each pass, before any encoding is made; None by
            default.

    Raises:
        InstaHideError: ``batch_size`` is below 1.
        ExposureLimitError: during iteration, if an image has reached its exposure limit.

    Examples:
        >>> from instahide import EncodedLoader, Encoder, Scheme, open_split
        >>> encoder = Encoder(Scheme.inside(4), open_split("digits").train)
        >>> loader = EncodedLoader(encoder, batch_size=128)
        >>> len(loader)
        12
        >>> images, labels = next(iter(loader))
        >>> tuple(images.shape), tuple(labels.shape)
        ((128, 1, 8, 8), (128, 10))
    """

    def __init__(
        self,
        encoder: Encoder | TableEncoder,
        batch_size: int,
        *,
        shuffle: bool = True,
        drop_last: bool = False,
        pin_memory: bool = False,
    ) -> None:
        if batch_size < 1:
            raise InstaHideError(
                f"batch_size = {batch_size} is below 1.", "Use a batch size of 1 or more."
            )
        self.encoder = encoder
        self.batch_size = batch_size
        self.shuffle = shuffle
        self.drop_last = drop_last
        self.pin_memory = pin_memory
        self.before_epoch: Callable[[], None] | None = None

    def __len__(self) -> int:
        """Batches in an epoch."""
        images = len(self.encoder.images)
        return images // self.batch_size if self.drop_last else -(-images // self.batch_size)

    def __iter__(self) -> Iterator[Encoded]:
        if self.before_epoch is not None:
            self.before_epoch()
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
        """The rows of the private images in each block."""
        count = len(self.encoder.images)
        order = self.encoder.permutation() if self.shuffle else np.arange(count)
        used = len(self) * self.batch_size if self.drop_last else count
        most = min(BLOCK, BLOCK_VALUES // math.prod(self.encoder.images.shape))
        size = self.batch_size * max(1, most // self.batch_size)
        return [order[start : min(start + size, used)] for start in range(0, used, size)]

"""`Encoder`: encrypts a table or data set under one-time keys and returns only encodings."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from instahide.data import ImageSource, ImageTable, PhotoCrops
from instahide.data.image_source import content_ids_of
from instahide.data.labels import Labels
from instahide.encryption.augmentation import Augmentation
from instahide.encryption.base_encoder import BaseEncoder
from instahide.encryption.buffer_pool import allocate
from instahide.encryption.exposure import Exposure
from instahide.encryption.kernels import cpu, cuda
from instahide.encryption.keys import Block, KeyStream, OneTimeKeys
from instahide.encryption.mixing import label_weights, soft_labels, with_noise
from instahide.encryption.privacy import mu_squared_rate
from instahide.encryption.sampling import sampler
from instahide.encryption.sampling.partner_pools import (
    PartnerPools,
    partner_pools,
    require_enough_images,
)
from instahide.encryption.scheme import Scheme
from instahide.encryption.validation import require_compatible
from instahide.utils.parallel import shut_down
from instahide.utils.row_indices import row_indices

#: Blocks that `Encoder.stream` prepares ahead, at the same time: while the keys of one are drawn,
#: another is mixed. Each has its share of the processors, so that none waits for the other.
BLOCKS_AHEAD = 2

#: Allocates memory for encodings of a shape and type.
Memory = Callable[[tuple[int, ...], torch.dtype], Tensor]


class Encoded(NamedTuple):
    """A block of encodings with their soft labels.

    Attributes:
        images: (n, C, H, W) float encodings, in units of normalized images.
        labels: (n, classes) float32 soft labels.

    Examples:
        >>> import numpy as np
        >>> from instahide import Encoder, Scheme, open_split
        >>> encoded = Encoder(Scheme.inside(4), open_split("digits").train).encode(np.arange(8))
        >>> images, labels = encoded
        >>> tuple(labels.shape)
        (8, 10)
    """

    images: Tensor
    labels: Tensor


class Encoder(BaseEncoder):
    """Encrypts private images under one-time keys: no key is used for two encodings.

    An encoder can be shared between threads. A pickled or forked copy starts its own key stream.

    Args:
        scheme: how to encrypt.
        images: the private images.
        public: the public images, required if ``scheme.public_k`` is above 0: a pool, or
            photographs from which every epoch draws new crops. They get the normalization of the
            private images.
        augmentation: crop and flip of every image of a mix; none by default.
        keys: the key stream to draw from; a new one by default.
        participant: a name that is mixed into the keys of a new stream. Participants with
            different names have different keys even if their operating systems return the same
            entropy.
        exposure: counts the encodings that each private image goes into, and may limit them; by
            default a new one without a limit.
        dtype: type of the encodings: float32, float16 or bfloat16.
        device: where encodings are returned. On a CUDA device they are also computed there, if the
            images fit into half of its free memory.

    Attributes:
        pools: the pools from which partners are drawn, if some images show the same picture; None
            if all are distinct. A mix never contains a picture twice, private or public.

    Raises:
        InstaHideError: the images do not fit the scheme: public images are missing, unexpected, too
            few or of another shape, there are too few private images, or ``dtype`` is not
            supported.

    Examples:
        >>> import numpy as np
        >>> from instahide import Encoder, Scheme, open_split
        >>> encoder = Encoder(Scheme.inside(4), open_split("digits").train)
        >>> encoded = encoder.encode(np.arange(8))
        >>> tuple(encoded.images.shape)
        (8, 1, 8, 8)
        >>> encoder.exposure.counts.sum() == 4 * 8
        np.True_
    """

    _uncopied = ("_keys", "_device_tables")

    def __init__(
        self,
        scheme: Scheme,
        images: ImageSource,
        public: ImageSource | PhotoCrops | None = None,
        *,
        augmentation: Augmentation | None = None,
        keys: KeyStream | None = None,
        participant: str = "",
        exposure: Exposure | None = None,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> None:
        counted = exposure or Exposure(len(images))
        super().__init__(scheme, counted, public, keys, participant, images)
        self.images = images
        self.augmentation = augmentation or Augmentation()
        self.dtype = dtype
        self.device = torch.device(device)
        require_compatible(scheme, images, self._public.images, self.augmentation)
        std = None if images.normalization is None else images.normalization.std
        self.exposure.require_rate(mu_squared_rate(scheme, images.shape, std))
        self._prepare()

    def permutation(self) -> NDArray[np.int64]:
        """A fresh random order of the private images."""
        return sampler.permutation(self._keys.next_block(), len(self.images))

    def encode(
        self, indices: NDArray[np.int64] | NDArray[np.bool], *, pin_memory: bool = False
    ) -> Encoded:
        """Encrypt the private images ``indices`` (n,) under fresh one-time keys.

        Args:
            indices: rows of the private images; or a boolean mask of all of them.
            pin_memory: put the encodings into page-locked memory, for a copy to a GPU.

        Returns:
            Encodings of all ``indices``, or of those before the first image at its limit.

        Raises:
            ExposureLimitError: the first image is at its limit.
            InstaHideError: an index is not an integer or is out of range, or an image cannot be
                read.
        """
        return self._encode(*self._begin(indices, pin_memory))

    def stream(
        self, rows: Iterable[NDArray[np.int64] | NDArray[np.bool]], *, pin_memory: bool = False
    ) -> Generator[Encoded, None, None]:
        """Encrypt blocks of images in order, and prepare the next blocks in the background.

        If you stop early, up to `BLOCKS_AHEAD` blocks have been encoded and counted that you have
        not received.

        Args:
            rows: the private images to encrypt in each block, as for `encode`.
            pin_memory: as for `encode`.

        Raises:
            InstaHideError: as for `encode`, when that block is requested.
        """
        processors = cpu.processors()
        count = min(BLOCKS_AHEAD, processors)
        workers = ThreadPoolExecutor(
            count, "instahide-prefetch", cpu.limit_threads, (-(-processors // count),)
        )
        line = _Line(self, workers)
        try:
            for indices in rows:
                # Keys are taken here, in order, whichever thread is faster.
                line.add(*self._begin(indices, pin_memory))
                if len(line) > BLOCKS_AHEAD:
                    yield line.first()
                    line.requested()
            while len(line):
                yield line.first()
                line.requested()
        finally:
            shut_down(workers, line.waiting())

    def _begin(
        self,
        indices: NDArray[np.int64] | NDArray[np.bool],
        pin_memory: bool,
    ) -> tuple[Block, NDArray[np.int64], Memory]:
        """New key bytes, the validated ``indices``, and an allocator for the encodings."""
        indices = row_indices(indices, len(self.images))
        if self._device_tables is None:
            memory = partial(allocate, pin_memory=pin_memory)
            return self._keys.next_block(), indices, memory
        # Allocate in the calling thread, where the user's CUDA stream is the current one.
        shape = (len(indices), *self.images.shape)
        out = torch.empty(shape, dtype=self.dtype, device=self.device)
        return self._keys.next_block(), indices, lambda shape, _: out[: shape[0]]

    def _encode(self, block: Block, indices: NDArray[np.int64], memory: Memory) -> Encoded:
        return self._mixed(block, self._draw(block, indices), memory)

    def _mixed(self, block: Block, keys: OneTimeKeys, memory: Memory) -> Encoded:
        # Allocate after the keys are drawn: memory of an earlier block is free by then.
        out = memory((len(keys.partners), *self.images.shape), self.dtype)
        with with_noise(block, self.scheme, out) as mixes:
            if self._device_tables is not None:
                self._device_tables.encode(keys, self.scheme.private_k, mixes)
                classes = self.images.rows(self._private(keys)).labels
            else:
                classes = self._encode_on_cpu(keys, mixes)
        labels = soft_labels(label_weights(self.scheme, keys), classes, len(self.images.classes))
        return Encoded(out.to(self.device, non_blocking=True), labels.to(self.device))

    def __repr__(self) -> str:
        return f"Encoder({self.scheme}, {len(self.images)} images)"

    def __setstate__(self, state: dict[str, object]) -> None:
        super().__setstate__(state)
        self.exposure.group(content_ids_of(self.images))
        self._device_tables = self._to_device()

    def _draw(self, block: Block, indices: NDArray[np.int64]) -> OneTimeKeys:
        return sampler.one_time_keys(
            block,
            self.scheme,
            indices,
            public=len(self._public),
            shape=self.images.shape,
            augmentation=self.augmentation,
            exposure=self.exposure,
            pools=self.pools,
        )

    def _prepare(self) -> None:
        """Group the exposure counts by picture, and compute the partner pools."""
        ids = self.exposure.group(content_ids_of(self.images))
        self.pools: PartnerPools | None = partner_pools(ids, self.images, self._public.images)
        require_enough_images(self.scheme, self.pools)
        self._device_tables = self._to_device()

    def _private(self, keys: OneTimeKeys) -> NDArray[np.int64]:
        return keys.partners[:, : self.scheme.private_k]

    def _encode_on_cpu(self, keys: OneTimeKeys, out: Tensor) -> Labels:
        """Fill ``out``; returns the labels of the private images, (n, private_k) classes."""
        private = self.images.rows(self._private(keys))
        normalization = self.images.scale, self.images.bias
        like = self.images.normalization
        fetched = private.pixels, private.positions
        black = self.images.black if isinstance(self.images, ImageTable) else 0
        self._mix(keys, fetched, like, normalization, out, black)
        return private.labels

    def _to_device(self) -> cuda.DeviceTables | None:
        images, public = self.images, self._public.images
        if public is None and isinstance(images, ImageTable):
            public = images.subset(slice(0, 0))
        if not (isinstance(images, ImageTable) and isinstance(public, ImageTable)):
            return None
        if not cuda.fits(self.device, images, public):
            return None
        return cuda.DeviceTables(images, public, self.device)


class _Line:
    """The blocks of a stream, in order: drawn in the background, then mixed when memory is free.

    Blocks whose memory is in use are limited to `BLOCKS_AHEAD` + 1. The consumer of the encodings
    holds one of them. It drops a block when it receives the next one, so the memory of a block is
    free when the second block after it is requested. No thread waits for this: a script that ends
    in the middle of a stream would wait for that thread.
    """

    def __init__(self, encoder: Encoder, workers: ThreadPoolExecutor) -> None:
        self._encoder, self._workers = encoder, workers
        self._free, self._requests = BLOCKS_AHEAD + 1, 0
        self._drawn: deque[tuple[Block, Future[OneTimeKeys], Memory]] = deque()
        self._mixing: deque[Future[Encoded]] = deque()

    def __len__(self) -> int:
        return len(self._drawn) + len(self._mixing)

    def add(self, block: Block, indices: NDArray[np.int64], memory: Memory) -> None:
        """Draw the keys of a further block."""
        keys = self._workers.submit(self._encoder._draw, block, indices)
        self._drawn.append((block, keys, memory))
        self._mix()

    def first(self) -> Encoded:
        """The next block, once it is encoded."""
        return self._mixing.popleft().result()

    def waiting(self) -> list[Future[Any]]:
        """All that is to be drawn or mixed."""
        return [*self._mixing, *(keys for _, keys, _ in self._drawn)]

    def requested(self) -> None:
        """Record that the consumer requests another block, and so holds at most one."""
        self._requests += 1
        self._free += self._requests > 1
        self._mix()

    def _mix(self) -> None:
        while self._free and self._drawn:
            self._free -= 1
            self._mixing.append(self._workers.submit(self._mixed, *self._drawn.popleft()))

    def _mixed(self, block: Block, keys: Future[OneTimeKeys], memory: Memory) -> Encoded:
        return self._encoder._mixed(block, keys.result(), memory)


def random_permutation(count: int, participant: str = "") -> NDArray[np.int64]:
    """A random permutation of ``count`` rows, from a key stream of its own.

    Args:
        count: number of rows.
        participant: a name in the keys, as for `Encoder`.
    """
    return sampler.permutation(KeyStream(participant).next_block(), count)

"""An epoch of a wrapped loader: its requests with their keys, and its encrypted batches."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import count, islice
from operator import index
from typing import SupportsIndex

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader

from instahide.encryption.batch_encoder import BatchEncoder, PendingBatch
from instahide.encryption.encoder import Encoded
from instahide.encryption.exposure import limit_error
from instahide.errors import ExposureLimitError, IntegrationError, SchemeError
from instahide.integrations.dataloader.batch_contents import BatchReader
from instahide.integrations.dataloader.batch_fields import Path
from instahide.integrations.dataloader.duplicate_scan import ItemScan
from instahide.integrations.dataloader.item_contents import PositionExposure
from instahide.integrations.dataloader.workers import (
    FetchCollate,
    FetchDataset,
    FetchedBatch,
    FetchedParts,
    FetchRequest,
    WorkerInit,
)
from instahide.utils.parallel import shut_down


class Epoch:
    """One pass over the user's batches; the keys of a batch are drawn with its request.

    Partners come from the images of this pass only.

    Attributes:
        limit: the error that ended the pass early, if an image reached its exposure limit.
    """

    def __init__(self, encoder: BatchEncoder, batches: EpochSampler, scan: ItemScan) -> None:
        self.limit: ExposureLimitError | None = None
        self._encoder = encoder
        self._scan = scan
        self._batches = batches
        self._plans: dict[int, PendingBatch] = {}

    def requests(self) -> Iterator[FetchRequest]:
        """Yield the items to fetch for each batch.

        Raises:
            InstaHideError: an index is no item number, there are too few images for a mix, or the
                items are not those that a `PositionExposure` counted, or are others after a
                `set_epoch` of the data set.
        """
        # Not before the first request: PyTorch draws the seed of its workers before that, and the
        # user's sampler must find its generator in the usual state.
        batches = self._batches.listed()
        pool = np.unique(np.concatenate(batches)) if batches else np.empty(0, np.int64)
        if len(pool):
            _require_partners(self._encoder.scheme.private_k, len(pool))
        self._scan.begin_epoch(pool)
        if isinstance(self._encoder.exposure, PositionExposure):
            self._encoder.exposure.require_same(self._scan)
        self._encoder.identify(self._scan.hashes)
        self._encoder.exposure.begin_epoch(pool)
        for indices in batches:
            try:
                plan = self._encoder.draw(indices, pool)
            except ExposureLimitError as error:
                self.limit = error
                return
            if len(plan.targets) < len(indices):
                # The rest may be a single image, with which batch normalization fails.
                self.limit = limit_error(self._encoder.exposure)
                return
            number = next(self._batches.numbers)
            self._plans[number] = plan
            yield FetchRequest(number, plan.targets.tolist(), plan.extra_partners.tolist())

    def take(self, number: int) -> PendingBatch:
        """Remove and return the pending batch of a request.

        Raises:
            IntegrationError: the request belongs to another epoch.
        """
        try:
            return self._plans.pop(number)
        except KeyError:
            raise IntegrationError(
                "A new pass over the loader began before the previous one ended, but PyTorch's "
                "persistent workers support only one pass at a time.",
                "Finish each pass before the next, or do not set persistent_workers.",
            ) from None


class EpochSampler:
    """A batch sampler that yields fetch requests in place of the user's batches.

    Args:
        loader: the user's loader, whose batch sampler is iterated over in every epoch.
        encoder: draws the mixes.
        scan: finds the items that show the same picture.

    Attributes:
        begun: the current epoch.
        numbers: numbers of requests, each used once.
    """

    def __init__(self, loader: DataLoader[object], encoder: BatchEncoder, scan: ItemScan) -> None:
        self.numbers = count()
        self._loader = loader
        self._encoder = encoder
        self._scan = scan
        self.begun = Epoch(encoder, self, scan)

    def __iter__(self) -> Iterator[FetchRequest]:
        self.begun = Epoch(self._encoder, self, self._scan)
        return self.begun.requests()

    def __len__(self) -> int:
        return len(self._loader)

    def listed(self) -> list[NDArray[np.int64]]:
        """The item numbers of every batch of a pass.

        Raises:
            IntegrationError: the sampler yields far more batches than its length, or an index is no
                item number.
        """
        # Opacus' samplers that split batches yield a few more than their length.
        most = len(self) + 2 * self._encoder.exposure.images
        batches: Iterable[Iterable[SupportsIndex]] = self._loader.batch_sampler or ()
        listed = [self._numbers(batch) for batch in islice(batches, most + 1)]
        if len(listed) > most:
            raise IntegrationError(
                f"The length of the batch sampler is {len(self)}, but it has not ended after "
                f"{most} batches, so the images of an epoch are unknown.",
                "Use a finite sampler with the right length.",
            )
        return listed

    def _numbers(self, batch: Iterable[SupportsIndex]) -> NDArray[np.int64]:
        try:
            numbers = np.asarray([_item_number(each) for each in batch], np.int64)
        except TypeError as error:
            raise IntegrationError(
                f"The sampler yields indices that are not integers ({error}).",
                "Use a sampler of integer indices, which are needed to count exposure.",
            ) from error
        items = self._encoder.exposure.images
        if len(numbers) and not 0 <= numbers.min() <= numbers.max() < items:
            raise IntegrationError(
                f"The sampler yields an index out of range: there are {items} items.",
                f"Use 0 to {items - 1}.",
            )
        return numbers


def _item_number(value: SupportsIndex) -> int:
    # A mask in place of numbers would select only items 0 and 1.
    if isinstance(value, bool) or getattr(value, "dtype", None) in (np.bool, torch.bool):
        raise TypeError("they are booleans")
    return index(value)


def _require_partners(private_k: int, images: int) -> None:
    if images < private_k:
        raise SchemeError(
            f"A mix needs {private_k} private images, but the sampler yields only {images}.",
            "Use a smaller k, or more images.",
        )


class EncodedBatches:
    """An iterable of encrypted batches; each pass is an epoch under a new key.

    Args:
        loader: the plain loader.
        encoder: encrypts its batches.
        contents: reads images and labels from its batches.

    Raises:
        ExposureLimitError: during iteration, if an image has reached its exposure limit.
        InstaHideError: during iteration, if a batch cannot be encrypted.
    """

    def __init__(
        self, loader: DataLoader[object], encoder: BatchEncoder, contents: BatchReader
    ) -> None:
        self.loader = loader
        self.encoder = encoder
        self.contents = contents
        like = encoder.normalized
        scan = ItemScan(loader, contents.image, None if like is None else (like.mean, like.std))
        self.planned = EpochSampler(loader, encoder, scan)
        self.fetching = _fetching(loader, self.planned, contents.image)

    def __len__(self) -> int:
        return len(self.loader)

    def __iter__(self) -> Iterator[object]:
        # The processes may have met after the loader was wrapped.
        self.encoder.exposure.require_joint_limit()
        self.encoder.next_epoch()
        # A framework may have replaced it to seed workers.
        self.fetching.worker_init_fn = WorkerInit(self.loader.worker_init_fn)
        # This starts a pass of the batch sampler, which begins an epoch.
        fetched = iter(self.fetching)
        return self._batches(self.planned.begun, fetched)

    def _batches(self, epoch: Epoch, fetched: Iterator[FetchedBatch]) -> Iterator[object]:
        worker = ThreadPoolExecutor(1, thread_name_prefix="instahide-mixing")
        coming: deque[Future[object]] = deque()
        try:
            # Fetched in this thread, as a data set without workers expects.
            for answer in fetched:
                plan = epoch.take(answer.number)
                coming.append(worker.submit(self._encrypted, plan, answer))
                if len(coming) > 1:
                    yield coming.popleft().result()
            while coming:
                yield coming.popleft().result()
        finally:
            shut_down(worker, coming)
        if epoch.limit is not None:
            raise epoch.limit

    def _encrypted(self, plan: PendingBatch, fetched: FetchedBatch) -> object:
        pictures = self.contents.read(fetched, plan.targets, plan.extra_partners)
        pin = self.loader.pin_memory and torch.accelerator.is_available()
        encoded = self.encoder.encode(
            plan,
            pictures.images,
            pictures.labels,
            pictures.classes,
            dtype=pictures.dtype,
            pin_memory=pin,
        )
        if pin:
            encoded = Encoded(encoded.images, encoded.labels.pin_memory())
        return pictures.fields.put(fetched.targets, *encoded)


def _fetching(
    loader: DataLoader[object], requests: EpochSampler, image: Path | None
) -> DataLoader[FetchedParts]:
    """A loader with the settings of ``loader`` that fetches the items of ``requests``."""
    return DataLoader(
        FetchDataset(loader.dataset, loader.collate_fn),
        batch_sampler=requests,  # type: ignore[arg-type]
        num_workers=loader.num_workers,
        collate_fn=FetchCollate(loader.collate_fn, image),
        pin_memory=loader.pin_memory,
        timeout=loader.timeout,
        worker_init_fn=WorkerInit(loader.worker_init_fn),
        multiprocessing_context=loader.multiprocessing_context,
        generator=loader.generator,
        prefetch_factor=loader.prefetch_factor,
        persistent_workers=loader.persistent_workers,
        in_order=loader.in_order,
    )

"""Encrypted batches of a `DataLoader`: items are fetched, then mixed in the background."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import torch
from torch.utils.data import DataLoader

from instahide.encryption.batch_encoder import BatchEncoder, PendingBatch
from instahide.encryption.encoder import Encoded
from instahide.integrations.dataloader.batch_contents import BatchReader
from instahide.integrations.dataloader.batch_fields import Path
from instahide.integrations.dataloader.duplicate_scan import ItemScan
from instahide.integrations.dataloader.epoch import Epoch, EpochSampler
from instahide.integrations.dataloader.workers import (
    FetchCollate,
    FetchDataset,
    FetchedBatch,
    WorkerInit,
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
        self, loader: DataLoader[Any], encoder: BatchEncoder, contents: BatchReader
    ) -> None:
        self.loader = loader
        self.encoder = encoder
        self.contents = contents
        scan = ItemScan(loader, contents.image, encoder.normalized)
        self.planned = EpochSampler(loader, encoder, scan)
        self.fetching = _fetching(loader, self.planned, contents.image)

    def __len__(self) -> int:
        return len(self.loader)

    def __iter__(self) -> Iterator[Any]:
        self.encoder.next_epoch()
        # A framework may have replaced it to seed workers.
        self.fetching.worker_init_fn = WorkerInit(self.loader.worker_init_fn)
        # This starts a pass of the batch sampler, which begins an epoch.
        fetched = iter(self.fetching)
        return self._batches(self.planned.begun, fetched)

    def _batches(self, epoch: Epoch, fetched: Iterator[FetchedBatch]) -> Iterator[Any]:
        worker = ThreadPoolExecutor(1, thread_name_prefix="instahide-mixing")
        coming: deque[Future[Any]] = deque()
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
            worker.shutdown(wait=True, cancel_futures=True)
        if epoch.limit is not None:
            raise epoch.limit

    def _encrypted(self, plan: PendingBatch, fetched: FetchedBatch) -> Any:
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
    loader: DataLoader[Any], requests: EpochSampler, image: Path | None
) -> DataLoader[Any]:
    """A loader with the settings of ``loader`` that fetches the items of ``requests``."""
    return DataLoader(
        FetchDataset(loader.dataset),
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

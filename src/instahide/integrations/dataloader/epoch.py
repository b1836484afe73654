"""An epoch of a wrapped loader: what each batch asks for, and the keys that it waits with."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import count, islice
from operator import index
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader

from instahide.encryption.batch_encoder import BatchEncoder, PendingBatch
from instahide.encryption.exposure import limit_error
from instahide.errors import ExposureLimitError, IntegrationError, SchemeError
from instahide.integrations.dataloader.duplicate_scan import ItemScan
from instahide.integrations.dataloader.workers import FetchRequest


class Epoch:
    """One pass over the user's batches; its requests are drawn as they are asked for.

    Partners come from all images of the pass, and from no others.

    Attributes:
        limit: what ended it early, if an image came to its limit.
    """

    def __init__(self, encoder: BatchEncoder, batches: EpochSampler, scan: ItemScan) -> None:
        self.limit: ExposureLimitError | None = None
        self._encoder = encoder
        self._scan = scan
        self._batches = batches
        self._plans: dict[int, PendingBatch] = {}

    def requests(self) -> Iterator[FetchRequest]:
        """What to fetch for each batch.

        Raises:
            InstaHideError: indices that are no item numbers, or too few images for a mix.
        """
        # Not before the first is asked for: PyTorch draws the seed of its workers in between, and
        # the user's sampler is to find its generator as it would have without us.
        batches = self._batches.listed()
        pool = np.unique(np.concatenate(batches)) if batches else np.empty(0, np.int64)
        if len(pool):
            _require_partners(self._encoder.scheme.private_k, len(pool))
        self._scan.see(pool)
        self._encoder.identify(self._scan.hashes)
        self._encoder.exposure.begin_epoch(pool)
        for indices in batches:
            try:
                plan = self._encoder.draw(indices, pool)
            except ExposureLimitError as error:
                self.limit = error
                return
            if len(plan.targets) < len(indices):
                # What is left of the batch may be one image, which stops a batch normalization.
                self.limit = limit_error(self._encoder.exposure)
                return
            number = next(self._batches.numbers)
            self._plans[number] = plan
            yield FetchRequest(number, plan.targets.tolist(), plan.extra_partners.tolist())

    def take(self, number: int) -> PendingBatch:
        """The plan behind a request, once.

        Raises:
            IntegrationError: the request is another epoch's.
        """
        try:
            return self._plans.pop(number)
        except KeyError:
            raise IntegrationError(
                "The loader was iterated over again before the first time was over, and PyTorch's "
                "persistent workers serve one at a time.",
                "Finish one before the other, or leave persistent_workers out.",
            ) from None


class EpochSampler:
    """A batch sampler of requests in place of the user's own.

    Args:
        loader: the user's own, whose batch sampler is asked anew in every epoch.
        encoder: draws the mixes.
        scan: finds the items that show the same picture.

    Attributes:
        begun: the epoch that was begun last.
        numbers: of requests; none is given twice.
    """

    def __init__(self, loader: DataLoader[Any], encoder: BatchEncoder, scan: ItemScan) -> None:
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
            IntegrationError: there are more batches than the sampler said, or indices that are not
                item numbers.
        """
        # Opacus' samplers that split batches give a few more than they say.
        most = len(self) + 2 * self._encoder.exposure.images
        batches: Iterable[Any] = self._loader.batch_sampler or ()
        listed = [self._numbers(batch) for batch in islice(batches, most + 1)]
        if len(listed) > most:
            raise IntegrationError(
                f"The sampler gives more batches than the {len(self)} that its length says, and "
                f"had not ended after {most}, so that the images of an epoch are not known.",
                "Give it an end, and the length that it has.",
            )
        return listed

    def _numbers(self, batch: Iterable[Any]) -> NDArray[np.int64]:
        try:
            numbers = np.asarray([_item_number(each) for each in batch], np.int64)
        except TypeError as error:
            raise IntegrationError(
                f"The sampler gives indices that are no whole numbers ({error}).",
                "Let it give item numbers: exposure is counted by them.",
            ) from error
        items = self._encoder.exposure.images
        if len(numbers) and not 0 <= numbers.min() <= numbers.max() < items:
            raise IntegrationError(
                f"The sampler gives an index out of range: there are {items} items.",
                f"Use 0 to {items - 1}.",
            )
        return numbers


def _item_number(value: Any) -> int:
    # A mask in place of numbers would name items 0 and 1 only.
    if isinstance(value, bool) or getattr(value, "dtype", None) in (np.bool, torch.bool):
        raise TypeError("a boolean is no number")
    return index(value)


def _require_partners(private_k: int, images: int) -> None:
    if images < private_k:
        raise SchemeError(
            f"A mix of {private_k} private images needs as many; the sampler gives {images}.",
            "Lower k, or give more images.",
        )

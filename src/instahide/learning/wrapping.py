"""One line in an existing script: its own `DataLoader`, with encodings in place of images."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import torch
import torch.distributed as dist
from torch.utils.data import DataLoader

from instahide.encryption.batches import BatchEncoder, Moments, Plan
from instahide.encryption.encoder import Encoded
from instahide.encryption.exposure import Exposure
from instahide.encryption.scheme import Scheme
from instahide.errors import InstaHideError
from instahide.images import Images, PhotoCrops
from instahide.images.hints import classes_known, moments_known
from instahide.learning.contents import Contents
from instahide.learning.fetching import Collate, Fetched, Items, WorkerInit
from instahide.learning.fields import as_path
from instahide.learning.planning import Epoch, Planned
from instahide.learning.wrappable import require_wrappable


def encode_loader(
    loader: DataLoader[Any],
    scheme: Scheme,
    *,
    public: Images | PhotoCrops | None = None,
    image: Any = None,
    label: Any = None,
    classes: int | Sequence[str] | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    exposure: Exposure | None = None,
) -> EncodingLoader:
    """The batches of ``loader``, encrypted: encodings for its images, soft labels for its labels.

    Data set, transforms, sampler, workers and collate are used as they are. A mix's partners come
    from the images that the sampler gives in the same epoch. All other fields of a batch stay.

    Args:
        loader: gives normalised float images (C, H, W) and class numbers, or soft labels.
        scheme: how to encrypt.
        public: the public images of a scheme that mixes some in: a pool, or photographs of which
            every epoch takes new crops.
        image: the field of a batch that holds the images: a key, an index, or a tuple of these
            that leads there. By default the one that looks like it.
        label: the field that holds the labels, likewise.
        classes: how many there are, or their names; by default what the data set says.
        mean: what the transform subtracts, per channel, if ``public`` are pixels; by default what
            the last transform with a `mean` and a `std` says.
        std: what it divides by, likewise.
        exposure: counts how often each item of the data set goes out, and may limit it; by default
            a new one without a limit.

    Raises:
        InstaHideError: a loader that cannot be wrapped, or settings that do not fit it.
    """
    if isinstance(loader, EncodingLoader):
        raise InstaHideError(
            "This loader encrypts already.", "Use it as it is; `loader.unwrapped` is the original."
        )
    require_wrappable(loader)
    items = len(loader.dataset)  # type: ignore[arg-type]
    exposure = exposure or Exposure(items)
    if exposure.images != items:
        raise InstaHideError(
            f"The exposure counts {exposure.images} images, but the data set has {items} items.",
            f"Give Exposure({items}): it counts by item number.",
        )
    moments = _moments(loader.dataset, mean, std)
    encoder = BatchEncoder(scheme, exposure, public, moments=moments, participant=_participant())
    if classes is None:
        classes = classes_known(loader.dataset)
    number = len(classes) if isinstance(classes, Sequence) else classes
    contents = Contents(as_path(image), as_path(label), number, mask=scheme.mask)
    return EncodingLoader(loader, encoder, contents)


class EncodingLoader:
    """Iterate over it as over the loader that it wraps; made by `encode_loader`.

    Every pass is an epoch, under a new key. Batches are mixed in the background, one ahead of the
    one in use. Attributes that it has not are those of the wrapped loader.

    It is no `DataLoader`: frameworks build these anew from their parts, and the copy would give
    plain images.

    Args:
        loader: the user's own.
        encoder: encrypts its batches.
        contents: where these hold images and labels.

    Attributes:
        unwrapped: the user's own loader, untouched.

    Raises:
        ExposureLimitError: while it is iterated over, an image that came to its limit.
        InstaHideError: while it is iterated over, batches that cannot be encrypted.
    """

    def __init__(self, loader: DataLoader[Any], encoder: BatchEncoder, contents: Contents) -> None:
        self.unwrapped = loader
        self._encoder = encoder
        self._contents = contents
        self._planned = Planned(loader, encoder)
        self._fetching = _fetching(loader, self._planned)

    @property
    def scheme(self) -> Scheme:
        """How it encrypts."""
        return self._encoder.scheme

    @property
    def exposure(self) -> Exposure:
        """How often each item of the data set has gone out."""
        return self._encoder.exposure

    def __len__(self) -> int:
        """Batches in an epoch."""
        return len(self.unwrapped)

    def __iter__(self) -> Iterator[Any]:
        self._encoder.next_epoch()
        # This asks the batch sampler for a pass, and so begins an epoch.
        fetched = iter(self._fetching)
        return self._batches(self._planned.begun, fetched)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_") or name == "unwrapped":
            raise AttributeError(f"{type(self).__name__!r} has no attribute {name!r}")
        return getattr(self.unwrapped, name)

    def __repr__(self) -> str:
        return f"EncodingLoader({self.scheme}, {self.unwrapped!r})"

    def __reduce__(self) -> tuple[Any, ...]:
        """Without keys: whoever unpickles this draws keys of their own."""
        return type(self), (self.unwrapped, self._encoder, self._contents)

    def _batches(self, epoch: Epoch, fetched: Iterator[Fetched]) -> Iterator[Any]:
        worker = ThreadPoolExecutor(1, thread_name_prefix="instahide-mixing")
        coming: deque[Future[Any]] = deque()
        try:
            # Fetched here, not in the background: a data set without workers runs in this thread.
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

    def _encrypted(self, plan: Plan, fetched: Fetched) -> Any:
        pictures = self._contents.read(fetched, plan.own, plan.others)
        pin = self.unwrapped.pin_memory and torch.accelerator.is_available()
        encoded = self._encoder.finish(
            plan,
            pictures.images,
            pictures.labels,
            pictures.classes,
            dtype=pictures.dtype,
            pin_memory=pin,
        )
        if pin:
            encoded = Encoded(encoded.images, encoded.labels.pin_memory())
        return pictures.fields.put(fetched.own, *encoded)


def _fetching(loader: DataLoader[Any], requests: Planned) -> DataLoader[Any]:
    """A loader like ``loader``, which fetches what ``requests`` say."""
    return DataLoader(
        Items(loader.dataset),
        batch_sampler=requests,  # type: ignore[arg-type]
        num_workers=loader.num_workers,
        collate_fn=Collate(loader.collate_fn),
        pin_memory=loader.pin_memory,
        timeout=loader.timeout,
        worker_init_fn=WorkerInit(loader.worker_init_fn),
        multiprocessing_context=loader.multiprocessing_context,
        generator=loader.generator,
        prefetch_factor=loader.prefetch_factor,
        persistent_workers=loader.persistent_workers,
        in_order=loader.in_order,
    )


def _participant() -> str:
    """A name that no other process of a distributed run has."""
    several = dist.is_available() and dist.is_initialized()
    return f"rank-{dist.get_rank()}" if several else ""


def _moments(
    dataset: object, mean: Sequence[float] | None, std: Sequence[float] | None
) -> Moments | None:
    """What is given, else what the data set's transform says, if it does."""
    if mean is not None and std is not None:
        return Moments(tuple(map(float, mean)), tuple(map(float, std)))
    if mean is not None or std is not None:
        raise InstaHideError("Of mean and std only one is given.", "Give both or none.")
    known = moments_known(dataset)
    return known and Moments(*known)

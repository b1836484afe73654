"""One line in an existing script: its own `DataLoader`, with encodings in place of images."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch.distributed as dist
from torch.utils.data import DataLoader

from instahide.data import ImageSource, ImageTable, PhotoCrops
from instahide.data.declared_classes import read_classes
from instahide.data.introspection import class_names, num_classes
from instahide.data.normalization.channel_statistics import FETCHED_IMAGES, ChannelStatistics
from instahide.data.normalization.inference import infer_normalization
from instahide.data.normalization.normalization import Normalization
from instahide.encryption.batch_encoder import BatchEncoder
from instahide.encryption.exposure import Exposure
from instahide.encryption.scheme import Scheme
from instahide.errors import InstaHideError, IntegrationError
from instahide.integrations.dataloader.batch_contents import BatchReader
from instahide.integrations.dataloader.batch_fields import as_path
from instahide.integrations.dataloader.encoded_batches import EncodedBatches
from instahide.integrations.dataloader.hidden_items import Hidden, HiddenIterator, reveal
from instahide.integrations.dataloader.loader_view import LoaderView
from instahide.integrations.dataloader.normalization_check import ValueCheck
from instahide.integrations.dataloader.outer_loaders import around, inner_loader
from instahide.integrations.dataloader.validation import require_wrappable


def encode_loader(
    loader: DataLoader[Any],
    scheme: Scheme,
    *,
    public: ImageSource | PhotoCrops | None = None,
    image: Any = None,
    label: Any = None,
    classes: int | Sequence[str] | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    exposure: Exposure | None = None,
    participant: str = "",
) -> EncodingLoader:
    """The batches of ``loader``, encrypted: encodings for its images, soft labels for its labels.

    Data set, transforms, sampler, workers and collate are used as they are. A mix's partners come
    from the images that the sampler gives in the same epoch. All other fields of a batch stay.

    Args:
        loader: gives normalized float images (C, H, W) and class numbers, or soft labels.
        scheme: how to encrypt.
        public: the public images of a scheme that mixes some in: a pool, or photographs of which
            every epoch takes new crops.
        image: the field of a batch that holds the images: a key, an index, or a tuple of these
            that leads there. By default the one that looks like it.
        label: the field that holds the labels, likewise.
        classes: how many there are, or their names; by default what the data set says.
        mean: what the transform subtracts, per channel, if ``public`` are pixels; by default what
            the transforms of the data set are recognised to subtract. It is compared with the
            values of the images. Means above 1 are taken to be of pixels from 0 to 255.
        std: what it divides by, likewise.
        exposure: counts how often each item of the data set goes out, and may limit it; by default
            a new one without a limit. An account of the ledger (`Ledger.account` of the data set)
            counts over all runs and all processes.
        participant: a name in the keys, as for `Encoder`. The rank of a process of a distributed
            run is added.

    Raises:
        InstaHideError: a loader that cannot be wrapped, or settings that do not fit it.
    """
    inner = inner_loader(loader)
    if isinstance(inner, LoaderView):
        raise IntegrationError(
            "This loader encrypts already.", "Use it as it is; `loader.unwrapped` is the original."
        )
    require_wrappable(inner)
    items = len(inner.dataset)
    exposure = exposure or Exposure(items)
    if exposure.images != items:
        raise InstaHideError(
            f"The exposure counts {exposure.images} images, but the data set has {items} items.",
            f"Give Exposure({items}): it counts by item number.",
        )
    _require_joint(exposure)
    # Public images that are normalized elsewhere need none, unless noise is reckoned with.
    needed = bool(scheme.noise) or isinstance(public, (ImageTable, PhotoCrops))
    moments = _moments(inner.dataset, mean, std, needed=needed)
    name = _participant(participant)
    encoder = BatchEncoder(scheme, exposure, public, moments=moments, participant=name)
    stated = read_classes(classes) or class_names(inner.dataset) or num_classes(inner.dataset)
    number = len(stated) if isinstance(stated, tuple) else stated
    check = ValueCheck(moments, _public_statistics(public, moments), mask=scheme.mask)
    contents = BatchReader(as_path(image), as_path(label), number, check)
    return EncodingLoader(loader, encoder, contents, stated)


class EncodingLoader(LoaderView):
    """Iterate over it as over the loader that it wraps; made by `encode_loader`.

    Every pass is an epoch, under a new key. Batches are mixed in the background, one ahead of the
    one in use.

    Nothing that it shows gives a plain item, except `unwrapped`. It has the settings of the wrapped
    loader (`batch_size`, `num_workers` and so on). Its `dataset` has a length and class names. Its
    `sampler` and `batch_sampler` give item numbers and take `set_epoch`. Libraries that build a
    loader anew from these parts get an error when the first item is due.

    Args:
        loader: the plain loader.
        encoder: encrypts its batches.
        contents: where these hold images and labels.
        classes: the names of the classes, or how many there are, if that is known.

    Attributes:
        unwrapped: the plain loader, untouched.

    Raises:
        ExposureLimitError: while it is iterated over, an image that came to its limit.
        InstaHideError: while it is iterated over, batches that cannot be encrypted.
    """

    def __init__(
        self,
        loader: Any,
        encoder: BatchEncoder,
        contents: BatchReader,
        classes: int | Sequence[str] | None = None,
    ) -> None:
        inner = inner_loader(loader)
        source: Any
        if inner is loader:
            source = EncodedBatches(loader, encoder, contents)
        else:
            source = around(loader, EncodingLoader(inner, encoder, contents, classes))
        super().__init__(inner, classes, shown=inner if inner is loader else source)
        self._loader = Hidden(loader)
        self._source = Hidden(source)
        self._encoder = encoder
        self._contents = contents
        self._classes = classes

    @property
    def unwrapped(self) -> Any:
        """The plain loader, untouched."""
        return reveal(self._loader)

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
        return len(reveal(self._source))

    def __iter__(self) -> Iterator[Any]:
        return HiddenIterator(iter(reveal(self._source)))

    def __repr__(self) -> str:
        return f"EncodingLoader({self.scheme}, {self.unwrapped!r})"

    def __reduce__(self) -> tuple[Any, ...]:
        """Without keys: whoever unpickles this draws keys of their own."""
        return _rebuilt, (self._loader, self._encoder, self._contents, self._classes)


def _rebuilt(loader: Hidden[Any], *arguments: Any) -> EncodingLoader:
    return EncodingLoader(reveal(loader), *arguments)


def _participant(name: str) -> str:
    """A name that no other process of a distributed run has."""
    several = dist.is_available() and dist.is_initialized()
    rank = f"rank-{dist.get_rank()}" if several else ""
    return f"{name}, {rank}" if name and rank else name or rank


def _require_joint(exposure: Exposure) -> None:
    """Refuse a limit that each process of a distributed run would keep for itself alone."""
    alone = not (dist.is_available() and dist.is_initialized()) or dist.get_world_size() == 1
    if not alone and exposure.limit is not None and type(exposure) is Exposure:
        raise InstaHideError(
            f"{dist.get_world_size()} processes would each allow {exposure.limit} encodings of an "
            "image.",
            "Give each an account of one ledger, which counts for all of them: "
            "`Ledger.open(path).account(dataset, limit=...)`.",
        )


def _moments(
    dataset: object, mean: Sequence[float] | None, std: Sequence[float] | None, *, needed: bool
) -> Normalization | None:
    """What is given; else, if it is needed, what the data set's transforms say."""
    if mean is not None and std is not None:
        return Normalization.of(mean, std)
    if mean is not None or std is not None:
        raise InstaHideError("Of mean and std only one is given.", "Give both or none.")
    known = infer_normalization(dataset) if needed else None
    return known


def _public_statistics(
    public: ImageSource | PhotoCrops | None, moments: Normalization | None
) -> ChannelStatistics | None:
    """Of public images under the private ones' normalization."""
    if isinstance(public, PhotoCrops):
        # These crops are looked at and thrown away: nothing secret depends on them.
        uniforms = np.random.default_rng().random((FETCHED_IMAGES, 4))
        public = ImageTable.from_arrays(public.draw(uniforms))
    if isinstance(public, ImageTable) and moments is not None:
        public = public.normalized_like(moments)
    return None if public is None else ChannelStatistics.of_images(public)

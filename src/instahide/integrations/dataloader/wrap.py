"""`encode_loader`: a user's own `DataLoader` with encodings in place of images."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from typing import Any

import numpy as np
import torch.distributed as dist
from torch.utils.data import DataLoader

from instahide.data import ImageSource, ImageTable, PhotoCrops
from instahide.data.image_source import normalized_as
from instahide.data.introspection import class_names, num_classes, read_classes
from instahide.data.labels import Task
from instahide.data.normalization.channel_statistics import FETCHED_IMAGES, ChannelStatistics
from instahide.data.normalization.inference import infer_normalization
from instahide.data.normalization.normalization import Normalization
from instahide.encryption.batch_encoder import BatchEncoder
from instahide.encryption.exposure import Exposure
from instahide.encryption.scheme import Scheme
from instahide.encryption.validation import require_label_mode
from instahide.errors import InstaHideError, IntegrationError
from instahide.integrations.dataloader.batch_contents import BatchReader, ValueCheck
from instahide.integrations.dataloader.batch_fields import field_paths
from instahide.integrations.dataloader.epoch import EncodedBatches
from instahide.integrations.dataloader.loader_view import Hidden, HiddenIterator, LoaderView, reveal
from instahide.integrations.dataloader.supported_loaders import (
    BatchSource,
    around,
    inner_loader,
    map_dataset,
    require_wrappable,
)


def encode_loader(
    loader: DataLoader[object],
    scheme: Scheme,
    *,
    public: ImageSource | PhotoCrops | None = None,
    fields: tuple[Hashable, Hashable] = (None, None),
    classes: int | Sequence[str] | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    exposure: Exposure | None = None,
    participant: str = "",
    task: Task = "single-label",
) -> EncodingLoader:
    """Wrap a `DataLoader` so that its batches hold encodings and soft labels.

    The loader's data set, transforms, sampler, workers and collate function are used unchanged.
    Partners of a mix come from the images that the sampler selects in the same epoch. Other fields
    of a batch are unchanged.

    Args:
        loader: returns normalized float images (C, H, W) with class numbers or soft labels, or with
            targets as ``task`` says.
        scheme: how to encrypt.
        public: the public images, required if ``scheme.public_k`` is above 0: a pool, or
            photographs from which every epoch draws new crops.
        fields: the fields of a batch that hold the images and the labels, as in ``("image",
            "label")``: each a key, an index, or a tuple of keys and indices for a nested field.
            None: the only field of shape (n, C, H, W), and the only one of labels.
        classes: the number of classes, or their names; by default those that the data set
            declares. Of other tasks the columns, by default as many as the labels have.
        mean: mean that the transform subtracts, per channel; used to normalize ``public``, and
            checked against the values of the images. By default it is read from known transforms
            of the data set. If it is above 1, ``mean`` and ``std`` are taken to be in units of
            pixels from 0 to 255.
        std: standard deviation that the transform divides by, likewise.
        exposure: counts the encodings of each item of the data set, and may limit them; by default
            a new one without a limit. An account of a ledger (`Ledger.account`) counts over all
            runs and processes. Both take ``groups=``, such as the patient of each item: items of
            one group then share a count, and no mix holds two of them.
        participant: a name that is mixed into the keys, as for `Encoder`. In a distributed run the
            rank of the process is added to it.
        task: what the labels are; it is not guessed. ``single-label``: class numbers (n,), or soft
            labels (n, classes) of shares of classes. ``multi-label``: a row for each item (n,
            findings), or (n,) for a single finding: 1 present, 0 absent, NaN unknown, or a
            probability. ``regression``: measured values (n, columns) or (n,). Labels of the last
            two become floats (n, columns); a mix with an image whose finding is unknown is unknown.

    Returns:
        A loader to iterate over in place of ``loader``.

    Raises:
        IntegrationError: ``loader`` encrypts already, or is of a kind that cannot be wrapped.
        SchemeError: public images would make soft labels of ``task`` too small.
        InstaHideError: ``exposure`` is for another number of items; only one of ``mean`` and
            ``std`` is given; public images do not fit the scheme; or several processes would each
            apply the limit of ``exposure`` separately.

    Examples:
        >>> import torch
        >>> from torch.utils.data import DataLoader, TensorDataset
        >>> from instahide import Scheme, encode_loader
        >>> dataset = TensorDataset(torch.randn(64, 3, 8, 8), torch.arange(64) % 10)
        >>> loader = DataLoader(dataset, batch_size=16, shuffle=True)
        >>> images, labels = next(iter(encode_loader(loader, Scheme.inside(4), classes=10)))
        >>> tuple(images.shape), tuple(labels.shape)
        ((16, 3, 8, 8), (16, 10))
    """
    require_label_mode(scheme, task)
    inner = inner_loader(loader)
    if isinstance(inner, LoaderView):
        raise IntegrationError(
            "This loader encrypts already.", "Use it directly; `loader.unwrapped` is the original."
        )
    items = len(dataset := map_dataset(require_wrappable(inner).dataset))
    exposure = exposure or Exposure(items)
    if exposure.images != items:
        raise InstaHideError(
            f"The exposure counts {exposure.images} images, but the data set has {items} items.",
            f"Pass Exposure({items}), which counts by item number.",
        )
    exposure.require_joint_limit()
    # Other public images are normalized already; noise needs the normalization for its epsilon.
    needed = bool(scheme.noise) or isinstance(public, (ImageTable, PhotoCrops))
    moments = _moments(dataset, mean, std, needed=needed)
    participant = _participant(participant)
    encoder = BatchEncoder(scheme, exposure, public, moments=moments, participant=participant)
    stated = read_classes(classes)
    if stated is None and task == "single-label":
        stated = class_names(dataset) or num_classes(dataset)
    count = len(stated) if isinstance(stated, tuple) else stated
    check = ValueCheck(moments, _public_statistics(public, moments), mask=scheme.mask)
    image, label = field_paths(fields)
    contents = BatchReader(image, label, count, check, task)
    return EncodingLoader(loader, encoder, contents, stated)


class EncodingLoader(LoaderView):
    """A `DataLoader` whose batches are encrypted. Use `encode_loader` to make one.

    Each pass is an epoch, under new keys. The next batch is mixed in the background while the
    current one is used.

    No attribute except `unwrapped` leads to a plain item. The settings of the wrapped loader
    (`batch_size`, `num_workers` and so on) are readable. `dataset` has a length and class names;
    `sampler` and `batch_sampler` return item numbers and accept `set_epoch`. A library that builds
    a new loader from these parts gets an error when it fetches the first item.

    Args:
        loader: the plain loader.
        encoder: encrypts its batches.
        contents: reads images and labels from its batches.
        classes: the names or the number of the classes; None if unknown.

    Attributes:
        unwrapped: the plain loader, unchanged.

    Raises:
        ExposureLimitError: during iteration, if an image has reached its exposure limit.
        InstaHideError: during iteration, if a batch cannot be encrypted.

    Examples:
        >>> import torch
        >>> from torch.utils.data import DataLoader, TensorDataset
        >>> from instahide import Scheme, encode_loader
        >>> dataset = TensorDataset(torch.randn(64, 3, 8, 8), torch.arange(64) % 10)
        >>> loader = encode_loader(DataLoader(dataset, batch_size=16), Scheme.inside(4), classes=10)
        >>> len(loader), loader.batch_size, len(loader.dataset)
        (4, 16, 64)
        >>> for images, labels in loader:
        ...     pass
        >>> int(loader.exposure.counts.sum())
        256
    """

    def __init__(
        self,
        loader: DataLoader[object],
        encoder: BatchEncoder,
        contents: BatchReader,
        classes: int | Sequence[str] | None = None,
    ) -> None:
        inner = require_wrappable(inner_loader(loader))
        source: BatchSource
        if inner is loader:
            source = EncodedBatches(inner, encoder, contents)
        else:
            source = around(loader, EncodingLoader(inner, encoder, contents, classes))
        super().__init__(inner, classes, shown=inner if inner is loader else source)
        self._loader = Hidden(loader)
        self._source = Hidden(source)
        self._encoder = encoder
        self._contents = contents
        self._classes = classes

    @property
    def unwrapped(self) -> DataLoader[object]:
        """The plain loader, unchanged."""
        return reveal(self._loader)

    @property
    def scheme(self) -> Scheme:
        """How it encrypts."""
        return self._encoder.scheme

    @property
    def exposure(self) -> Exposure:
        """The number of encodings that each item of the data set went into."""
        return self._encoder.exposure

    def __len__(self) -> int:
        """Batches in an epoch."""
        return len(reveal(self._source))

    def __iter__(self) -> Iterator[Any]:
        return HiddenIterator(iter(reveal(self._source)))

    def __repr__(self) -> str:
        return f"EncodingLoader({self.scheme}, {self.unwrapped!r})"

    def __reduce__(self) -> tuple[Callable[..., EncodingLoader], tuple[object, ...]]:
        """Pickle it without keys; a copy starts its own key stream."""
        return _rebuilt, (self._loader, self._encoder, self._contents, self._classes)


def _rebuilt(
    loader: Hidden[DataLoader[object]],
    encoder: BatchEncoder,
    contents: BatchReader,
    classes: int | Sequence[str] | None,
) -> EncodingLoader:
    return EncodingLoader(reveal(loader), encoder, contents, classes)


def _participant(name: str) -> str:
    """``name`` with the rank of this process in a distributed run, so that keys differ."""
    several = dist.is_available() and dist.is_initialized()
    rank = f"rank-{dist.get_rank()}" if several else ""
    return f"{name}, {rank}" if name and rank else name or rank


def _moments(
    dataset: object, mean: Sequence[float] | None, std: Sequence[float] | None, *, needed: bool
) -> Normalization | None:
    """``mean`` and ``std`` if given; else, if needed, those of the data set's transforms."""
    if mean is not None and std is not None:
        return Normalization.of(mean, std)
    if mean is not None or std is not None:
        raise InstaHideError("Only one of mean and std is given.", "Pass both or neither.")
    return infer_normalization(dataset) if needed else None


def _public_statistics(
    public: ImageSource | PhotoCrops | None, moments: Normalization | None
) -> ChannelStatistics | None:
    """Statistics of the public images under the normalization of the private ones."""
    if isinstance(public, PhotoCrops):
        # These crops are used for statistics only, so they need no secret randomness.
        uniforms = np.random.default_rng().random((FETCHED_IMAGES, 4))
        public = ImageTable.from_arrays(public.draw(uniforms))
    if isinstance(public, ImageTable) and moments is not None:
        public = normalized_as(public, moments)
    return None if public is None else ChannelStatistics.of_images(public)

"""Training data from private images, which are encrypted under new keys in every epoch."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from instahide.data import (
    ImageTable,
    PhotoCrops,
    Split,
    open_images,
    open_pool,
    open_split,
    open_test,
)
from instahide.data.splits import require_trainable
from instahide.encodings.ledger.account import LedgerAccount
from instahide.encodings.ledger.ledger import Ledger
from instahide.encryption.augmentation import Augmentation
from instahide.encryption.encoder import Encoder
from instahide.encryption.exposure import Exposure
from instahide.encryption.privacy import DELTA, epsilon_of
from instahide.encryption.scheme import Scheme
from instahide.errors import DataError
from instahide.training.data.alignment import align_to_model
from instahide.training.data.encoded_loader import EncodedLoader
from instahide.training.data.target_scale import UNSCALED, TargetScale, target_scale
from instahide.training.distributed.processes import ALONE, Processes
from instahide.training.distributed.sharding import shard_split, source_of
from instahide.training.evaluate import table_batches
from instahide.training.models.model_io import NetworkCard
from instahide.training.predict import predict_encrypted, require_encryptable
from instahide.training.settings import TrainSettings


@dataclass(frozen=True)
class PrivateData:
    """Private images with their encoder. Use `open`.

    Attributes:
        settings: settings of the run.
        scheme: the scheme of the encryption.
        split: private training images, and plain test images.
        public: the public images, if the scheme has any.
        encoder: makes the encodings; every process has its own keys.
        scale: mean and standard deviation of the values of a regression, over all processes.
        processes: the processes that train together, each with its own images.
    """

    settings: TrainSettings
    scheme: Scheme
    split: Split
    public: ImageTable | PhotoCrops | None
    encoder: Encoder
    scale: TargetScale = UNSCALED
    processes: Processes = ALONE

    @classmethod
    def open(
        cls, settings: TrainSettings, device: torch.device, processes: Processes = ALONE
    ) -> PrivateData:
        """Read the images and check that they fit the scheme.

        Raises:
            InstaHideError: the images cannot be read, or do not fit the scheme or the settings.
        """
        settings.encryption()  # Refused before images are read.
        split = shard_split(
            open_private(settings, processes), str(settings.data), settings.test, processes
        )
        settings = settings.completed(split.train.task)
        scheme = settings.encryption(split.train.task)
        has_queries = scheme.k > 1 and settings.queries > 0
        public = public_images(settings, split.train.shape)
        if has_queries:
            query = scheme.query(settings.query_coefficient)
            require_encryptable(query, split.test)
        encoder = Encoder(
            scheme,
            split.train,
            public,
            augmentation=Augmentation(settings.crop_padding, settings.flip),
            exposure=_exposure(settings, scheme, split.train),
            device=device,
            participant=processes.participant,
        )
        scale = target_scale(split.train, processes)
        return cls(settings, scheme, split, public, encoder, scale, processes)

    @property
    def card(self) -> NetworkCard:
        """The metadata of a network for these images."""
        images = self.split.train
        return NetworkCard(
            self.settings.model,
            self.settings.sign_invariant,
            images.shape,
            images.classes,
            images.mean,
            images.std,
            self.scheme.to_json(),
            images.value_range,
            images.task,
            *self.scale,
        )

    def batches(self, *, pin_memory: bool) -> EncodedLoader:
        """A loader that makes a new encoding of every private image in each epoch."""
        share = len(self.processes.share(self.settings.batch_size))
        return EncodedLoader(self.encoder, share, pin_memory=pin_memory)

    @property
    def test_images(self) -> int:
        """Number of test images of this process."""
        return len(self.split.test)

    def test_batches(self) -> Iterable[tuple[Tensor, Tensor]]:
        """Plain test images with their labels."""
        return table_batches(self.split.test)

    def encrypted_predictions(
        self, network: nn.Module, precision: torch.dtype
    ) -> tuple[Tensor, Tensor] | None:
        """Predictions for encrypted queries and their labels, if the settings have any."""
        if self.scheme.k == 1 or self.settings.queries == 0:
            return None
        labels = torch.from_numpy(self.split.test.labels)
        if self.test_images == 0:
            return torch.zeros(0, len(self.split.test.classes)), labels
        found = predict_encrypted(
            network,
            self.scheme,
            self.split.test,
            self.public,
            encodings=self.settings.queries,
            coefficient=self.settings.query_coefficient,
            precision=precision,
            participant=self.processes.participant,
            outputs=self.card.outputs,
        )
        return found, labels

    def close(self) -> None:
        """Compact the account in the ledger."""
        exposure = self.encoder.exposure
        if isinstance(exposure, LedgerAccount):
            exposure.fold()

    def facts(self) -> dict[str, object]:
        """The exposure over this run and all others in the ledger.

        With noise also epsilon of the image with the largest privacy loss.
        """
        counts = self.encoder.exposure.counts
        found = self.processes.gather([int(counts.min()), int(counts.max())])
        least, most = zip(*found, strict=True)
        exposed: dict[str, object] = {"exposure": {"least": min(least), "most": max(most)}}
        return exposed | self._guarantee()

    def _guarantee(self) -> dict[str, object]:
        exposure = self.encoder.exposure
        if not (self.scheme.noise and isinstance(exposure, LedgerAccount)):
            return {}
        epsilon = epsilon_of(max(self.processes.gather(float(exposure.losses.max()))))
        # JSON knows no infinity.
        return {
            "guarantee": {"epsilon": epsilon if math.isfinite(epsilon) else None, "delta": DELTA}
        }


def public_images(
    settings: TrainSettings, shape: tuple[int, ...]
) -> ImageTable | PhotoCrops | None:
    """The public images of ``shape`` (C, H, W), if the scheme of ``settings`` needs any.

    Raises:
        InstaHideError: the pool cannot be read, or has another shape.
    """
    if settings.encryption().public_k == 0:
        return None
    opened = PhotoCrops.open if settings.fresh_crops else open_pool
    return opened(settings.public, shape)


def _exposure(settings: TrainSettings, scheme: Scheme, images: ImageTable) -> Exposure:
    """An account in the ledger; plain training makes no encodings and needs none."""
    if scheme.is_plain:
        return Exposure(len(images))
    ledger = Ledger.open(Path(settings.ledger) if settings.ledger else None)
    return ledger.account(images, limit=settings.max_exposure, scheme=scheme)


def open_private(settings: TrainSettings, processes: Processes = ALONE) -> Split:
    """The private training images and the test images of ``settings``.

    Raises:
        InstaHideError: the images cannot be read, or a model cannot be trained and tested on them.
    """
    how = settings.read_options(progress=processes.main)
    source = source_of(str(settings.data), processes)
    if settings.test is None:
        return open_split(source, test_share=settings.test_share, **how)
    if settings.labels is not None:
        raise DataError(
            "A table of labels is for one folder, but there is another of test images.",
            "Name training and test images in one table, with a split column, or leave out "
            "`test=`.",
        )
    train = open_images(source, **how)
    test = open_test(source_of(settings.test, processes), **how)
    aligned = align_to_model(test, train.shape, train.classes, train, train.task)
    return require_trainable(Split(train, aligned))

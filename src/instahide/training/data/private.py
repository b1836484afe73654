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
from instahide.encryption.guarantees.loss_limit import LossLimit
from instahide.encryption.guarantees.statements import Guarantees
from instahide.encryption.privacy import DELTA
from instahide.encryption.scheme import Scheme
from instahide.errors import DataError
from instahide.training.data.alignment import align_to_model
from instahide.training.data.encoded_loader import EncodedLoader
from instahide.training.data.held_out import hold_out
from instahide.training.data.target_scale import UNSCALED, TargetScale, target_scale
from instahide.training.distributed.processes import ALONE, Processes
from instahide.training.distributed.sharding import RANK, shard, shard_split, source_of
from instahide.training.evaluate import CalibrationSet, Predicted, predicted, table_batches
from instahide.training.models.model_io import NetworkCard
from instahide.training.outputs import Outputs
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
        held_out: private images that are not trained on, to calibrate probabilities; None if none.
    """

    settings: TrainSettings
    scheme: Scheme
    split: Split
    public: ImageTable | PhotoCrops | None
    encoder: Encoder
    scale: TargetScale = UNSCALED
    processes: Processes = ALONE
    held_out: ImageTable | None = None

    @classmethod
    def open(
        cls, settings: TrainSettings, device: torch.device, processes: Processes = ALONE
    ) -> PrivateData:
        """Read the images and check that they fit the scheme.

        Raises:
            InstaHideError: the images cannot be read, or do not fit the scheme or the settings.
        """
        settings.encryption()  # Refused before images are read.
        split, held_out = _parts(settings, open_private(settings, processes), processes)
        settings = settings.completed(split.train.task)
        scheme = settings.encryption(split.train.task)
        has_queries = scheme.k > 1 and settings.queries > 0
        public = public_images(settings, split.train.shape)
        if has_queries:
            query = scheme.query(settings.query_coefficient)
            require_encryptable(query, split.test)
            require_encryptable(query, held_out)
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
        return cls(settings, scheme, split, public, encoder, scale, processes, held_out)

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
        self, network: nn.Module, precision: torch.dtype, outputs: Outputs
    ) -> Predicted | None:
        """Predictions for encrypted queries and their labels, if the settings have any."""
        return self._queried(self.split.test, network, precision, outputs)

    @property
    def calibration_images(self) -> int:
        """Number of images of this process to calibrate with."""
        return 0 if self.held_out is None else len(self.held_out)

    def calibration_predictions(
        self, network: nn.Module, precision: torch.dtype
    ) -> CalibrationSet | None:
        """Uncalibrated predictions for held-out images: plain, and as encrypted queries."""
        outputs = self.card.outputs.uncalibrated
        images = self.held_out
        if images is None:
            return None
        if not len(images):
            plain = torch.zeros(0, len(images.classes)), torch.from_numpy(images.labels)
        else:
            plain = predicted(network, table_batches(images), outputs, precision=precision)
        return CalibrationSet(plain, self._queried(images, network, precision, outputs))

    def _queried(
        self, images: ImageTable, network: nn.Module, precision: torch.dtype, outputs: Outputs
    ) -> Predicted | None:
        if self.scheme.k == 1 or self.settings.queries == 0:
            return None
        labels = torch.from_numpy(images.labels)
        if not len(images):
            return torch.zeros(0, len(images.classes)), labels
        found = predict_encrypted(
            network,
            self.scheme,
            images,
            self.public,
            encodings=self.settings.queries,
            coefficient=self.settings.query_coefficient,
            precision=precision,
            participant=self.processes.participant,
            outputs=outputs,
        )
        return found, labels

    def close(self) -> None:
        """Compact the account in the ledger."""
        exposure = self.encoder.exposure
        if isinstance(exposure, LedgerAccount):
            exposure.fold()

    def facts(self) -> dict[str, object]:
        """The exposure over this run and all others in the ledger.

        With noise also the guarantees of the image with the largest privacy loss.
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
        loss = max(self.processes.gather(float(exposure.losses.max())))
        found = Guarantees.of(loss, math.prod(self.split.train.shape), noise=True)
        figures = {"epsilon": found.epsilon, "loss": loss, "error_floor": found.floor}
        # JSON knows no infinity.
        finite = {
            name: value if value is not None and math.isfinite(value) else None
            for name, value in figures.items()
        }
        return {"guarantee": {**finite, "delta": DELTA}}


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
    """An account in the ledger; plain training makes no encodings and needs none.

    Raises:
        InstaHideError: the settings' `min_mse` cannot be kept.
    """
    if scheme.is_plain:
        if settings.min_mse is not None:
            LossLimit.for_min_mse(settings.min_mse, scheme, images.shape, images.std)
        return Exposure(len(images))
    ledger = Ledger.open(Path(settings.ledger) if settings.ledger else None)
    return ledger.account(
        images, limit=settings.max_exposure, min_mse=settings.min_mse, scheme=scheme
    )


def _parts(settings: TrainSettings, split: Split, processes: Processes) -> tuple[Split, ImageTable]:
    """The images of this process, and those that it holds out; some process may have none."""
    data = str(settings.data)
    if RANK in data:
        split = shard_split(split, data, settings.test, processes)
        train, held_out = hold_out(settings, split.train)
        return Split(train, split.test), held_out
    train, held_out = hold_out(settings, split.train)
    split = shard_split(Split(train, split.test), data, settings.test, processes)
    return split, shard(held_out, processes)


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

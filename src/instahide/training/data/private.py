"""Training data from private images, which are encrypted under new keys in every epoch."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeGuard

import numpy as np
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
from instahide.data.duplicates.content_hash import all_unique
from instahide.data.image_source import has_repeats
from instahide.data.splits import require_trainable
from instahide.encodings.ledger.account import LedgerAccount
from instahide.encodings.ledger.ledger import Ledger
from instahide.encryption.augmentation import Augmentation
from instahide.encryption.encoder import Encoder
from instahide.encryption.encoders.base import InstanceEncoder, Published
from instahide.encryption.encoders.checked_calls import epsilon_of_encoder
from instahide.encryption.encoders.table_encoder import TableEncoder
from instahide.encryption.exposure import Exposure
from instahide.encryption.guarantees.loss_limit import LossLimit
from instahide.encryption.guarantees.statements import Guarantees
from instahide.encryption.privacy import DELTA
from instahide.encryption.scheme import Scheme
from instahide.errors import DataError, InstaHideError
from instahide.training.data.alignment import align_to_model
from instahide.training.data.encoded_loader import EncodedLoader
from instahide.training.data.fingerprint import fingerprint
from instahide.training.data.held_out import hold_out
from instahide.training.data.target_scale import UNSCALED, TargetScale, target_scale
from instahide.training.distributed.processes import ALONE, Processes
from instahide.training.distributed.sharding import RANK, shard, shard_split, source_of
from instahide.training.evaluate import CalibrationSet, Predicted, predicted, table_batches
from instahide.training.models.model_io import NetworkCard
from instahide.training.outputs import Outputs
from instahide.training.predict import predict_encrypted, require_encryptable
from instahide.training.settings import TrainSettings

#: Test images that are encoded at a time.
TESTED_AT_ONCE = 500


@dataclass(frozen=True)
class PrivateData:
    """Private images with their encoder. Use `open`.

    Attributes:
        settings: settings of the run.
        method: how the images are encrypted: a scheme, or another encoder.
        split: private training images, and plain test images.
        public: the public images, if the scheme has any.
        encoder: makes the encodings; every process has its own keys.
        scale: mean and standard deviation of the values of a regression, over all processes.
        processes: the processes that train together, each with its own images.
        held_out: private images that are not trained on, to calibrate probabilities; None if none.
    """

    settings: TrainSettings
    method: InstanceEncoder
    split: Split
    public: ImageTable | PhotoCrops | None
    encoder: Encoder | TableEncoder
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
        settings.instance_encoder()  # Refused before images are read.
        split, held_out = _images_of_process(settings, open_private(settings, processes), processes)
        settings = settings.completed(split.train.task)
        method = settings.instance_encoder(split.train.task)
        if method.has_data_set_key and processes.world_size > 1:
            raise InstaHideError(
                f"All encodings of {method.name} share one key, and each process has its own.",
                "Train in one process.",
            )
        public = public_images(settings, split.train.shape)
        if _has_queries(method, settings):
            query = method.query(settings.query_coefficient)
            require_encryptable(query, split.test)
            require_encryptable(query, held_out, held_out=True)
        exposure = _exposure(settings, method, split.train)
        encoder = _encoder(settings, method, split.train, public, exposure, device, processes)
        scale = target_scale(split.train, processes)
        return cls(settings, method, split, public, encoder, scale, processes, held_out)

    @property
    def card(self) -> NetworkCard:
        """The metadata of a network for these images."""
        images, method = self.split.train, self.method
        shape = method.output_shape(images.shape)
        scheme = self.scheme or Scheme.plain()
        # Encodings under a key of a data set are not normalized as images are.
        unit = (0.0,) * shape[0], (1.0,) * shape[0]
        return NetworkCard(
            self.settings.model,
            self.settings.sign_invariant,
            shape,
            images.classes,
            *(unit if method.has_data_set_key else (images.mean, images.std)),
            scheme.to_json(),
            images.value_range,
            images.task,
            *self.scale,
            data_set_key=method.has_data_set_key,
        )

    @property
    def scheme(self) -> Scheme | None:
        """The scheme of the encryption; None for another encoder."""
        return self.method if isinstance(self.method, Scheme) else None

    def batches(self, *, pin_memory: bool) -> EncodedLoader:
        """A loader that makes a new encoding of every private image in each epoch."""
        share = len(self.processes.share(self.settings.batch_size))
        return EncodedLoader(self.encoder, share, pin_memory=pin_memory)

    @property
    def test_images(self) -> int:
        """Number of test images of this process."""
        return len(self.split.test)

    def test_batches(self) -> Iterable[tuple[Tensor, Tensor]]:
        """Test images with their labels, as the network gets them.

        They are plain, unless encodings share a key: then they are encoded under it.
        """
        return test_inputs(self.encoder, self.split.test)

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
        method = self.method
        if not _has_queries(method, self.settings):
            return None
        labels = torch.from_numpy(images.labels)
        if not len(images):
            return torch.zeros(0, len(images.classes)), labels
        found = predict_encrypted(
            network,
            method,
            images,
            self.public,
            encodings=self.settings.queries,
            coefficient=self.settings.query_coefficient,
            precision=precision,
            participant=self.processes.participant,
            outputs=outputs,
        )
        return found, labels

    def fingerprints(self, salt: str) -> list[str]:
        """Hashes of this process's images, its held-out ones with the ledger, its test images."""
        exposure = self.encoder.exposure
        ledger = exposure.identity if isinstance(exposure, LedgerAccount) else b""
        held_out = [] if self.held_out is None else [self.held_out]
        return [
            fingerprint(salt, [self.split.train]),
            fingerprint(salt, held_out, ledger),
            fingerprint(salt, [self.split.test]),
        ]

    def close(self) -> None:
        """Compact the account in the ledger."""
        exposure = self.encoder.exposure
        if isinstance(exposure, LedgerAccount):
            exposure.fold()

    def facts(self) -> dict[str, object]:
        """The exposure over this run and all others in the ledger; if that counts images together.

        With noise also the guarantees of the image with the largest privacy loss.
        """
        exposure = self.encoder.exposure
        counts = exposure.counts
        # The ledger may know that two images are one, although nothing in the table says so.
        together = isinstance(exposure, LedgerAccount) and not all_unique(exposure.pictures())
        found = self.processes.gather([int(counts.min()), int(counts.max())])
        least, most = zip(*found, strict=True)
        exposed: dict[str, object] = {"exposure": {"least": min(least), "most": max(most)}}
        exposed["images_counted_together"] = any(self.processes.gather(together))
        return exposed | self._guarantee()

    def _guarantee(self) -> dict[str, object]:
        exposure = self.encoder.exposure
        if not isinstance(self.method, Scheme):
            return self._guarantee_of_run()
        if not (self.method.noise and isinstance(exposure, LedgerAccount)):
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

    def _guarantee_of_run(self) -> dict[str, object]:
        """The guarantee of another encoder than a scheme, for the encodings of this run.

        A run that was stopped and continued repeats an epoch. So no image is taken to have fewer
        encodings than the largest exposure that was counted.
        """
        images = self.split.train
        uneven = self.settings.max_exposure is not None or has_repeats(images)
        epochs = self.settings.epochs
        made = min(epochs, self.settings.copies or epochs)
        copies = max(made, int(self.encoder.exposure.counts.max(initial=0)))
        published = Published(len(images), images.shape, images.std, copies)
        epsilon = epsilon_of_encoder(self.method, published, DELTA)
        # Every process takes part in both, whatever its own images are.
        some_uneven, most = any(self.processes.gather(uneven)), max(self.processes.gather(epsilon))
        if some_uneven and math.isfinite(most):
            # Some images are drawn more often than the bound assumes.
            return {}
        # JSON knows no infinity.
        known = most if math.isfinite(most) else None
        return {"guarantee": {"epsilon": known, "delta": DELTA}}


def _has_queries(method: InstanceEncoder, settings: TrainSettings) -> TypeGuard[Scheme]:
    """Whether the network is tested on encrypted queries, which only mixing schemes have."""
    return isinstance(method, Scheme) and method.k > 1 and settings.queries > 0


def _encoder(
    settings: TrainSettings,
    method: InstanceEncoder,
    images: ImageTable,
    public: ImageTable | PhotoCrops | None,
    exposure: Exposure,
    device: torch.device,
    processes: Processes,
) -> Encoder | TableEncoder:
    if not isinstance(method, Scheme):
        pool = public if isinstance(public, ImageTable) else None
        return TableEncoder(
            method, images, pool, exposure=exposure, participant=processes.participant
        )
    return Encoder(
        method,
        images,
        public,
        augmentation=Augmentation(settings.crop_padding, settings.flip),
        exposure=exposure,
        device=device,
        participant=processes.participant,
    )


def test_inputs(
    encoder: Encoder | TableEncoder, images: ImageTable
) -> Iterator[tuple[Tensor, Tensor]]:
    """Batches of what a network that learned from ``encoder`` gets for ``images``; their labels."""
    if isinstance(encoder, Encoder):
        yield from table_batches(images)
        return
    for start in range(0, len(images), TESTED_AT_ONCE):
        rows = np.arange(start, min(start + TESTED_AT_ONCE, len(images)))
        yield encoder.network_inputs(images, rows), torch.from_numpy(images.labels[rows])


def public_images(
    settings: TrainSettings, shape: tuple[int, ...]
) -> ImageTable | PhotoCrops | None:
    """The public images of ``shape`` (C, H, W), if the scheme of ``settings`` needs any.

    Raises:
        InstaHideError: the pool cannot be read, or has another shape.
    """
    if not settings.instance_encoder().uses_public:
        return None
    opened = PhotoCrops.open if settings.fresh_crops else open_pool
    return opened(settings.public, shape)


def _exposure(settings: TrainSettings, method: InstanceEncoder, images: ImageTable) -> Exposure:
    """An account in the ledger; plain training makes no encodings and needs none.

    Raises:
        InstaHideError: the settings' `min_mse` cannot be kept.
    """
    scheme = method if isinstance(method, Scheme) else None
    if scheme is not None and scheme.is_plain:
        if settings.min_mse is not None:
            LossLimit.for_min_mse(settings.min_mse, scheme, images.shape, images.std)
        return Exposure(len(images))
    ledger = Ledger.open(Path(settings.ledger) if settings.ledger else None)
    return ledger.account(
        images, limit=settings.max_exposure, min_mse=settings.min_mse, scheme=scheme
    )


def _images_of_process(
    settings: TrainSettings, split: Split, processes: Processes
) -> tuple[Split, ImageTable]:
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

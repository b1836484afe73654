"""A whole training run, from settings to results."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import nn

from instahide.encryption.augmentation import Augmentation
from instahide.encryption.encoder import Encoder
from instahide.encryption.scheme import Scheme
from instahide.images import ImageTable, PhotoCrops, Split, open_pool, open_split
from instahide.learning.evaluate import accuracy, table_batches
from instahide.learning.hardware import pick_device, pick_precision
from instahide.learning.history import History
from instahide.learning.loader import EncodedLoader
from instahide.learning.loop import train
from instahide.learning.models import build
from instahide.learning.network_file import NetworkCard, save_network
from instahide.learning.predict import predict_encrypted
from instahide.learning.progress import Progress
from instahide.learning.run import RunFolder
from instahide.learning.settings import TrainSettings


@dataclass
class Job:
    """What one run works on. Use `open`.

    Attributes:
        settings: everything that was asked for.
        scheme: how private images are encrypted.
        split: private images to train on, and plain ones to test on.
        public: images for training or for encrypted queries, if either needs any.
        encoder: makes the encodings; new keys in every process.
        model: what learns.
    """

    settings: TrainSettings
    scheme: Scheme
    split: Split
    public: ImageTable | PhotoCrops | None
    encoder: Encoder
    model: nn.Module
    device: torch.device
    precision: torch.dtype
    history: History = field(default_factory=list)
    metrics: dict[str, float] = field(default_factory=dict)

    @classmethod
    def open(cls, settings: TrainSettings) -> Job:
        """Read the images and check that everything fits, before any work is done.

        Raises:
            InstaHideError: settings or images that cannot be used.
        """
        scheme = settings.encryption()
        device = pick_device(settings.device)
        precision = pick_precision(settings.precision, device)
        split = open_split(
            settings.data,
            size=settings.size,
            test_share=settings.test_share,
            skip_bad=settings.skip_bad,
        )
        asks = scheme.k > 1 and settings.queries > 0
        shape = split.train.shape
        public: ImageTable | PhotoCrops | None = None
        if scheme.public_k or asks:
            opened = PhotoCrops.open if settings.fresh_crops else open_pool
            public = opened(settings.public, shape)
        if asks:
            scheme.query(settings.query_coefficient)
        encoder = Encoder(
            scheme,
            split.train,
            public if scheme.public_k else None,
            augmentation=Augmentation(settings.crop_padding, settings.flip),
            device=device,
        )
        model = build(
            settings.model,
            shape[0],
            len(split.train.classes),
            sign_invariant=settings.sign_invariant,
            seed=settings.seed,
        )
        return cls(settings, scheme, split, public, encoder, model, device, precision)

    def run(self, folder: RunFolder | None = None, progress: Progress | None = None) -> None:
        """Train, test, and write network and results into ``folder``.

        Afterwards ``metrics`` holds the ``accuracy`` on plain test images and, where the settings
        ask for it, the ``encrypted_accuracy`` on encrypted queries, as shares from 0 to 1.

        Raises:
            InstaHideError: as `loop.train`.
        """
        batches = EncodedLoader(
            self.encoder, self.settings.batch_size, pin_memory=self.device.type == "cuda"
        )
        self.history = train(
            self.model,
            batches,
            self.settings,
            evaluate=self._evaluate,
            run=folder,
            progress=progress,
        )
        self.metrics = dict(self._evaluate(self.model)) | self._ask_encrypted()
        if folder is not None:
            save_network(folder.path / "model.safetensors", self.model, self._card())
            folder.write_results(self.history, self.metrics)

    def _evaluate(self, network: nn.Module) -> Mapping[str, float]:
        batches = table_batches(self.split.test)
        return {"accuracy": accuracy(network, batches, precision=self.precision).overall}

    def _ask_encrypted(self) -> dict[str, float]:
        if self.scheme.k == 1 or self.settings.queries == 0 or self.public is None:
            return {}
        answers = predict_encrypted(
            self.model,
            self.scheme,
            self.split.test,
            self.public,
            encodings=self.settings.queries,
            coefficient=self.settings.query_coefficient,
            precision=self.precision,
        )
        right = answers.argmax(1) == torch.from_numpy(self.split.test.labels)
        return {"encrypted_accuracy": right.float().mean().item()}

    def _card(self) -> NetworkCard:
        images = self.split.train
        return NetworkCard(
            self.settings.model,
            self.settings.sign_invariant,
            images.shape,
            images.classes,
            images.mean,
            images.std,
            self.scheme.to_json(),
        )


def start(
    settings: TrainSettings, out: Path, *, resume: bool = False, progress: Progress | None = None
) -> Job:
    """Run ``settings`` in the folder ``out``, or go on with the run there under new keys.

    Images are read and checked before the folder is made.

    Raises:
        InstaHideError: nothing is written if the settings or the images cannot be used.
    """
    job = Job.open(settings)
    job.run(RunFolder.open(out, settings, resume=resume), progress)
    return job

"""A whole training run, from settings to results."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from instahide.encryption.scheme import Scheme
from instahide.learning.evaluate import accuracy
from instahide.learning.hardware import pick_device, pick_precision
from instahide.learning.history import History
from instahide.learning.loop import Batches, train
from instahide.learning.models import build
from instahide.learning.network_file import NetworkCard, save_network
from instahide.learning.own import OwnImages
from instahide.learning.pooled import PooledEncodings, holds_encodings
from instahide.learning.progress import Progress
from instahide.learning.run import RunFolder
from instahide.learning.settings import TrainSettings


class Material(Protocol):
    """What a run learns from and is tested on: `OwnImages` or `PooledEncodings`."""

    @property
    def settings(self) -> TrainSettings:
        """Everything that was asked for, and what follows from the material."""
        ...

    @property
    def scheme(self) -> Scheme:
        """How the encodings are made."""
        ...

    @property
    def card(self) -> NetworkCard:
        """What the network takes and gives."""
        ...

    def batches(self, *, pin_memory: bool) -> Batches:
        """What to learn from."""
        ...

    def test_batches(self) -> Iterable[tuple[Tensor, Tensor]] | None:
        """Images (n, C, H, W) to test on, with class numbers (n,), if there are any."""
        ...

    def asked(self, network: nn.Module, precision: torch.dtype) -> dict[str, float]:
        """What else is measured at the end, as shares from 0 to 1."""
        ...

    def facts(self) -> dict[str, Any]:
        """What the results should name."""
        ...

    def close(self) -> None:
        """The run is over."""
        ...


@dataclass
class Job:
    """What one run works on. Use `open`.

    Attributes:
        material: what it learns from, and the settings.
        model: what learns.
    """

    material: Material
    model: nn.Module
    device: torch.device
    precision: torch.dtype
    history: History = field(default_factory=list)
    metrics: dict[str, float] = field(default_factory=dict)

    @classmethod
    def open(cls, settings: TrainSettings) -> Job:
        """Read the images or encodings and check that everything fits, before any work is done.

        Raises:
            InstaHideError: settings, images or folders that cannot be used.
        """
        device = pick_device(settings.device)
        precision = pick_precision(settings.precision, device)
        material = _material(settings, device)
        card = material.card
        model = build(
            card.model,
            card.shape[0],
            len(card.classes),
            sign_invariant=card.sign_invariant,
            seed=settings.seed,
        )
        return cls(material, model, device, precision)

    @property
    def settings(self) -> TrainSettings:
        """Everything that was asked for."""
        return self.material.settings

    def run(self, folder: RunFolder | None = None, progress: Progress | None = None) -> None:
        """Train, test, and write network and results into ``folder``.

        Afterwards ``metrics`` holds, as shares from 0 to 1, the ``accuracy`` on test images, if
        there are any, and the ``encrypted_accuracy`` on encrypted queries, if any were asked for.

        Raises:
            InstaHideError: as `loop.train`.
        """
        try:
            self._run(folder, progress)
        finally:
            self.material.close()

    def _run(self, folder: RunFolder | None, progress: Progress | None) -> None:
        tested = self.material.test_batches() is not None
        self.history = train(
            self.model,
            self.material.batches(pin_memory=self.device.type == "cuda"),
            self.settings,
            evaluate=self._evaluate if tested else None,
            run=folder,
            progress=progress,
        )
        self.metrics = dict(self._evaluate(self.model))
        self.metrics |= self.material.asked(self.model, self.precision)
        if folder is not None:
            save_network(folder.path / "model.safetensors", self.model, self.material.card)
            folder.write_results(self.history, self.metrics, self.material.facts())

    def _evaluate(self, network: nn.Module) -> Mapping[str, float]:
        batches = self.material.test_batches()
        if batches is None:
            return {}
        return {"accuracy": accuracy(network, batches, precision=self.precision).overall}


def start(
    settings: TrainSettings, out: Path, *, resume: bool = False, progress: Progress | None = None
) -> Job:
    """Run ``settings`` in the folder ``out``, or go on with the run there under new keys.

    Images are read and checked before the folder is made.

    Raises:
        InstaHideError: nothing is written if the settings or the images cannot be used.
    """
    job = Job.open(settings)
    job.run(RunFolder.open(out, job.settings, resume=resume), progress)
    return job


def _material(settings: TrainSettings, device: torch.device) -> Material:
    if isinstance(settings.data, str) and holds_encodings(settings.data):
        settings = settings.merged({"data": [settings.data]})
    return PooledEncodings.open(settings) if settings.pooled else OwnImages.open(settings, device)

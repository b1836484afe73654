"""A training run, from settings to results."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from instahide.encryption.scheme import Scheme
from instahide.errors import InstaHideError
from instahide.training.calibration import (
    LEAST_OF_QUERIES,
    UNCALIBRATED,
    Calibration,
    fit_calibration,
)
from instahide.training.data.encoded_loader import EncodedLoader
from instahide.training.data.kept_encodings import FOLDER, KeptEncodings
from instahide.training.data.pooled import PooledData, holds_encodings
from instahide.training.data.private import PrivateData
from instahide.training.device import pick_device, pick_precision
from instahide.training.distributed.processes import ALONE, Batches, Processes
from instahide.training.distributed.sharding import RANK, source_of
from instahide.training.evaluate import CalibrationSet, Predicted, predicted
from instahide.training.history import History
from instahide.training.losses import Loss
from instahide.training.metrics import evaluation, headline
from instahide.training.models import build
from instahide.training.models.model_io import NetworkCard, save_network
from instahide.training.outputs import Outputs
from instahide.training.progress import Progress
from instahide.training.run_folder import RunFolder
from instahide.training.settings import TrainSettings
from instahide.training.training_loop import train
from instahide.utils.folder_lock import only_process


class TrainingData(Protocol):
    """The data of a run, for training and test: `PrivateData` or `PooledData`."""

    @property
    def settings(self) -> TrainSettings:
        """Settings of the run, completed with those that follow from the data."""
        ...

    @property
    def scheme(self) -> Scheme | None:
        """The scheme of the encodings; None for another encoder."""
        ...

    @property
    def card(self) -> NetworkCard:
        """The metadata of the network."""
        ...

    def batches(self, *, pin_memory: bool) -> Batches:
        """Batches of encodings with mixed labels."""
        ...

    @property
    def test_images(self) -> int:
        """Number of test images of this process."""
        ...

    def test_batches(self) -> Iterable[tuple[Tensor, Tensor]] | None:
        """Test images (n, C, H, W) with their labels, if there are any."""
        ...

    def encrypted_predictions(
        self, network: nn.Module, precision: torch.dtype, outputs: Outputs
    ) -> Predicted | None:
        """Predictions for encrypted queries and their labels, if the run has any."""
        ...

    @property
    def calibration_images(self) -> int:
        """Number of images of this process to calibrate with."""
        ...

    def calibration_predictions(
        self, network: nn.Module, precision: torch.dtype
    ) -> CalibrationSet | None:
        """Uncalibrated predictions for the images to calibrate with, if any process has some."""
        ...

    def facts(self) -> dict[str, Any]:
        """Further entries of the results."""
        ...

    def fingerprints(self, salt: str) -> list[str]:
        """Hashes of the data of this process, and of the ledger that counts its images."""
        ...

    def close(self) -> None:
        """End the use of the data."""
        ...


@dataclass
class Trainer:
    """A training run: data, network and results. Use `open` to make one.

    Attributes:
        material: the training and test data, with the settings.
        model: the network that is trained.
        device: the device of the network.
        precision: type of the network's arithmetic.
        processes: the processes that train together.
        calibration: scale and bias of the network's logits, once it is trained.
        query_calibration: the same for encrypted queries; None for `calibration`.
        history: loss, speed and metrics of every epoch.
        metrics: metrics of the trained network, see `metrics.evaluation`.
        facts: other entries of the results, such as the exposure.

    Examples:
        >>> from tempfile import TemporaryDirectory
        >>> from instahide.training.settings import TrainSettings
        >>> from instahide.training.trainer import Trainer
        >>> with TemporaryDirectory() as folder:
        ...     settings = TrainSettings(
        ...         data="digits", scheme="inside", epochs=1, queries=0, ledger=f"{folder}/ledger"
        ...     )
        ...     trainer = Trainer.open(settings)
        ...     trainer.run()
        >>> sorted(trainer.metrics), len(trainer.history)
        (['accuracy', 'macro_auroc', 'macro_f1'], 1)
    """

    material: TrainingData
    model: nn.Module
    device: torch.device
    precision: torch.dtype
    processes: Processes = ALONE
    calibration: Calibration = UNCALIBRATED
    query_calibration: Calibration | None = None
    history: History = field(default_factory=list)
    metrics: dict[str, float] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def open(cls, settings: TrainSettings, processes: Processes = ALONE) -> Trainer:
        """Read the data and check that it fits the settings, before training begins.

        Raises:
            InstaHideError: in at least one process, a setting is invalid, or the images or folders
                cannot be read or do not fit.
        """
        _require_same(settings, processes)
        device = pick_device(settings.device)
        precision = pick_precision(settings.precision, device)
        processes.require_same_arithmetic(device, precision)
        material = _material(settings, device, processes)
        card = material.card
        _loss(material)  # Refuses weights before training begins.
        model = build(
            card.model,
            card.shape[0],
            len(card.classes),
            sign_invariant=card.sign_invariant,
            seed=settings.seed,
            size=card.shape[1:],
            weights=None if settings.weights is None else Path(settings.weights),
        )
        # Wait until all processes have opened their data.
        processes.gather(None)
        return cls(material, model, device, precision, processes)

    @property
    def settings(self) -> TrainSettings:
        """Settings of the run."""
        return self.material.settings

    @property
    def card(self) -> NetworkCard:
        """The metadata of the network, with its calibration."""
        return replace(
            self.material.card,
            calibration=self.calibration,
            query_calibration=self.query_calibration,
        )

    def run(self, folder: RunFolder | None = None, progress: Progress | None = None) -> None:
        """Train, test, and write network and results into ``folder``.

        Afterwards ``metrics`` holds the metrics on the test images, if any, such as ``accuracy``;
        and the main ones on encrypted queries, such as ``encrypted_accuracy``, if the settings have
        any. ``facts["evaluation"]`` has those of each class, finding or value.

        Raises:
            InstaHideError: as for `training_loop.train`; or the test images are such that a metric
                is undefined; or another process runs in ``folder``.
        """
        try:
            with nullcontext() if folder is None else only_process(folder.path):
                self._run(folder, progress)
        finally:
            self.material.close()

    def _run(self, folder: RunFolder | None, progress: Progress | None) -> None:
        _require_key(self.material, folder)
        self._require_same_data(folder)
        tested = sum(self.processes.gather(self.material.test_images)) > 0
        batches = self._batches(folder)
        self.history = train(
            self.model,
            batches,
            self.settings,
            evaluate=self._evaluate if tested else None,
            run=folder,
            progress=progress,
            processes=self.processes,
            loss=_loss(self.material),
        )
        self.facts = self.material.facts() | self.processes.facts(self.device)
        self._calibrate()
        if folder is not None:
            save_network(folder.path / "model.safetensors", self.model, self.card)
        if tested:
            self._measure()
        if folder is not None:
            folder.write_results(self.history, self.metrics, self.facts)
        if isinstance(batches, KeptEncodings):
            batches.discard()

    def _require_same_data(self, folder: RunFolder | None) -> None:
        """Check that a resumed run has the data and the ledger of its beginning.

        Raises:
            InstaHideError: it has others. With another ledger, encodings would go uncounted.
        """
        record = self.processes.gather(None if folder is None else folder.data())[0]
        if record is None:
            return
        salt, begun = record
        found = self.processes.gather(self.material.fingerprints(salt))
        if begun and found != begun:
            raise InstaHideError(
                "The run was started on other images, labels or encodings, with other test images "
                "or another ledger, or by more or fewer processes.",
                "Resume it as it was started, or choose another `out=`.",
            )
        if folder is not None and not begun:
            folder.write_data(salt, found)

    def _batches(self, folder: RunFolder | None) -> Batches:
        """The batches of an epoch; if the settings limit the encodings, those that are kept."""
        batches = self.material.batches(pin_memory=self.device.type == "cuda")
        if not isinstance(batches, EncodedLoader):
            return batches
        if folder is not None:
            batches.before_epoch = folder.count_copy
        copies = self.settings.copies
        if copies is None:
            return batches
        kept = None if folder is None else folder.path / FOLDER
        return KeptEncodings(batches, copies, kept)

    def _calibrate(self) -> None:
        """Fit scale and bias to the held-out images of all processes, if there are any."""
        images = sum(self.processes.gather(self.material.calibration_images))
        found = self.material.calibration_predictions(self.model, self.precision)
        if not images or found is None:
            return
        self.calibration = self._fitted(found.plain)
        if found.queries is not None:
            self.query_calibration = self._fitted(found.queries, LEAST_OF_QUERIES)
        self.facts["calibration"] = {
            "images": images,
            "plain": self.calibration,
            "queries": self.query_calibration,
        }

    def _fitted(self, images: Predicted, least: float = 0.0) -> Calibration:
        predictions, labels = map(self.processes.concatenated, images)
        return fit_calibration(predictions, labels, self.card.task, least)

    def _evaluate(self, network: nn.Module) -> dict[str, float]:
        """The metrics of an epoch, over the test images of all processes."""
        return headline(self.material.card.task, *self._predicted(network))

    def _measure(self) -> None:
        """All metrics of the trained network, over the test images of all processes."""
        card = self.card
        found = evaluation(card.task, card.classes, *self._predicted(self.model))
        self.metrics = found.metrics
        self.facts["evaluation"] = found.details
        queried = self.material.encrypted_predictions(self.model, self.precision, card.outputs)
        if queried is not None:
            metrics = headline(card.task, *map(self.processes.concatenated, queried))
            self.metrics |= {f"encrypted_{name}": value for name, value in metrics.items()}

    def _predicted(self, network: nn.Module) -> tuple[Tensor, Tensor]:
        """Predictions for the test images of all processes, and their labels."""
        card = self.card
        batches = self.material.test_batches()
        if batches is None or self.material.test_images == 0:
            columns = len(card.classes)
            classes = card.task == "single-label"
            labels = torch.zeros(0, dtype=torch.int64) if classes else torch.zeros(0, columns)
            own = torch.zeros(0, columns), labels
        else:
            own = predicted(network, batches, card.outputs, precision=self.precision)
        predictions, targets = map(self.processes.concatenated, own)
        return predictions, targets


def start(
    settings: TrainSettings,
    out: Path,
    *,
    resume: bool = False,
    progress: Progress | None = None,
    processes: Processes = ALONE,
) -> Trainer:
    """Run ``settings`` in the folder ``out``, or with ``resume`` continue its run with new keys.

    The data is read and checked before the main process makes the folder, so that an invalid
    setting or image leaves no folder behind.

    Raises:
        InstaHideError: as for `Trainer.open`, `RunFolder.open` and `Trainer.run`.
    """
    job = Trainer.open(settings, processes)
    folder = RunFolder.open(out, job.settings, resume=resume) if processes.main else None
    job.run(folder, progress)
    return job


def _loss(material: TrainingData) -> Loss:
    settings = material.settings
    return Loss(
        material.card.outputs,
        tuple(settings.class_weights or ()),
        tuple(settings.positive_weights or ()),
    )


def _material(settings: TrainSettings, device: torch.device, processes: Processes) -> TrainingData:
    if isinstance(settings.data, str) and holds_encodings(source_of(settings.data, processes)):
        if RANK in settings.data and processes.world_size > 1:
            raise InstaHideError(
                f"{settings.data} is encoded folders, of which each process reads a part.",
                "Name the folders themselves, one after another.",
            )
        settings = settings.merged({"data": [settings.data]})
    if settings.pooled:
        return PooledData.open(settings, processes)
    return PrivateData.open(settings, device, processes)


def _require_same(settings: TrainSettings, processes: Processes) -> None:
    first = TrainSettings.from_values(processes.gather(settings.model_dump())[0])
    differences = settings.differences(first)
    if differences:
        raise InstaHideError(
            f"The processes have other settings than rank 0 ({'; '.join(differences)}).",
            "Start all of them with the same.",
        )
    if settings.copies is not None and processes.world_size > 1:
        raise InstaHideError(
            "Several processes keep no encodings to train on them again.",
            "Encrypt the images first, with `instahide encrypt`, and train on the folder.",
        )
    if settings.batch_size < 2 * processes.world_size:
        raise InstaHideError(
            f"A batch of {settings.batch_size} is too small for {processes.world_size} processes.",
            f"Use `batch_size={2 * processes.world_size}` or more: all of them share it.",
        )


def _require_key(material: TrainingData, folder: RunFolder | None) -> None:
    """Check that a run which is resumed has the key of the data set, if there is one.

    Raises:
        InstaHideError: it would go on under another key, for which the network has learned nothing.
    """
    if folder is None or not isinstance(material, PrivateData):
        return
    begun = folder.checkpoint.exists() or (folder.path / FOLDER).exists()
    if material.method.has_data_set_key and begun:
        raise InstaHideError(
            f"{folder.path} cannot be resumed: all encodings of {material.method.name} share one "
            "key, which was never stored.",
            "Start a new run in another folder.",
        )

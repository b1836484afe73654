"""The server's test images, and the test of the network after each round."""

from __future__ import annotations

import torch
from flwr.app import ArrayRecord, MetricRecord
from torch import Tensor, nn

from instahide.data import ImageTable, open_test
from instahide.data.image_source import normalized_as
from instahide.data.normalization.normalization import Normalization
from instahide.data.pixels import UNIT, is_eight_bit
from instahide.data.sources import rescaled
from instahide.errors import DataError
from instahide.integrations.flower.arrays import load
from instahide.integrations.flower.config import FederatedSettings
from instahide.integrations.flower.federation_spec import FederationSpec
from instahide.integrations.flower.server.round_log import RoundLog
from instahide.integrations.flower.task_metrics import MAIN
from instahide.training.data.alignment import align_to_model
from instahide.training.device import pick_device, pick_precision
from instahide.training.evaluate import predicted, table_batches
from instahide.training.metrics import evaluation, headline


def open_test_images(settings: FederatedSettings) -> ImageTable | None:
    """The server's test images; None if the settings name none.

    Raises:
        InstaHideError: they cannot be read, or their labels are of another task than
            `federation_task`.
    """
    if settings.test is None:
        return None
    options = settings.read_options(progress=False)
    options["labels"] = settings.test_table(settings.federation_task)
    images = open_test(settings.test, **options)
    if settings.federation_task not in (None, images.task):
        raise DataError(
            f"The labels of the test images are {images.task}, not {settings.federation_task}.",
            "Name a table with such labels by `test-labels`.",
        )
    return images


def aligned(images: ImageTable, agreement: FederationSpec) -> ImageTable:
    """Test ``images`` with the shape, the outputs and the range of pixels of the federation.

    Images of 8 bits are rescaled if the pixels of the federation range from 0 to 1.

    Raises:
        DataError: they do not fit, or the main metric on them is undefined.
    """
    if agreement.value_range == UNIT and is_eight_bit(images.pixels):
        images = rescaled(images, "full")
    like = Normalization(images.mean, images.std, agreement.value_range)
    found = align_to_model(images, agreement.shape, agreement.classes, like, agreement.task)
    labels = torch.from_numpy(found.labels)
    headline(agreement.task, torch.zeros(len(found), len(agreement.classes)), labels)
    return found


class Tester:
    """Tests the network on the server's test images, if any, at the end of each round.

    Args:
        network: receives the weights of each round.
        agreement: what the outputs of the network are, and the normalization.
        settings: with the device and the precision.
        images: as `aligned` returns them; None to test nothing.
        round_log: gets the metrics of each round.
    """

    def __init__(
        self,
        network: nn.Module,
        agreement: FederationSpec,
        settings: FederatedSettings,
        images: ImageTable | None,
        round_log: RoundLog,
    ) -> None:
        self._device = pick_device(settings.device)
        self._precision = pick_precision(settings.precision, self._device)
        self._network = network.to(self._device)
        self._agreement = agreement
        normalization = agreement.normalization
        if images is not None and normalization is not None:
            images = normalized_as(images, normalization)
        self._images = images
        self._round_log = round_log
        self._predictions: tuple[Tensor, Tensor] | None = None

    def __call__(self, number: int, arrays: ArrayRecord) -> MetricRecord | None:
        """Test after round ``number``; round 0, before the first, is skipped."""
        if number == 0:
            return None
        if self._images is None:
            self._round_log.end(None)
            return None
        self._predictions = self._predicted(self._images, arrays)
        found = headline(self._agreement.task, *self._predictions)
        self._round_log.end(found)
        return MetricRecord(dict(found))

    def results(self) -> dict[str, object]:
        """The results of the last test: the name of the main metric, and all metrics."""
        task = self._agreement.task
        name = MAIN[task]
        if self._predictions is None:
            return {"metric": name, name: None}
        found = evaluation(task, self._agreement.classes, *self._predictions)
        return {"metric": name, **found.metrics, "evaluation": found.details}

    def _predicted(self, images: ImageTable, arrays: ArrayRecord) -> tuple[Tensor, Tensor]:
        network = load(self._network, arrays)
        outputs = self._agreement.outputs
        return predicted(network, table_batches(images), outputs, precision=self._precision)

"""Which metrics a federation measures on test images, for each task."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from torch import nn

from instahide.data import ImageTable
from instahide.data.labels import Task
from instahide.errors import DataError
from instahide.integrations.flower.config import FederatedSettings
from instahide.integrations.flower.errors import RefusalError
from instahide.integrations.flower.federation_spec import FederationSpec
from instahide.training.device import pick_precision
from instahide.training.evaluate import predicted, table_batches
from instahide.training.metrics import headline

#: The main metric on the server's test images; more is better.
MAIN: Mapping[Task, str] = MappingProxyType(
    {"single-label": "accuracy", "multi-label": "macro_auroc", "regression": "r2"}
)
#: The metric that a client sends, of its own test images. None of a regression: from mean errors of
#: networks with chosen outputs, a server could compute single values.
SENT: Mapping[Task, str] = MappingProxyType(
    {"single-label": "accuracy", "multi-label": "macro-auroc"}
)


def require_client_test(task: Task) -> None:
    """Check that clients can test networks for ``task`` on images of their own.

    Raises:
        RefusalError: the task is a regression.
    """
    if task not in SENT:
        raise RefusalError(
            "Participants do not test a regression on their own images: from the errors of chosen "
            "networks, measured values of single images could be computed.",
            "Leave out `client-test`, and give the server `test` images.",
        )


def client_metric(
    network: nn.Module, images: ImageTable, agreement: FederationSpec, settings: FederatedSettings
) -> dict[str, float]:
    """The metric of ``network`` on a client's own test images, by its name in `SENT`.

    Args:
        network: on the device that it runs on.
        images: the test images, as the federation has them.
        agreement: what the outputs of the network are.
        settings: with the precision.

    Raises:
        RefusalError: no finding is present in some of the images and absent in others.
    """
    precision = pick_precision(settings.precision, next(network.parameters()).device)
    found = predicted(network, table_batches(images), agreement.outputs, precision=precision)
    try:
        metrics = headline(agreement.task, *found)
    except DataError as error:
        raise RefusalError(
            "The macro AUROC on this participant's test images is undefined.",
            "Give test images with and without a finding.",
        ) from error
    return {SENT[agreement.task]: metrics[MAIN[agreement.task]]}


def means_over_clients(task: Task) -> str:
    """A sentence that says how metrics of clients are averaged, for the results."""
    name = SENT[task]
    text = f"client-{name}: the mean over participants of each one's own test images, weighted by"
    if task == "single-label":
        return f"{text} their numbers of images"
    return f"{text} their numbers of images; not the macro AUROC of all images together"

"""The negotiation of shape, classes, task, normalization and units before the first round."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from flwr.app import Message, MessageType, MetricRecord, RecordDict
from flwr.serverapp import Grid
from numpy.typing import NDArray

from instahide.data import ImageTable
from instahide.data.normalization.normalization import Normalization
from instahide.errors import DataError, InstaHideError
from instahide.integrations.flower.client.normalization_check import LARGEST_STD, MOST_MEAN_SHIFT
from instahide.integrations.flower.config import FederatedSettings
from instahide.integrations.flower.errors import RefusalError
from instahide.integrations.flower.federation_spec import (
    BOUNDS,
    FederationSpec,
)
from instahide.integrations.flower.moments import averaged, averaged_targets, near_targets, wanted
from instahide.integrations.flower.server.reply_checks import (
    bad_reply,
    bound_examples,
    metrics_of,
    reason,
)
from instahide.integrations.flower.server.tester import aligned, open_test_images
from instahide.integrations.flower.task_metrics import require_client_test
from instahide.integrations.flower.untrusted_values import in_range
from instahide.training.data.target_scale import TargetScale

_log = logging.getLogger(__name__)


def negotiate(settings: FederatedSettings) -> tuple[FederationSpec, ImageTable | None]:
    """The shape, classes and task of the federation, and the server's test images.

    They come from the settings, else from the test images.

    Raises:
        InstaHideError: shape or classes are in neither, a value is out of bounds, or the test
            images cannot be read or do not fit.
    """
    test = open_test_images(settings)
    shape = settings.shape or (test and test.shape)
    classes = settings.classes or (test and test.classes)
    if not shape or not classes:
        raise InstaHideError(
            "The shape and the classes of the images are not known.",
            "Name `shape` and `classes` in the run config, or give the server `test` images.",
        )
    stated = FederationSpec(
        shape,
        classes,
        _stated_normalization(settings),
        settings.federation_task or (test.task if test else "single-label"),
        settings.value_range,
        TargetScale(settings.target_mean or (), settings.target_std or ()),
    )
    # The same check as by every participant.
    agreement = FederationSpec.from_record(stated.to_record())
    if settings.client_test:
        require_client_test(agreement.task)
    return agreement, test and aligned(test, agreement)


def _stated_normalization(settings: FederatedSettings) -> Normalization | None:
    if not (settings.mean or settings.std):
        return None
    return Normalization(settings.mean or (), settings.std or ())


def completed(agreement: FederationSpec, settings: FederatedSettings, grid: Grid) -> FederationSpec:
    """The specification with normalization and scale of values: as stated, else of all clients.

    Raises:
        InstaHideError: no client answers, or the clients' images or values are too different.
    """
    names = wanted(agreement)
    if not names:
        return agreement
    content = RecordDict({"config": agreement.to_record()})
    nodes = _nodes(grid, settings.clients)
    queries = [Message(content, node, MessageType.QUERY) for node in nodes]
    answers = []
    for reply in grid.send_and_receive(queries, timeout=settings.timeout):
        try:
            answers.append(read_moments(reply, agreement))
        except RefusalError as error:
            _log.warning("Participant %s: %s", reply.metadata.src_node_id, error.problem)
    if not answers:
        raise InstaHideError(
            "No client sent the mean and std of its images.",
            "See the reasons in the log above, or name `mean` and `std` in the run config, and "
            "`target-mean` and `target-std` for a regression.",
        )
    if "mean" in names:
        answers = alike(answers)
        agreement = replace(agreement, normalization=averaged(answers))
    if "target-mean" in names:
        agreement = replace(agreement, target=averaged_targets(alike_targets(answers)))
    return agreement


def read_moments(reply: Message, agreement: FederationSpec) -> MetricRecord:
    """Read the numbers of a client that ``agreement`` lacks from an untrusted reply.

    Raises:
        RefusalError: the client refused, or a value is missing, unknown or out of bounds.
    """
    if reply.has_error() or not reply.has_content():
        raise RefusalError(reason(reply), "Its images do not count in the normalization.")
    names = wanted(agreement)
    metrics = metrics_of(reply, {"metrics"}, names)
    for name in sorted(names):
        values, (least, most) = metrics[name], BOUNDS[name]
        count = len(agreement.classes) if name.startswith("target-") else agreement.shape[0]
        if not isinstance(values, list) or len(values) != count:
            raise bad_reply(f"The answer's `{name}` is not a list of {count} numbers.")
        if not all(in_range(value, least, most) for value in values):
            raise bad_reply(f"The answer's `{name}` is not from {least:.3g} to {most:.3g}.")
    return metrics


def alike(answers: Sequence[MetricRecord]) -> list[MetricRecord]:
    """The answers whose images can share a normalization with those of most other clients.

    Otherwise one client could move the average so far that all others have to refuse it. Numbers
    of images are bounded as in a round of training.

    Args:
        answers: at least one.

    Raises:
        DataError: there are no such answers.
    """
    means, deviations = _arrays(answers, "mean", "std")
    spread = np.median(deviations, axis=0)
    near = np.abs(means - np.median(means, axis=0)) <= MOST_MEAN_SHIFT * spread
    # A constant channel has a deviation of 1, and nothing to be compared with.
    near |= deviations > LARGEST_STD
    return _kept(
        answers,
        near,
        DataError(
            "The clients' images are too different to be normalized alike.",
            "Check that all of them have the same kind of images, in the same range.",
        ),
    )


def alike_targets(answers: Sequence[MetricRecord]) -> list[MetricRecord]:
    """The answers whose measured values can share a scale with those of most other clients.

    Args:
        answers: at least one.

    Raises:
        DataError: there are no such answers.
    """
    means, deviations = _arrays(answers, "target-mean", "target-std")
    middle = np.median(means, axis=0), np.median(deviations, axis=0)
    return _kept(
        answers,
        near_targets(means, deviations, *middle),
        DataError(
            "The clients' measured values are too different to have one scale.",
            "Check that all of them have the values in the same unit.",
        ),
    )


def _arrays(answers: Sequence[MetricRecord], *names: str) -> list[NDArray[np.float64]]:
    """(clients, numbers) each, by name."""
    return [np.asarray([answer[name] for answer in answers], np.float64) for name in names]


def _kept(
    answers: Sequence[MetricRecord], near: NDArray[np.bool], error: DataError
) -> list[MetricRecord]:
    """The answers whose numbers are all ``near``, with bounded numbers of images.

    Args:
        answers: of the clients.
        near: (clients, numbers) whether a number is near those of the others.
        error: is raised if there are no such answers.
    """
    kept = [answer for answer, row in zip(answers, near, strict=True) if row.all()]
    if not kept:
        raise error
    if len(kept) < len(answers):
        left_out = len(answers) - len(kept)
        _log.warning("%d clients are unlike the others; they are left out.", left_out)
    bound_examples(kept)
    return kept


def _nodes(grid: Grid, least: int) -> list[int]:
    """The ids of all connected nodes, once there are ``least``; Flower's rounds wait likewise."""
    while len(nodes := list(grid.get_node_ids())) < least:
        time.sleep(1)
    return nodes

"""The negotiation of shape, classes and normalization before the first round."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from flwr.app import Message, MessageType, MetricRecord, RecordDict
from flwr.serverapp import Grid

from instahide.data import ImageTable, open_test
from instahide.data.normalization.normalization import Normalization
from instahide.errors import DataError, InstaHideError
from instahide.integrations.flower.client.normalization_check import LARGEST_STD, MOST_MEAN_SHIFT
from instahide.integrations.flower.config import FederatedSettings
from instahide.integrations.flower.errors import RefusalError
from instahide.integrations.flower.federation_spec import LEAST_STD, FederationSpec, averaged
from instahide.integrations.flower.server.reply_checks import (
    bad_reply,
    bound_examples,
    metrics_of,
    reason,
)
from instahide.integrations.flower.untrusted_values import in_range

_log = logging.getLogger(__name__)


def negotiate(settings: FederatedSettings) -> tuple[FederationSpec, ImageTable | None]:
    """The shape and classes of the federation, and the server's test images.

    Shape and classes come from the settings, else from the test images.

    Raises:
        InstaHideError: shape or classes are in neither, a value is out of bounds, or the test
            images cannot be read.
    """
    test = None
    if settings.test is not None:
        test = open_test(
            settings.test, size=settings.size, skip_bad=settings.skip_bad, progress=False
        )
    shape = settings.shape or (test and test.shape)
    classes = settings.classes or (test and test.classes)
    if not shape or not classes:
        raise InstaHideError(
            "The shape and the classes of the images are not known.",
            "Name `shape` and `classes` in the run config, or give the server `test` images.",
        )
    stated = None
    if settings.mean or settings.std:
        stated = Normalization(settings.mean or (), settings.std or ())
    agreement = FederationSpec(shape, classes, stated)
    # The same check as by every participant.
    return FederationSpec.from_record(agreement.to_record()), test


def normalized(
    agreement: FederationSpec, settings: FederatedSettings, grid: Grid
) -> FederationSpec:
    """The specification with mean and std: of the settings, else of all clients' images.

    Raises:
        InstaHideError: no client answers, or the clients' images are too different.
    """
    if agreement.normalization is not None:
        return agreement
    content = RecordDict({"config": agreement.to_record()})
    nodes = _nodes(grid, settings.clients)
    queries = [Message(content, node, MessageType.QUERY) for node in nodes]
    answers = []
    for reply in grid.send_and_receive(queries, timeout=settings.timeout):
        try:
            answers.append(read_moments(reply, agreement.shape[0]))
        except RefusalError as error:
            _log.warning("Participant %s: %s", reply.metadata.src_node_id, error.problem)
    return replace(agreement, normalization=averaged(alike(answers)))


def read_moments(reply: Message, channels: int) -> MetricRecord:
    """Read mean and standard deviation of a client's images from an untrusted reply.

    Raises:
        RefusalError: the client refused, or a value is missing, unknown or out of bounds.
    """
    if reply.has_error() or not reply.has_content():
        raise RefusalError(reason(reply), "Its images do not count in the normalization.")
    metrics = metrics_of(reply, {"metrics"}, {"mean", "std"})
    for name, least in (("mean", 0.0), ("std", LEAST_STD)):
        values = metrics[name]
        if not isinstance(values, list) or len(values) != channels:
            raise bad_reply(f"The answer's `{name}` is not a list of {channels} numbers.")
        if not all(in_range(value, least, 1) for value in values):
            raise bad_reply(f"The answer's `{name}` is not from {least:.3g} to 1.")
    return metrics


def alike(answers: Sequence[MetricRecord]) -> list[MetricRecord]:
    """The answers whose images can share a normalization with those of most other clients.

    Otherwise one client could move the average so far that all others have to refuse it. Numbers
    of images are bounded as in a round of training.

    Raises:
        InstaHideError: there are no such answers.
    """
    if not answers:
        raise InstaHideError(
            "No client sent the mean and std of its images.",
            "See the reasons in the log above, or name `mean` and `std` in the run config.",
        )
    means, deviations = (
        np.asarray([answer[name] for answer in answers], np.float64) for name in ("mean", "std")
    )
    spread = np.median(deviations, axis=0)
    near = np.abs(means - np.median(means, axis=0)) <= MOST_MEAN_SHIFT * spread
    # A constant channel has a deviation of 1, and nothing to be compared with.
    near |= deviations > LARGEST_STD
    kept = [answer for answer, row in zip(answers, near, strict=True) if row.all()]
    if not kept:
        raise DataError(
            "The clients' images are too different to be normalized alike.",
            "Check that all of them have the same kind of images, in the same range.",
        )
    if len(kept) < len(answers):
        left_out = len(answers) - len(kept)
        _log.warning("%d clients have images unlike the others'; they are left out.", left_out)
    bound_examples(kept)
    return kept


def _nodes(grid: Grid, least: int) -> list[int]:
    """The ids of all connected nodes, once there are ``least``; Flower's rounds wait likewise."""
    while len(nodes := list(grid.get_node_ids())) < least:
        time.sleep(1)
    return nodes

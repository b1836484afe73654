"""How server and clients come to terms before the first round."""

from __future__ import annotations

import logging
import time

from flwr.app import Message, MessageType, RecordDict
from flwr.serverapp import Grid

from instahide.errors import InstaHideError
from instahide.images import ImageTable, open_test
from instahide.learning.flower.agreement import Agreement, averaged
from instahide.learning.flower.settings import FederatedSettings

_log = logging.getLogger(__name__)


def terms(settings: FederatedSettings) -> tuple[Agreement, ImageTable | None]:
    """Shape and classes by the settings or by the server's test images; and those images.

    Raises:
        InstaHideError: neither says it, or the test images cannot be read.
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
            "Nobody says what shape and classes the images have.",
            "Name `shape` and `classes` in the run config, or give the server `test` images.",
        )
    return Agreement(shape, classes, settings.mean or (), settings.std or ()), test


def normalised(agreement: Agreement, settings: FederatedSettings, grid: Grid) -> Agreement:
    """The agreement with a mean and a deviation: those of the settings, or the clients' own.

    Raises:
        InstaHideError: no client answers.
    """
    if agreement.mean and agreement.std:
        return agreement
    content = RecordDict({"config": agreement.to_record()})
    nodes = _nodes(grid, settings.clients)
    asked = [Message(content, node, MessageType.QUERY) for node in nodes]
    replies = grid.send_and_receive(asked, timeout=settings.timeout)
    answers = []
    for reply in replies:
        if reply.has_error():
            _log.warning("Node %s: %s", reply.metadata.src_node_id, reply.error.reason)
        else:
            answers.append(next(iter(reply.content.metric_records.values())))
    if not answers:
        raise InstaHideError(
            "No client says how its images are normalised.",
            "The reasons are above; or name `mean` and `std` in the run config.",
        )
    mean, std = averaged(answers)
    return Agreement(agreement.shape, agreement.classes, mean, std)


def _nodes(grid: Grid, least: int) -> list[int]:
    """All nodes that are there, as soon as there are ``least``; Flower's rounds wait likewise."""
    while len(nodes := list(grid.get_node_ids())) < least:
        time.sleep(1)
    return nodes

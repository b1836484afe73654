"""Connection to a Ray cluster, and the resources of its nodes."""

from __future__ import annotations

import os
import socket
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from logging import ERROR
from typing import Any

import ray

from instahide.errors import IntegrationError

#: Seconds to wait for a connection.
PATIENCE = 30


@contextmanager
def connected() -> Iterator[None]:
    """Connect to the cluster of `RAY_ADDRESS`, a local one, or one started for the block.

    An existing connection is used and kept.

    Raises:
        InstaHideError: no cluster can be reached, or this machine is not one of its nodes.
    """
    if ray.is_initialized():
        yield
        return
    _require_reachable(os.environ.get("RAY_ADDRESS", ""))
    # Disable telemetry of a cluster that is started here.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        with warnings.catch_warnings():
            # Hints for programs that use GPUs through Ray.
            warnings.simplefilter("ignore", FutureWarning)
            ray.init(include_dashboard=False, log_to_driver=False, logging_level=ERROR)
    except (ConnectionError, RuntimeError) as error:
        raise _no_cluster(error) from error
    try:
        yield
    finally:
        ray.shutdown()


def _require_reachable(address: str) -> None:
    """Check that ``address`` can be reached; Ray itself would retry for many minutes."""
    if "://" in address:
        raise IntegrationError(
            f"RAY_ADDRESS={address} reaches a cluster from outside.",
            "Run on a node of the cluster, with RAY_ADDRESS=auto.",
        )
    host, _, port = address.rpartition(":")
    if host and port.isdigit():
        try:
            socket.create_connection((host.strip("[]"), int(port)), PATIENCE).close()
        except OSError as error:
            raise _no_cluster(error) from error


def _no_cluster(error: Exception) -> IntegrationError:
    return IntegrationError(
        f"No Ray cluster can be used ({error}).",
        "Start one with `ray start --head`, unset RAY_ADDRESS to have one for this run alone, "
        "or use `engine='threads'`.",
    )


def resources() -> list[dict[str, float]]:
    """The resources of each living node, such as `CPU` and `object_store_memory` in bytes."""
    nodes: list[dict[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call]
    return [node["Resources"] for node in nodes if node["Alive"]]

"""The Ray cluster that work is given to, and what its nodes have."""

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
    """A connection to the cluster of `RAY_ADDRESS`, to the one here, or to one begun for the block.

    Where there is a connection already, it is used, and left as it is.

    Raises:
        InstaHideError: no cluster can be reached, or this is not one of its nodes.
    """
    if ray.is_initialized():
        yield
        return
    _require_reachable(os.environ.get("RAY_ADDRESS", ""))
    # A cluster that is begun here tells nobody.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        with warnings.catch_warnings():
            # Tips for programs that use a GPU through Ray.
            warnings.simplefilter("ignore", FutureWarning)
            ray.init(include_dashboard=False, log_to_driver=False, logging_level=ERROR)
    except (ConnectionError, RuntimeError) as error:
        raise _no_cluster(error) from error
    try:
        yield
    finally:
        ray.shutdown()


def _require_reachable(address: str) -> None:
    """Refuse an ``address`` where nobody listens: Ray itself would try for many minutes."""
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
    """What each living node has, as `CPU` and `object_store_memory` in bytes."""
    nodes: list[dict[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call]
    return [node["Resources"] for node in nodes if node["Alive"]]

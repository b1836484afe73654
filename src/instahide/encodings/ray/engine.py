"""Publishing on a Ray cluster: each of its processors encrypts and writes shards.

Private images are sent to the workers, so the cluster must belong to the participant. Keys are
never sent: every worker draws a key stream from the entropy of its own machine. The shard of a lost
worker is encoded again under other keys and another file name, so that a worker that was only
thought to be lost does no harm.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import ray
from numpy.typing import NDArray
from ray.exceptions import RayActorError, RayError, RayTaskError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy
from rich.filesize import decimal

from instahide.data.remote.urls import local_path
from instahide.encodings.folder import read_manifest
from instahide.encodings.ledger.account import LedgerAccount
from instahide.encodings.manifest import NAME, Shard
from instahide.encodings.publish import Publication, Tasks
from instahide.encodings.ray.cluster import connected, resources
from instahide.encodings.ray.exposure import Counter, RemoteExposure
from instahide.encodings.storage import Store, open_store
from instahide.encryption.encoder import Encoder
from instahide.encryption.encoders.table_encoder import TableEncoder
from instahide.encryption.guarantees.loss_limit import LossLimit
from instahide.errors import ExposureLimitError, IntegrationError, LedgerError

#: Shards per processor: one that is encoded and one that waits.
AHEAD = 2
#: Largest exposure of an image, and the limit of its loss.
Limits = tuple[int | None, LossLimit | None]
#: Publishing fails after so many lost shards in a row.
MOST_LOST = 20
#: Timeout in seconds of an answer that normally takes milliseconds.
PATIENCE = 120


def on_ray(
    publication: Publication,
    encoder: Encoder | TableEncoder,
    store: Store,
    account: LedgerAccount,
    tasks: Tasks,
) -> Generator[Shard, None, None]:
    """The engine of a Ray cluster: of `RAY_ADDRESS`, a local one, or one started for this call.

    Every node needs this library, and access to the store under the same path or URL.

    Args:
        publication: what to publish; its images must fit into every node's object store.
        encoder: not used; every worker creates its own.
        store: store to which the workers write shards.
        account: account of a ledger on this machine, which only this process uses.
        tasks: shards to write.

    Raises:
        ExposureLimitError: a task has no encoding within the limit; the others are yielded.
        InstaHideError: there is no cluster, or it lacks resources.
    """
    stopped: ExposureLimitError | None = None
    coming = iter(tasks)
    with connected(), _working(publication, store, account, tasks) as workers:
        while True:
            while stopped is None and workers.idle and (task := next(coming, None)):
                workers.begin(*task)
            if not workers.flying:
                break
            try:
                yield workers.finished()
            except ExposureLimitError as error:
                stopped = error
        workers.remove_lost()
    if stopped is not None:
        raise stopped


class Workers:
    """The shards that are being encoded on a cluster.

    Attributes:
        flying: names of these shards.
    """

    def __init__(
        self, publication: Publication, store: Store, tasks: Tasks, counter: Any, limits: Limits
    ) -> None:
        self.flying: dict[ray.ObjectRef[Shard], str] = {}
        self._store, self._tasks = store, tasks
        self._common = (
            ray.put(_shareable(publication)),
            counter,
            limits,
            _from_anywhere(store.location),
            read_manifest(store).publication,
        )
        self._make: Any = ray.remote(num_cpus=1, max_retries=0)(make_shard)
        self._lost: list[str] = []
        self._lost_in_a_row = 0

    @property
    def idle(self) -> bool:
        """Whether the cluster, which may grow or shrink, can work on another shard."""
        processors = sum(node.get("CPU", 0) for node in resources())
        return len(self.flying) < AHEAD * max(1, int(processors))

    def begin(self, name: str, rows: NDArray[np.int64]) -> None:
        """Start the shard ``name`` of the images ``rows`` (n,)."""
        self.flying[self._make.remote(*self._common, name, rows)] = name

    def finished(self) -> Shard:
        """Wait for the next finished shard.

        Raises:
            InstaHideError: a worker failed, or too many were lost.
        """
        while True:
            (done, *_), _ = ray.wait(list(self.flying), num_returns=1)
            name = self.flying.pop(done)
            try:
                shard: Shard = ray.get(done)
            except RayTaskError as error:
                raise error.cause from None
            except RayError as error:
                self._begin_again(name, error)
            else:
                self._lost_in_a_row = 0
                return shard

    def remove_lost(self) -> None:
        """Delete the shards that were finished after their workers were thought to be lost."""
        there = self._store.names() if self._lost else set()
        for name in there.intersection(self._lost):
            self._store.remove(name)

    def _begin_again(self, name: str, error: RayError) -> None:
        self._lost.append(name)
        self._lost_in_a_row += 1
        if self._lost_in_a_row > MOST_LOST:
            raise IntegrationError(
                f"The Ray cluster lost {self._lost_in_a_row} shards one after the other "
                f"({type(error).__name__}).",
                "See that its nodes stay up and have memory enough, then go on with `resume=True`.",
            ) from error
        self.begin(*self._tasks.again(name))


def make_shard(
    publication: Publication,
    counter: Any,
    limits: Limits,
    location: str,
    folder: str,
    name: str,
    rows: NDArray[np.int64],
) -> Shard:
    """Encrypt ``rows`` (n,) and write them as the shard ``name``; runs on a worker.

    Args:
        publication: what to publish.
        counter: the actor that counts.
        limits: limits of an image.
        location: path or URL of the store.
        folder: identifier of the publication, which the manifest there must have.
        name: name of the shard.
        rows: private images to encrypt.

    Raises:
        IntegrationError: ``location`` is not the folder of the publication ``folder`` here.
    """
    store = open_store(location)
    if NAME not in store.names() or read_manifest(store).publication != folder:
        raise IntegrationError(
            f"A node of the Ray cluster does not find the manifest in {location}.",
            "Write to a folder that all nodes share, or to a URL as s3://bucket/folder.",
        )
    encoded = _encoder(publication, counter, limits).encode(rows)
    return publication.store(store, name, encoded)


#: The encoder of this process, by its counter. A new one for each shard would scan the images every
#: time, which takes longer than the shard.
_encoders: dict[Any, Encoder | TableEncoder] = {}


def _encoder(publication: Publication, counter: Any, limits: Limits) -> Encoder | TableEncoder:
    if counter not in _encoders:
        _encoders.clear()
        exposure = RemoteExposure(_Elsewhere(counter), len(publication.images), *limits)
        worker = ray.get_runtime_context().get_worker_id()
        _encoders[counter] = publication.encoder(exposure, worker)
    return _encoders[counter]


class _Elsewhere:
    """A `Counter` in another process."""

    def __init__(self, counter: Any) -> None:
        self._counter = counter

    def counts(self) -> NDArray[np.int64]:
        counts: NDArray[np.int64] = _answer(self._counter.counts.remote())
        return counts

    def losses(self) -> NDArray[np.float64]:
        losses: NDArray[np.float64] = _answer(self._counter.losses.remote())
        return losses

    def pictures(self) -> NDArray[np.int64]:
        pictures: NDArray[np.int64] = _answer(self._counter.pictures.remote())
        return pictures

    def count(self, rows: NDArray[np.int64], coefficients: NDArray[np.float32]) -> bool:
        return bool(_answer(self._counter.count.remote(rows, coefficients)))


def _answer(reference: ray.ObjectRef[Any]) -> Any:
    # Not with `ray.get`, during which Ray takes the processor for free and starts another worker;
    # and with a timeout, because a worker of a dead cluster ends only after its task.
    try:
        return reference.future().result(timeout=PATIENCE)
    except (TimeoutError, RayActorError) as error:
        raise LedgerError(
            f"The process that keeps the ledger does not answer ({type(error).__name__}).",
            "See that its machine has memory enough and its disk works, then go on with "
            "`resume=True`.",
        ) from error


@contextmanager
def _working(
    publication: Publication, store: Store, account: LedgerAccount, tasks: Tasks
) -> Iterator[Workers]:
    """Workers, and an actor next to the ledger that counts for them, until the block ends."""
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    counting: Any = ray.remote(num_cpus=0)(Counter)
    counter = counting.options(scheduling_strategy=here).remote(account)
    limits = account.limit, account.loss_limit
    workers = Workers(publication, store, tasks, counter, limits)
    try:
        yield workers
    finally:
        for shard in workers.flying:
            ray.cancel(shard, force=True)
        ray.kill(counter)


def _shareable(publication: Publication) -> Publication:
    """A copy with images in memory, which all processes of a node can share."""
    images, public = publication.images, publication.public
    if public is not None:
        public = replace(public, pixels=np.ascontiguousarray(public.pixels))
    images = replace(images, pixels=np.ascontiguousarray(images.pixels))
    size = images.pixels.nbytes + (0 if public is None else public.pixels.nbytes)
    room = int(min(node.get("object_store_memory", 0) for node in resources()))
    # Otherwise Ray would write private images to the disks of the nodes.
    if size > room:
        raise IntegrationError(
            f"The images have {decimal(size)}, but the object store of a node of the Ray cluster "
            f"holds {decimal(room)}.",
            "Give it more (`ray start --object-store-memory`), or encrypt the images in parts, "
            "each into a folder of its own.",
        )
    return replace(publication, images=images, public=public)


def _from_anywhere(location: str) -> str:
    """``location`` as an absolute path or URL."""
    path = local_path(location)
    return location if path is None else str(path.absolute())

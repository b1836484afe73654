"""Encrypt a data set into a folder of encodings, so that whoever trains needs nothing else.

The order of events is what makes it safe to be killed at any time: an encoding is counted in the
ledger when its keys are drawn; the images of a shard are noted before its file is written; the
shard counts once the manifest names it. A shard that was not finished is made anew, from other
keys, and its images stay counted.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import ValidationError

from instahide.data import ImageTable
from instahide.data.image_source import has_repeats
from instahide.encodings.folder import (
    EncodedFolder,
    FolderWriter,
    new_publication,
    new_shard_name,
    store_shard,
    writing_encodings,
)
from instahide.encodings.ledger.account import LedgerAccount
from instahide.encodings.ledger.ledger import Ledger
from instahide.encodings.manifest import Manifest, Shard, Values, max_abs
from instahide.encodings.shards import max_quantization_error
from instahide.encodings.storage import Store
from instahide.encryption.encoder import Encoded, Encoder, random_permutation
from instahide.encryption.exposure import Exposure
from instahide.encryption.scheme import Scheme
from instahide.errors import DataError, ExposureLimitError, InstaHideError, first_validation_error

#: Bytes of a shard, about; twice as many where there would be more than `MANY_SHARDS`, which spares
#: the ledger work, and does not leave threads waiting at the end; more yet beyond `MOST_SHARDS`.
SHARD_BYTES, MANY_SHARDS, MOST_SHARDS = 1 << 24, 256, 4096
#: Shards that the ledger is told of at a time: a change of it costs as much for one as for a few.
NOTED = 8

#: Shards that are written at a time: one writes while others wait for the disk, or for a network.
WRITERS = 4

#: A shard to be written: its name, and the private images that it encrypts.
Task = tuple[str, NDArray[np.int64]]


@dataclass(frozen=True, repr=False)
class Publication:
    """What is to be published.

    Attributes:
        images: the private images.
        public: the public pool of a scheme that needs one.
        scheme: how to encrypt.
        copies: encodings of each image.
        values: how they are stored.
        participant: whose they are, for those who read the folder; the name is in the keys too, so
            that no two participants have a key stream in common.

    Raises:
        InstaHideError: no copies, images that cannot be stored as ``values``, or what a manifest
            cannot say.
    """

    images: ImageTable
    public: ImageTable | None
    scheme: Scheme
    copies: int
    values: Values = "float16"
    participant: str = ""

    def __post_init__(self) -> None:
        if self.copies < 1:
            raise InstaHideError(
                f"{self.copies} copies of each image are none.", "Use `copies=1` or more."
            )
        if len(self.images.classes) < 2:
            raise DataError(
                f"The images are of one class alone: {', '.join(self.images.classes)}.",
                "Name the classes of all participants, with `classes=` or as "
                "`open_images(..., classes=['cat', 'dog'])`.",
            )
        self.manifest()  # Refuses what it cannot say.
        if self.values == "float16" and self.max_abs > torch.finfo(torch.float16).max:
            raise DataError(
                "These images have so little contrast that their normalized values are beyond "
                "float16.",
                "Use `values='float32'`.",
            )

    def manifest(self) -> Manifest:
        """Of a folder that is about to be written."""
        images = self.images
        try:
            return Manifest(
                publication=new_publication(),
                participant=self.participant,
                scheme=asdict(self.scheme),
                shape=images.shape,
                classes=images.classes,
                mean=images.mean,
                std=images.std,
                private_images=len(images),
                copies=self.copies,
                values=self.values,
                max_quantization_error=max_quantization_error(self.values, self.max_abs),
            )
        except ValidationError as error:
            raise DataError(
                f"This does not fit into a manifest ({first_validation_error(error)}).",
                "Change the setting, or the images.",
            ) from error

    @property
    def max_abs(self) -> float:
        """No value of an encoding is further from 0."""
        return max_abs(self.images.mean, self.images.std, self.scheme.noise)

    def store(self, store: Store, name: str, encoded: Encoded) -> Shard:
        """Write a block of encodings as the shard ``name``."""
        return store_shard(store, name, encoded, self.values, self.max_abs)

    def encoder(self, exposure: Exposure, worker: str = "") -> Encoder:
        """An encoder that counts in ``exposure``, with a key stream of its own.

        Args:
            exposure: of the images.
            worker: a name for this process where several encrypt for one participant: it is in the
                keys, like the participant's.
        """
        return Encoder(
            self.scheme,
            self.images,
            self.public,
            exposure=exposure,
            dtype=torch.float16 if self.values == "float16" else torch.float32,
            participant=f"{self.participant}, worker {worker}" if worker else self.participant,
        )


class Tasks(Protocol):
    """The shards that an engine is to write."""

    def __iter__(self) -> Iterator[Task]:
        """Each once, noted in the ledger before it is given out."""
        ...

    def again(self, name: str) -> Task:
        """The images of the shard ``name``, which was lost, under another name.

        Whoever was to write it may only seem to be dead: what it writes is never mistaken for this.
        """
        ...


class Engine(Protocol):
    """Makes shards, on whatever machines."""

    def __call__(
        self,
        publication: Publication,
        encoder: Encoder,
        store: Store,
        account: LedgerAccount,
        tasks: Tasks,
        /,
    ) -> Generator[Shard, None, None]:
        """Write the shard of every task; yields each once its file is whole.

        ``encoder`` counts in ``account``; other processes make encoders of their own.

        Tasks are asked for as they are begun. What they count is safe from power cuts, by
        `LedgerAccount.sync`, before a file is written. A shard holds fewer encodings than its task
        if an image reached its limit: then those of the first images.

        Raises:
            ExposureLimitError: a task has none at all; what was written before is yielded.
        """
        ...


def publish(
    publication: Publication,
    location: str | Path,
    ledger: Ledger,
    *,
    engine: Engine,
    resume: bool = False,
    limit: int | None = None,
    progress: Callable[[int], None] = lambda _: None,
) -> EncodedFolder:
    """Encrypt into the folder ``location``, or go on with what is there.

    Args:
        publication: what to publish.
        location: a folder that does not exist yet, or its URL.
        ledger: counts what goes out.
        engine: `threads`, or one that uses other machines.
        resume: keep the finished shards of a run that was killed; the others are made anew.
        limit: encodings that an image may go into; the folder ends before one passes it.
        progress: called with numbers of encodings as they are finished.

    Raises:
        InstaHideError: images, folder or ledger cannot be used.
        ExposureLimitError: not a single encoding fits the limit.
    """
    account = ledger.account(publication.images, limit=limit, scheme=publication.scheme)
    # Refuses what does not go together before anything is written.
    encoder = publication.encoder(account)
    uneven = limit is not None or has_repeats(publication.images)
    manifest = publication.manifest().model_copy(update={"limited": uneven})
    with writing_encodings(location, manifest, resume=resume) as writer:
        progress(len(writer.manifest))
        work = _Work(writer, account)
        try:
            with closing(engine(publication, encoder, writer.store, account, work)) as shards:
                for shard in shards:
                    work.commit(shard)
                    progress(shard.encodings)
        except ExposureLimitError:
            if not writer.manifest.shards:
                writer.abandon()
                raise
        writer.finish("limit" if len(work.left()) else "all")
    return EncodedFolder.open(location)


class _Work:
    """What is still to be written of a folder; the ledger knows of every shard before it is."""

    def __init__(self, writer: FolderWriter, account: LedgerAccount) -> None:
        self._writer, self._account = writer, account
        self._publication = writer.manifest.publication
        #: The images of shards in flight.
        self._begun: dict[str, NDArray[np.int64]] = {}
        self._at_limit = False

    def __iter__(self) -> Iterator[Task]:
        """Shards of images in random order, until a shard shows that the limit is reached."""
        manifest = self._writer.manifest
        if not manifest.shards:
            self._account.begin(self._publication, manifest.copies)
        left = self.left()
        order = left[random_permutation(len(left), manifest.participant)]
        size = encodings_a_shard(manifest)
        parts = (order[start : start + size] for start in range(0, len(order), size))
        while noted := self._begin(islice(parts, NOTED)):
            for task in noted:
                if self._at_limit:
                    return
                yield task

    def again(self, name: str) -> Task:
        """As `Tasks.again`."""
        (task,) = self._begin([self._begun.pop(name)])
        return task

    def commit(self, shard: Shard) -> None:
        """Let a written shard count."""
        rows = self._begun.pop(shard.name)
        if shard.encodings < len(rows):
            self._at_limit = True
            self._account.pending(self._publication, {shard.name: rows[: shard.encodings]})
            self._account.sync()
        self._account.check()
        self._writer.commit(shard)

    def _begin(self, parts: Iterable[NDArray[np.int64]]) -> list[Task]:
        """A shard for each of ``parts``, which the ledger knows of in one change."""
        shards = {new_shard_name(): rows for rows in parts}
        if shards:
            self._account.pending(self._publication, shards)
            self._begun |= shards
        return list(shards.items())

    def left(self) -> NDArray[np.int64]:
        """Images that are still to be encrypted; shards in flight are given up."""
        manifest = self._writer.manifest
        finished = {shard.name for shard in manifest.shards}
        return self._account.remaining(self._publication, finished, len(manifest))


def encodings_a_shard(manifest: Manifest) -> int:
    """How many encodings a shard of this folder holds."""
    whole = manifest.total * manifest.bytes_each
    least = SHARD_BYTES if whole <= MANY_SHARDS * SHARD_BYTES else 2 * SHARD_BYTES
    return max(1, max(least, whole // MOST_SHARDS) // manifest.bytes_each)


def threads(
    publication: Publication,
    encoder: Encoder,
    store: Store,
    account: LedgerAccount,
    tasks: Iterable[Task],
) -> Generator[Shard, None, None]:
    """The engine of one machine: some threads encode, others write."""
    names: deque[str] = deque()

    def rows() -> Iterator[NDArray[np.int64]]:
        for name, images in tasks:
            names.append(name)
            yield images

    def write(name: str, encoded: Encoded) -> Shard:
        account.sync()
        return publication.store(store, name, encoded)

    stopped: ExposureLimitError | None = None
    written: deque[Future[Shard]] = deque()
    with (
        ThreadPoolExecutor(WRITERS, thread_name_prefix="instahide-write") as pool,
        closing(encoder.stream(rows())) as blocks,
    ):
        try:
            for encoded in blocks:
                written.append(pool.submit(write, names.popleft(), encoded))
                if len(written) > WRITERS:
                    yield written.popleft().result()
        except ExposureLimitError as error:
            stopped = error
        while written:
            yield written.popleft().result()
    if stopped is not None:
        raise stopped

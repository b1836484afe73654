"""Encrypts a data set into a folder of encodings, which is all that training needs.

Publishing can be killed at any time: an encoding is counted in the ledger when its keys are drawn;
the images of a shard are recorded before its file is written; and a shard belongs to the folder
once the manifest lists it. An unfinished shard is encoded again under other keys, and its first
attempt stays counted.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import ValidationError

from instahide.data import ImageTable
from instahide.data.duplicates.content_hash import all_unique
from instahide.data.labels import least_columns
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
from instahide.encodings.publication_size import require_few
from instahide.encodings.shards import max_quantization_error
from instahide.encodings.storage import Store
from instahide.encryption.encoder import Encoded, Encoder, random_permutation
from instahide.encryption.encoders.base import InstanceEncoder
from instahide.encryption.encoders.checked_calls import naming_failures
from instahide.encryption.encoders.registry import require_own_name
from instahide.encryption.encoders.table_encoder import TableEncoder, pools_of
from instahide.encryption.exposure import Exposure
from instahide.encryption.scheme import Scheme
from instahide.errors import DataError, ExposureLimitError, InstaHideError, first_validation_error

#: Approximate bytes of a shard; twice as many if there were more than `MANY_SHARDS`, which saves
#: work of the ledger; even more if there were more than `MOST_SHARDS`.
SHARD_BYTES, MANY_SHARDS, MOST_SHARDS = 1 << 24, 256, 4096
#: Shards that are recorded in the ledger at a time: a transaction costs the same for one or a few.
NOTED = 8

#: Shards that are written at a time, so that one is written while others wait for disk or network.
WRITERS = 4

#: A shard to write: its name, and the private images to encrypt.
Task = tuple[str, NDArray[np.int64]]


@dataclass(frozen=True, repr=False)
class Publication:
    """What is to be published.

    Attributes:
        images: the private images.
        public: the public pool of an encoder that needs one.
        method: how to encrypt: a scheme, or another encoder.
        copies: encodings of each image.
        values: type of stored values; of other encoders than schemes float32, whose values have no
            known bound.
        participant: name of the participant, for readers of the folder. It is also mixed into the
            keys, so that no two participants share a key stream.

    Raises:
        InstaHideError: ``copies`` is below 1, there would be more than
            `publication_size.MOST_ENCODINGS` encodings, the images cannot be stored as ``values``,
            or a setting does not fit into a manifest.
    """

    images: ImageTable
    public: ImageTable | None
    method: InstanceEncoder
    copies: int
    values: Values = "float16"
    participant: str = ""

    def __post_init__(self) -> None:
        require_own_name(self.method)
        if self.copies < 1:
            raise InstaHideError(f"copies = {self.copies} is below 1.", "Use `copies=1` or more.")
        require_few(len(self.images), self.copies)
        if len(self.images.classes) < least_columns(self.images.task):
            raise DataError(
                f"The images are of one class alone: {', '.join(self.images.classes)}.",
                "Name the classes of all participants, with `classes=` or as "
                "`open_images(..., classes=['cat', 'dog'])`.",
            )
        if not self.of_scheme and self.values != "float32":
            raise InstaHideError(
                f"Encodings of {self.method.name} cannot be stored as {self.values}: their values "
                "have no known bound.",
                "Use `values='float32'`.",
            )
        self.manifest()  # Refuses settings that do not fit into it.
        if self.values == "float16" and self.max_abs > torch.finfo(torch.float16).max:
            raise DataError(
                "These images have so little contrast that their normalized values are beyond "
                "float16.",
                "Use `values='float32'`.",
            )

    def manifest(self) -> Manifest:
        """The manifest of the folder to be written."""
        images = self.images
        with naming_failures(self.method, "output_shape"):
            shape = tuple(self.method.output_shape(images.shape))
        error = max_quantization_error(self.values, self.max_abs) if self.of_scheme else 0.0
        try:
            return Manifest(
                publication=new_publication(),
                participant=self.participant,
                encoder=self.method.name,
                data_set_key=self.method.has_data_set_key,
                scheme=dict(self.method.settings),
                shape=shape,
                image_shape=None if shape == images.shape else images.shape,
                task=images.task,
                classes=images.classes,
                mean=images.mean,
                std=images.std,
                value_range=images.value_range,
                private_images=len(images),
                copies=self.copies,
                values=self.values,
                max_quantization_error=error,
            )
        except ValidationError as invalid:
            raise DataError(
                f"This does not fit into a manifest ({first_validation_error(invalid)}).",
                "Change the setting, or the images.",
            ) from invalid

    @property
    def of_scheme(self) -> bool:
        """Whether the encoder is a scheme."""
        return isinstance(self.method, Scheme)

    @property
    def max_abs(self) -> float:
        """The largest magnitude of a stored value; infinite if it is unknown."""
        if not isinstance(self.method, Scheme):
            return math.inf
        return max_abs(self.images.mean, self.images.std, self.method.noise)

    def store(self, store: Store, name: str, encoded: Encoded) -> Shard:
        """Write a block of encodings as the shard ``name``; noise is clipped at `max_abs`."""
        if isinstance(self.method, Scheme) and self.method.noise:
            clipped = encoded.images.clamp(-self.max_abs, self.max_abs)
            encoded = encoded._replace(images=clipped)
        return store_shard(store, name, encoded, self.values, self.max_abs)

    def encoder(self, exposure: Exposure, worker: str = "") -> Encoder | TableEncoder:
        """An encoder that counts in ``exposure``, with a key stream of its own.

        Args:
            exposure: exposure of the images.
            worker: name of this process, if several encrypt for one participant. It is mixed into
                the keys, like the participant's name.
        """
        name = f"{self.participant}, worker {worker}" if worker else self.participant
        if not isinstance(self.method, Scheme):
            return TableEncoder(
                self.method, self.images, self.public, exposure=exposure, participant=name
            )
        return Encoder(
            self.method,
            self.images,
            self.public,
            exposure=exposure,
            dtype=torch.float16 if self.values == "float16" else torch.float32,
            participant=name,
        )


class Tasks(Protocol):
    """The shards for an engine to write."""

    def __iter__(self) -> Iterator[Task]:
        """Yield each task once, after it was recorded in the ledger."""
        ...

    def again(self, name: str) -> Task:
        """A task for the images of the lost shard ``name``, under another name.

        If its worker is still alive, its late file is not confused with the new one.
        """
        ...


class Engine(Protocol):
    """Encodes and writes shards, on one machine or several."""

    def __call__(
        self,
        publication: Publication,
        encoder: Encoder | TableEncoder,
        store: Store,
        account: LedgerAccount,
        tasks: Tasks,
        /,
    ) -> Generator[Shard, None, None]:
        """Write the shard of every task, and yield each when its file is complete.

        ``encoder`` counts in ``account``; other processes create their own encoders.

        Tasks are requested as they are started. `LedgerAccount.sync` protects their counts from
        power cuts before a file is written. If an image reached its limit, a shard holds only the
        encodings of the images before it.

        Raises:
            ExposureLimitError: a task has no encoding within the limit; earlier shards are yielded.
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
    min_mse: float | None = None,
    progress: Callable[[int], None] = lambda _: None,
) -> EncodedFolder:
    """Encrypt images into the folder ``location``, or resume.

    If it fails before the first shard is written, the folder is removed again. An interrupt leaves
    it, to be resumed.

    Args:
        publication: what to publish.
        location: a folder that does not exist yet, or its URL.
        ledger: counts the encodings of each image.
        engine: `threads`, or an engine that uses other machines.
        resume: keep the finished shards of a killed run; the others are encoded again.
        limit: largest exposure of an image; publishing ends before an image exceeds it.
        min_mse: least error of unbiased reconstructions, as for `Ledger.account`; publishing ends
            before an image falls below it.
        progress: called with the number of encodings of each finished shard.

    Raises:
        InstaHideError: images, folder or ledger cannot be used; or several machines, or a resumed
            run, would each have a key of the data set, which the encoder must have once.
        ExposureLimitError: no encoding is within the limit.
    """
    method = publication.method
    if method.has_data_set_key and engine is not threads:
        raise InstaHideError(
            f"All encodings of {method.name} share one key, which is not sent to other machines.",
            "Encrypt on this machine.",
        )
    scheme = method if isinstance(method, Scheme) else None
    account = ledger.account(publication.images, limit=limit, min_mse=min_mse, scheme=scheme)
    # Validates images and scheme before anything is written.
    encoder = publication.encoder(account)
    # The ledger may know that two images are one, although nothing in the table says so.
    pools = pools_of(encoder)
    shared = pools is not None and pools.private_in_public > 0
    uneven = account.limited or not all_unique(account.pictures()) or shared
    manifest = publication.manifest().model_copy(update={"limited": uneven})
    with (
        writing_encodings(location, manifest, resume=resume) as writer,
        writer.abandoned_on_error(),
    ):
        if method.has_data_set_key and writer.manifest.shards:
            raise InstaHideError(
                f"{location} cannot be continued: all encodings of {method.name} share one key, "
                "which was never stored.",
                "Delete the folder, and encrypt the images again.",
            )
        progress(len(writer.manifest))
        work = _Work(writer, account)
        try:
            with closing(engine(publication, encoder, writer.store, account, work)) as shards:
                for shard in shards:
                    work.commit(shard)
                    progress(shard.encodings)
        except ExposureLimitError:
            if not writer.manifest.shards:
                raise
        writer.finish("limit" if len(work.left()) else "all")
    return EncodedFolder.open(location)


class _Work:
    """The remaining tasks of a folder, each recorded in the ledger before its shard is written."""

    def __init__(self, writer: FolderWriter, account: LedgerAccount) -> None:
        self._writer, self._account = writer, account
        self._publication = writer.manifest.publication
        #: The images of shards that are being written.
        self._begun: dict[str, NDArray[np.int64]] = {}
        self._at_limit = False

    def __iter__(self) -> Iterator[Task]:
        """Tasks with images in random order, until a shard shows that the limit is reached."""
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
        """See `Tasks.again`."""
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
        """A task for each of ``parts``, recorded in the ledger in one transaction."""
        shards = {new_shard_name(): rows for rows in parts}
        if shards:
            self._account.pending(self._publication, shards)
            self._begun |= shards
        return list(shards.items())

    def left(self) -> NDArray[np.int64]:
        """The images still to be encrypted, including those of unfinished shards."""
        manifest = self._writer.manifest
        finished = {shard.name for shard in manifest.shards}
        return self._account.remaining(self._publication, finished, len(manifest))


def encodings_a_shard(manifest: Manifest) -> int:
    """The number of encodings per shard of this folder."""
    whole = manifest.total * manifest.bytes_each
    least = SHARD_BYTES if whole <= MANY_SHARDS * SHARD_BYTES else 2 * SHARD_BYTES
    return max(1, max(least, whole // MOST_SHARDS) // manifest.bytes_each)


def threads(
    publication: Publication,
    encoder: Encoder | TableEncoder,
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

"""Encrypt a data set into a folder of encodings, so that whoever trains needs nothing else.

The order of events is what makes it safe to be killed at any time: an encoding is counted in the
ledger when its keys are drawn; the images of a shard are noted before its file is written; the
shard counts once the manifest names it. A shard that was not finished is made anew, from other
keys, and its images stay counted.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from instahide.encodings.format import (
    EncodedFolder,
    FolderWriter,
    new_publication,
    new_shard_name,
    writing_encodings,
)
from instahide.encodings.ledger import Account, Ledger
from instahide.encodings.manifest import Manifest, Shard, Values
from instahide.encodings.shards import packed, worst_error, write_shard
from instahide.encodings.storage import Store
from instahide.encryption.encoder import Encoded, Encoder, fresh_order
from instahide.encryption.exposure import Exposure, ExposureLimitError
from instahide.encryption.scheme import Scheme
from instahide.errors import InstaHideError
from instahide.images import ImageTable

#: Bytes of a shard, about; more where there would be more than `MOST_SHARDS`.
SHARD_BYTES, MOST_SHARDS = 1 << 25, 4096

#: Shards that are written at a time.
WRITERS = 2

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
        participant: whose they are, for those who read the folder.

    Raises:
        InstaHideError: no copies, or images that cannot be stored as ``values``.
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
                f"{self.copies} copies of each image are none.", "Use --copies 1 or more."
            )
        if self.values == "float16" and self.manifest().reach > torch.finfo(torch.float16).max:
            raise InstaHideError(
                "These images have so little contrast that their normalised values are beyond "
                "float16.",
                "Use --values float32.",
            )

    def manifest(self) -> Manifest:
        """Of a folder that is about to be written."""
        images = self.images
        manifest = Manifest(
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
            worst_error=0.0,
        )
        return manifest.model_copy(update={"worst_error": worst_error(self.values, manifest.reach)})

    def encoder(self, exposure: Exposure) -> Encoder:
        """Counts in ``exposure``; its keys are its own."""
        dtype = torch.float16 if self.values == "float16" else torch.float32
        return Encoder(self.scheme, self.images, self.public, exposure=exposure, dtype=dtype)


class Engine(Protocol):
    """Makes shards, on whatever machines."""

    def __call__(
        self, publication: Publication, store: Store, account: Account, tasks: Iterable[Task]
    ) -> Iterator[Shard]:
        """Write the shard of every task; yields each once its file is whole.

        Raises:
            ExposureLimitError: an image would pass its limit; all that was written is yielded.
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
        ExposureLimitError: not a single shard fits the limit.
    """
    account = ledger.account(publication.images, limit=limit)
    publication.encoder(account)  # Refuses what does not go together before anything is written.
    with writing_encodings(location, publication.manifest(), resume=resume) as writer:
        progress(len(writer.manifest))
        try:
            for shard in engine(publication, writer.store, account, _tasks(writer, account)):
                writer.commit(shard)
                progress(shard.encodings)
            writer.finish("all")
        except ExposureLimitError:
            if not writer.manifest.shards:
                raise
            writer.finish("limit")
    return EncodedFolder.open(location)


def _tasks(writer: FolderWriter, account: Account) -> Iterator[Task]:
    """Shards still to be written, of images in random order, each noted before it is begun."""
    manifest = writer.manifest
    if not manifest.shards:
        account.begin(manifest.publication, manifest.copies)
    finished = {shard.name for shard in manifest.shards}
    left = account.remaining(manifest.publication, finished)
    order = left[fresh_order(len(left))]
    size = encodings_a_shard(manifest)
    for start in range(0, len(order), size):
        name, rows = new_shard_name(), order[start : start + size]
        account.pending(manifest.publication, name, rows)
        yield name, rows


def encodings_a_shard(manifest: Manifest) -> int:
    """How many encodings a shard of this folder holds."""
    size = max(SHARD_BYTES, manifest.total * manifest.bytes_each // MOST_SHARDS)
    return max(1, size // manifest.bytes_each)


def write_encoded(publication: Publication, store: Store, name: str, encoded: Encoded) -> Shard:
    """Store a block of encodings as the shard ``name``."""
    manifest = publication.manifest()
    images = packed(encoded.images, publication.values, manifest.reach)
    with store.writing(name) as path:
        return write_shard(path, name, images, encoded.labels)


def threads(
    publication: Publication, store: Store, account: Account, tasks: Iterable[Task]
) -> Iterator[Shard]:
    """The engine of one machine: some threads encode, others write."""
    names: deque[str] = deque()

    def rows() -> Iterator[NDArray[np.int64]]:
        for name, images in tasks:
            names.append(name)
            yield images

    stopped: ExposureLimitError | None = None
    written: deque[Future[Shard]] = deque()
    with ThreadPoolExecutor(WRITERS, thread_name_prefix="instahide-write") as pool:
        try:
            for encoded in publication.encoder(account).stream(rows()):
                write = partial(write_encoded, publication, store, names.popleft(), encoded)
                written.append(pool.submit(write))
                if len(written) > WRITERS:
                    yield written.popleft().result()
        except ExposureLimitError as error:
            stopped = error
        while written:
            yield written.popleft().result()
    if stopped is not None:
        raise stopped

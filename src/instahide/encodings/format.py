"""A folder of encodings: a manifest and shards, local or at a URL.

A shard counts only once it is in the manifest, and the manifest is replaced whole. So whatever
happens, the folder holds what the manifest says.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from torch import Tensor

from instahide.encodings.manifest import MOST_BYTES, NAME, Manifest, Shard
from instahide.encodings.shards import damaged, read_shard, unpacked
from instahide.encodings.storage import Store, open_store
from instahide.encryption.encoder import Encoded
from instahide.errors import InstaHideError

#: Rounding of float32 labels of a mix, which sum to at most 1.
_ROUNDING = 1e-5


class EncodedFolder:
    """Published encodings, to read. Use `open`.

    Attributes:
        location: where the folder is, as it was named.
        manifest: what it says of itself.
    """

    def __init__(self, store: Store, manifest: Manifest) -> None:
        self.location = store.location
        self.manifest = manifest
        self._store = store

    @classmethod
    def open(cls, location: str | Path, *, partial: bool = False) -> EncodedFolder:
        """Read the manifest and check that every shard is there at its length.

        Args:
            location: a folder, or its URL.
            partial: also open a folder that is not finished.

        Raises:
            InstaHideError: no such folder, or one that is damaged or not finished.
        """
        store = open_store(location)
        if NAME not in store.names():
            raise InstaHideError(
                f"{location} holds no encodings.",
                "Name a folder that `instahide encrypt` wrote.",
            )
        manifest = read_manifest(store)
        if manifest.ended is None and not partial:
            raise InstaHideError(
                f"{location} is not finished: {len(manifest)} of {manifest.total} encodings.",
                "Go on with `instahide encrypt --resume`.",
            )
        folder = cls(store, manifest)
        folder._require_shards()
        return folder

    def __len__(self) -> int:
        """Encodings in the folder."""
        return len(self.manifest)

    def __repr__(self) -> str:
        return f"EncodedFolder({self.location!r}, {len(self)} encodings)"

    def shard(self, number: int) -> Encoded:
        """Encodings of a shard as they are stored, memory-mapped; `decoded` makes them numbers.

        Raises:
            InstaHideError: the file is not what the manifest says.
        """
        shard = self.manifest.shards[number]
        return read_shard(self._store.local(shard.name), shard, self.manifest)

    def decoded(self, images: Tensor) -> Tensor:
        """float32 from images as they are stored."""
        return unpacked(images, self.manifest.reach)

    def verify(self, progress: Callable[[int], None] = lambda _: None) -> list[str]:
        """Everything that is wrong with the folder, one sentence each; nothing if all is well.

        Every byte is compared with its checksum, every value with what the scheme allows.

        Args:
            progress: called with the number of encodings of each shard that is done.
        """
        known = {shard.name for shard in self.manifest.shards} | {NAME}
        extra = sorted(self._store.names() - known)
        problems = [f"{name} is not in the manifest." for name in extra]
        for number, shard in enumerate(self.manifest.shards):
            try:
                self._verify_shard(number)
            except InstaHideError as error:
                problems.append(error.problem)
            progress(shard.encodings)
        return problems

    def _verify_shard(self, number: int) -> None:
        shard = self.manifest.shards[number]
        with self._store.local(shard.name).open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        if digest != shard.sha256:
            raise damaged(shard, "its checksum is another")
        images, labels = self.shard(number)
        bound = self.manifest.reach * (1 + _ROUNDING) + self.manifest.worst_error
        values = self.decoded(images)
        # A comparison with NaN fails, so that these are found as well.
        if not bool((values.abs() <= bound).all()):
            raise damaged(shard, f"values lie beyond {bound:.3f}, or are no numbers")
        sums = labels.sum(dim=1)
        least = _least_label(self.manifest) - _ROUNDING
        right = (labels >= 0).all() & (sums >= least).all() & (sums <= 1 + _ROUNDING).all()
        if not bool(right):
            raise damaged(shard, "labels are not those of a mix of this scheme")

    def _require_shards(self) -> None:
        there = self._store.names()
        for shard in self.manifest.shards:
            if shard.name not in there:
                raise damaged(shard, "it is missing")
            if self._store.size(shard.name) != shard.bytes:
                raise damaged(shard, "its length is another")


class FolderWriter:
    """A folder of encodings while it is written, by nobody else. Use `writing_encodings`."""

    def __init__(self, store: Store, manifest: Manifest) -> None:
        self.store = store
        self.manifest = manifest

    def commit(self, shard: Shard) -> None:
        """Let a written shard count."""
        self._replace({"shards": (*self.manifest.shards, shard), "ended": None})

    def finish(self, ended: Literal["all", "limit"]) -> None:
        """Declare the folder finished.

        Raises:
            ValueError: not all encodings are there, though ``ended`` says so.
        """
        self._replace({"ended": ended})

    def _replace(self, changes: dict[str, object]) -> None:
        manifest = Manifest.model_validate({**dict(self.manifest), **changes})
        write_manifest(self.store, manifest)
        self.manifest = manifest


@contextmanager
def writing_encodings(
    location: str | Path, manifest: Manifest, *, resume: bool = False
) -> Iterator[FolderWriter]:
    """Write the folder that ``manifest`` describes, or go on with it.

    With ``resume``, finished shards stay, and what else is there of shards is removed; a folder
    that holds nothing yet is begun.

    Raises:
        InstaHideError: the folder is taken, by other files or another writer; or it holds something
            else than ``manifest`` describes.
    """
    store = open_store(location)
    with store.exclusive():
        there = store.names()
        if NAME in there and resume:
            found = read_manifest(store)
            _require_same(found, manifest, str(location))
            for name in there - {shard.name for shard in found.shards} - {NAME}:
                store.remove(name)
            yield FolderWriter(store, found)
            return
        if there:
            raise InstaHideError(
                f"{location} is not empty.",
                "Go on with what is there by `--resume`, or choose another `--out`.",
            )
        write_manifest(store, manifest)
        yield FolderWriter(store, manifest)


def new_publication() -> str:
    """A random number for a new folder."""
    return secrets.token_hex(16)


def new_shard_name() -> str:
    """A random file name, which no shard had before."""
    return f"{secrets.token_hex(8)}.safetensors"


def read_manifest(store: Store) -> Manifest:
    """The manifest in ``store``.

    Raises:
        InstaHideError: it is damaged, or of a newer version.
    """
    return Manifest.from_json(store.read(NAME, MOST_BYTES), store.location)


def write_manifest(store: Store, manifest: Manifest) -> None:
    """Replace the manifest in ``store``, whole."""
    with store.writing(NAME) as path:
        path.write_bytes(manifest.to_json())


def _least_label(manifest: Manifest) -> float:
    """What a label sums to, at the least."""
    scheme = manifest.encryption()
    sums_to_one = scheme.labels == "renormalised" or scheme.public_k == 0
    return 1.0 if sums_to_one else max(scheme.c2, scheme.own)


def _require_same(found: Manifest, wanted: Manifest, location: str) -> None:
    own = {"publication", "created", "library", "shards", "ended"}
    here, there = found.model_dump(exclude=own), wanted.model_dump(exclude=own)
    differences = [f"{name}: {here[name]} there, {there[name]} asked for"
                   for name in here if here[name] != there[name]]  # fmt: skip
    if differences:
        raise InstaHideError(
            f"{location} holds something else ({'; '.join(differences)}).",
            "Resume with the same settings, or choose another `--out`.",
        )

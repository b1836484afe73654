"""A folder of encodings: a manifest and shards, local or at a URL.

A shard belongs to the folder only once the manifest lists it, and the manifest is replaced
atomically. So the folder always contains what its manifest lists.
"""

from __future__ import annotations

import hashlib
import math
import re
import secrets
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from instahide.encodings.manifest import MOST_BYTES, NAME, SHARD_NAME, Manifest, Shard, Values
from instahide.encodings.shards import (
    damaged,
    dequantize,
    max_quantization_error,
    quantize,
    read_shard,
    reading,
    write_shard,
)
from instahide.encodings.storage import Store, open_store
from instahide.encodings.verification.claimed_protection import ClaimedProtection
from instahide.encodings.verification.repeated_keys import RepeatedMixes
from instahide.encodings.verification.single_images import SingleImages
from instahide.encodings.verification.value_ranges import value_problems
from instahide.encryption.encoder import Encoded
from instahide.errors import DamagedFileError, DataError, InstaHideError

#: Number of bytes of a shard that are checked at a time.
_CHECKED = 1 << 24


class EncodedFolder:
    """A reader of published encodings. Create it with `open`.

    Attributes:
        location: path or URL of the folder, as the user gave it.
        manifest: its manifest.
    """

    def __init__(self, store: Store, manifest: Manifest) -> None:
        self.location = store.location
        self.manifest = manifest
        self._store = store
        #: Numbers of shards whose checksums are right.
        self._right: set[int] = set()

    @classmethod
    def open(cls, location: str | Path, *, partial: bool = False) -> EncodedFolder:
        """Read the manifest and check that every shard exists and has the right length.

        Args:
            location: a folder, or its URL.
            partial: whether to open a folder that is not finished.

        Raises:
            InstaHideError: the folder does not exist, is damaged, or is not finished.
        """
        store = open_store(location)
        there = store.names()
        if NAME not in there:
            raise DataError(
                f"{location} holds no encodings.",
                "Name a folder that `instahide encrypt` wrote.",
            )
        manifest = read_manifest(store)
        if manifest.ended is None and not partial:
            raise DamagedFileError(
                f"{location} is not finished: {len(manifest)} of {manifest.total} encodings.",
                "Go on with `instahide encrypt` and `resume=True`.",
            )
        _require_shards(store, there, manifest)
        return cls(store, manifest)

    def __len__(self) -> int:
        """The number of encodings."""
        return len(self.manifest)

    def __repr__(self) -> str:
        return f"EncodedFolder({self.location!r}, {len(self)} encodings)"

    def shard(self, number: int) -> Encoded:
        """The stored encodings of a shard, memory-mapped; `decoded` converts them to float32.

        The checksum of its file is compared when the shard is first read.

        Raises:
            InstaHideError: the file does not agree with the manifest.
        """
        shard = self.manifest.shards[number]
        path = self._store.local(shard.name)
        encoded = read_shard(path, shard, self.manifest, self.location)
        if number not in self._right:
            self._require_checksum(path, shard)
            self._right.add(number)
        return encoded

    def decoded(self, images: Tensor) -> Tensor:
        """Stored images converted to float32."""
        return dequantize(images, self.manifest.max_abs)

    def verify(self, progress: Callable[[int], None] = lambda _: None) -> list[str]:
        """Check the folder and return a sentence for every problem.

        The checks are: the checksum of every shard; that values are possible under the scheme;
        that no two encodings show the same mix; that no encoding shows a single picture; and that
        encodings have the noise and the mask that the manifest claims.

        Args:
            progress: called after each shard with its number of encodings.
        """
        self._right.clear()
        problems = [f"{name!r} is not in the manifest." for name in sorted(self._strangers())]
        if self.manifest.of_scheme:
            # The other checks allow for the stated error, so that a larger one would disable them.
            error = max_quantization_error(self.manifest.values, self.manifest.max_abs)
            if not math.isclose(self.manifest.max_quantization_error, error, rel_tol=1e-6):
                problems.append(f"The worst error is {error:.3g}, not what the manifest says.")
        mixes, single = RepeatedMixes(self.manifest), SingleImages(self.manifest)
        claimed = ClaimedProtection(self.manifest)
        for number, shard in enumerate(self.manifest.shards):
            try:
                self._verify_shard(number, single, mixes, claimed)
            except InstaHideError as error:
                problems.append(error.problem)
            progress(shard.encodings)
        problems += claimed.problems()
        if count := mixes.count():
            problems.append(f"{count} encodings show the mix of another: a key was used twice.")
        if alone := single.found(None if count else self._magnitudes):
            problems.append(
                f"{len(alone)} encodings show a single picture, but for the signs of its values: "
                "an image was mixed with copies of itself. Whoever has the folder can see these "
                "images. Do not share it; remove duplicate images and encrypt again."
            )
        return problems

    def _magnitudes(self, number: int) -> NDArray[np.float32]:
        """(values,) magnitudes of the encoding ``number``, counted over all shards."""
        for place, shard in enumerate(self.manifest.shards):
            if number < shard.encodings:
                image = self.decoded(self.shard(place).images[number : number + 1])
                found: NDArray[np.float32] = image.abs().numpy().reshape(-1)
                return found
            number -= shard.encodings
        raise IndexError(number)

    def _strangers(self) -> set[str]:
        """Files that the manifest does not list."""
        names = self._store.names() - {shard.name for shard in self.manifest.shards} - {NAME}
        if self.manifest.ended is None:
            # Shards that are being written, or that a killed writer left and will remove.
            return {name for name in names if not re.fullmatch(SHARD_NAME, name)}
        return names

    def _require_checksum(self, path: Path, shard: Shard) -> None:
        with reading(shard, self.location), path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        if digest != shard.sha256:
            raise damaged(shard, self.location, "its checksum is wrong")

    def _verify_shard(
        self, number: int, single: SingleImages, mixes: RepeatedMixes, claimed: ClaimedProtection
    ) -> None:
        """Check a shard, and show its encodings to the others."""
        shard, encoded = self.manifest.shards[number], self.shard(number)
        step = max(1, _CHECKED // self.manifest.bytes_each)
        before = sum(other.encodings for other in self.manifest.shards[:number])
        for start in range(0, shard.encodings, step):
            images, labels = (part[start : start + step] for part in encoded)
            decoded = self.decoded(images)
            wrong = value_problems(decoded, labels, self.manifest)
            if wrong is not None:
                raise damaged(shard, self.location, wrong)
            single.see(before + start, decoded.numpy(), labels.numpy())
            claimed.see(decoded.numpy())
            mixes.see(images, labels)


class FolderWriter:
    """A writer of a folder of encodings, with exclusive access. Use `writing_encodings`."""

    def __init__(self, store: Store, manifest: Manifest) -> None:
        self.store = store
        self.manifest = manifest

    def commit(self, shard: Shard) -> None:
        """Add a written shard to the manifest."""
        self._replace({"shards": (*self.manifest.shards, shard), "ended": None})

    def finish(self, ended: Literal["all", "limit"]) -> None:
        """Mark the folder as finished.

        Raises:
            ValueError: ``ended`` is "all", but encodings are missing.
        """
        self._replace({"ended": ended})

    def abandon(self) -> None:
        """Remove the manifest of a folder without shards, and shard files that it does not list."""
        for name in self.store.names():
            if re.fullmatch(SHARD_NAME, name):
                self.store.remove(name)
        self.store.remove(NAME)

    @contextmanager
    def abandoned_on_error(self) -> Iterator[None]:
        """`abandon` a folder without shards if the block fails; an interrupt leaves it."""
        try:
            yield
        except Exception:
            if not self.manifest.shards:
                # If that fails too, the first error is the one to report.
                with suppress(InstaHideError, OSError):
                    self.abandon()
            raise

    def _replace(self, changes: dict[str, object]) -> None:
        manifest = Manifest.model_validate({**dict(self.manifest), **changes})
        write_manifest(self.store, manifest)
        self.manifest = manifest


@contextmanager
def writing_encodings(
    location: str | Path, manifest: Manifest, *, resume: bool = False
) -> Iterator[FolderWriter]:
    """Write or resume the folder that ``manifest`` describes.

    With ``resume``, finished shards are kept and unfinished ones are removed; an empty folder is
    started.

    Raises:
        InstaHideError: the folder has other files or another writer; its contents do not agree with
            ``manifest``; or a finished shard is damaged.
    """
    store = open_store(location)
    with store.exclusive():
        there = store.names()
        if NAME in there and resume:
            found = read_manifest(store)
            _require_same(found, manifest, str(location))
            _require_shards(store, there, found)
            for name in there - {shard.name for shard in found.shards}:
                if re.fullmatch(SHARD_NAME, name):
                    store.remove(name)
            limited = found.limited or manifest.limited
            yield FolderWriter(store, found.model_copy(update={"limited": limited}))
            return
        if there:
            raise InstaHideError(
                f"{location} is not empty.",
                "Continue with `resume=True`, or choose another `out=`.",
            )
        write_manifest(store, manifest)
        yield FolderWriter(store, manifest)


def store_shard(store: Store, name: str, encoded: Encoded, values: Values, max_abs: float) -> Shard:
    """Write ``encoded`` to the file ``name``. `FolderWriter.commit` then adds it to the manifest.

    Args:
        store: store of the folder.
        name: file name from `new_shard_name`.
        encoded: encodings, float32, or float16 if ``values`` is float16.
        values: type of stored values.
        max_abs: `Manifest.max_abs` of the folder.
    """
    images = quantize(encoded.images, values, max_abs)
    with store.writing(name) as path:
        return write_shard(path, name, images, encoded.labels)


def new_publication() -> str:
    """A random identifier for a new folder."""
    return secrets.token_hex(16)


def new_shard_name() -> str:
    """A random file name for a new shard."""
    return f"{secrets.token_hex(8)}.safetensors"


def read_manifest(store: Store) -> Manifest:
    """Read the manifest in ``store``.

    Raises:
        InstaHideError: the manifest is damaged, or has a newer version.
    """
    return Manifest.from_json(store.read(NAME, MOST_BYTES), store.location)


def write_manifest(store: Store, manifest: Manifest) -> None:
    """Replace the manifest in ``store`` atomically."""
    with store.writing(NAME) as path:
        path.write_bytes(manifest.to_json())


def _require_shards(store: Store, there: Collection[str], manifest: Manifest) -> None:
    """Check that every shard is among the files ``there`` and has the right length."""
    for shard in manifest.shards:
        if shard.name not in there:
            raise damaged(shard, store.location, "it is missing")
        if store.size(shard.name) != shard.bytes:
            raise damaged(shard, store.location, f"it has not {shard.bytes:,} bytes")


def _require_same(found: Manifest, wanted: Manifest, location: str) -> None:
    own = {"publication", "created", "library", "shards", "limited", "ended", "checksum"}
    here, there = found.model_dump(exclude=own), wanted.model_dump(exclude=own)
    differences = [f"{name}: {here[name]} there, {there[name]} asked for"
                   for name in here if here[name] != there[name]]  # fmt: skip
    if differences:
        raise InstaHideError(
            f"{location} holds something else ({'; '.join(differences)}).",
            "Resume with the same settings, or choose another `out=`.",
        )

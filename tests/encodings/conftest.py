"""Small folders of real encodings, and a ledger for each test."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from instahide import Encoder, ImageTable, InstaHideError, Scheme
from instahide.encodings.folder import (
    EncodedFolder,
    new_publication,
    new_shard_name,
    writing_encodings,
)
from instahide.encodings.ledger.ledger import Ledger
from instahide.encodings.manifest import Manifest
from instahide.encodings.shards import max_quantization_error, quantize, write_shard
from instahide.encryption.encoder import Encoded

Write = Callable[..., EncodedFolder]

SHAPE, CLASSES = (1, 6, 6), ("cat", "dog", "eel")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where the test's own ledger lies."""
    return tmp_path / "ledger.sqlite"


@pytest.fixture
def ledger(path: Path) -> Iterator[Ledger]:
    with Ledger.open(path) as opened:
        yield opened


def private_images(count: int) -> ImageTable:
    pixels = np.random.default_rng(0).integers(0, 256, (count, *SHAPE), dtype=np.uint8)
    return ImageTable.from_arrays(pixels, np.arange(count) % len(CLASSES), CLASSES)


def manifest_of(images: ImageTable, scheme: Scheme, **facts: Any) -> Manifest:
    known = {
        "publication": new_publication(), "scheme": asdict(scheme), "shape": images.shape,
        "classes": images.classes, "mean": images.mean, "std": images.std,
        "value_range": images.value_range,
        "private_images": len(images), "copies": 1, "values": "float16",
        "max_quantization_error": 0.0,
    }  # fmt: skip
    manifest = Manifest.model_validate({**known, **facts})
    error = max_quantization_error(manifest.values, manifest.max_abs)
    return manifest.model_copy(update={"max_quantization_error": error})


@pytest.fixture
def write_folder() -> Callable[..., EncodedFolder]:
    """Writes a folder of real encodings, or of others if these are given."""

    def write(
        path: Path,
        encoded: Encoded | None = None,
        *,
        count: int = 12,
        shard: int = 4,
        scheme: Scheme | None = None,
        finish: bool = True,
        **facts: Any,
    ) -> EncodedFolder:
        scheme = scheme or Scheme.inside(2)
        images = private_images(len(encoded.images) if encoded else count)
        encoded = encoded or Encoder(scheme, images).encode(np.arange(count))
        with writing_encodings(path, manifest_of(images, scheme, **facts)) as writer:
            manifest = writer.manifest
            stored = quantize(encoded.images, manifest.values, manifest.max_abs)
            for start in range(0, len(images), shard):
                rows, name = slice(start, start + shard), new_shard_name()
                with writer.store.writing(name) as file:
                    part = write_shard(file, name, stored[rows], encoded.labels[rows])
                writer.commit(part)
            if finish:
                writer.finish("all")
        return EncodedFolder.open(path, partial=not finish)

    return write


@pytest.fixture
def folder(tmp_path: Path, write_folder: Write) -> Path:
    write_folder(tmp_path / "encodings")
    return tmp_path / "encodings"


def shards(folder: Path) -> list[Path]:
    """In the order of the manifest."""
    names = [
        shard["name"] for shard in json.loads((folder / "manifest.json").read_bytes())["shards"]
    ]
    return [folder / name for name in names]


def problems(folder: Path) -> list[str]:
    """What opening or verifying finds; anything but an `InstaHideError` is a crash."""
    try:
        return EncodedFolder.open(folder).verify()
    except InstaHideError as error:
        return [error.problem]


def read_all(folder: EncodedFolder) -> Encoded:
    parts = [folder.shard(number) for number in range(len(folder.manifest.shards))]
    images, labels = (torch.cat(tensors) for tensors in zip(*parts, strict=True))
    return Encoded(folder.decoded(images), labels)


def tree(folder: Path) -> dict[str, bytes]:
    """All files but the locks that writers leave."""
    files = (path for path in sorted(folder.rglob("[!.]*")) if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}

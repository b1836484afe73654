"""Folders of encodings, small and made to order."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from torch import Tensor

from instahide.encodings.folder import (
    EncodedFolder,
    new_publication,
    new_shard_name,
    writing_encodings,
)
from instahide.encodings.manifest import Manifest
from instahide.encodings.shards import max_quantization_error, quantize, write_shard
from instahide.encryption.scheme import Scheme


def write(
    path: Path,
    images: Tensor,
    labels: Tensor,
    classes: Sequence[str] = ("cat", "dog"),
    *,
    scheme: Scheme | None = None,
    shard: int = 100,
    finish: bool = True,
    **facts: Any,
) -> EncodedFolder:
    channels = images.shape[1]
    known = {
        "publication": new_publication(), "scheme": asdict(scheme or Scheme.cross(4)),
        "shape": tuple(images.shape[1:]), "classes": tuple(classes), "mean": (0.5,) * channels,
        "std": (0.25,) * channels, "value_range": (0.0, 255.0),
        "private_images": len(images), "copies": 1, "values": "float32",
        "max_quantization_error": 0.0,
    }  # fmt: skip
    manifest = Manifest.model_validate({**known, **facts})
    error = max_quantization_error(manifest.values, manifest.max_abs)
    with writing_encodings(
        path, manifest.model_copy(update={"max_quantization_error": error})
    ) as writer:
        stored = quantize(images, manifest.values, manifest.max_abs)
        for start in range(0, len(images), shard):
            rows, name = slice(start, start + shard), new_shard_name()
            with writer.store.writing(name) as file:
                part = write_shard(file, name, stored[rows], labels[rows])
            writer.commit(part)
        if finish:
            writer.finish("all")
    return EncodedFolder.open(path, partial=not finish)


@pytest.fixture(scope="session")
def write_folder() -> Callable[..., EncodedFolder]:
    """Writes images (n, C, H, W) and labels (n, classes) into a new folder."""
    return write

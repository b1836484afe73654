"""What publishing will cost, in bytes, time and exposure, before anything is made."""

from __future__ import annotations

import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from instahide.data.remote.urls import local_path
from instahide.encodings.publish import Publication, encodings_a_shard
from instahide.encodings.shards import quantize, write_shard
from instahide.encryption.exposure import Exposure


@dataclass(frozen=True)
class CostEstimate:
    """What a publication comes to.

    Attributes:
        encodings: in all.
        bytes: on disk, about.
        seconds: to make and write them here, about.
        before: encodings that an image has gone into already, at the most.
        mean: encodings that an image will have gone into, on average.
        most: the same for the image that goes out most often, about.
    """

    encodings: int
    bytes: int
    seconds: float
    before: int
    mean: float
    most: int


def estimate_cost(
    publication: Publication, known: NDArray[np.int64], out: str | Path
) -> CostEstimate:
    """Make and write one shard, which is deleted, and reckon from it.

    Args:
        publication: what would be published.
        known: how often each image has gone out already.
        out: the folder that would be written, or its URL: what an upload takes is not known.

    Raises:
        InstaHideError: images and scheme do not go together.
    """
    manifest = publication.manifest()
    images, copies = len(publication.images), publication.copies
    size = min(encodings_a_shard(manifest), images)
    partners = publication.scheme.private_k - 1
    # As many Poisson counts as there are images: each is drawn as a partner by chance.
    drawn = np.random.default_rng().poisson(copies * partners, images)
    return CostEstimate(
        encodings=manifest.total,
        bytes=manifest.total * manifest.bytes_each,
        seconds=_seconds(publication, size, _beside(out)) * manifest.total / size,
        before=int(known.max(initial=0)),
        mean=float(known.sum() / images + copies * (1 + partners)),
        most=int(known.max(initial=0) + copies + drawn.max()),
    )


def _beside(out: str | Path) -> Path | None:
    """The nearest folder that is there already, so that its disk is measured; None for a URL."""
    path = local_path(out)
    if path is None:
        return None
    return next(folder for folder in path.absolute().parents if folder.is_dir())


def _seconds(publication: Publication, size: int, beside: Path | None) -> float:
    """To encrypt ``size`` images and to write them; the second of two times."""
    encoder = publication.encoder(Exposure(len(publication.images)))
    elapsed = 0.0
    with tempfile.TemporaryDirectory(dir=beside) as folder:
        for _ in range(2):
            started = time.perf_counter()
            encoded = encoder.encode(np.arange(size))
            images = quantize(encoded.images, publication.values, publication.max_abs)
            write_shard(Path(folder) / "sample", "0" * 16 + ".safetensors", images, encoded.labels)
            elapsed = time.perf_counter() - started
    return elapsed

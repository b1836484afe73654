"""Estimates the cost of publishing in bytes, time and exposure, without publishing anything."""

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
from instahide.encryption.encoder import Encoder
from instahide.encryption.encoders.table_encoder import TableEncoder, pools_of
from instahide.encryption.exposure import Exposure
from instahide.encryption.sampling.partner_pools import PartnerPools
from instahide.encryption.scheme import Scheme


@dataclass(frozen=True)
class CostEstimate:
    """The estimated cost of a publication.

    Attributes:
        encodings: number of encodings.
        bytes: approximate bytes on disk.
        seconds: approximate time to encode and write them on this machine.
        before: largest exposure of an image before the publication.
        mean: mean exposure of an image afterwards.
        most: approximate largest exposure of an image afterwards.
        private_in_pool: private images that are in the public pool too. Where they are drawn from
            there, they count as well: ``mean`` is then an upper bound.
    """

    encodings: int
    bytes: int
    seconds: float
    before: int
    mean: float
    most: int
    private_in_pool: int


def estimate_cost(
    publication: Publication,
    known: NDArray[np.int64],
    out: str | Path,
    pictures: NDArray[np.int64] | None = None,
) -> CostEstimate:
    """Encode and write one shard, delete it, and extrapolate.

    Args:
        publication: what would be published.
        known: exposure of each image so far.
        out: the target folder or its URL; the time of an upload is not included.
        pictures: (N,) numbers from 0, equal for images that are counted together, as of
            `Ledger.pictures`; by default those of one picture, source or group.

    Raises:
        InstaHideError: the images do not fit the scheme.
    """
    manifest = publication.manifest()
    images, copies = len(publication.images), publication.copies
    size = min(encodings_a_shard(manifest), images)
    partners = publication.method.private_k - 1
    encoder = publication.encoder(Exposure(images))
    pools = pools_of(encoder)
    public = _public_draws(publication, pools)
    # How often each image is drawn as a partner is approximately a Poisson variable.
    drawn = copies + np.random.default_rng().poisson(copies * (partners + images * public))
    # Duplicates, and images of one group, are counted together.
    ids = publication.images.content_ids if pictures is None else pictures
    each = np.bincount(ids, weights=drawn)
    return CostEstimate(
        encodings=manifest.total,
        bytes=manifest.total * manifest.bytes_each,
        seconds=_seconds(publication, encoder, size, _beside(out)) * manifest.total / size,
        before=int(known.max(initial=0)),
        mean=float(known.mean() + copies * (1 + partners + public.sum()) * images / len(each)),
        most=int(known.max(initial=0) + each.max()),
        private_in_pool=0 if pools is None else pools.private_in_public,
    )


def _public_draws(publication: Publication, pools: PartnerPools | None) -> NDArray[np.float64]:
    """(N,) about how often a mix of a scheme draws each private image from the public pool."""
    method = publication.method
    if pools is None or not isinstance(method, Scheme):
        return np.zeros(len(publication.images))
    return pools.public_draws(method)


def _beside(out: str | Path) -> Path | None:
    """The nearest existing parent folder, to measure its disk; None for a URL."""
    path = local_path(out)
    if path is None:
        return None
    return next(folder for folder in path.absolute().parents if folder.is_dir())


def _seconds(
    publication: Publication, encoder: Encoder | TableEncoder, size: int, beside: Path | None
) -> float:
    """Seconds to encrypt and write ``size`` images, in the second of two runs."""
    elapsed = 0.0
    with tempfile.TemporaryDirectory(dir=beside) as folder:
        for _ in range(2):
            started = time.perf_counter()
            encoded = encoder.encode(np.arange(size))
            images = quantize(encoded.images, publication.values, publication.max_abs)
            write_shard(Path(folder) / "sample", "0" * 16 + ".safetensors", images, encoded.labels)
            elapsed = time.perf_counter() - started
    return elapsed

"""Speed of encoding, keys included, against the authors' routine and a plain conversion to float.

The same random images are encoded over and over in turns with what they are compared to. Images of
16 bits, and volumes of such, are compared with 8-bit images and with the bandwidth of memory: the
bytes that a mix reads and writes, over those that a copy of floats reads and writes. The floor
is a conversion of the 8-bit pixels to float32, all at once, into memory that is there already:
bytes over bandwidth. Block by block a conversion is faster still, as its two blocks never leave the
cache; this is reported too.
"""

from __future__ import annotations

import time
from functools import partial

import numpy as np
import torch
from torch import Tensor

from benchmarks import peers
from benchmarks.measure import medians, quick, report
from benchmarks.workload import CLASSES, blocks, consume, encode_epoch, random_table
from instahide.data import ImageTable
from instahide.encryption.augmentation import Augmentation
from instahide.encryption.encoder import Encoder
from instahide.encryption.exposure import Exposure
from instahide.encryption.keys import KeyStream
from instahide.encryption.sampling import sampler
from instahide.encryption.scheme import Scheme
from instahide.training.data.encoded_loader import BLOCK, EncodedLoader

PADDING = 4
#: Channels and sides of a volume, and volumes in a batch.
VOLUME, VOLUMES_AT_ONCE = (2, 64, 64, 64), 4
#: Epochs of ours in a turn beside the authors': a single one is over too soon to be timed well.
EPOCHS = 5


def convert_in_blocks(pixels: Tensor) -> None:
    """A conversion whose blocks never leave the cache."""
    consume(block.float() for block in pixels.split(BLOCK))


def draw_epoch(keys: KeyStream, scheme: Scheme, table: ImageTable) -> None:
    """The keys of an epoch alone, without augmentation."""
    keys.next_epoch()
    exposure = Exposure(len(table))
    for rows in blocks(sampler.permutation(keys.next_block(), len(table))):
        sampler.one_time_keys(
            keys.next_block(),
            scheme,
            rows,
            public=0,
            shape=table.shape,
            augmentation=Augmentation(),
            exposure=exposure,
        )


def encode_epochs(encoder: Encoder) -> None:
    for _ in range(EPOCHS):
        encode_epoch(encoder)


def against_authors(table: ImageTable, public: ImageTable, rounds: int) -> dict[str, float]:
    """Seconds of `EPOCHS` epochs of ours and of one of the authors' routine, in turns."""
    images = torch.from_numpy(table.normalized())
    pool = torch.from_numpy(public.normalized_like(table).normalized())
    onehot = torch.eye(CLASSES)[torch.from_numpy(table.labels)]
    k4, k6 = Scheme.inside(4), Scheme.cross(6)
    augmentation = Augmentation(PADDING, flip=True)
    return medians(
        {
            "k4": partial(encode_epochs, Encoder(k4, table)),
            "k6": partial(encode_epochs, Encoder(k6, table, public)),
            "augmented": partial(encode_epochs, Encoder(k4, table, augmentation=augmentation)),
            "authors_k4": lambda: peers.inside(images, onehot, 4, k4.c1),
            "authors_k6": lambda: peers.cross(images, onehot, pool, 6, k6.c1, k6.c2),
        },
        rounds,
        settle=True,
    )


def against_floor(table: ImageTable, public: ImageTable, rounds: int) -> dict[str, float]:
    """Seconds an epoch of ours and of two conversions, in turns."""
    pixels = torch.from_numpy(table.pixels)
    buffer = torch.empty(pixels.shape)
    return medians(
        {
            "k4": partial(encode_epoch, Encoder(Scheme.inside(4), table)),
            "cross_k4": partial(encode_epoch, Encoder(Scheme.cross(4), table, public)),
            "floor": partial(buffer.copy_, pixels),
            "floor_in_cache": partial(convert_in_blocks, pixels),
        },
        rounds,
        settle=True,
    )


def of_keys(table: ImageTable, rounds: int) -> dict[str, float]:
    """Seconds of processor time of an epoch of ours and of its keys, in turns."""
    works = {
        "k4": partial(encode_epoch, Encoder(Scheme.inside(4), table)),
        "keys": partial(draw_epoch, KeyStream(), Scheme.inside(4), table),
    }
    return medians(works, rounds, time.process_time, settle=True)


def wide_table(table: ImageTable) -> ImageTable:
    """Images like those of ``table`` with 16-bit pixels."""
    return table.with_pixels_like(
        ImageTable.from_arrays(np.arange(1 << 16, dtype=np.uint16).reshape(1, 1, 256, 256))
    )


def of_sixteen_bits(table: ImageTable, volumes: int, rounds: int) -> dict[str, float]:
    """Images a second of 16 against 8 bits, and the share of bandwidth that volumes come to."""
    generator = np.random.default_rng(0)
    pixels = generator.integers(0, 1 << 16, (volumes, *VOLUME), np.uint16)
    scans = ImageTable.from_arrays(pixels, np.arange(volumes) % CLASSES)
    scheme = Scheme.inside(4)
    loader = EncodedLoader(Encoder(scheme, scans), VOLUMES_AT_ONCE)
    # Written to: the system gives pages that nobody wrote the same zeros, from the cache.
    copied = torch.ones(scans.pixels.shape)
    buffer = torch.empty_like(copied)
    seconds = medians(
        {
            "bytes": partial(encode_epoch, Encoder(scheme, table)),
            "words": partial(encode_epoch, Encoder(scheme, wide_table(table))),
            "volumes": partial(consume, loader),
            "copy": partial(buffer.copy_, copied),
        },
        rounds,
        settle=True,
    )
    # A value is read k times with 2 bytes and written with 4; a copy reads and writes 4.
    traffic = (2 * scheme.k + 4) / 8
    return {
        "uint16_vs_uint8": seconds["bytes"] / seconds["words"],
        "volumes_vs_bandwidth": traffic * seconds["copy"] / seconds["volumes"],
    }


def main() -> None:
    tiny = quick(__doc__)
    table, public = (
        random_table(2_000 if tiny else 50_000),
        random_table(500 if tiny else 10_000, seed=1),
    )
    floor = against_floor(table, public, 2 if tiny else 21)
    keys = of_keys(table, 2 if tiny else 21)
    authors = against_authors(table, public, 1 if tiny else 5)
    wide = of_sixteen_bits(table, 20 if tiny else 200, 2 if tiny else 7)
    ours = {name: authors[name] / EPOCHS for name in ("k4", "k6", "augmented")}

    def speed(seconds: float) -> str:
        return f"{len(table) / seconds:,.0f} images/s"

    rows = [
        ("ours, inside k=4", speed(floor["k4"])),
        ("ours, cross k=4", speed(floor["cross_k4"])),
        ("ours, cross k=6", speed(ours["k6"])),
        ("ours, inside k=4, crop and flip", speed(ours["augmented"])),
        ("authors' routine, inside k=4, no augmentation", speed(authors["authors_k4"])),
        ("authors' routine, cross k=6, no augmentation", speed(authors["authors_k6"])),
        ("conversion to float32", speed(floor["floor"])),
        ("conversion to float32, block by block", speed(floor["floor_in_cache"])),
        ("keys, of the processor time, inside k=4", f"{keys['keys'] / keys['k4']:.1%}"),
        ("16-bit images, of the rate of 8-bit ones", f"{wide['uint16_vs_uint8']:.0%}"),
        ("16-bit volumes, of the bandwidth of memory", f"{wide['volumes_vs_bandwidth']:.0%}"),
    ]
    figures = {
        "vs_authors_k4": authors["authors_k4"] / ours["k4"],
        "vs_authors_k6": authors["authors_k6"] / ours["k6"],
        "vs_authors_augmented": authors["authors_k4"] / ours["augmented"],
        "vs_floor_k4": floor["k4"] / floor["floor"],
        "vs_floor_cross_k4": floor["cross_k4"] / floor["floor"],
        "vs_floor_in_cache_k4": floor["k4"] / floor["floor_in_cache"],
        "images_per_s": len(table) / floor["k4"],
        "keys_share": keys["keys"] / keys["k4"],
    } | wide
    report(f"Encoding {len(table):,} images of 3 x 32 x 32, keys included", rows, figures)


if __name__ == "__main__":
    main()

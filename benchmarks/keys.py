"""Speed of the key stream and of each part of the one-time keys.

Keys are drawn for cross-dataset mixes with k = 4, crop and flip, in the loader's blocks. The
operating system's generator and NumPy's stand beside the stream for orientation: the first is as
safe, the second is not.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from functools import partial

import numpy as np
from numpy.typing import NDArray

from benchmarks.measure import medians, quick, report
from benchmarks.workload import blocks, consume, encode_epoch, random_table
from instahide.data import ImageTable
from instahide.encryption.augmentation import Augmentation
from instahide.encryption.encoder import Encoder
from instahide.encryption.keys import Block, KeyStream, Purpose
from instahide.encryption.sampling import sampler
from instahide.encryption.scheme import Scheme

SCHEME = Scheme.cross(4)
AUGMENTATION = Augmentation(4, flip=True)


def parts(keys: KeyStream, table: ImageTable, public: int) -> dict[str, Callable[[], object]]:
    """Each part of the keys, drawn for one epoch."""
    order = np.arange(len(table))

    def for_blocks(draw: Callable[[Block, NDArray[np.int64]], object]) -> None:
        for rows in blocks(order):
            draw(keys.next_block(), rows)

    drawn: dict[str, Callable[[Block, NDArray[np.int64]], object]] = {
        "partners": lambda block, rows: sampler.partners(
            block, SCHEME, rows, private=len(table), public=public
        ),
        "coefficients": lambda block, rows: sampler.coefficients(block, SCHEME, len(rows)),
        "masks": lambda block, rows: sampler.masks(block, len(rows), table.shape),
        "moves": lambda block, rows: sampler.augmentation_moves(
            block, (len(rows), SCHEME.k), AUGMENTATION
        ),
    }
    works: dict[str, Callable[[], object]] = {
        name: partial(for_blocks, draw) for name, draw in drawn.items()
    }
    return works | {"order": lambda: sampler.permutation(keys.next_block(), len(table))}


def streams(keys: KeyStream, size: int) -> dict[str, Callable[[], object]]:
    """``size`` bytes from each source, 1 MiB at a time, as many as a block reads."""
    generator, chunk = np.random.default_rng(0), 1 << 20
    times = range(size // chunk)
    block = keys.next_block()
    return {
        "stream": lambda: consume(block.words(Purpose.MASKS, chunk // 8) for _ in times),
        "urandom": lambda: consume(os.urandom(chunk) for _ in times),
        "numpy": lambda: consume(generator.bytes(chunk) for _ in times),
    }


def main() -> None:
    tiny = quick(__doc__)
    table, public = (
        random_table(2_000 if tiny else 50_000),
        random_table(500 if tiny else 10_000, seed=1),
    )
    rounds, size = (2, 4 << 20) if tiny else (11, 64 << 20)
    keys = KeyStream()
    seconds = medians(parts(keys, table, len(public)), rounds, clock=time.thread_time)
    rates = medians(streams(keys, size), rounds, clock=time.thread_time)
    encoder = Encoder(SCHEME, table, public, augmentation=AUGMENTATION)
    encode = {"encode": partial(encode_epoch, encoder)}
    encoding = medians(encode, rounds, clock=time.process_time)["encode"]

    images = len(table)
    items = {
        "partners": images * (SCHEME.k - 1),
        "coefficients": images * SCHEME.k,
        "masks": images * int(np.prod(table.shape)),
        "moves": images * SCHEME.k,
        "order": images,
    }
    total = sum(seconds.values())
    rows = [
        (
            f"{name}: {items[name] / seconds[name] / 1e6:,.1f} million a second",
            f"{seconds[name] / total:.1%} of the keys",
        )
        for name in items
    ]
    rows.append(("keys, of the time of encoding with them", f"{total / encoding:.1%}"))
    rows += [(f"{name}, 1 MiB at a time", f"{size / rates[name] / 1e9:.2f} GB/s") for name in rates]
    figures = {"keys_share": total / encoding}
    figures |= {f"{name}_per_s": items[name] / seconds[name] for name in items}
    figures |= {f"{name}_share": seconds[name] / total for name in items}
    figures["masks_gb_per_s"] = items["masks"] / 8 / seconds["masks"] / 1e9
    figures |= {f"{name}_gb_per_s": size / rates[name] / 1e9 for name in rates}
    report(f"Keys of {images:,} mixes of 3 x 32 x 32, cross k=4, crop and flip", rows, figures)


if __name__ == "__main__":
    main()

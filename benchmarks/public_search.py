"""Looking for the public images of 1,000 encodings among a million patches.

The pool is memory-mapped 8-bit pixels. What it cannot do without is one matrix product, patches by
encodings; in turns with the search, the same product is made block by block from a block of floats
that lies ready. Covariance and lengths depend on the pool alone, are worked out once for all
searches, and stand apart.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

import torch

from benchmarks.ledger import different_images
from benchmarks.measure import medians, quick, report
from benchmarks.memory import require_room
from benchmarks.workload import SHAPE
from instahide.attacks.public_search import search
from instahide.attacks.whitening import BLOCK, Pool

TOP = 4


def multiply(patches: int, filters: torch.Tensor) -> None:
    """The bare product: as many blocks as the pool has, each the same one."""
    block = torch.rand(min(BLOCK, patches), filters.shape[1])
    for start in range(0, patches, BLOCK):
        torch.mm(filters, block[: patches - start].T)


def main() -> None:
    tiny = quick(__doc__)
    patches, encodings, rounds = (5_000, 10, 1) if tiny else (1_000_000, 1_000, 3)
    filters = torch.randn(encodings, SHAPE[0] * SHAPE[1] * SHAPE[2])
    with tempfile.TemporaryDirectory(prefix="instahide-benchmark-") as name:
        require_room(Path(name), patches)
        table = different_images(Path(name), patches)
        started = time.perf_counter()
        pool = Pool(table)
        preparing = time.perf_counter() - started
        seconds = medians(
            {
                "search": lambda: search(pool, filters, TOP),
                "product": lambda: multiply(patches, filters),
            },
            rounds,
        )
    figures = {
        "search_vs_product": seconds["search"] / seconds["product"],
        "search_seconds": seconds["search"],
        "product_seconds": seconds["product"],
        "prepare_seconds": preparing,
        "products_per_s": patches * encodings / seconds["search"],
    }
    rows = [
        ("search, memory-mapped pixels to the best rows", f"{seconds['search']:.2f} s"),
        ("the matrix product alone", f"{seconds['product']:.2f} s"),
        ("ratio", f"{figures['search_vs_product']:.2f}"),
        ("covariance and lengths, once a pool", f"{preparing:.1f} s"),
    ]
    report(f"{encodings:,} encodings in a pool of {patches:,} patches", rows, figures)


if __name__ == "__main__":
    main()

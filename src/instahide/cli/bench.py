"""`instahide bench`."""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable
from typing import Annotated

import numpy as np
import typer

from instahide.cli.console import out
from instahide.cli.options import MOST, command
from instahide.data import ImageTable
from instahide.data.pixels import MOST_SIDE
from instahide.encryption.scheme import Scheme
from instahide.errors import InstaHideError

_REPEATS, _BATCH = 5, 256


@command
def bench(
    k: Annotated[int, typer.Option(help="Images in a mix.")] = 4,
    side: Annotated[
        int, typer.Option(help="Height and width of an image.", min=1, max=MOST_SIDE)
    ] = 32,
    channels: Annotated[int, typer.Option(help="Channels of an image: 1 or 3.")] = 3,
    images: Annotated[int, typer.Option(help="Images to encode.", min=1, max=MOST)] = 50_000,
) -> None:
    """Measure how many images per second this machine encrypts.

    The conversion of the same pixels to float32 is measured for comparison; best of five each.
    """
    import torch

    from instahide.encryption.encoder import Encoder
    from instahide.training.data.encoded_loader import EncodedLoader

    if channels not in (1, 3):
        raise InstaHideError(
            f"{images} images of {channels} x {side} x {side} cannot be measured.",
            "Use 1 or 3 channels.",
        )
    scheme = Scheme.cross(k) if k > 2 else Scheme.inside(k)
    pixels = np.frombuffer(os.urandom(images * channels * side * side), np.uint8)
    pixels = pixels.reshape(images, channels, side, side)
    table = ImageTable.from_arrays(pixels, np.arange(images) % 10, [str(n) for n in range(10)])
    encoder = Encoder(scheme, table, table if scheme.public_k else None)
    loader = EncodedLoader(encoder, _BATCH)
    encoding = _best(lambda: deque(loader, maxlen=1))
    tensor, converted = torch.from_numpy(pixels.copy()), torch.empty(pixels.shape)
    converting = _best(lambda: converted.copy_(tensor))
    rates = {"encoded": images / encoding, "converted": images / converting}
    ratio = encoding / converting
    out.results(
        {"k": scheme.k, **{f"{n}_per_second": rate for n, rate in rates.items()}, "ratio": ratio},
        f"encoding, k = {scheme.k}, keys included: {rates['encoded']:,.0f} images/s",
        f"plain conversion to float32:     {rates['converted']:,.0f} images/s",
        f"encoding takes {ratio:.2f} times the conversion",
    )


def _best(work: Callable[[], object]) -> float:
    """Seconds of the fastest of some runs, after one that compiles."""
    work()
    times = []
    for _ in range(_REPEATS):
        started = time.perf_counter()
        work()
        times.append(time.perf_counter() - started)
    return min(times)

"""`instahide bench`."""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable

import numpy as np
import torch

from instahide.cli.console import out
from instahide.data import ImageTable
from instahide.encryption.encoder import Encoder
from instahide.encryption.scheme import Scheme
from instahide.errors import InstaHideError
from instahide.training.data.encoded_loader import EncodedLoader

_REPEATS, _BATCH = 5, 256


def measure_speed(k: int, side: int, channels: int, images: int) -> None:
    """Print images/s of encoding and of a uint8-to-float32 conversion, best of five each."""
    if min(side, images) < 1 or channels not in (1, 3):
        raise InstaHideError(
            f"{images} images of {channels} x {side} x {side} cannot be measured.",
            "Use 1 or 3 channels, and at least one image and one pixel.",
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
    out.print(f"encoding, k = {scheme.k}, keys included: {images / encoding:,.0f} images/s")
    out.print(f"plain conversion to float32:     {images / converting:,.0f} images/s")
    out.print(f"encoding takes {encoding / converting:.2f} times the conversion")


def _best(work: Callable[[], object]) -> float:
    """Seconds of the fastest of some runs, after one that compiles."""
    work()
    times = []
    for _ in range(_REPEATS):
        started = time.perf_counter()
        work()
        times.append(time.perf_counter() - started)
    return min(times)

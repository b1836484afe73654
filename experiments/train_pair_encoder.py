"""Train the pair encoder that comes with the package, on shadow photographs only.

    python -m experiments.train_pair_encoder --seconds 1900 --threads 1
    python -m experiments.train_pair_encoder --shape 1x28x28 --k 4 --seconds 600 --threads 1

These commands made the weights in the package; `weights/README.md` beside them describes the
training images. A checkpoint is saved every minute, and ``--resume`` continues from one.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from experiments.command_line import parsed
from experiments.photographs import grey, patches
from instahide.attacks.budget import Budget
from instahide.attacks.reconstruction.pair_encoder.features import magnitudes
from instahide.attacks.reconstruction.pair_encoder.network import (
    PairEncoder,
    load_encoder,
    save_encoder,
)
from instahide.attacks.reconstruction.pair_encoder.training import train_pair_encoder
from instahide.attacks.shadow_encodings import shadow_batches
from instahide.data import ImageTable
from instahide.encryption.scheme import Scheme

PATCHES, EVERY = 16_000, 60


def pixels(shape: str) -> NDArray[np.uint8]:
    """Return patches of the shadow photographs in this shape."""
    colour = patches("shadow", PATCHES, 1, side=int(shape.rpartition("x")[2]))
    return colour if shape.startswith("3") else grey(colour)


class Saving:
    """A progress callback that saves the network every minute and keeps the last message."""

    def __init__(self, save: Callable[[], None]) -> None:
        self.save, self.saved, self.last = save, time.monotonic(), ""

    def __call__(self, what: str, share: float) -> None:
        self.last = what
        if time.monotonic() - self.saved > EVERY:
            self.saved = time.monotonic()
            self.save()
            print(f"{share:4.0%} {what}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=1900)
    parser.add_argument("--shape", default="3x32x32", choices=("3x32x32", "1x28x28"))
    parser.add_argument("--k", type=int, default=6)
    parser.add_argument("--out", type=Path, help="SHAPE.safetensors by default")
    parser.add_argument("--resume", type=Path, help="weights to go on with")
    options = parsed(parser)
    out = options.out or Path(f"{options.shape}.safetensors")
    shadow = ImageTable.from_arrays(pixels(options.shape))
    scheme = Scheme.cross(options.k)
    if options.resume:
        encoder = load_encoder(options.resume)
    else:
        encoder = PairEncoder(shadow.shape[0])
        encoder.calibrate(magnitudes(next(shadow_batches(shadow, scheme)).encodings))
    progress = Saving(lambda: save_encoder(out, encoder))
    train_pair_encoder(shadow, scheme, Budget(options.seconds), progress, encoder=encoder)
    save_encoder(out, encoder)
    print(json.dumps({"patches": len(shadow), "seconds": options.seconds, "last": progress.last}))


if __name__ == "__main__":
    main()

"""Train the pair encoder that comes with the package, on shadow photographs alone.

    python -m experiments.train_pair_encoder --seconds 1900 --threads 1 --out 3x32x32.safetensors

The shipped weights were made by this command; `weights/README.md` beside them says from what. A
checkpoint is written every minute, and ``--resume`` goes on from one.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import torch

from experiments.photographs import patches
from instahide.attacks.base import Budget
from instahide.attacks.reconstruction.encoder import PairEncoder, load_encoder, save_encoder
from instahide.attacks.reconstruction.features import magnitudes
from instahide.attacks.reconstruction.training import shadow_batches, train_pair_encoder
from instahide.encryption.scheme import Scheme
from instahide.images import ImageTable

PATCHES, EVERY = 16_000, 60


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=1900)
    parser.add_argument("--k", type=int, default=6)
    parser.add_argument("--threads", type=int, help="of PyTorch; all processors by default")
    parser.add_argument("--out", type=Path, default=Path("3x32x32.safetensors"))
    parser.add_argument("--resume", type=Path, help="weights to go on with")
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    shadow = ImageTable.from_arrays(patches("shadow", PATCHES, 1))
    scheme = Scheme.cross(options.k)
    if options.resume:
        encoder = load_encoder(options.resume)
    else:
        encoder = PairEncoder(shadow.shape[0])
        encoder.calibrate(magnitudes(next(shadow_batches(shadow, scheme)).encodings))
    saved, last = time.monotonic(), ""

    def progress(what: str, share: float) -> None:
        nonlocal saved, last
        last = what
        if time.monotonic() - saved > EVERY:
            saved = time.monotonic()
            save_encoder(options.out, encoder)
            print(f"{share:4.0%} {what}", flush=True)

    train_pair_encoder(shadow, scheme, Budget(options.seconds), progress, encoder=encoder)
    save_encoder(options.out, encoder)
    print(json.dumps({"patches": len(shadow), "seconds": options.seconds, "last": last}))


if __name__ == "__main__":
    main()

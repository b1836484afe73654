"""Train the published pair similarity on shadow photographs, and compare it with ours.

    python -m experiments.train_similarity --seconds 1800
    python -m experiments.train_similarity --shape 1x28x28 --k 4 --seconds 1800
    python -m experiments.train_similarity --depth 10 --widening 1 --seconds 600 --threads 1

The published size needs a GPU; the last command is for a CPU. A checkpoint is saved every minute,
and ``--resume`` continues from one. At the end both networks judge the same random pairs of
encodings, of victim 0 or, in gray, of other crops of its photographs, which neither network was
trained on: does the pair share an image? The last line printed is a JSON object.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import numpy as np
import torch

from experiments.command_line import parsed
from experiments.photographs import grey, patches
from experiments.reconstruction import PUBLIC, sharing
from experiments.train_pair_encoder import PATCHES, Saving
from instahide.attacks.base import ThreatModel
from instahide.attacks.baselines.similarity_network import (
    BATCH,
    DEPTH,
    WIDENING,
    SimilarityNetwork,
    load_similarity,
    save_similarity,
    similarities,
    train_similarity,
)
from instahide.attacks.budget import Budget
from instahide.attacks.reconstruction.pair_encoder.network import shipped_encoder
from instahide.audit.challenge.facts import COPIES
from instahide.audit.ground_truth import observe
from instahide.data import ImageTable
from instahide.encryption.scheme import Scheme

#: Private images, pairs of their encodings that are compared, and the seed of which.
PRIVATE, PAIRS, SEED = 100, 20_000, 0


def images(shape: str, group: str, count: int, seed: int, likeness: float = 1.0) -> ImageTable:
    """Return `patches` of a group of photographs in this shape, with ten arbitrary classes."""
    colour = patches(group, count, seed, likeness, side=int(shape.rpartition("x")[2]))
    pixels = colour if shape.startswith("3") else grey(colour)
    return ImageTable.from_arrays(pixels, np.arange(len(pixels)) % 10)


def figures(
    network: SimilarityNetwork, shape: str, scheme: Scheme, device: str
) -> dict[str, float]:
    """Return the AUC of both networks on the same pairs, and the speed of the published one."""
    from sklearn.metrics import roc_auc_score

    # As victim 0 is made, whatever the shape.
    private = images(shape, "tuning", PRIVATE, 0, likeness=0.6)
    threat = ThreatModel(labels="none", public="none", encodings_per_image=COPIES)
    observation, truth = observe(private, images(shape, "public", PUBLIC, 2), scheme, threat)
    encodings, generator = observation.encodings, torch.Generator().manual_seed(SEED)
    first = torch.randint(len(encodings), (PAIRS,), generator=generator)
    apart = torch.randint(1, len(encodings), (PAIRS,), generator=generator)
    pairs = torch.stack([first, (first + apart) % len(encodings)])
    # The first pairs also wait for the device to get ready.
    similarities(network, encodings, pairs[:, :BATCH], device=device)
    began = time.perf_counter()
    logits = similarities(network, encodings, pairs, device=device)
    seconds = time.perf_counter() - began
    encoder = shipped_encoder(private.shape)
    assert encoder is not None
    features = encoder.features(encodings)
    shares = sharing(truth, *pairs)
    return {
        "pairs": PAIRS,
        "sharing": int(shares.sum()),
        "auc": round(float(roc_auc_score(shares, logits)), 4),
        "auc_pair_encoder": round(
            float(roc_auc_score(shares, (features @ features.T)[tuple(pairs)])), 4
        ),
        "pairs_per_second": round(PAIRS / seconds, 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=1800)
    parser.add_argument("--shape", default="3x32x32", choices=("3x32x32", "1x28x28"))
    parser.add_argument("--k", type=int, default=6)
    parser.add_argument("--depth", type=int, default=DEPTH)
    parser.add_argument("--widening", type=int, default=WIDENING)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--out", type=Path, help="similarity-SHAPE.safetensors by default")
    parser.add_argument("--resume", type=Path, help="weights to go on with, of whatever size")
    options = parsed(parser)
    out = options.out or Path(f"similarity-{options.shape}.safetensors")
    shadow = images(options.shape, "shadow", PATCHES, 1)
    scheme = Scheme.cross(options.k)
    if options.resume:
        network = load_similarity(options.resume)
    else:
        network = SimilarityNetwork(shadow.shape[0], options.depth, options.widening)
    progress = Saving(lambda: save_similarity(out, network))
    train_similarity(
        shadow, scheme, Budget(options.seconds), progress, network=network, device=options.device
    )
    save_similarity(out, network)
    trained = {"patches": len(shadow), "seconds": options.seconds, "last": progress.last}
    found = figures(network, options.shape, scheme, options.device)
    print(json.dumps(trained | {"device": options.device} | found))


if __name__ == "__main__":
    main()

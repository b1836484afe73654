"""Measure when the provable algorithm recovers Gaussian images, and when it says it cannot.

    python -m experiments.theory.provable

Each setting is tried on several draws of images, pairs and public images. A draw counts as
recovered if every image that is in any encoding has a mean squared error below 1e-6, for pixels of
variance 1; without public images, up to one sign for each pixel. Each finished setting adds a row
to the CSV file; settings that the file already contains are skipped. The last line printed is a
JSON object.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import astuple, dataclass, fields
from pathlib import Path

import torch
from torch import Tensor

from experiments.command_line import parsed
from experiments.records import add, rows_of, surroundings
from experiments.theory.provable_recovery import Proven, recover_provably
from instahide.errors import InstaHideError

OUT = Path("experiments/results/provable.csv")
DRAWS, EXACT = 20, 1e-6


@dataclass(frozen=True)
class Setting:
    """Private ``images`` in ``encodings`` of ``pixels``, with ``public_k`` of ``public`` images."""

    images: int
    encodings: int
    pixels: int
    public: int = 0
    public_k: int = 0


SETTINGS = (
    Setting(8, 40, 3072), Setting(8, 40, 1024), Setting(8, 10, 3072), Setting(8, 20, 3072),
    Setting(12, 60, 3072), Setting(8, 40, 30_000, 12, 2), Setting(8, 40, 30_000, 12, 4),
    Setting(8, 40, 3072, 12, 2),
)  # fmt: skip
KEYS = tuple(field.name for field in fields(Setting))


class Planted:
    """Images, their encodings in the model of `recover_provably`, and the truth."""

    def __init__(self, setting: Setting, seed: int) -> None:
        draw = torch.Generator().manual_seed(seed)
        self.images = torch.randn(setting.images, setting.pixels, generator=draw)
        self.public = torch.randn(setting.public, setting.pixels, generator=draw)
        self.members = _chosen(setting.encodings, setting.images, 2, draw)
        self.chosen = _chosen(setting.encodings, setting.public, setting.public_k, draw)
        mixed = self.images[self.members].sum(dim=1) / 2**0.5
        mixed += self.public[self.chosen].sum(dim=1) / max(setting.public_k, 1) ** 0.5
        self.sizes = mixed.abs()

    def errors(self, found: Proven) -> Tensor:
        """Return the error of the image closest to each image that is in any encoding."""
        images, recovered = self.images[self.members.unique()], found.images
        if not len(self.public):
            images, recovered = images.abs(), recovered.abs()
        return (torch.cdist(images, recovered).square() / images.shape[1]).amin(dim=1)


def _chosen(rows: int, count: int, each: int, draw: torch.Generator) -> Tensor:
    return torch.rand(rows, count, generator=draw).topk(each, dim=1).indices


def measure(setting: Setting) -> dict[str, object]:
    """Return how often all images were recovered, and how often the algorithm refused."""
    recovered, refused, began = 0, 0, time.perf_counter()
    for seed in range(DRAWS):
        planted = Planted(setting, seed)
        try:
            found = recover_provably(planted.sizes, planted.public, setting.public_k)
        except InstaHideError:
            refused += 1
        else:
            recovered += bool(planted.errors(found).max() < EXACT)
    seconds = round((time.perf_counter() - began) / DRAWS, 2)
    return {"draws": DRAWS, "recovered": recovered, "refused": refused, "seconds": seconds}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parsed(parser)
    have = {tuple(row[key] for key in KEYS) for row in rows_of(OUT)}
    for setting in SETTINGS:
        key = tuple(map(str, astuple(setting)))
        if key not in have:
            row = dict(zip(KEYS, key, strict=True)) | measure(setting) | surroundings()
            add(OUT, list(row), row)
    rows = rows_of(OUT)
    print(json.dumps({"recovered": sum(int(r["recovered"]) for r in rows), "settings": len(rows)}))


if __name__ == "__main__":
    main()

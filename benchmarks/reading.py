"""What reading encodings from disk costs a training run.

The small network, which learns much faster than the paper's ResNet-18, is trained in the project's
own steps for an epoch at a time, in turns: on float32 encodings that lie in memory, and on the same
ones in a folder, as float16, which the system was told to forget before each epoch.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from dataclasses import asdict
from functools import partial
from pathlib import Path

import torch

from benchmarks.loader import PlainLoader, train_epoch
from benchmarks.measure import medians, quick, report
from benchmarks.workload import BATCH, CLASSES, SHAPE, consume
from instahide.encodings.folder import (
    EncodedFolder,
    new_publication,
    new_shard_name,
    writing_encodings,
)
from instahide.encodings.manifest import Manifest
from instahide.encodings.shards import write_shard
from instahide.encryption.encoder import Encoded
from instahide.encryption.scheme import Scheme
from instahide.training import models
from instahide.training.data.pooled_loader import PooledLoader
from instahide.training.settings import TrainSettings
from instahide.training.training_state import TrainingState

SHARD = 5_000


def random_encodings(count: int) -> Encoded:
    labels = torch.eye(CLASSES)[torch.arange(count) % CLASSES]
    return Encoded(torch.randn(count, *SHAPE), labels)


def write_folder(path: Path, encodings: Encoded) -> EncodedFolder:
    count = len(encodings.images)
    manifest = Manifest(
        publication=new_publication(), scheme=asdict(Scheme.cross(4)), shape=SHAPE,
        classes=tuple(map(str, range(CLASSES))), mean=(0.5,) * 3, std=(0.25,) * 3,
        value_range=(0.0, 255.0),
        private_images=count, copies=1, values="float16", max_quantization_error=0.01,
    )  # fmt: skip
    with writing_encodings(path, manifest) as writer:
        for start in range(0, count, SHARD):
            rows, name = slice(start, start + SHARD), new_shard_name()
            with writer.store.writing(name) as file:
                images, labels = encodings.images[rows].half(), encodings.labels[rows]
                shard = write_shard(file, name, images, labels)
            writer.commit(shard)
        writer.finish("all")
    return EncodedFolder.open(path)


class FromDisk:
    """The batches of a loader, after the system was told to forget the files."""

    def __init__(self, loader: PooledLoader, folder: Path) -> None:
        self.loader, self.folder = loader, folder

    def __iter__(self) -> Iterator[Encoded]:
        for path in self.folder.glob("*.safetensors"):
            with path.open("rb") as file:
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        return iter(self.loader)


def measure(folder: Path, *, tiny: bool) -> dict[str, float]:
    count, rounds = (512, 1) if tiny else (50_000, 3)
    encodings = random_encodings(count)
    loader = PooledLoader([write_folder(folder, encodings)], BATCH)
    network = models.build("small", SHAPE[0], CLASSES, sign_invariant=True)
    state = TrainingState.start(network, TrainSettings(batch_size=BATCH, device="cpu"))
    state.model.train()
    seconds = medians(
        {
            "memory": partial(train_epoch, state, PlainLoader(*encodings, BATCH)),
            "disk": partial(train_epoch, state, FromDisk(loader, folder)),
            "reading": partial(consume, FromDisk(loader, folder)),
        },
        rounds,
    )
    return {name: count / value for name, value in seconds.items()}


def main() -> None:
    tiny = quick(__doc__)
    with tempfile.TemporaryDirectory() as folder:
        rates = measure(Path(folder) / "encoded", tiny=tiny)
    titles = {
        "memory": "training from memory",
        "disk": "training from a folder",
        "reading": "reading alone",
    }
    rows = [(title, f"{rates[name]:,.0f} encodings/s") for name, title in titles.items()]
    figures = {
        "reading_vs_memory": rates["disk"] / rates["memory"],
        **{f"{name}_encodings_per_s": rate for name, rate in rates.items()},
    }
    report("Training on 3 x 32 x 32 encodings", rows, figures)


if __name__ == "__main__":
    main()

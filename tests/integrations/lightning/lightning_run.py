"""Training by Lightning, in one process or in several.

``python -m tests.integrations.lightning.lightning_run FOLDER EPOCHS`` trains in ``FOLDER`` and
keeps there what every process was given in every epoch, and checkpoints. `main` lists the options.
"""

from __future__ import annotations

import argparse
import os
import warnings
from pathlib import Path

import numpy as np
import torch
from pytorch_lightning import seed_everything

from tests.integrations.lightning.lightning_parts import (
    Images,
    Mixes,
    Net,
    hiding,
    mixes,
    saving,
    trainer_in,
)


class Keeping(Net):
    """Keeps what it is given in an epoch in a file."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.folder = folder

    def on_train_epoch_end(self) -> None:
        batches, self.given["train"] = self.given["train"], []
        if not batches:
            # A limit may be reached just as an epoch begins.
            return
        name = f"{self.current_epoch}-{self.global_rank}-{os.getpid()}.npy"
        partial = self.folder / f"{name}.partial"
        with partial.open("wb") as file:
            np.save(file, torch.cat([images for images, _ in batches]).numpy())
        partial.rename(self.folder / name)


def kept(folder: Path, epoch: int | str = "*", rank: int | str = "*") -> Mixes:
    """What processes were given, in files of `Keeping`."""
    files = sorted(folder.glob(f"{epoch}-{rank}-*.npy"))
    return mixes(np.concatenate([np.load(file) for file in files]))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("epochs", type=int)
    parser.add_argument("--devices", type=int, default=1, help="processes")
    parser.add_argument("--resume", help="a checkpoint")
    parser.add_argument("--limit", type=int, help="of the exposure")
    parser.add_argument("--everywhere", action="store_true", help="all images in all processes")
    parser.add_argument("--every", type=int, help="steps from one checkpoint to the next")
    options = parser.parse_args()
    # The same in every process and in every run: keys must not come of it.
    seed_everything(1, workers=True, verbose=False)
    warnings.simplefilter("ignore")
    trainer = trainer_in(
        options.folder,
        hiding(max_exposure=options.limit),
        saving(options.folder, options.every),
        enable_checkpointing=True,
        devices=options.devices,
        strategy="ddp" if options.devices > 1 else "auto",
        use_distributed_sampler=not options.everywhere,
        max_epochs=options.epochs,
    )
    trainer.fit(Keeping(options.folder), Images(), ckpt_path=options.resume)


if __name__ == "__main__":
    main()

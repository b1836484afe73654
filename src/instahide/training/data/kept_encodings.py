"""Encodings that are made once and trained on in several epochs."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import torch

from instahide.encryption.encoder import Encoded
from instahide.errors import InstaHideError
from instahide.training.data.encoded_loader import EncodedLoader
from instahide.utils.tensor_file import read_tensors, write_tensors

#: Folder of the kept encodings in the folder of a run.
FOLDER = "encodings"


class KeptEncodings:
    """Batches of ``copies`` encodings of each image, to use like an `EncodedLoader`.

    The first ``copies`` epochs make new encodings, one of each image, and keep them. Every later
    epoch trains on one kept encoding of each image, in turn, in a new order. So an observer of all
    epochs sees ``copies`` encodings of each image, however long the training is.

    Args:
        loader: makes the encodings.
        copies: encodings of each image.
        folder: keep the encodings in files there, from which a resumed run continues; by default
            they are kept in memory.

    Raises:
        InstaHideError: ``copies`` is below 1, or the loader leaves images out.
        DamagedFileError: during iteration, if a file in ``folder`` is damaged.

    Examples:
        >>> from instahide import EncodedLoader, Encoder, Scheme, open_split
        >>> from instahide.training.data.kept_encodings import KeptEncodings
        >>> encoder = Encoder(Scheme.inside(4), open_split("digits").train)
        >>> loader = KeptEncodings(EncodedLoader(encoder, batch_size=128), copies=2)
        >>> for epoch in range(5):
        ...     batches = list(loader)
        >>> int(encoder.exposure.counts.sum()) == 2 * 4 * len(encoder.images)
        True
    """

    def __init__(self, loader: EncodedLoader, copies: int, folder: Path | None = None) -> None:
        if copies < 1:
            raise InstaHideError(f"copies = {copies} is below 1.", "Use `copies=1` or more.")
        if loader.drop_last:
            raise InstaHideError(
                "The loader leaves out images, of which no encoding would be kept.",
                "Use `drop_last=False`.",
            )
        self.loader = loader
        self.copies = copies
        self.folder = folder
        self._files = (
            [folder / f"{number}.safetensors" for number in range(copies)] if folder else []
        )
        self._memory: list[Encoded] = []
        self._epoch = 0

    def __len__(self) -> int:
        """Batches in an epoch."""
        return len(self.loader)

    def __iter__(self) -> Iterator[Encoded]:
        missing = self._missing()
        if missing is not None:
            yield from self._new(missing)
            return
        kept = self._kept(self._epoch % self.copies)
        self._epoch += 1
        order = torch.from_numpy(self.loader.encoder.permutation())
        for rows in torch.split(order, self.loader.batch_size):
            yield Encoded(kept.images[rows], kept.labels[rows])

    def discard(self) -> None:
        """Delete the files of the kept encodings."""
        if self.folder is not None:
            shutil.rmtree(self.folder, ignore_errors=True)

    def _new(self, number: int) -> Iterator[Encoded]:
        """New encodings of all images, which are kept as copy ``number`` after the last batch."""
        images, labels = [], []
        for batch in self.loader:
            images.append(batch.images.cpu())
            labels.append(batch.labels.cpu())
            yield batch
        made = Encoded(torch.cat(images), torch.cat(labels))
        if self._files:
            write_tensors(self._files[number], made._asdict(), {})
        else:
            self._memory.append(made)

    def _missing(self) -> int | None:
        """The first copy that is not kept; None if all are."""
        if not self._files:
            return len(self._memory) if len(self._memory) < self.copies else None
        return next((n for n, file in enumerate(self._files) if not file.exists()), None)

    def _kept(self, number: int) -> Encoded:
        if not self._files:
            return self._memory[number]
        tensors, _ = read_tensors(self._files[number])
        return Encoded(tensors["images"], tensors["labels"])

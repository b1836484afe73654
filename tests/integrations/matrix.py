"""Whether what a library iterates over are encodings: each row of the table in docs/pipelines.md.

Every item is a class of its own, and its pixels are known: a plain image is recognised exactly,
under its own label or another, and a mix of two images has two labels.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from instahide import InstaHideError, Scheme, encode_loader

PAGE = Path(__file__).resolve().parents[2] / "docs" / "pipelines.md"
COUNT, SHAPE, BATCH = 24, (3, 8, 8), 6
SCHEME = Scheme.inside(k=2)
PIXELS = torch.from_numpy(np.random.default_rng(5).normal(size=(COUNT, *SHAPE)).astype(np.float32))


class Items(Dataset[Any]):
    """Items (image, number)."""

    classes = tuple(f"class {number}" for number in range(COUNT))

    def __len__(self) -> int:
        return COUNT

    def __getitem__(self, index: int) -> Any:
        return PIXELS[index], index


class Records(Items):
    """The same as Hugging Face and MONAI have them."""

    def __getitem__(self, index: int) -> Any:
        return {"image": PIXELS[index], "label": index}


def plain(dataset: Any = None, **options: Any) -> DataLoader[Any]:
    return DataLoader(dataset or Items(), **{"batch_size": BATCH, "shuffle": True, **options})


def encoded(loader: Any = None, **options: Any) -> Any:
    return encode_loader(plain() if loader is None else loader, SCHEME, **options)


def network() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(PIXELS[0].numel(), COUNT))


def require_encodings(images: Any, labels: Any, pixels: Tensor = PIXELS) -> int:
    """How many there are, of which every one is an encoding with soft labels."""
    images, labels = torch.as_tensor(images), torch.as_tensor(labels)
    assert_no_plain(images, pixels)
    assert labels.dtype == torch.float32
    assert labels.shape == (len(images), COUNT)
    torch.testing.assert_close(labels.sum(1), torch.ones(len(labels)))
    assert ((labels > 0).sum(1) == SCHEME.k).all()
    assert (labels <= SCHEME.c1 + 1e-6).all()
    return len(images)


def assert_no_plain(images: Tensor, pixels: Tensor) -> None:
    """No image (n, ...) is one of the data set, in any precision down to bfloat16."""
    assert images.shape[1:] == pixels.shape[1:]
    far = (images[:, None].float() - pixels[None]).abs().flatten(2).amax(2)
    assert (far > 0.05).all(), "a plain image"


def parts(batches: Iterable[Any]) -> Iterator[tuple[Any, Any]]:
    """Images and labels of every batch."""
    for batch in batches:
        if isinstance(batch, dict):
            yield (
                batch.get("image", batch.get("pixel_values")),
                batch.get("label", batch.get("labels")),
            )
        else:
            yield batch[0], batch[1]


def documented() -> dict[tuple[str, str], str]:
    """What the page says: (library, order) to "encodings" or "refused"."""
    text = PAGE.read_text().split("## Libraries and orders", 1)[1].split("\n## ", 1)[0]
    rows = re.findall(r"^\| ([^|]+) \| ([^|]+) \| (encodings|refused) \|", text, re.MULTILINE)
    assert len(rows) == len({(library, order) for library, order, _ in rows})
    return {(library.strip(), order.strip()): result for library, order, result in rows}


def check(
    library: str,
    order: str,
    batches: Callable[[], Iterable[Any]],
    refusal: tuple[type[Exception], str] = (InstaHideError, "encode_loader"),
    pixels: Tensor = PIXELS,
) -> None:
    """Iterate over ``batches()``, and compare with what the page says about this row.

    Args:
        library: first column.
        order: second column.
        batches: does what the row says, and gives what the library iterates over.
        refusal: the error that is raised where the page says "refused", and a part of its message.
        pixels: (n, C, H, W) the plain images; or volumes, or (n, H, W).
    """

    def seen() -> int:
        return sum(require_encodings(*batch, pixels) for batch in parts(batches()))

    if documented()[library, order] == "encodings":
        assert seen() > 0
    else:
        # Batches that it gives before it raises are checked as well.
        with pytest.raises(refusal[0], match=re.escape(refusal[1])):
            seen()

"""timm's loaders and losses, which need torchvision."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from instahide import InstaHideError, Scheme, encode_loader
from instahide.data.normalization.inference import infer_normalization
from tests.integrations.matrix import BATCH, COUNT, SCHEME, check, network

timm_data = pytest.importorskip("timm.data")

BYTES = np.random.default_rng(3).integers(0, 256, (COUNT, 8, 8, 3), dtype=np.uint8)
MEAN, STD = (0.5, 0.4, 0.6), (0.3, 0.25, 0.2)


class Pictures(torch.utils.data.Dataset[Any]):
    """As timm has them: `create_loader` sets the transform."""

    classes = tuple(map(str, range(COUNT)))
    transform: Any = None

    def __len__(self) -> int:
        return COUNT

    def __getitem__(self, index: int) -> Any:
        return self.transform(Image.fromarray(BYTES[index])), index


def made(**options: Any) -> Any:
    defaults: dict[str, Any] = {
        "input_size": (3, 8, 8), "batch_size": BATCH, "is_training": True, "no_aug": True,
        "mean": MEAN, "std": STD, "num_workers": 0, "use_prefetcher": False,
        "device": torch.device("cpu"),
    }  # fmt: skip
    return timm_data.create_loader(Pictures(), **{**defaults, **options})


def plain_values() -> torch.Tensor:
    dataset = made().dataset
    return torch.stack([dataset[index][0] for index in range(COUNT)])


ORDERS: dict[str, tuple[Any, str]] = {
    "`create_loader(use_prefetcher=False)`, then `encode_loader`": (
        lambda: encode_loader(made(), SCHEME),
        "",
    ),
    "`create_loader` with its prefetcher, then `encode_loader`": (
        lambda: encode_loader(made(use_prefetcher=True), SCHEME),
        "",
    ),
    "`create_loader(re_prob=...)` with its prefetcher, then `encode_loader`": (
        lambda: encode_loader(made(use_prefetcher=True, no_aug=False, re_prob=0.5), SCHEME),
        "erase parts of encodings",
    ),
    "`encode_loader` on the loader inside the prefetcher": (
        lambda: encode_loader(made(use_prefetcher=True).loader, SCHEME),
        "uint8",
    ),
    "`use_multi_epochs_loader=True`, then `encode_loader`": (
        lambda: encode_loader(made(use_multi_epochs_loader=True), SCHEME),
        "iterates in a way of its own",
    ),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("order", ORDERS)
def test_every_order_gives_encodings_or_an_error(order: str) -> None:
    make, message = ORDERS[order]
    check("timm", order, make, (InstaHideError, message), pixels=plain_values())


@pytest.mark.filterwarnings("ignore")
def test_a_prefetcher_gives_the_encodings_of_what_it_gives_without_encryption() -> None:
    plain = made(use_prefetcher=True)
    wrapped = encode_loader(plain, Scheme.plain())
    assert wrapped.unwrapped is plain
    found = {
        int(row.argmax()): image for batch in wrapped for image, row in zip(*batch, strict=True)
    }
    for images, labels in plain:
        for image, label in zip(images, labels.tolist(), strict=True):
            torch.testing.assert_close(found[label], image)


def test_normalization_is_found_in_the_transform() -> None:
    moments = infer_normalization(made().dataset)
    assert moments is not None
    np.testing.assert_allclose(moments.mean, MEAN)
    np.testing.assert_allclose(moments.std, STD)


def test_losses_and_metrics_for_soft_labels() -> None:
    from timm.data import Mixup
    from timm.loss import LabelSmoothingCrossEntropy, SoftTargetCrossEntropy
    from timm.utils import accuracy

    images, labels = next(iter(encode_loader(made(), SCHEME)))
    logits = network()(images)
    expected = torch.nn.functional.cross_entropy(logits, labels)
    torch.testing.assert_close(SoftTargetCrossEntropy()(logits, labels), expected)
    with pytest.raises((RuntimeError, IndexError)):
        LabelSmoothingCrossEntropy()(logits, labels)
    with pytest.raises((RuntimeError, IndexError)):
        accuracy(logits, labels, topk=(1, 5))
    mixed = Mixup(mixup_alpha=1.0, num_classes=COUNT)(images, labels)[1]
    with pytest.raises((RuntimeError, ValueError)):
        SoftTargetCrossEntropy()(logits, mixed)
    (top,) = accuracy(logits, labels.argmax(1), topk=(1,))
    assert 0 <= top <= 100

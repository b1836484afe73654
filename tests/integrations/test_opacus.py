"""Opacus: Poisson samplers, empty batches, split batches; and no order leads to a plain image."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader

from instahide import Exposure, InstaHideError, Scheme, encode_loader
from tests.integrations.matrix import (
    BATCH,
    COUNT,
    Items,
    check,
    encoded,
    network,
    parts,
    plain,
    require_encodings,
)

opacus = pytest.importorskip("opacus")
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")


def private(loader: Any, **options: Any) -> tuple[nn.Module, Any, Any]:
    model = network()
    made: tuple[nn.Module, Any, Any] = opacus.PrivacyEngine().make_private(
        module=model,
        optimizer=torch.optim.SGD(model.parameters(), 0.1),
        data_loader=loader,
        noise_multiplier=1.0,
        max_grad_norm=1.0,
        **options,
    )
    return made


def split(loader: Any, optimizer: Any, size: int = 3) -> Any:
    from opacus.utils.batch_memory_manager import BatchMemoryManager

    manager = BatchMemoryManager(
        data_loader=loader, max_physical_batch_size=size, optimizer=optimizer
    )
    return manager.__enter__()


def private_and_split(loader: Any, wrap: Any) -> Any:
    _, optimizer, loader = private(loader)
    return split(wrap(loader), optimizer)


ORDERS: dict[str, Any] = {
    "`make_private`, then `encode_loader`": lambda: encoded(private(plain())[2]),
    "`encode_loader`, then `make_private`": lambda: private(encoded())[2],
    "`encode_loader`, then `make_private(poisson_sampling=False)`": lambda: private(
        encoded(), poisson_sampling=False
    )[2],
    "`make_private`, `BatchMemoryManager`, then `encode_loader`": lambda: encoded(
        private_and_split(plain(), lambda loader: loader)
    ),
    "`make_private`, `encode_loader`, then `BatchMemoryManager`": lambda: private_and_split(
        plain(), encoded
    ),
}


@pytest.mark.parametrize("order", ORDERS)
def test_every_order_gives_encodings_or_an_error(order: str) -> None:
    check("Opacus", order, ORDERS[order])


def test_empty_batches_are_empty_batches_of_encodings() -> None:
    torch.manual_seed(0)
    loader = private(DataLoader(Items(), 1))[2]
    sizes = []
    for _ in range(3):
        for images, labels in encoded(loader):
            sizes.append(require_encodings(images, labels))
    assert sizes.count(0) > 5
    assert sum(sizes) > COUNT


@pytest.mark.parametrize("options", [{}, {"mean": [0.5] * 3, "std": [0.1] * 3}])
@pytest.mark.parametrize("batches", [[[], [1, 2]], [[3, 1], []], [[], []]])
@pytest.mark.parametrize("workers", [0, 1])
def test_empty_batches_anywhere(
    batches: list[list[int]], workers: int, options: dict[str, Any]
) -> None:
    from opacus.data_loader import wrap_collate_with_empty
    from torch.utils.data import default_collate

    collate = wrap_collate_with_empty(
        collate_fn=default_collate, sample_empty_shapes=[(0, 3, 8, 8), (0,)],
        dtypes=[torch.float32, torch.int64],
    )  # fmt: skip
    loader = DataLoader(Items(), batch_sampler=batches, collate_fn=collate, num_workers=workers)
    # A limit takes another way through the drawing of partners; noise one through the mixing.
    scheme = Scheme.inside(k=2, noise=0.5 if options else 0)
    made = encode_loader(loader, scheme, exposure=Exposure(COUNT, limit=9), **options)
    assert [len(images) for images, _ in made] == [len(batch) for batch in batches]
    assert all(labels.shape[1] == COUNT for _, labels in made)


def test_training_with_split_batches_takes_as_many_steps_as_there_are_logical_batches() -> None:
    model, optimizer, loader = private(plain())
    steps = []
    optimizer.attach_step_hook(lambda optimizer: steps.append(optimizer))
    for images, labels in parts(encoded(split(loader, optimizer))):
        require_encodings(images, labels)
        nn.functional.cross_entropy(model(images), labels).backward()
        optimizer.step()
        optimizer.zero_grad()
    assert len(steps) == len(loader) == COUNT // BATCH


def test_the_error_says_what_to_do() -> None:
    with pytest.raises(InstaHideError, match=r"plain loader first \(`loader.unwrapped`"):
        private(encoded())

"""Hugging Face Accelerate: no order of its calls leads to a plain image."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader

from instahide import InstaHideError
from tests.integrations.matrix import COUNT, Items, check, encoded, network, parts, plain
from tests.integrations.matrix import require_encodings as encodings

pytestmark = pytest.mark.filterwarnings("ignore:.*deprecated:UserWarning")
accelerate = pytest.importorskip("accelerate")


@pytest.fixture
def accelerator() -> Iterator[Any]:
    accelerator = accelerate.Accelerator(cpu=True)
    yield accelerator
    accelerator.free_memory()
    accelerate.state.AcceleratorState._reset_state(reset_partial_state=True)
    accelerate.state.GradientState._reset_state()


def assigned(accelerator: Any) -> Any:
    """A prepared loader whose inner one was replaced, as earlier versions of the page said."""
    prepared = accelerator.prepare(plain())
    prepared.base_dataloader = encoded(prepared.base_dataloader)
    return prepared


ORDERS: dict[str, Any] = {
    "`prepare`, then `encode_loader`": lambda a: encoded(a.prepare(plain())),
    "`encode_loader`, then `prepare`": lambda a: a.prepare(encoded()),
    "`encode_loader`, then `prepare_data_loader`": lambda a: a.prepare_data_loader(encoded()),
    "`encode_loader` assigned to `base_dataloader`": assigned,
    "... and then `skip_first_batches`": lambda a: a.skip_first_batches(assigned(a), 1),
    "`encode_loader`, then `skip_first_batches`": lambda a: a.skip_first_batches(
        encoded(a.prepare(plain())), 1
    ),
    "`skip_first_batches`, then `encode_loader`": lambda a: encoded(
        a.skip_first_batches(a.prepare(plain()), 1)
    ),
}


@pytest.mark.parametrize("order", ORDERS)
def test_every_order_gives_encodings_or_an_error(accelerator: Any, order: str) -> None:
    check("Accelerate", order, lambda: ORDERS[order](accelerator))


def test_batches_dispatched_by_the_first_process_are_encodings() -> None:
    configuration = accelerate.DataLoaderConfiguration(dispatch_batches=True)
    accelerator = accelerate.Accelerator(cpu=True, dataloader_config=configuration)
    prepared = accelerator.prepare(plain())
    assert type(prepared).__name__ == "DataLoaderDispatcher"
    check("Accelerate", "`dispatch_batches=True`, then `encode_loader`", lambda: encoded(prepared))


def test_a_stateful_loader_is_refused() -> None:
    configuration = accelerate.DataLoaderConfiguration(use_stateful_dataloader=True)
    accelerator = accelerate.Accelerator(cpu=True, dataloader_config=configuration)
    check(
        "Accelerate",
        "`use_stateful_dataloader=True`, then `encode_loader`",
        lambda: encoded(accelerator.prepare(plain())),
        (InstaHideError, "iterates in a way of its own"),
    )


def test_a_prepared_loader_keeps_what_accelerate_does(accelerator: Any) -> None:
    prepared = accelerator.prepare(DataLoader(Items(), 5, shuffle=True))
    loader = encoded(prepared)
    assert loader.unwrapped is prepared
    assert len(loader) == len(prepared) == 5
    assert loader.device == accelerator.device
    assert loader.total_batch_size == 5
    assert loader.total_dataset_length == COUNT
    ends = []
    for _ in loader:
        assert accelerator.gradient_state.in_dataloader
        ends.append(accelerator.gradient_state.end_of_dataloader)
        # What Accelerate remembers of the loader in use is safe as well.
        active = accelerator.gradient_state.active_dataloader
        with pytest.raises(InstaHideError):
            active.dataset[0]
    assert ends == [False] * 4 + [True]
    assert not accelerator.gradient_state.in_dataloader
    assert loader.exposure.counts.sum() == 2 * COUNT


def test_a_prepared_loader_that_is_wrapped_already_is_not_wrapped_again(accelerator: Any) -> None:
    for loader in (assigned(accelerator), encoded(accelerator.prepare(plain()))):
        with pytest.raises(InstaHideError, match="encrypts already"):
            encoded(loader)


def test_the_epoch_reaches_the_sampler(accelerator: Any) -> None:
    class Sampler(torch.utils.data.SequentialSampler):
        epochs: ClassVar[list[int]] = []

        def set_epoch(self, epoch: int) -> None:
            self.epochs.append(epoch)

    prepared = accelerator.prepare(DataLoader(Items(), 6, sampler=Sampler(Items())))
    loader = encoded(prepared)
    list(loader)
    list(loader)
    loader.set_epoch(7)
    list(loader)
    loader.batch_sampler.sampler.set_epoch(9)
    assert Sampler.epochs == [0, 1, 7, 7, 9]


def trained(accelerator: Any, loader: Any, model: nn.Module, optimizer: Any, batches: int) -> int:
    count = 0
    for images, labels in list(parts(loader))[:batches]:
        count += encodings(images, labels)
        optimizer.zero_grad()
        accelerator.backward(nn.functional.cross_entropy(model(images), labels))
        optimizer.step()
    return count


def test_training_is_saved_and_resumed_in_the_middle_of_an_epoch(
    accelerator: Any, tmp_path: Path
) -> None:
    model, optimizer, prepared = accelerator.prepare(
        model := network(), torch.optim.SGD(model.parameters(), 0.1), plain()
    )
    loader = encoded(prepared)

    def resumed() -> Any:
        yield from parts(loader)
        accelerator.save_state(str(tmp_path / "state"))
        trained(accelerator, loader, model, optimizer, 2)
        accelerator.load_state(str(tmp_path / "state"))
        yield from parts(loader)
        skipped = accelerator.skip_first_batches(loader.unwrapped, 2)
        rest = encoded(skipped, exposure=loader.exposure)
        assert len(rest) == len(loader) - 2
        yield from parts(rest)

    check("Accelerate", "`save_state` and `load_state`", resumed)
    assert loader.exposure.counts.sum() == 2 * (3 * COUNT + COUNT // 2)

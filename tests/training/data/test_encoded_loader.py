"""The loader: every image once an epoch, new keys every epoch, and no thread left behind."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from itertools import islice

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor, nn

from instahide.data import ImageDataset, ImageTable
from instahide.encryption.encoder import BLOCKS_AHEAD, Encoded, Encoder
from instahide.encryption.keys import KeyStream
from instahide.encryption.scheme import Scheme
from instahide.errors import InstaHideError
from instahide.training.data import encoded_loader as loader_module
from instahide.training.data.encoded_loader import EncodedLoader
from tests.waiting import LIMIT

KEY = bytes(range(32))
PLAIN = Scheme.plain()


def table(count: int) -> ImageTable:
    """Every image a class of its own, so that a label names the image."""
    pixels = np.random.default_rng(count).integers(0, 256, (count, 1, 4, 4), np.uint8)
    return ImageTable.from_arrays(pixels, np.arange(count))


class Noting(Encoder):
    """Notes what it was asked for, and what it gave."""

    def stream(
        self, rows: Iterable[NDArray[np.int64]], *, pin_memory: bool = False
    ) -> Iterator[Encoded]:
        asked = list(rows)
        noted = self.__dict__.setdefault("noted", [])
        for indices, encoded in zip(asked, super().stream(asked), strict=True):
            noted.append((indices, encoded))
            yield encoded


def prefetching() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if "prefetch" in thread.name]


def seen(loader: EncodedLoader) -> list[int]:
    """The images of an epoch of plain encodings, in order."""
    return [int(image) for _, labels in loader for image in labels.argmax(1)]


@given(
    count=st.integers(2, 60),
    batch_size=st.integers(1, 70),
    block=st.sampled_from([1, 7, 16, 1024]),
    shuffle=st.booleans(),
    drop_last=st.booleans(),
)
@settings(max_examples=80, deadline=None)
def test_every_image_comes_first_exactly_once(
    count: int, batch_size: int, block: int, shuffle: bool, drop_last: bool
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loader_module, "BLOCK", block)
        loader = EncodedLoader(
            Encoder(PLAIN, table(count)), batch_size, shuffle=shuffle, drop_last=drop_last
        )
        batches = list(loader)
    sizes = [len(images) for images, _ in batches]
    whole, rest = divmod(count, batch_size)
    assert sizes == [batch_size] * whole + [rest] * (rest > 0 and not drop_last)
    assert len(loader) == len(batches)
    assert sizes == [len(labels) for _, labels in batches]
    order = [int(image) for _, labels in batches for image in labels.argmax(1)]
    assert len(set(order)) == len(order) == sum(sizes)
    if not shuffle:
        assert order == list(range(sum(sizes)))


@pytest.mark.parametrize(("count", "batch_size"), [(50, 8), (50, 50), (50, 64), (20, 1), (33, 32)])
def test_every_row_is_an_encoding_of_its_own(count: int, batch_size: int) -> None:
    # The short last batch too: a row used twice would give one |mix| under two masks.
    encoder = Noting(Scheme.inside(4), table(count), keys=KeyStream(fixed_key=KEY))
    batches = [batch for _ in range(2) for batch in EncodedLoader(encoder, batch_size)]
    magnitudes = [image.abs().numpy().tobytes() for images, _ in batches for image in images]
    assert len(set(magnitudes)) == len(magnitudes) == 2 * count
    # What came out is what the encoder made, in the order in which it was asked.
    made = encoder.__dict__["noted"]
    for part in (0, 1):
        out = torch.cat([batch[part] for batch in batches])
        assert torch.equal(out, torch.cat([encoded[part] for _, encoded in made]))
    asked = np.concatenate([indices for indices, _ in made])
    np.testing.assert_array_equal(np.sort(asked.reshape(2, count), axis=1), [np.arange(count)] * 2)


def test_the_last_short_batch_is_an_encoding_of_its_own_images() -> None:
    # By the definition: same keys, drawn for these indices alone, without the loader.
    images = table(33)
    loader = EncodedLoader(
        Encoder(Scheme.inside(4), images, keys=KeyStream(fixed_key=KEY)), 32, shuffle=False
    )
    last = list(loader)[-1]
    assert last.images.shape == (1, 1, 4, 4)
    twin = Encoder(Scheme.inside(4), images, keys=KeyStream(fixed_key=KEY))
    twin.next_epoch()
    expected = twin.encode(np.arange(33))
    assert torch.equal(last.images[0], expected.images[32])
    assert torch.equal(last.labels[0], expected.labels[32])
    assert last.labels[0, 32] > 0


def test_every_epoch_has_an_order_of_its_own() -> None:
    loader = EncodedLoader(Encoder(PLAIN, table(100)), 16)
    orders = {tuple(seen(loader)) for _ in range(5)}
    assert len(orders) == 5
    assert tuple(range(100)) not in orders


def test_every_epoch_has_keys_of_its_own() -> None:
    loader = EncodedLoader(Encoder(Scheme.inside(4), table(60)), 16, shuffle=False)
    epochs = [torch.cat([images for images, _ in loader]) for _ in range(3)]
    magnitudes = {image.abs().numpy().tobytes() for epoch in epochs for image in epoch}
    signs = {(image > 0).numpy().tobytes() for epoch in epochs for image in epoch}
    assert len(magnitudes) == 180
    # 16 signs a mask: some agree by chance, but no epoch repeats another.
    assert len(signs) > 150


def test_two_iterations_at_a_time_do_not_meet() -> None:
    loader = EncodedLoader(Encoder(Scheme.inside(4), table(30)), 8)
    rows = [
        image.abs().numpy().tobytes()
        for pair in zip(loader, loader, strict=True)
        for images, _ in pair
        for image in images
    ]
    assert len(set(rows)) == len(rows) == 60


@pytest.mark.parametrize("taken", [1, 2, 5])
def test_leaving_early_leaves_no_thread_behind(taken: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loader_module, "BLOCK", 4)
    loader = EncodedLoader(Encoder(Scheme.inside(4), table(40)), 4)
    for number, _ in enumerate(loader, start=1):
        if number == taken:
            break
    assert prefetching() == []
    iterator = iter(loader)
    assert len(list(islice(iterator, taken))) == taken
    assert prefetching() != []
    del iterator
    assert prefetching() == []
    assert len(list(loader)) == 10
    assert prefetching() == []


def test_a_block_is_made_while_another_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loader_module, "BLOCK", 4)
    encoder = Encoder(PLAIN, table(20))
    mixed, started = encoder._mixed, [threading.Event() for _ in range(5)]
    left = iter(started)

    def noting(*arguments: object) -> Encoded:
        next(left).set()
        return mixed(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(encoder, "_mixed", noting)
    iterator = iter(EncodedLoader(encoder, 4))
    next(iterator)
    assert started[BLOCKS_AHEAD].wait(LIMIT), "the next blocks are made before they are asked for"
    assert not started[BLOCKS_AHEAD + 1].is_set(), "and no more than that: memory is bounded"
    assert len(list(iterator)) == 4


class Failing:
    """Twelve items; the last four cannot be read once it is ``broken``."""

    classes = ("a", "b")

    broken = False

    def __len__(self) -> int:
        return 12

    def __getitem__(self, index: int) -> tuple[NDArray[np.float32], int]:
        if self.broken and index >= 8:
            raise OSError("the disk is gone")
        return np.random.default_rng(index).normal(size=(1, 4, 4)).astype(np.float32), index % 2


def test_an_error_in_the_background_reaches_the_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loader_module, "BLOCK", 4)
    items = Failing()
    loader = EncodedLoader(Encoder(PLAIN, ImageDataset(items)), 4, shuffle=False)
    items.broken = True
    iterator = iter(loader)
    assert len(list(islice(iterator, 2))) == 2, "what was made before is given"
    with pytest.raises(InstaHideError, match="the disk is gone"):
        next(iterator)
    assert prefetching() == []


def test_a_loop_of_somebody_elses_takes_its_batches() -> None:
    loader = EncodedLoader(Encoder(Scheme.inside(4), table(40)), 16)
    model, loss = nn.Linear(16, 40), nn.CrossEntropyLoss()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    for _ in range(2):
        for images, labels in loader:
            value: Tensor = loss(model(images.flatten(1)), labels)
            optimizer.zero_grad()
            value.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            assert value.isfinite()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision(dtype: torch.dtype) -> None:
    for images, labels in EncodedLoader(Encoder(Scheme.inside(4), table(20), dtype=dtype), 8):
        assert images.dtype is dtype
        assert labels.dtype is torch.float32
        assert images.isfinite().all()


@pytest.mark.parametrize("batch_size", [0, -1])
def test_an_empty_batch_is_refused(batch_size: int) -> None:
    with pytest.raises(InstaHideError, match="batch size of 1 or more"):
        EncodedLoader(Encoder(PLAIN, table(4)), batch_size)

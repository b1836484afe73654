"""What each client sends: every byte of it is looked through for what must not leave."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import Message
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects

from instahide.data import ImageTable
from instahide.encryption import keys
from instahide.encryption.keys import OneTimeKeys
from instahide.encryption.sampling import sampler
from instahide.integrations.flower.config import FederatedSettings
from instahide.integrations.flower.federation_spec import FederationSpec

NUMBERS = {
    "train": {"num-examples", "loss", "exposure-least", "exposure-mean", "exposure-most"},
    "evaluate": {"num-examples", "accuracy"},
    "query": {"num-examples", "mean", "std"},
}
Make = Callable[..., Any]


def wire(message: Message) -> bytes:
    """Every byte of ``message`` that Flower would send, its arrays included."""
    return b"".join(part.deflate() for part in get_all_nested_objects(message).values())


def forms(values: np.ndarray[Any, Any]) -> Iterable[bytes]:
    """How numbers may be written down."""
    for raw in (values.tobytes(), values.astype(">" + values.dtype.str[1:]).tobytes()):
        yield raw
        yield raw.hex().encode()
        yield base64.b64encode(raw)[:-4]
    yield ", ".join(map(str, values.tolist())).encode()


def of_images(images: ImageTable) -> set[bytes]:
    """Rows of pixels, as bytes and as numbers, plain and normalized."""
    normalized = images.normalized()
    found: set[bytes] = set()
    for number in range(0, len(images), 30):
        row = slice(3, 6)
        pixels = images.pixels[number, 0, row].reshape(-1)
        for values in (pixels, pixels.astype(np.float32) / 255, pixels.astype(np.int64)):
            found |= set(forms(values))
        line = normalized[number, 0, row].reshape(-1)
        for values in (line, np.abs(line), line.astype(np.float64), line.astype(np.float16)):
            found |= set(forms(values))
    return found


def of_keys(one_time: list[OneTimeKeys], blocks: set[bytes]) -> set[bytes]:
    """Masks, coefficients, partners and the keys that they were drawn from."""
    found = {form for key in blocks for form in forms(np.frombuffer(key, np.uint8))}
    for drawn in one_time:
        assert drawn.masks is not None
        for row in range(0, len(drawn.partners), 30):
            mix = slice(row, row + 4)
            for values in (drawn.masks[mix], drawn.coefficients[mix], drawn.partners[mix]):
                found |= set(forms(values.reshape(-1)))
            found |= set(forms(drawn.coefficients[mix].reshape(-1).astype(np.float64)))
            found |= set(forms(drawn.partners[mix].reshape(-1).astype(np.int32)))
    return {needle for needle in found if len(needle) >= 16}


@pytest.fixture
def secret(monkeypatch: pytest.MonkeyPatch) -> tuple[list[OneTimeKeys], set[bytes]]:
    """All one-time keys, and all keys of blocks, that are drawn from now on."""
    one_time: list[OneTimeKeys] = []
    blocks: set[bytes] = set()
    draw, begin = sampler.one_time_keys, keys.Block.__init__

    def noting(*arguments: Any, **more: Any) -> OneTimeKeys:
        one_time.append(draw(*arguments, **more))
        return one_time[-1]

    def noting_key(block: keys.Block, key: bytes, number: int) -> None:
        blocks.add(key)
        begin(block, key, number)

    monkeypatch.setattr(sampler, "one_time_keys", noting)
    monkeypatch.setattr(keys.Block, "__init__", noting_key)
    return one_time, blocks


@pytest.mark.parametrize("strategy", ["FedAvg", "FedSGD"])
def test_clients_send_weights_and_a_few_numbers_and_nothing_else(
    strategy: str,
    federation: Make,
    digits: tuple[ImageTable, ImageTable],
    secret: tuple[list[OneTimeKeys], set[bytes]],
    tmp_path: Path,
) -> None:
    limited = {"data": str(tmp_path / "test.npz"), "max-exposure": 1}
    own = [{"data": str(tmp_path / "train.npz"), "test": str(tmp_path / "test.npz")}, limited]
    run = federation(own, strategy=strategy, client_test=True, k=4, rounds=1)
    run.run()

    kinds = [(answer.metadata.message_type, answer.has_error()) for answer in run.answers]
    assert set(kinds) >= {("query", False), ("train", False), ("evaluate", False), ("train", True)}
    network = FederationSpec((1, 8, 8), tuple(map(str, range(10)))).network(
        FederatedSettings.from_config(run.config)
    )
    shapes = {name: tuple(value.shape) for name, value in network.state_dict().items()}
    for answer in run.answers:
        if not answer.has_error():
            require_shape(answer, shapes)

    one_time, blocks = secret
    assert len(one_time) == len(blocks) > 0
    needles = of_images(digits[0]) | of_images(digits[1]) | of_keys(one_time, blocks)
    assert len(needles) > 500
    for answer in run.answers:
        sent = wire(answer)
        assert not [needle for needle in needles if needle in sent]
    for context in run.contexts.values():
        # What Flower keeps for a node between rounds.
        assert not any(context.state.values())


def require_shape(answer: Message, shapes: dict[str, tuple[int, ...]]) -> None:
    """Of the kind of its question, and of the network's shapes."""
    kind, content = answer.metadata.message_type, answer.content
    assert not content.config_records
    (numbers,) = content.metric_records.values()
    assert set(numbers) == NUMBERS[kind]
    assert all(len(value) == 1 for value in numbers.values() if isinstance(value, list))
    if kind != "train":
        assert not content.array_records
        return
    (arrays,) = content.array_records.values()
    assert {name: tuple(array.numpy().shape) for name, array in arrays.items()} == shapes


def test_the_search_finds_what_it_looks_for(
    federation: Make,
    digits: tuple[ImageTable, ImageTable],
    secret: tuple[list[OneTimeKeys], set[bytes]],
) -> None:
    """Or the test above would show nothing."""
    run = federation(rounds=1)
    run.run()
    drawn, key = secret[0][0], next(iter(secret[1]))
    assert drawn.masks is not None
    needles = of_images(digits[0]) | of_keys(*secret)
    image = digits[0]
    leaks = [
        image.pixels[30].tobytes(), image.normalized()[60].tobytes(), key, key.hex().encode(),
        str(image.pixels[90, 0].reshape(-1).tolist()).encode(), drawn.masks.tobytes(),
        drawn.coefficients.tobytes(), str(drawn.partners.reshape(-1).tolist()).encode(),
    ]  # fmt: skip
    for leak in leaks:
        assert [needle for needle in needles if needle in b"before " + leak + b" after"]

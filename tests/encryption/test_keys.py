"""The key stream: the construction it claims, nothing twice, and nothing shown."""

from __future__ import annotations

import base64
import copy
import dataclasses
import hashlib
import hmac
import io
import multiprocessing
import os
import pickle
import traceback
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from numpy.typing import NDArray
from rich.console import Console
from rich.traceback import Traceback
from torch.utils.data import DataLoader

from instahide.data import ImageDataset, ImageTable
from instahide.encryption.encoder import Encoder
from instahide.encryption.keys import KEY_BYTES, KeyStream, Purpose
from instahide.encryption.scheme import Scheme
from instahide.errors import InstaHideError

KEY = bytes(range(32))
SECONDS = 900

#: A mask on every value and nothing else: the sign of an encoding shows its mask.
MASKED = Scheme(k=1, private_k=1, c1=1.0, c2=0.0)


def epoch_key(root: bytes, participant: str, epoch: int) -> bytes:
    """HKDF-Expand of one block (RFC 5869, section 2.3), from its definition."""
    name = participant.encode()
    info = b"instahide/1/" + len(name).to_bytes(8, "big") + name + epoch.to_bytes(8, "big")
    return hmac.new(root, info + b"\x01", hashlib.sha256).digest()


def key_stream(key: bytes, purpose: int, block: int, words: int) -> NDArray[np.uint64]:
    """Counter mode from its definition: every counter encrypted by itself."""
    counters = b"".join(
        (purpose << 120 | block << 64 | place).to_bytes(16, "big")
        for place in range(-(-words // 2))
    )
    cipher = Cipher(algorithms.AES256(key), modes.ECB()).encryptor()  # noqa: S305
    return np.frombuffer(cipher.update(counters), "<u8")[:words]


def chunks(words: NDArray[np.uint64]) -> list[bytes]:
    raw = words.tobytes()
    return [raw[start : start + 16] for start in range(0, len(raw), 16)]


def all_differ(found: list[bytes]) -> bool:
    return len(set(found)) == len(found)


def drawn(stream: KeyStream) -> bytes:
    return stream.next_block().words(Purpose.MASKS, 8).tobytes()


def table() -> ImageTable:
    pixels = np.random.default_rng(3).integers(0, 256, (16, 3, 8, 8), np.uint8)
    return ImageTable.from_arrays(pixels, np.arange(16) % 2)


def signs(images: torch.Tensor) -> list[bytes]:
    """The mask of each encoding under `MASKED`, up to one and the same flip for each image."""
    return [np.packbits(image.numpy() > 0).tobytes() for image in images]


@pytest.mark.parametrize("participant", ["", "hospital 7", "Zürich"])
@pytest.mark.parametrize("purpose", list(Purpose))
def test_the_construction_is_the_one_described(participant: str, purpose: Purpose) -> None:
    stream = KeyStream(participant, fixed_key=KEY)
    for epoch in range(3):
        key = epoch_key(KEY, participant, epoch)
        for block in range(3):
            words = stream.next_block().words(purpose, 33)
            np.testing.assert_array_equal(words, key_stream(key, purpose, block, 33))
        stream.next_epoch()


def test_known_answer() -> None:
    # Frozen: another value means that a fixed key no longer gives what it gave.
    words = KeyStream(fixed_key=KEY).next_block().words(Purpose.MASKS, 2)
    assert words.tobytes().hex() == "a7f5605d9db931f43d1957e1991289bb"
    assert {purpose.name: int(purpose) for purpose in Purpose} == {
        "PARTNERS": 1, "COEFFICIENTS": 2, "MASKS": 3, "AUGMENTATION": 4, "ORDER": 5, "CROPS": 6,
        "NOISE": 7, "ENCODERS": 8,
    }  # fmt: skip


def test_a_block_goes_on_where_it_stopped() -> None:
    # 300,000 words are more than the buffer that bytes are made from.
    block = KeyStream(fixed_key=KEY).next_block()
    counts = [0, 2, 4, 300_000, 2, 0]
    parts = [block.words(Purpose.ORDER, count) for count in counts]
    expected = key_stream(epoch_key(KEY, "", 0), Purpose.ORDER, 0, sum(counts))
    np.testing.assert_array_equal(np.concatenate(parts), expected)


def test_no_two_draws_share_bytes() -> None:
    # Across purposes, blocks, epochs and participants, under one root: 16 bytes are one counter.
    found = []
    for participant in ("", "a", "b", "ab", "a\0"):
        stream = KeyStream(participant, fixed_key=KEY)
        for _ in range(3):
            for _ in range(4):
                block = stream.next_block()
                for purpose in [*Purpose, *Purpose]:
                    found += chunks(block.words(purpose, 16))
            stream.next_epoch()
    assert len(found) == 5 * 3 * 4 * 2 * len(Purpose) * 8
    assert all_differ(found)


def test_threads_never_get_one_block() -> None:
    stream = KeyStream()
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda _: drawn(stream), range(2_000)))
    assert all_differ(found)


def test_a_fixed_key_repeats_and_nothing_else_does() -> None:
    fixed = [KeyStream("a", fixed_key=KEY) for _ in range(2)]
    assert drawn(fixed[0]) == drawn(fixed[1])
    assert fixed[0].fixed
    others = [fixed[0], KeyStream("b", fixed_key=KEY), KeyStream("a", fixed_key=bytes(32))]
    fresh = [KeyStream("a") for _ in range(20)]
    assert not fresh[0].fixed
    assert all_differ([drawn(stream) for stream in [*others, *fresh]])


@pytest.mark.parametrize("length", [0, 1, 31, 33, 64])
def test_a_fixed_key_of_another_length_is_refused(length: int) -> None:
    secret = b"\xa7" * length
    with pytest.raises(InstaHideError, match="has 32 bytes") as caught:
        KeyStream(fixed_key=secret)
    assert "Leave it out" in caught.value.remedy
    assert "a7" not in str(caught.value)


def in_a_fork(function: Callable[[], bytes]) -> bytes:
    """What ``function`` returns in a child made by ``os.fork``."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.write(writer, function())
        finally:
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        result = pipe.read()
    assert os.waitpid(child, 0)[1] == 0
    return result


@pytest.mark.parametrize("fixed_key", [None, KEY])
def test_a_forked_child_draws_keys_of_its_own(fixed_key: bytes | None) -> None:
    stream = KeyStream(fixed_key=fixed_key)
    children = [in_a_fork(lambda: drawn(stream) + drawn(stream)) for _ in range(3)]
    grandchild = in_a_fork(lambda: in_a_fork(lambda: drawn(stream)))
    ours = [drawn(stream) for _ in range(3)]
    halves = [part for child in children for part in (child[:64], child[64:])]
    assert all(len(part) == 64 for part in halves)
    assert all_differ([*halves, grandchild, *ours])
    if fixed_key:
        assert ours[0] == drawn(KeyStream(fixed_key=KEY)), "the parent's keys stay as they were"


def test_a_fork_under_a_held_lock_does_not_hang() -> None:
    stream = KeyStream()
    with stream._lock:
        assert len(in_a_fork(lambda: drawn(stream))) == 64


def test_a_forked_process_draws_keys_of_its_own() -> None:
    encoder = Encoder(MASKED, table())
    # Compiled once, here, and not in every child.
    before = signs(encoder.encode(np.arange(16)).images)
    context = multiprocessing.get_context("fork")
    reader, writer = context.Pipe(duplex=False)

    def work() -> None:
        writer.send(signs(encoder.encode(np.arange(16)).images))

    processes = [context.Process(target=work) for _ in range(2)]
    for process in processes:
        process.start()
    found = [mask for _ in processes for mask in reader.recv()]
    for process in processes:
        process.join(SECONDS)
        assert process.exitcode == 0
    assert all_differ(found + before + signs(encoder.encode(np.arange(16)).images))


@pytest.mark.parametrize("start", ["fork", "spawn"])
def test_workers_of_a_data_loader_draw_keys_of_their_own(start: str) -> None:
    encoder = Encoder(MASKED, table())
    # Every item is image 0, so that equal masks would be equal signs.
    loader: DataLoader[int] = DataLoader(
        [0] * 16,  # type: ignore[arg-type]
        batch_size=4,
        num_workers=2,
        collate_fn=encoder.encode,  # type: ignore[arg-type]
        multiprocessing_context=start,
        timeout=SECONDS,
    )
    epochs = 2 if start == "fork" else 1
    found = [mask for _ in range(epochs) for batch in loader for mask in signs(batch[0])]
    found += signs(encoder.encode(np.zeros(16, np.int64)).images)
    assert len(found) == 16 * (epochs + 1)
    assert all_differ(found)


@pytest.mark.parametrize(
    "spread",
    [
        copy.copy,
        copy.deepcopy,
        lambda secret: copy.deepcopy([secret]),
        *(lambda secret, n=n: pickle.dumps(secret, n) for n in range(pickle.HIGHEST_PROTOCOL + 1)),
    ],
)
def test_nothing_secret_is_copied_or_pickled(spread: Callable[[object], object]) -> None:
    stream = KeyStream(fixed_key=KEY)
    encoder = Encoder(MASKED, table(), keys=stream)
    keys = encoder._draw(encoder._keys.next_block(), np.arange(4))
    for secret in (stream, stream.next_block(), keys):
        with pytest.raises(TypeError, match="cannot be copied or pickled"):
            spread(secret)


def forms(key: bytes) -> list[str]:
    """How key bytes look in text."""
    return [
        key.hex(), key.hex(" "), key.hex().upper(), base64.b64encode(key).decode(),
        repr(key)[2:-1], repr(list(key))[1:-1], str(int.from_bytes(key, "big")),
        str(int.from_bytes(key, "little")), key.decode("latin-1"),
    ]  # fmt: skip


def assert_hides(text: str, key: bytes) -> None:
    # Half of a key is already too much.
    for half in (key[: KEY_BYTES // 2], key[KEY_BYTES // 2 :]):
        assert not [form for form in forms(half) if form in text]


@pytest.mark.parametrize("key", [os.urandom(32), b"k" * 32], ids=["drawn", "printable"])
def test_nothing_secret_is_shown(key: bytes) -> None:
    stream = KeyStream("clinic", fixed_key=key)
    block = stream.next_block()
    encoder = Encoder(MASKED, table(), keys=stream)
    keys = encoder._draw(encoder._keys.next_block(), np.arange(4))
    block.words(Purpose.MASKS, 4)
    console = Console(file=io.StringIO(), width=500)
    for secret in (stream, block, keys, encoder):
        console.print(secret, [secret], {"x": secret})
        shown = f"{secret} {secret!r} {secret!s} {[secret]} {(secret,)!a} { ({'x': secret}) }"
        assert_hides(shown + repr(dir(secret)), key)
        assert_hides(shown, epoch_key(key, "clinic", 0))
    assert_hides(console.file.getvalue(), key)  # type: ignore[attr-defined]
    assert_hides(repr(vars(encoder)), key)
    assert "hidden" in repr(stream)
    assert "clinic" in repr(stream)
    assert "hidden" in repr(block)
    assert "hidden" in repr(keys)


def test_nothing_secret_can_be_listed() -> None:
    stream = KeyStream(fixed_key=KEY)
    for secret in (stream, stream.next_block()):
        with pytest.raises(TypeError):
            vars(secret)
        with pytest.raises(TypeError):
            dataclasses.asdict(secret)  # type: ignore[call-overload]


class Failing:
    """A data set that has its first ``good`` fetches only."""

    classes = ("a", "b")

    def __init__(self, good: int) -> None:
        self.left = good

    def __len__(self) -> int:
        return 8

    def __getitem__(self, index: int) -> tuple[NDArray[np.float32], int]:
        if self.left == 0:
            raise OSError("the disk is gone")
        self.left -= 1
        return np.random.default_rng(index).standard_normal((1, 4, 4)).astype(np.float32), index % 2


def test_a_traceback_with_locals_shows_no_key_bytes() -> None:
    key = os.urandom(32)
    stream = KeyStream("clinic", fixed_key=key)
    dataset = Failing(1_000)
    images = ImageDataset(dataset, workers=1)
    encoder = Encoder(Scheme.inside(4), images, keys=stream)
    coefficients = Encoder(Scheme.inside(4), images, keys=KeyStream("clinic", fixed_key=key))
    expected = coefficients._draw(coefficients._keys.next_block(), np.arange(8)).coefficients
    dataset.left = 0
    # Only the library's frames: this function's own locals hold the key.
    with pytest.raises(InstaHideError, match="the disk is gone") as caught:
        encoder.encode(np.arange(8))
    frames = caught.value.__traceback__.tb_next  # type: ignore[union-attr]
    shown = traceback.TracebackException(
        type(caught.value), caught.value, frames, capture_locals=True
    )
    text = "".join(shown.format())
    assert "encoder.py" in text
    assert "keys = " in text
    console = Console(file=io.StringIO(), width=500)
    console.print(
        Traceback.from_exception(type(caught.value), caught.value, frames, show_locals=True)
    )
    for report in (text, console.file.getvalue()):  # type: ignore[attr-defined]
        assert_hides(report, key)
        assert_hides(report, epoch_key(key, "clinic", 0))
        # One number may be another's by chance; a whole row is not.
        assert not [row for row in expected if all(str(value)[:7] in report for value in row)]
    assert "clinic" not in str(caught.value)

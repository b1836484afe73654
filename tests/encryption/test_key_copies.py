"""Two copies of one process draw other keys, however the copy was made."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from instahide import Encoder, ImageTable
from instahide.encryption import keys
from instahide.encryption.keys import KEY_BYTES, RENEWED, KeyStream, Purpose
from instahide.encryption.scheme import Scheme

FORKER = Path(__file__).parent / "raw_fork.py"


def drawn(stream: KeyStream) -> bytes:
    return stream.next_block().words(Purpose.MASKS, 8).tobytes()


def snapshot(stream: KeyStream) -> KeyStream:
    """A stream with the very state of another, as two resumed copies of a machine have it."""
    twin = object.__new__(KeyStream)
    for name in KeyStream.__slots__:
        if name not in ("__weakref__", "_lock"):
            setattr(twin, name, getattr(stream, name))
    twin._lock = threading.Lock()
    return twin


@pytest.mark.slow
@pytest.mark.parametrize("way", ["libc-fork", "clone"])
@pytest.mark.parametrize("entropy", ["fresh", "repeated"])
def test_a_fork_that_python_does_not_see_draws_other_keys(way: str, entropy: str) -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    said = subprocess.run(
        [sys.executable, FORKER, way, entropy],
        env=environment, capture_output=True, text=True, check=True,
    ).stdout.splitlines()  # fmt: skip
    parent, child = (line.split()[1:] for line in sorted(said))
    # In the epoch of the fork, in the next one, from a new stream, and from an encoder.
    assert len(parent) == len(child) == 10
    assert len({*parent, *child}) == 20


@pytest.mark.parametrize("before", [0, 1, RENEWED - 1, RENEWED])
def test_a_snapshot_resumed_twice_repeats_the_blocks_of_one_key_at_most(before: int) -> None:
    stream = KeyStream("clinic")
    for _ in range(before):
        drawn(stream)
    one, two = snapshot(stream), snapshot(stream)
    assert one._root == two._root
    rest = -before % RENEWED
    assert [drawn(one) for _ in range(rest)] == [drawn(two) for _ in range(rest)]
    found = []
    for _ in range(3):
        for twin in (one, two):
            found += [drawn(twin) for _ in range(2 * RENEWED)]
            twin.next_epoch()
    assert len(set(found)) == len(found)


def test_a_snapshot_in_the_middle_of_an_epoch_repeats_nothing_of_the_next() -> None:
    stream = KeyStream()
    drawn(stream)
    one, two = snapshot(stream), snapshot(stream)
    one.next_epoch()
    two.next_epoch()
    assert drawn(one) != drawn(two)


def test_a_snapshot_of_a_fixed_key_repeats_it() -> None:
    # So that the tests above show what the fresh bits do, and nothing else.
    stream = KeyStream(fixed_key=bytes(KEY_BYTES))
    one, two = snapshot(stream), snapshot(stream)
    for _ in range(2):
        assert [drawn(one) for _ in range(20)] == [drawn(two) for _ in range(20)]
        one.next_epoch()
        two.next_epoch()


def test_fresh_bits_of_the_operating_system_are_in_every_epoch(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[int] = []

    def counted(size: int) -> bytes:
        asked.append(size)
        return os.urandom(size)

    stream = KeyStream()
    monkeypatch.setattr(keys.secrets, "token_bytes", counted)
    seen = set()
    for epoch in range(1, 5):
        stream.next_epoch()
        assert len(asked) >= epoch
        assert set(asked) == {KEY_BYTES}
        drawn(stream)
        seen.add(stream._cipher_key)
    assert len(seen) == 4


def test_a_known_root_does_not_tell_the_keys() -> None:
    # A copy of the process knows the root, the participant and the epoch.
    stream = KeyStream("clinic")
    guess = KeyStream("clinic", fixed_key=stream._root)
    assert drawn(stream) != drawn(guess)


def test_encodings_of_two_copies_have_nothing_in_common() -> None:
    pixels = np.random.default_rng(3).integers(0, 256, (16, 3, 8, 8), np.uint8)
    images = ImageTable.from_arrays(pixels, np.arange(16) % 2)
    stream = KeyStream()
    # One mask on each image and nothing else: signs show the masks.
    scheme = Scheme(k=1, private_k=1, c1=1.0, c2=0.0)
    copies = [Encoder(scheme, images, keys=snapshot(stream)) for _ in range(2)]
    for encoder in copies:
        encoder.next_epoch()
    masks = [
        np.packbits(image.numpy() > 0).tobytes()
        for encoder in copies
        for image in encoder.encode(np.zeros(16, np.int64)).images
    ]
    assert len(set(masks)) == len(masks) == 32

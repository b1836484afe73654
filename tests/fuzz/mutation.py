"""Changes files as a stranger might: bytes, numbers, tokens, and parts of other files.

What is wrapped is unwrapped first, so that a change is not merely a wrong checksum: see `Seed`.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from random import Random

#: Numbers at the edges of what counts and lengths are stored in.
EDGES = (
    0, 1, 2, 7, 8, 15, 16, 127, 128, 255, 256, 32767, 32768, 65535, 65536, (1 << 24) - 1,
    (1 << 31) - 1, 1 << 31, (1 << 32) - 1, 1 << 32, (1 << 62) - 1, (1 << 63) - 1, (1 << 64) - 1,
)  # fmt: skip
#: A file is not made longer than this.
MOST_BYTES = 1 << 18
#: Characters that a text of a file may hold.
TEXTS = (
    b"\x1b[2J", b"\x00", b"\xff\xfe", "\u202e".encode(), b"NaN", b"1e999", b"-1", b"[]", b"{}",
    b"null", b"true", b'""', b"9" * 400, b"../../etc/passwd", b"[" * 2000, b"{" * 200, b"\n",
    b"0.1", b"-0", b"\\ud800", b"999999999999999999999",
)  # fmt: skip


@dataclass(frozen=True)
class Seed:
    """A file that a reader accepts, as its parts, and how they become the file again.

    Attributes:
        parts: bytes that are changed, such as the members of an archive.
        pack: makes the file of them, with checksums that are right.
        tokens: of the format, which are put anywhere.
        beside: other files that belong to it, by name, which stay as they are.
    """

    parts: tuple[bytes, ...]
    pack: Callable[[tuple[bytes, ...]], bytes] = b"".join
    tokens: tuple[bytes, ...] = ()
    beside: dict[str, bytes] = field(default_factory=dict)


def mutated(seeds: Sequence[Seed], random: Random) -> tuple[Seed, bytes]:
    """A seed, and its file after some changes; sometimes of the packed file itself."""
    seed = random.choice(seeds)
    parts = list(seed.parts)
    raw = random.random() < 0.15
    if raw:
        parts = [_packed(seed, tuple(parts))]
    for _ in range(1 if random.random() < 0.5 else random.randint(2, 8)):
        at = random.randrange(len(parts))
        parts[at] = _changed(parts[at], seeds, seed, random)[:MOST_BYTES]
    return seed, parts[0] if raw else _packed(seed, tuple(parts))


def _packed(seed: Seed, parts: tuple[bytes, ...]) -> bytes:
    try:
        return seed.pack(parts)
    except Exception:  # Parts that cannot be packed any more, such as texts that are not UTF-8.
        return b"".join(parts)


def _changed(data: bytes, seeds: Sequence[Seed], seed: Seed, random: Random) -> bytes:
    change = random.choice(_CHANGES)
    at = random.randint(0, len(data))
    return change(data, at, seeds, seed, random)


def _flip(data: bytes, at: int, seeds: Sequence[Seed], seed: Seed, random: Random) -> bytes:
    if not data:
        return data
    at %= len(data)
    return data[:at] + bytes([data[at] ^ 1 << random.randrange(8)]) + data[at + 1 :]


def _byte(data: bytes, at: int, seeds: Sequence[Seed], seed: Seed, random: Random) -> bytes:
    return data[:at] + bytes([random.randrange(256)]) + data[at + 1 :]


def _number(data: bytes, at: int, seeds: Sequence[Seed], seed: Seed, random: Random) -> bytes:
    order, (kind, size) = (
        random.choice("<>"),
        random.choice([("B", 1), ("H", 2), ("I", 4), ("Q", 8)]),
    )
    value = struct.pack(order + kind, random.choice(EDGES) % (1 << 8 * size))
    return data[:at] + value + data[at + size :]


def _digits(data: bytes, at: int, seeds: Sequence[Seed], seed: Seed, random: Random) -> bytes:
    """Another number in the place of one that is written in digits."""
    while at < len(data) and not 48 <= data[at] <= 57:
        at += 1
    end = at
    while end < len(data) and 48 <= data[end] <= 57:
        end += 1
    return data[:at] + str(random.choice(EDGES)).encode() + data[end:]


def _cut(data: bytes, at: int, seeds: Sequence[Seed], seed: Seed, random: Random) -> bytes:
    return data[:at]


def _drop(data: bytes, at: int, seeds: Sequence[Seed], seed: Seed, random: Random) -> bytes:
    return data[:at] + data[at + random.randint(1, 32) :]


def _repeat(data: bytes, at: int, seeds: Sequence[Seed], seed: Seed, random: Random) -> bytes:
    part = data[at : at + random.randint(1, 64)]
    return data[:at] + part * random.choice((2, 3, 64, 1024)) + data[at:]


def _splice(data: bytes, at: int, seeds: Sequence[Seed], seed: Seed, random: Random) -> bytes:
    other = random.choice(random.choice(seeds).parts)
    start = random.randint(0, len(other))
    return data[:at] + other[start : start + random.randint(1, 256)] + data[at:]


def _token(data: bytes, at: int, seeds: Sequence[Seed], seed: Seed, random: Random) -> bytes:
    token = random.choice(seed.tokens or TEXTS)
    end = at + (len(token) if random.random() < 0.5 else 0)
    return data[:at] + token + data[end:]


def _text(data: bytes, at: int, seeds: Sequence[Seed], seed: Seed, random: Random) -> bytes:
    return data[:at] + random.choice(TEXTS) + data[at + random.randint(0, 8) :]


_CHANGES = (
    _flip,
    _flip,
    _byte,
    _number,
    _number,
    _digits,
    _cut,
    _drop,
    _repeat,
    _splice,
    _token,
    _text,
)

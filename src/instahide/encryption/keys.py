"""SECRET: one-time keys, and the key stream from which they are drawn.

The construction:

- *root*: 256 bits from the operating system, one for each `KeyStream`. It is never stored, so
  every process, machine and resumed run has a root of its own.
- *key*: HKDF-Expand with SHA-256 (RFC 5869) of the root over participant, epoch, and 256 fresh bits
  from the operating system, the process ID and the time. A new key is derived in every epoch,
  every `RENEWED` blocks within an epoch, and when the process ID has changed. A stream with a fixed
  key, for tests and practice sets, uses no fresh bits, process ID or time.
- *bytes*: AES-256 in counter mode (NIST SP 800-38A) under that key. The 128-bit counter starts at
  ``purpose (8 bits) | block (56 bits) | 0 (64 bits)``, so the
  ranges of two draws that differ in purpose or block do not overlap.

A stream returns each block number once, and a forked child gets a new root before it can draw:
no two draws share bytes. `sampler` turns these bytes into draws from distributions.

Copies of the whole process
---------------------------
A root alone is not enough if the memory of a process is copied without its knowledge: by a
snapshot of a virtual machine that is resumed twice, a container checkpoint, or a fork that bypasses
Python and its hooks (``fork`` of the C library, ``clone``). Both copies have the same root and
block number, and would draw the same keys from then on.

- After a snapshot, the copies share keys until the next key is derived: for at most `RENEWED`
  blocks, and never beyond the epoch. Deriving keys per epoch only would not be enough, because one
  epoch may be a publication of millions of encodings.
- After a fork, they differ from the next block on, because the process IDs differ.
- Blocks that were returned before the copy and not used yet are the same in both.

Both measures together cost half a microsecond per block, whose keys take hundreds
(``python -m benchmarks.keys``). Fresh bits in every block would cost 3 microseconds.

If the root is unknown to the attacker, HKDF-Expand is a pseudorandom function of the rest, and any
difference in the rest gives an unrelated key. So process ID and time separate the copies
even if the kernel of a resumed machine repeats its own random bits (Linux before 5.18, or
a hypervisor that does not announce a resume by ``vmgenid``). If the root is known, as it is to the
other copy, the key is as hard to guess as the fresh bits.
"""

from __future__ import annotations

import os
import secrets
import threading
import time
import weakref
from dataclasses import dataclass
from enum import IntEnum
from typing import NoReturn

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, CipherContext, algorithms, modes
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand
from numpy.typing import NDArray

from instahide.errors import InstaHideError

KEY_BYTES = 32
#: Bits of a mask word; a kernel reads the mask bits of 32 adjacent values at once.
WORD_BITS = 32
#: Largest number of blocks under one key, which two copies of a machine may both use.
RENEWED = 16
#: Zeros to encrypt, which gives the key stream; few enough to stay in the first-level cache.
_ZEROS = memoryview(bytes(1 << 16))


class Purpose(IntEnum):
    """The purpose of a draw. It is part of the counter, so never renumber."""

    PARTNERS = 1
    COEFFICIENTS = 2
    MASKS = 3
    AUGMENTATION = 4
    ORDER = 5
    CROPS = 6
    NOISE = 7
    ENCODERS = 8


class KeyStream:
    """A stream of random key bytes for one participant, which cannot be repeated.

    It cannot be printed, pickled or copied: a copy would draw the same keys again.

    Args:
        participant: a name that separates participants who share a root, as the workers of one run
            may.
        fixed_key: 32 bytes to use as the root *in tests only*, and where keys are not secret: in
            `known_keys` and `seeded_keys`. Two streams with one fixed key and one participant draw
            the same keys, which breaks the encryption of real images.

    Raises:
        InstaHideError: the fixed key does not have 32 bytes.
    """

    __slots__ = (
        "__weakref__",
        "_block",
        "_cipher_key",
        "_epoch",
        "_fixed",
        "_lock",
        "_process",
        "_root",
        "participant",
    )

    def __init__(self, participant: str = "", *, fixed_key: bytes | None = None) -> None:
        if fixed_key is not None and len(fixed_key) != KEY_BYTES:
            raise InstaHideError(
                f"A fixed key has {KEY_BYTES} bytes, not {len(fixed_key)}.",
                "Leave it out, unless this is a test.",
            )
        self.participant = participant
        self._fixed = fixed_key is not None
        self._start(fixed_key or secrets.token_bytes(KEY_BYTES))
        _streams.add(self)

    def next_epoch(self) -> None:
        """Start the next epoch; block numbers restart under new keys."""
        with self._lock:
            self._enter(self._epoch + 1)

    def next_block(self) -> Block:
        """The next block of key bytes, which no other call on any stream returns."""
        with self._lock:
            self._block += 1
            if self._block % RENEWED == 0 or os.getpid() != self._process:
                self._renew()
            return Block(self._cipher_key, self._block)

    @property
    def fixed(self) -> bool:
        """Whether the root is a fixed key instead of a random one."""
        return self._fixed

    def require_copyable(self) -> None:
        """Check that an object with this stream may be copied; the copy starts a new stream.

        Raises:
            TypeError: the key is fixed, so a new stream would not replace it.
        """
        if self._fixed:
            raise TypeError(
                "An object with a fixed key cannot be copied: its keys would be drawn twice."
            )

    def __repr__(self) -> str:
        return f"KeyStream(participant={self.participant!r}, key hidden)"

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise TypeError("A key stream cannot be copied or pickled: its keys would be drawn twice.")

    def _start(self, root: bytes) -> None:
        self._root = root
        self._lock = threading.Lock()
        self._enter(0)

    def _enter(self, epoch: int) -> None:
        self._epoch, self._block = epoch, -1
        self._renew()

    def _renew(self) -> None:
        """Derive a new key for the next blocks; a fixed root gives the same one again."""
        self._process = os.getpid()
        name = self.participant.encode()
        info = b"instahide/1/" + len(name).to_bytes(8, "big") + name
        info += self._epoch.to_bytes(8, "big") + (b"" if self._fixed else _fresh())
        self._cipher_key = HKDFExpand(SHA256(), KEY_BYTES, info).derive(self._root)

    def _after_fork(self) -> None:
        """In a forked child: replace the parent's root, even a fixed one, and its locks."""
        self._fixed = False
        self._start(secrets.token_bytes(KEY_BYTES))


class Block:
    """The key bytes of one block of one-time keys: a separate sequence for every purpose.

    Bytes that were read are never returned again. A block cannot be printed, pickled or copied.
    """

    __slots__ = ("_key", "_number", "_readers")

    def __init__(self, key: bytes, number: int) -> None:
        self._key = key
        self._number = number
        self._readers: dict[Purpose, CipherContext] = {}

    def words(self, purpose: Purpose, count: int) -> NDArray[np.uint64]:
        """The next ``count`` uniform 64-bit words for ``purpose``."""
        words = np.empty(count, dtype="<u8")
        self._fill(self._reader(purpose), words.view(np.uint8).data)
        return words

    def _reader(self, purpose: Purpose) -> CipherContext:
        if purpose not in self._readers:
            start = purpose.to_bytes(1, "big") + self._number.to_bytes(7, "big") + bytes(8)
            cipher = Cipher(algorithms.AES256(self._key), modes.CTR(start))
            self._readers[purpose] = cipher.encryptor()
        return self._readers[purpose]

    @staticmethod
    def _fill(reader: CipherContext, target: memoryview) -> None:
        # In counter mode, the encryption of zeros is the key stream.
        for start in range(0, len(target), len(_ZEROS)):
            part = target[start : start + len(_ZEROS)]
            reader.update_into(_ZEROS[: len(part)], part)

    def __repr__(self) -> str:
        return "Block(hidden)"

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise TypeError("A block of key bytes cannot be copied or pickled.")


@dataclass(frozen=True, slots=True, repr=False, eq=False)
class OneTimeKeys:
    """The one-time keys of a block of n mixes.

    Attributes:
        partners: (n, k) int64. The first ``private_k`` columns are rows of the private images,
            beginning with the encrypted one; the others are rows of the public images.
        coefficients: (n, k) float32.
        masks: (n, C, ceil(H * W / 32)) uint32, or None; a set bit flips the sign of its value.
            Bit b of word w belongs to pixel 32 w + b of its channel.
        moves: (n, k, 3) int8, or None: shift down, shift right, and 1 if the image is mirrored.
    """

    partners: NDArray[np.int64]
    coefficients: NDArray[np.float32]
    masks: NDArray[np.uint32] | None
    moves: NDArray[np.int8] | None

    def __repr__(self) -> str:
        return f"OneTimeKeys({len(self.partners)} hidden)"

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise TypeError("One-time keys cannot be copied or pickled: they are used once.")


def _fresh() -> bytes:
    """Bytes that are fresh in this process and in every copy of it."""
    place = os.getpid().to_bytes(8, "big") + time.time_ns().to_bytes(8, "big")
    return secrets.token_bytes(KEY_BYTES) + place


_streams: weakref.WeakSet[KeyStream] = weakref.WeakSet()


def _new_roots() -> None:
    for stream in list(_streams):
        stream._after_fork()


os.register_at_fork(after_in_child=_new_roots)

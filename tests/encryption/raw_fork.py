"""A process that forks without Python's knowledge; parent and child print what they draw.

``python raw_fork.py libc-fork|clone fresh|repeated``: by the C library's ``fork``, or by the system
call ``clone``; with the operating system's random bits, or with bits that repeat in both copies, as
those of a machine that does not notice that it was resumed.
"""

from __future__ import annotations

import ctypes
import os
import platform
import secrets
import signal
import sys

import numpy as np

from instahide import Encoder, ImageTable, Scheme
from instahide.encryption.keys import KeyStream, Purpose

#: The number of ``clone`` among the system calls.
CLONE = {"x86_64": 56, "aarch64": 220}


def fork(way: str) -> int:
    """0 in the child. The interpreter's lock stays held, so that one thread goes on in each."""
    library = ctypes.PyDLL(None)
    if way == "libc-fork":
        return int(library.fork())
    return int(library.syscall(CLONE[platform.machine()], int(signal.SIGCHLD), 0, 0, 0, 0))


def drawn(stream: KeyStream) -> str:
    return stream.next_block().words(Purpose.MASKS, 8).tobytes().hex()


def masks(encoder: Encoder) -> str:
    images = encoder.encode(np.zeros(4, np.int64)).images.numpy()
    return np.packbits(images > 0).tobytes().hex()


def main(way: str, entropy: str) -> None:
    pixels = np.random.default_rng(3).integers(0, 256, (4, 3, 8, 8), np.uint8)
    images = ImageTable.from_arrays(pixels, np.arange(4) % 2)
    encoder = Encoder(Scheme(k=1, private_k=1, c1=1.0, c2=0.0), images)
    stream = KeyStream("clinic")
    # Compiled before, and no longer the first block.
    masks(encoder), drawn(stream)
    if entropy == "repeated":
        secrets.token_bytes = bytes  # type: ignore[assignment]
    child = fork(way)
    found = [drawn(stream) for _ in range(3)]
    stream.next_epoch()
    found += [drawn(stream) for _ in range(3)]
    found += [drawn(KeyStream("clinic")), masks(encoder)]
    encoder.next_epoch()
    found += [masks(encoder), masks(encoder)]
    if child:
        # One after the other, so that their lines do not mix.
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    print("parent" if child else "child", *found, flush=True)
    if not child:
        os._exit(0)


if __name__ == "__main__":
    main(*sys.argv[1:])

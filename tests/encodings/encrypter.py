"""`instahide` in processes that a test may kill, forked from one that has imported everything.

A line of input is a JSON list: bytes of a shard, how many images in turn are of one group (0 for
images without groups), then the arguments. The answer is a JSON list with
the process's number. After an empty line it is waited for, and the answer has its status as well;
until then nobody else can have its number.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import numpy as np

from instahide import Encoder, ImageTable, Scheme
from instahide.cli import encrypt, main
from instahide.encodings import publish

ROOT = Path(__file__).parents[2]


class Encrypter:
    """The tests' side."""

    def __init__(self, pipes: subprocess.Popen[str]) -> None:
        assert pipes.stdin is not None
        assert pipes.stdout is not None
        self._in: IO[str] = pipes.stdin
        self._out: IO[str] = pipes.stdout

    def start(self, *arguments: str, shard_bytes: int, group: int = 0) -> int:
        """The number of a process that has begun; it must end before the next one starts."""
        print(json.dumps([shard_bytes, group, *arguments]), file=self._in, flush=True)
        (number,) = json.loads(self._out.readline())
        return int(number)

    def status(self) -> int:
        """Wait for the end: the exit code, or the signal's number below 0."""
        print(file=self._in, flush=True)
        _, status = json.loads(self._out.readline())
        return int(status)


@contextmanager
def encrypter() -> Iterator[Encrypter]:
    """Start the process that imports everything; it ends with the block."""
    path = os.pathsep.join([str(ROOT / "src"), str(ROOT)])
    with subprocess.Popen(
        [sys.executable, "-m", "tests.encodings.encrypter"],
        env={**os.environ, "PYTHONPATH": path},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as process:
        yield Encrypter(process)


def grouped(images: ImageTable, group: int) -> ImageTable:
    """The images, ``group`` in turn of one group; as they are for 0."""
    return images.grouped([str(row // group) for row in range(len(images))]) if group else images


def fork(shard_bytes: int, group: int, *arguments: str) -> int:
    """The number of a process that runs `instahide` with ``arguments``."""
    child = os.fork()
    if child:
        return child
    signal.alarm(900)  # A test should fail rather than wait for ever.
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    publish.SHARD_BYTES = shard_bytes
    opened = encrypt.open_images
    vars(encrypt)["open_images"] = lambda *given, **how: grouped(opened(*given, **how), group)
    sys.argv = ["instahide", *arguments]
    code: object = 1
    try:
        main()
    except SystemExit as stopped:
        code = stopped.code
    finally:
        os._exit(code if isinstance(code, int) else int(code is not None))


def serve() -> None:
    """Fork on demand, after an encoding that loads the compiled kernels."""
    images = ImageTable.from_arrays(np.arange(64, dtype=np.uint8).reshape(4, 1, 4, 4), range(4))
    Encoder(Scheme.inside(2), images).encode(np.arange(4))
    while line := sys.stdin.readline():
        child = fork(*json.loads(line))
        print(json.dumps([child]), flush=True)
        sys.stdin.readline()
        _, status = os.waitpid(child, 0)
        print(json.dumps([child, os.waitstatus_to_exitcode(status)]), flush=True)


if __name__ == "__main__":
    # What the command imports when it runs.
    import instahide.encodings.cost
    import instahide.encodings.ledger.ledger
    import instahide.encodings.publish  # noqa: F401

    serve()

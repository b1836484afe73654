"""Long runs, which go on where they ended: ``python -m tests.fuzz.run FILE [SECONDS] [READER...]``.

Every line of FILE says how many inputs a reader has had, and what it did wrong. Inputs are numbered
and never repeated. A reader that ends its process is a finding as well.
"""

from __future__ import annotations

import json
import multiprocessing
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

from tests.fuzz.readers import READERS
from tests.fuzz.watching import Finding, fuzz

#: Inputs of a process: memory is measured by its peak, so that each has a fresh one.
BATCH = 2000
#: Seconds after which a process is taken to hang where no signal reaches it.
HUNG = 3600


def _batch(name: str, start: int, queue: multiprocessing.Queue) -> None:
    memory = Path("/dev/shm")  # noqa: S108  writing to a disk takes most of the time
    where = memory if memory.is_dir() else None
    with tempfile.TemporaryDirectory(prefix="fuzz-", dir=where) as folder:
        queue.put(fuzz(name, range(start, start + BATCH), Path(folder)))


def _done(results: Path) -> tuple[Counter[str], Counter[str]]:
    """By reader, the number of the next input, and the seconds that all before it took."""
    numbers: Counter[str] = Counter()
    seconds: Counter[str] = Counter()
    for line in results.read_text(encoding="utf-8").splitlines() if results.exists() else ():
        facts = json.loads(line)
        name = facts["reader"]
        numbers[name] = max(numbers[name], facts["start"] + facts["inputs"])
        seconds[name] += facts["seconds"]
    return numbers, seconds


def main(results: Path, seconds: float, names: list[str]) -> None:
    (done, spent), began = _done(results), time.monotonic()
    context = multiprocessing.get_context("fork")
    for name in names:
        READERS[name].seeds()  # Made once, for all processes.
    while time.monotonic() - began < seconds:
        # All readers get the same time, so that quick ones get more inputs.
        name = min(names, key=lambda each: spent[each])
        queue = context.SimpleQueue()
        process = context.Process(target=_batch, args=(name, done[name], queue))
        started = time.monotonic()
        process.start()
        process.join(HUNG)
        found = queue.get() if process.exitcode == 0 else []
        if process.exitcode != 0:
            process.kill()
            found = [Finding(name, done[name], f"the process ended with {process.exitcode}")]
        line: dict[str, Any] = {"reader": name, "start": done[name], "inputs": BATCH,
                "found": [(each.number, each.what, each.content.hex()) for each in found],
                "seconds": round(time.monotonic() - started, 1)}  # fmt: skip
        with results.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        done[name] += BATCH
        spent[name] += line["seconds"]


if __name__ == "__main__":
    arguments = sys.argv[1:]
    main(
        Path(arguments[0]),
        float(arguments[1]) if len(arguments) > 1 else 60.0,
        arguments[2:] or list(READERS),
    )

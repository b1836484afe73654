"""Attacks in a process of their own, which is given observations and nothing else.

What decides is not that an attack behaves, but that the truth was never in its process. An attack
that crashes, or does not end, takes nobody with it.
"""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import threading
import time
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Literal, NamedTuple, Self

from instahide.attacks.base import Budget, Finding, Observation, Progress, no_progress, refusal
from instahide.attacks.registry import attack_named

#: An attack may take this much longer than its budget, as a share and in seconds, before it is
#: ended: it can look at the clock only between its steps.
PATIENCE, GRACE = 0.5, 60.0
#: Characters of an error that are passed on, and seconds between two reports of progress.
_MOST_TEXT, _PAUSE = 300, 0.1


class Answer(NamedTuple):
    """What came of an attack.

    Attributes:
        state: "done"; "refused" where the attack says that it does not apply; "failed".
        found: of a "done" attack.
        reason: of the others.
        seconds: of wall time, in the attacker's process.
        out_of_time: whether its time ended before it did; what it had found by then is ``found``.
    """

    state: Literal["done", "refused", "failed"]
    found: Finding | None = None
    reason: str = ""
    seconds: float = 0.0
    out_of_time: bool = False


class IsolatedRunner:
    """A process that runs attacks, one after the other; a context manager, which ends it.

    Whatever ends the process makes one attack fail; the next one gets a new process.
    """

    def __init__(self) -> None:
        self._process: BaseProcess | None = None
        self._connection: Connection | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._end()

    def run(
        self,
        attack: str,
        observation: Observation,
        seconds: float,
        progress: Progress = no_progress,
    ) -> Answer:
        """Run the attack of this name on ``observation``, for about so many ``seconds``.

        What an attack raises, or dies of, is an `Answer` too.
        """
        # As plain bytes: shared memory may be small where a container runs.
        request = pickle.dumps((attack, observation, seconds))
        connection = self._started()
        began = time.monotonic()
        deadline = began + seconds * (1 + PATIENCE) + GRACE
        try:
            connection.send_bytes(request)
            while connection.poll(max(0.0, deadline - time.monotonic())):
                said = pickle.loads(connection.recv_bytes())  # noqa: S301  from our own child
                if isinstance(said, Answer):
                    return said
                progress(*said)
        except (EOFError, ConnectionError):
            return _lost(f"Its process ended ({self._end()}).", began)
        except BaseException:
            self._end()
            raise
        self._end()
        late = _lost("It did not end in its time, and was stopped.", began)
        return late._replace(out_of_time=True)

    def _started(self) -> Connection:
        if self._connection is None:
            # Spawned, not forked: a fork would hold all that this process holds.
            context = multiprocessing.get_context("spawn")
            ours, theirs = context.Pipe()
            self._process = context.Process(target=_serve, args=(theirs,), daemon=True)
            self._process.start()
            theirs.close()
            self._connection = ours
        return self._connection

    def _end(self) -> str:
        """End the process; says how it had ended by itself."""
        process, connection = self._process, self._connection
        self._process = self._connection = None
        if process is None or connection is None:
            return "not started"
        connection.close()
        process.join(timeout=1.0)
        code = process.exitcode
        process.kill()
        process.join()
        return f"exit code {code}"


def _lost(reason: str, began: float) -> Answer:
    return Answer("failed", reason=reason, seconds=time.monotonic() - began)


def _serve(connection: Connection) -> None:
    """The attacker's process: answers requests until nobody is there to ask."""
    # Ctrl-C is the parent's affair, which then ends this process.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    while True:
        try:
            name, observation, seconds = pickle.loads(connection.recv_bytes())  # noqa: S301
        except EOFError:
            return
        connection.send_bytes(pickle.dumps(_answer(connection, name, observation, seconds)))


def _answer(connection: Connection, name: str, observation: Observation, seconds: float) -> Answer:
    began = time.monotonic()
    try:
        attack = attack_named(name)
        reason = refusal(attack, observation)
        if reason is not None:
            return Answer("refused", reason=_short(reason))
        budget = Budget(seconds)
        found = attack.run(observation, budget, _Reporter(connection))
        late = budget.left == 0
        return Answer("done", found, seconds=time.monotonic() - began, out_of_time=late)
    except Exception as error:  # whatever somebody's attack raises
        reason = _short(f"{type(error).__name__}: {error}")
        return Answer("failed", reason=reason, seconds=time.monotonic() - began)


class _Reporter:
    """Passes progress on, not too often."""

    def __init__(self, connection: Connection) -> None:
        self._connection, self._last = connection, 0.0

    def __call__(self, what: str, share: float) -> None:
        now = time.monotonic()
        if now - self._last >= _PAUSE:
            self._last = now
            self._connection.send_bytes(pickle.dumps((_short(str(what)), float(share))))


def _short(text: str) -> str:
    """For a terminal and a page: one line without control characters."""
    return "".join(filter(str.isprintable, " ".join(text.split())))[:_MOST_TEXT]


def _end_with_parent() -> None:
    """A parent that was killed cannot end its child."""
    if (parent := multiprocessing.parent_process()) is not None:
        parent.join()
    os._exit(1)

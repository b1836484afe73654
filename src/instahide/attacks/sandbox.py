"""Runs attacks in a separate process, which receives only observations.

The ground truth is never in that process, whatever an attack does there. An attack that crashes or
hangs does not affect the audit.
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

from instahide.attacks.base import Finding, Observation, Progress, no_progress
from instahide.attacks.budget import Budget
from instahide.attacks.refusal import refusal
from instahide.attacks.registry import attack_named

#: Grace time beyond the budget, as a share and in seconds, before an attack is stopped: attacks
#: check the clock only between steps.
PATIENCE, GRACE = 0.5, 60.0
#: Largest length of a reported error, and seconds between two progress reports.
_MOST_TEXT, _PAUSE = 300, 0.1


class Answer(NamedTuple):
    """The outcome of an attack.

    Attributes:
        state: "done"; "refused" if the attack does not apply; or "failed".
        found: finding of an attack that is done.
        reason: reason of the other states.
        seconds: wall time in the attacker's process.
        out_of_time: whether the budget ended first, or cut a part of the attack short; ``found`` is
            then what it had found so far.
    """

    state: Literal["done", "refused", "failed"]
    found: Finding | None = None
    reason: str = ""
    seconds: float = 0.0
    out_of_time: bool = False


class IsolatedRunner:
    """A context manager with a process that runs attacks one after another.

    If the process dies, the current attack fails, and the next one gets a new process.
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
        """Run the attack ``name`` on ``observation`` for about ``seconds``.

        Exceptions and crashes of the attack are reported in the `Answer`.
        """
        began = time.monotonic()
        try:
            # As plain bytes, because shared memory may be small in a container.
            request = pickle.dumps((attack, observation, seconds))
        except Exception as error:  # of a network that is defined within a function, say
            reason = f"What it attacks cannot be sent to its process ({type(error).__name__})."
            return _lost(reason, began)
        connection = self._started()
        began = time.monotonic()
        deadline = began + seconds * (1 + PATIENCE) + GRACE
        try:
            connection.send_bytes(request)
            while connection.poll(max(0.0, deadline - time.monotonic())):
                message = pickle.loads(connection.recv_bytes())  # noqa: S301  from our own child
                if isinstance(message, Answer):
                    return message
                progress(*message)
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
            # Spawned, because a fork would have a copy of this process's memory.
            context = multiprocessing.get_context("spawn")
            ours, theirs = context.Pipe()
            self._process = context.Process(target=_serve, args=(theirs,), daemon=True)
            self._process.start()
            theirs.close()
            self._connection = ours
        return self._connection

    def _end(self) -> str:
        """End the process; returns how it had ended by itself, if so."""
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
    """The attacker's process: serves requests until the connection closes."""
    # The parent handles Ctrl-C and then ends this process.
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
        late = budget.cut_short or budget.left == 0
        return Answer("done", found, seconds=time.monotonic() - began, out_of_time=late)
    except Exception as error:  # from third-party code
        reason = _short(f"{type(error).__name__}: {error}")
        return Answer("failed", reason=reason, seconds=time.monotonic() - began)


class _Reporter:
    """Reports progress at a limited rate."""

    def __init__(self, connection: Connection) -> None:
        self._connection, self._last = connection, 0.0

    def __call__(self, what: str, share: float) -> None:
        now = time.monotonic()
        if now - self._last >= _PAUSE:
            self._last = now
            self._connection.send_bytes(pickle.dumps((_short(str(what)), float(share))))


def _short(text: str) -> str:
    """``text`` in one line without control characters, for terminals and pages."""
    return "".join(filter(str.isprintable, " ".join(text.split())))[:_MOST_TEXT]


def _end_with_parent() -> None:
    """Let the kernel end this process with its parent, even if that is killed."""
    if (parent := multiprocessing.parent_process()) is not None:
        parent.join()
    os._exit(1)

"""What happened in a federation, round by round: who answered what, who did not, and how it went.

It becomes ``results.json``, written anew after every round.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Strategy

from instahide.integrations.flower.server.checked_strategy import CheckedStrategy
from instahide.integrations.flower.server.reply_checks import CheckedReply
from instahide.utils.atomic_write import write_json

#: Why a node that did not answer is missing.
NO_ANSWER = "No answer in time."
NOTHING_USED = "No client's answer could be used, so the network stays as it was."
_log = logging.getLogger(__name__)


class RoundLog:
    """The rounds so far, ready for JSON; nothing in it is secret.

    Args:
        facts: what goes before the rounds in the file.
        path: of the file; None keeps it in memory.
    """

    def __init__(self, facts: dict[str, Any], path: Path | None) -> None:
        self._facts = facts
        self._path = path
        self._asked: set[int] = set()
        self._began = time.monotonic()
        self.rounds: list[dict[str, Any]] = []

    def begin(self, number: int, asked: Iterable[int]) -> None:
        """Round ``number`` begins; the nodes ``asked`` are sent the network."""
        self._asked, self._began = set(asked), time.monotonic()
        self.rounds.append({"round": number, "clients": [], "failures": []})

    def heard(self, answers: CheckedReply) -> None:
        """What the nodes answered, and whose answer could not be used."""
        page = self.rounds[-1]
        page["seconds"] = time.monotonic() - self._began
        page["clients"] = [{"node": str(n), **numbers} for n, numbers in answers.numbers.items()]
        silent = self._asked - set(answers.numbers) - set(answers.dropped)
        missing = answers.dropped | dict.fromkeys(silent, NO_ANSWER)
        page["failures"] += [{"node": str(n), "reason": why} for n, why in missing.items()]
        if not answers.kept:
            page["failed"] = NOTHING_USED
            _log.error("Round %d: %s", page["round"], NOTHING_USED)

    def tested(self, answers: CheckedReply) -> None:
        """Whose own test could not be used."""
        self.rounds[-1]["failures"] += [
            {"node": str(node), "reason": why} for node, why in answers.dropped.items()
        ]

    def summed(self, metrics: MetricRecord | None) -> None:
        """The numbers of all clients as one, of the answers or of their tests."""
        self.rounds[-1].update(metrics or {})

    def end(self, accuracy: float | None) -> None:
        """The round is over; ``accuracy`` on the server's test images, if it has any."""
        if accuracy is not None:
            self.rounds[-1]["accuracy"] = accuracy
        self.write({})

    def refusals(self) -> dict[str, str]:
        """The last reason that each node gave for taking no part, by node."""
        return {
            failure["node"]: failure["reason"]
            for page in self.rounds
            for failure in page["failures"]
        }

    def write(self, end: dict[str, Any]) -> None:
        """Put it into its file, whole or not at all, with what is known at the ``end``.

        Raises:
            InstaHideError: the file cannot be written.
        """
        if self._path is not None:
            refused = {"refusals": self.refusals()}
            write_json(self._path, {**self._facts, "rounds": self.rounds, **refused, **end})


class LoggedStrategy(Strategy):
    """Another strategy, as it is, with a diary of what it asks and hears."""

    def __init__(self, strategy: CheckedStrategy, diary: RoundLog) -> None:
        self._strategy = strategy
        self._diary = diary

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """As the strategy does it."""
        messages = list(self._strategy.configure_train(server_round, arrays, config, grid))
        self._diary.begin(server_round, [message.metadata.dst_node_id for message in messages])
        return messages

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """As the strategy does it."""
        arrays, metrics = self._strategy.aggregate_train(server_round, replies)
        self._diary.heard(self._strategy.last)
        self._diary.summed(metrics)
        return arrays, metrics

    def configure_evaluate(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """As the strategy does it."""
        return self._strategy.configure_evaluate(server_round, arrays, config, grid)

    def aggregate_evaluate(
        self, server_round: int, replies: Iterable[Message]
    ) -> MetricRecord | None:
        """As the strategy does it."""
        metrics = self._strategy.aggregate_evaluate(server_round, replies)
        self._diary.tested(self._strategy.last)
        if metrics is not None:
            self._diary.summed(MetricRecord({"client-accuracy": metrics["accuracy"]}))
        return metrics

    def summary(self) -> None:
        """As the strategy does it."""
        self._strategy.summary()

"""The server's checks of answers: an invalid answer is dropped and logged, the rest is used.

Within these bounds a client can still spoil what is learned (docs/federated.md): strategies such
as FedMedian and Krum are made to be robust against some such clients.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, field
from statistics import median, median_low
from typing import Any

import numpy as np
import torch
from flwr.app import ArrayRecord, Message, MetricRecord
from numpy.typing import NDArray
from torch import Tensor

from instahide.integrations.flower import arrays
from instahide.integrations.flower.errors import RefusalError
from instahide.integrations.flower.untrusted_values import (
    MOST_REASON,
    in_range,
    printable,
    whole_number,
)

#: Most images of a participant; an answer with more is dropped.
MOST_EXAMPLES = 10**9
#: Largest weight of a client, as a multiple of the median number of images of a client.
MOST_WEIGHT = 10
#: Norm of a change of the network, at most, over the norm of the network itself. Honest rounds of 1
#: and 5 epochs on 60 to 1,438 digits were measured: 0.03 to 0.6.
MOST_CHANGE = 10.0
#: The same over the median change of a round, where three or more clients answer: less than half
#: of them cannot move a median far. Clients differ by their number of steps: in the same rounds,
#: 24 times as many images moved a network 1.7 to 5.8 times as far.
MOST_OVER_MEDIAN = 10.0
#: Keeps the median above 0, since an honest change may have norm 0.
_SMALL = 1e-12
_MOST_LOSS = 1e9
#: Bounds of the metrics of clients, by name.
BOUNDS: Mapping[str, tuple[float, float]] = {
    "loss": (0, _MOST_LOSS),
    "accuracy": (0, 1),
    "macro-auroc": (0, 1),
    "epsilon": (0, 1e300),
    "exposure-least": (0, 2**62),
    "exposure-mean": (0, 2**62),
    "exposure-most": (0, 2**62),
}
#: Metrics of an answer to train: on encodings, and by DP-SGD.
EXPOSURES = frozenset({"loss", "exposure-least", "exposure-mean", "exposure-most"})
SPENT = frozenset({"epsilon"})


@dataclass
class CheckedReply:
    """The answers of a round.

    Attributes:
        kept: the valid answers.
        numbers: metrics of each kept answer as it was sent, by node id.
        dropped: why an answer is not used, by node id; the participant's reason if it refused.
    """

    kept: list[Message] = field(default_factory=list)
    numbers: dict[int, dict[str, Any]] = field(default_factory=dict)
    dropped: dict[int, str] = field(default_factory=dict)


class ReplyChecks:
    """Checks all answers of a run, and stores the first declared number of images of each node.

    Args:
        state: names, shapes and types of the network's arrays.
        metrics: that come with every answer to train, besides the number of images.
        measured: metrics that come with every answer to evaluate, likewise.
        gradients: names of arrays that are gradients, and not weights; none for most strategies.
    """

    def __init__(
        self,
        state: Mapping[str, Tensor],
        metrics: frozenset[str],
        measured: frozenset[str],
        gradients: Iterable[str] = (),
    ) -> None:
        self._like = {
            name: torch.empty(value.shape, dtype=value.dtype) for name, value in state.items()
        }
        self._metrics = metrics
        self._measured = measured
        self._gradients = frozenset(gradients)
        self._network = {name: value.detach().cpu().numpy() for name, value in state.items()}
        self._declared: dict[int, int] = {}

    def begin(self, network: ArrayRecord) -> None:
        """Store the ``network`` that is sent to the clients of a round."""
        self._network = arrays.read(network, self._like, exact=False)

    def is_network(self, found: ArrayRecord) -> bool:
        """Whether ``found`` holds the network's arrays, and finite values only."""
        try:
            arrays.read(found, self._like, exact=False)
        except arrays.ArraysError:
            return False
        return True

    def trained(self, replies: Iterable[Message]) -> CheckedReply:
        """Check answers to train; numbers of images in those that are kept are bounded."""
        checked = CheckedReply()
        norms: dict[int, float] = {}
        for reply in self._once(replies, checked):
            node = reply.metadata.src_node_id
            try:
                numbers = _numbers(reply, {"arrays", "metrics"}, self._metrics)
                norms[node] = self._norm(reply)
            except RefusalError as error:
                checked.dropped[node] = error.problem
                continue
            checked.kept.append(reply)
            checked.numbers[node] = numbers
        self._drop_large(checked, norms)
        self._bound_weights(checked)
        return checked

    def tested(self, replies: Iterable[Message]) -> CheckedReply:
        """Check answers to evaluate, likewise."""
        checked = CheckedReply()
        for reply in self._once(replies, checked):
            node = reply.metadata.src_node_id
            try:
                checked.numbers[node] = _numbers(reply, {"metrics"}, self._measured)
                checked.kept.append(reply)
            except RefusalError as error:
                checked.dropped[node] = error.problem
        bound_examples([reply.content["metrics"] for reply in checked.kept])
        return checked

    def _once(self, replies: Iterable[Message], checked: CheckedReply) -> Iterable[Message]:
        """The first answer of each participant that has content; the others are noted."""
        seen: set[int] = set()
        for reply in replies:
            node = reply.metadata.src_node_id
            if node in seen:
                # The first answer stands; a participant cannot take it back, or vote twice.
                continue
            if reply.has_error():
                checked.dropped[node] = reason(reply)
            elif not reply.has_content():
                checked.dropped[node] = "The answer is empty."
            else:
                yield reply
            seen.add(node)

    def _norm(self, reply: Message) -> float:
        """How far the arrays of ``reply`` would move the network; checked to be its own."""
        found = arrays.read(reply.content["arrays"], self._like, exact=True)
        total = 0.0
        for name, values in found.items():
            if values.dtype.kind == "f":
                start = 0.0 if name in self._gradients else self._network[name].astype(np.float64)
                total += float(np.square(values.astype(np.float64) - start).sum())
        norm = math.sqrt(total)
        most = MOST_CHANGE * max(1.0, _norm_of(self._network))
        if not norm <= most:
            raise bad_reply(
                f"The answer would change the network by {norm:.3g}, more than {most:.3g}."
            )
        return norm

    def _drop_large(self, checked: CheckedReply, norms: Mapping[int, float]) -> None:
        if len(norms) < 3:
            return
        most = MOST_OVER_MEDIAN * max(_SMALL, median(norms.values()))
        for node, norm in norms.items():
            if norm > most:
                checked.dropped[node] = (
                    f"The answer would change the network by {norm:.3g}, more than "
                    f"{MOST_OVER_MEDIAN:g} times the median of this round."
                )
                del checked.numbers[node]
        checked.kept = [
            reply for reply in checked.kept if reply.metadata.src_node_id in checked.numbers
        ]

    def _bound_weights(self, checked: CheckedReply) -> None:
        first = [
            self._declared.setdefault(node, checked.numbers[node]["num-examples"])
            for node in (reply.metadata.src_node_id for reply in checked.kept)
        ]
        bound_examples([reply.content["metrics"] for reply in checked.kept], first)


def bound_examples(records: Sequence[Any], first: Sequence[int] | None = None) -> None:
    """Bound ``num-examples`` in ``records``: `MOST_WEIGHT` times the (lower) median, at most.

    Args:
        records: metrics, checked; changed in place.
        first: the first declared numbers of the same participants, as further upper bounds.
    """
    counts = [record["num-examples"] for record in records]
    if first is not None:
        counts = [min(pair) for pair in zip(counts, first, strict=True)]
    if counts:
        most = MOST_WEIGHT * median_low(counts)
        for record, count in zip(records, counts, strict=True):
            record["num-examples"] = min(count, most)


def reason(reply: Message) -> str:
    """The reason of a participant's refusal, safe to print."""
    text = printable(reply.error.reason or "", MOST_REASON) if reply.has_error() else ""
    return text or "The participant gives no reason."


def metrics_of(reply: Message, records: Set[str], wanted: Set[str]) -> MetricRecord:
    """The metrics of ``reply``, if it has exactly ``records``, and metrics of exactly these names.

    Raises:
        RefusalError: it has others, or the number of images is out of bounds.
    """
    if set(reply.content) != records:
        raise bad_reply(
            f"The answer has the records {_names(reply.content)}, not {_names(records)}."
        )
    metrics = reply.content["metrics"]
    if not isinstance(metrics, MetricRecord):
        raise bad_reply("The reply's `metrics` is not a metric record.")
    names = wanted | {"num-examples"}
    if set(metrics) != names:
        raise bad_reply(f"The answer has the metrics {_names(metrics)}, not {_names(names)}.")
    if not whole_number(metrics["num-examples"], 1, MOST_EXAMPLES):
        raise bad_reply(
            f"The answer's `num-examples` is not a whole number from 1 to {MOST_EXAMPLES:,}."
        )
    return metrics


def _numbers(reply: Message, records: Set[str], wanted: Set[str]) -> dict[str, Any]:
    """The metrics of ``reply``, all of them within bounds."""
    metrics = metrics_of(reply, records, wanted)
    for name in wanted:
        least, most = BOUNDS[name]
        if not in_range(metrics[name], least, most):
            raise bad_reply(f"The answer's `{name}` is not from {least:g} to {most:g}.")
    return dict(metrics)


def _names(names: Iterable[str]) -> str:
    return printable(", ".join(sorted(map(str, names))) or "none", 200)


def _norm_of(network: Mapping[str, NDArray[np.generic]]) -> float:
    squares = (
        float(np.square(values, dtype=np.float64).sum())
        for values in network.values()
        if values.dtype.kind == "f"
    )
    return math.sqrt(sum(squares))


def bad_reply(problem: str) -> RefusalError:
    """An error about an invalid answer."""
    return RefusalError(problem, "The answer is not used.")

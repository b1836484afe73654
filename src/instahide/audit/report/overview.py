"""The overview table of a report: a row for each attack."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from instahide.audit.report.schema import AttackResult
from instahide.audit.report.summary import duration, finding
from instahide.audit.report.thresholds import recovered_share
from instahide.audit.schedule import FEDERATIONS, SENT, On

#: What was attacked, in words.
TARGETS: dict[On, str] = {
    "rehearsal": "rehearsal",
    "published": "the encodings themselves",
    "update": "an update to a federation",
    "plain update": "the same without encryption, for comparison",
    "fedsgd": "all gradients that a participant of a federation sends (FedSGD)",
    "fedavg": "all changes of the weights that a participant of a federation sends (FedAvg)",
}


class Column(NamedTuple):
    """A column with its ``title``; ``cell`` returns the text for one attack, or nothing."""

    title: str
    cell: Callable[[AttackResult], str]


def _threat(result: AttackResult) -> str:
    if result.on in (*SENT, *FEDERATIONS):
        return ", ".join(result.grants)
    count = result.encodings_per_image
    encodings = f"{count:,} encoding{'s' if count > 1 else ''} of each image"
    return ", ".join([encodings, *result.grants])


def _recovered(result: AttackResult) -> str:
    if result.state == "failed":
        return "out of time" if result.out_of_time else "failed"
    if recovered_share(result) is None:
        return finding(result)
    found, sought = (
        int(result.figures[f"images_{name}"] or 0) for name in ("recognizable", "sought")
    )
    signs = ", as absolute values" if result.absolute else ""
    return f"{found:,} of {sought:,}{signs}"


def _ssim(result: AttackResult) -> str:
    return _two_digits(result.figures.get("ssim_mean"))


def _blank(result: AttackResult) -> str:
    return _two_digits(result.figures.get("ssim_of_blank"))


def _time(result: AttackResult) -> str:
    return duration(result.seconds)


def _two_digits(value: float | None) -> str:
    return "" if value is None else f"{value:z.2f}"


#: The columns after the name of the attack. A further one needs a title and a function.
COLUMNS = (
    Column("attacked", lambda result: TARGETS[result.on]),
    Column("what the attacker had", _threat),
    Column("recovered", _recovered),
    Column("mean SSIM", _ssim),
    Column("SSIM of a blank picture", _blank),
    Column("time", _time),
)

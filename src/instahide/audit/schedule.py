"""Which attacks an audit runs, in which order, on what, and how long each may take."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Literal, NamedTuple

from instahide.errors import InstaHideError

#: What is attacked: encodings made anew, whose truth is known; the ones that went out; what one
#: more would tell a federation's server, if it were trained on there; what its image would tell.
On = Literal["rehearsal", "published", "update", "plain update"]
#: What a participant of a federation sends, and would send.
SENT: tuple[On, ...] = ("update", "plain update")
#: What is said of an attack besides its name.
WHERE: dict[On, str] = {
    "rehearsal": "",
    "published": " on the encodings themselves",
    "update": "",
    "plain update": " without encryption",
}

#: Numbers of encodings of an image that curves are drawn at, up to what an image went out in.
STEPS = (2, 5, 10, 20, 50, 100)
#: Attacks that gain with the number of encodings.
CURVES = ("averaging", "averaging-absolute", "reconstruction")
#: Attacks that can be scored by the user's images alone, whose encodings' truth is unknown.
PUBLISHED = ("reconstruction",)
#: Published attacks to compare with, which run only when they are named: they would take time from
#: the others, and recover less from photographs (docs/attacks/reconstruction.md).
BASELINES = ("carlini", "fusion-denoising")
#: Attacks on what a participant of a federation sends.
UPDATES = ("dlg", "inverting-gradients", "inverting-statistics")


class Cost(NamedTuple):
    """How dear an attack is, beside the others.

    Attributes:
        weight: its part of the time that is left when it begins.
        most: seconds that more than these would be lost on.
    """

    weight: float
    most: float = float("inf")


#: Our attacks, in the order of their cost; those of others come before the searches that never end.
COSTS = {
    "labels": Cost(1),
    "averaging": Cost(1),
    "averaging-absolute": Cost(1),
    "statistics": Cost(1),
    "mersenne-twister": Cost(1),
    "public-search": Cost(2),
    "public-search-absolute": Cost(2),
    "reconstruction": Cost(6),
    "carlini": Cost(4),
    "fusion-denoising": Cost(6),
    "membership-loss": Cost(1),
    "membership": Cost(5),
    "demixing": Cost(4),
    "dlg": Cost(1, most=60),
    "inverting-gradients": Cost(1, most=60),
    "inverting-statistics": Cost(1, most=60),
}
#: Attacks of others.
_OTHERS = Cost(2)
#: Those that would take all the time there is, and say at what rate they went.
ENDLESS = {"seed-search": Cost(1, most=30)}
#: A point of a curve, whose attack has been run before.
_POINT = Cost(1, most=60)


@dataclass(frozen=True)
class Task:
    """One attack on one observation.

    Attributes:
        attack: its name.
        copies: encodings of an image that it sees.
        on: what is attacked.
        point: whether it is there for the curve alone.
    """

    attack: str
    copies: int
    on: On = "rehearsal"
    point: bool = False

    @property
    def cost(self) -> Cost:
        """What it may take."""
        if self.point:
            return _POINT
        return COSTS.get(self.attack) or ENDLESS.get(self.attack, _OTHERS)

    @property
    def file(self) -> str:
        """A name for its files, whatever the attack is called."""
        name = f"{self.attack}-{self.on}-{self.copies}"
        plain = re.sub(r"[^a-z0-9-]", "_", name.lower())[:60]
        return f"{plain}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"


def tasks(
    names: Iterable[str], copies: int, published: int | None = None, *, encrypted: bool = True
) -> list[Task]:
    """Everything that is to be tried, in order.

    Args:
        names: of the attacks.
        copies: encodings of an image in a rehearsal.
        published: encodings of an image that went out, where they are at hand.
        encrypted: whether plain images would be something else, to compare with.
    """
    order = [*COSTS, *sorted(set(names) - set(COSTS) - set(ENDLESS)), *ENDLESS]
    wanted = [name for name in order if name in set(names)]
    found = []
    for name in wanted:
        if name in UPDATES:
            found += [Task(name, 1, on) for on in SENT if encrypted or on == "update"]
        else:
            found.append(Task(name, copies))
        if published is not None and name in PUBLISHED:
            found.append(Task(name, published, on="published"))
    # All points of few encodings before any of many: time may end between them.
    points = [step for step in STEPS if step < copies]
    return found + [
        Task(name, step, point=True) for step in points for name in CURVES if name in wanted
    ]


def seconds_for(task: Task, later: Collection[Task], left: float) -> float:
    """The part of the seconds that are ``left`` which ``task`` may take, ``later`` ones waiting."""
    weights = task.cost.weight + sum(other.cost.weight for other in later)
    return min(task.cost.most, left * task.cost.weight / weights)


def select_attacks(names: Collection[str], only: Collection[str]) -> list[str]:
    """Those of ``names`` that are asked for; by default all but the `BASELINES`.

    Raises:
        InstaHideError: one that there is not.
    """
    strange = sorted(set(only) - set(names))
    if strange:
        raise InstaHideError(
            f"There is no attack {strange[0]!r}.", f"Choose from {', '.join(sorted(names))}."
        )
    return sorted(set(only) or set(names) - set(BASELINES))


def parse_duration(text: str) -> float:
    """Seconds of a time as people write it: ``90``, ``90s``, ``10m``, ``1.5h``.

    Raises:
        InstaHideError: something else, or no time at all.
    """
    match = re.fullmatch(r"\s*(\d{1,9}(?:\.\d+)?)\s*([smh]?)\s*", text)
    seconds = float(match[1]) * {"": 1, "s": 1, "m": 60, "h": 3600}[match[2]] if match else 0.0
    if seconds <= 0:
        raise InstaHideError(
            f"{text!r} is not a time to spend.", "Use `budget='10m'`, 90s or 1.5h, say."
        )
    return seconds

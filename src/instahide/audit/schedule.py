"""The schedule of an audit: which attacks run, in which order, on what, and for how long."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Literal, NamedTuple

from instahide.errors import InstaHideError

#: What is attacked: new encodings with known keys; the published encodings; the gradient of one new
#: encoding, as a federation's server receives it; the gradient of its plain image; all gradients of
#: a participant (FedSGD), or all changes of the weights that it sends (FedAvg).
On = Literal["rehearsal", "published", "update", "plain update", "fedsgd", "fedavg"]
#: Updates that a participant of a federation sends, or would send without encryption.
SENT: tuple[On, ...] = ("update", "plain update")
#: All updates of a participant, over as many epochs as there are encodings of an image.
FEDERATIONS: tuple[On, ...] = ("fedsgd", "fedavg")
#: Text after the name of an attack.
WHERE: dict[On, str] = {
    "rehearsal": "",
    "published": " on the encodings themselves",
    "update": "",
    "plain update": " without encryption",
    "fedsgd": " on gradients (FedSGD)",
    "fedavg": " on changes of the weights (FedAvg)",
}

#: Numbers of encodings per image at which curves are drawn, up to the number published.
STEPS = (2, 5, 10, 20, 50, 100)
#: Largest number of epochs that a participant trains in an audit.
MOST_EPOCHS = 50
#: Attacks that improve with the number of encodings.
CURVES = ("averaging", "averaging-absolute", "reconstruction")
#: Attacks that can be scored by the user's images without the keys of the encodings.
PUBLISHED = ("reconstruction",)
#: Attacks whose ceiling is computed even if they could not be started.
CEILINGS = ("reconstruction",)
#: Published attacks for comparison, which run only if selected by name: they would take time from
#: the others and recover less from photographs (docs/attacks/reconstruction.md).
BASELINES = ("carlini", "fusion-denoising")
#: Attacks on what a participant of a federation sends.
UPDATES = ("dense-layer", "dlg", "inverting-gradients", "inverting-statistics")
#: Attacks on all updates of a participant.
ON_FEDERATIONS = ("federated",)


class Cost(NamedTuple):
    """The relative cost of an attack.

    Attributes:
        weight: its share of the remaining time.
        most: largest useful time in seconds.
    """

    weight: float
    most: float = float("inf")


#: Built-in attacks, in order of cost; third-party attacks run before the searches without an end.
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
    "inversion": Cost(3, most=300),
    "linkage": Cost(2, most=300),
    "linkage-known": Cost(2, most=300),
    "distinguishing": Cost(2, most=300),
    "federated": Cost(2, most=300),
    "dense-layer": Cost(1, most=60),
    "dlg": Cost(1, most=60),
    "inverting-gradients": Cost(1, most=60),
    "inverting-statistics": Cost(1, most=60),
}
#: Cost of third-party attacks.
_OTHERS = Cost(2)
#: Searches that would use unlimited time, and report their rate.
ENDLESS = {"seed-search": Cost(1, most=30)}
#: Cost of a point of a curve, whose attack has run before.
_POINT = Cost(1, most=60)


@dataclass(frozen=True)
class Task:
    """One attack on one observation.

    Attributes:
        attack: name of the attack.
        copies: encodings per image that it sees.
        on: what is attacked.
        point: whether the task is only a point of a curve.
    """

    attack: str
    copies: int
    on: On = "rehearsal"
    point: bool = False

    @property
    def cost(self) -> Cost:
        """The cost of this task."""
        if self.point:
            return _POINT
        return COSTS.get(self.attack) or ENDLESS.get(self.attack, _OTHERS)

    @property
    def file(self) -> str:
        """A valid file name for its files, whatever the attack is called."""
        name = f"{self.attack}-{self.on}-{self.copies}"
        plain = re.sub(r"[^a-z0-9-]", "_", name.lower())[:60]
        return f"{plain}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"


def tasks(
    names: Iterable[str], copies: int, published: int | None = None, *, encrypted: bool = True
) -> list[Task]:
    """All tasks, in order.

    Args:
        names: names of the attacks.
        copies: encodings per image with known keys.
        published: published encodings per image, if these are available.
        encrypted: whether the scheme encrypts, so that plain images are a comparison.
    """
    order = [*COSTS, *sorted(set(names) - set(COSTS) - set(ENDLESS)), *ENDLESS]
    wanted = [name for name in order if name in set(names)]
    found = []
    for name in wanted:
        if name in UPDATES:
            found += [Task(name, 1, on) for on in SENT if encrypted or on == "update"]
        elif name in ON_FEDERATIONS:
            found += [Task(name, min(copies, MOST_EPOCHS), on) for on in FEDERATIONS]
        else:
            found.append(Task(name, copies))
        if published is not None and name in PUBLISHED:
            found.append(Task(name, published, on="published"))
    # Points with few encodings first, because time may run out.
    points = [step for step in STEPS if step < copies]
    return found + [
        Task(name, step, point=True) for step in points for name in CURVES if name in wanted
    ]


def seconds_for(task: Task, later: Collection[Task], left: float) -> float:
    """The seconds of those ``left`` that ``task`` may use if the tasks ``later`` follow."""
    weights = task.cost.weight + sum(other.cost.weight for other in later)
    return min(task.cost.most, left * task.cost.weight / weights)


def gains_by_time(task: Task, seconds: float) -> bool:
    """Whether ``task`` can use more than ``seconds``; a search without an end need not."""
    return task.attack not in ENDLESS and seconds < task.cost.most


def select_attacks(names: Collection[str], only: Collection[str]) -> list[str]:
    """The selected attacks; by default all ``names`` but the `BASELINES`.

    Raises:
        InstaHideError: a selected attack does not exist.
    """
    strange = sorted(set(only) - set(names))
    if strange:
        raise InstaHideError(
            f"There is no attack {strange[0]!r}.", f"Choose from {', '.join(sorted(names))}."
        )
    return sorted(set(only) or set(names) - set(BASELINES))


def parse_duration(text: str) -> float:
    """The seconds in a duration such as ``90``, ``90s``, ``10m`` or ``1.5h``.

    Raises:
        InstaHideError: ``text`` is not a duration, or is zero.
    """
    match = re.fullmatch(r"\s*(\d{1,9}(?:\.\d+)?)\s*([smh]?)\s*", text)
    seconds = float(match[1]) * {"": 1, "s": 1, "m": 60, "h": 3600}[match[2]] if match else 0.0
    if seconds <= 0:
        raise InstaHideError(
            f"{text!r} is not a time to spend.", "Use `budget='10m'`, 90s or 1.5h, say."
        )
    return seconds

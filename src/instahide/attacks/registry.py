"""The registered attacks: entry points of the group `instahide.attacks`, built-in ones included."""

from __future__ import annotations

from collections.abc import Iterable
from importlib.metadata import EntryPoint, entry_points
from typing import NamedTuple

from instahide.attacks.base import Attack, Observation
from instahide.errors import InstaHideError

GROUP = "instahide.attacks"


class Registered(NamedTuple):
    """Attacks by name, and the error of every entry point that could not be loaded."""

    attacks: dict[str, Attack[Observation]]
    broken: dict[str, str]


def registered(points: Iterable[EntryPoint] | None = None) -> Registered:
    """All attacks that installed packages declare.

    An entry point names a callable that returns an `Attack` without arguments. Invalid ones are
    reported and skipped, so that a third-party package cannot stop an audit.

    Args:
        points: entry points to load instead of the installed ones.
    """
    found = Registered({}, {})
    for point in entry_points(group=GROUP) if points is None else points:
        try:
            attack = _made(point)
        except Exception as error:  # from third-party code
            found.broken[f"{point.name} ({point.value})"] = f"{type(error).__name__}: {error}"
            continue
        if attack.name in found.attacks:
            found.broken[f"{point.name} ({point.value})"] = f"The name {attack.name} is taken."
        else:
            found.attacks[attack.name] = attack
    return found


def name_of_broken(key: str) -> str:
    """The name of the attack that is meant by a key of `Registered.broken`."""
    return key.rpartition(" (")[0] or key


def attack_named(name: str) -> Attack[Observation]:
    """The attack with this name.

    Raises:
        InstaHideError: there is no such attack.
    """
    attacks = registered().attacks
    if name not in attacks:
        raise InstaHideError(
            f"There is no attack {name!r}.", f"Choose from {', '.join(sorted(attacks))}."
        )
    return attacks[name]


def _made(point: EntryPoint) -> Attack[Observation]:
    attack = point.load()()
    if not isinstance(attack, Attack):
        raise TypeError("it has no name, title, paper, observes, applies and run")
    return attack

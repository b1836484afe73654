"""Bounds that a user sets on the figures of an audit, as in ``ssim>0.4``."""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable, Collection, Sequence
from typing import NamedTuple

from instahide.attacks.registry import name_of_broken
from instahide.audit.report.schema import AttackResult, Ceiling, Threshold
from instahide.audit.schedule import (
    CEILINGS,
    FEDERATIONS,
    ON_FEDERATIONS,
    SENT,
    UPDATES,
    Task,
)
from instahide.errors import InstaHideError

#: Figures over all attacks and their meanings, which are also in docs/audit.md.
MEANINGS = {
    "recovered": "share of the images that were recovered recognizably, by the best attack",
    "ceiling": "share of the images that reconstruction recovers from a start at the truth",
    "groups": "share of the groups, such as patients, that were identified, by the best attack",
    "ssim": "mean SSIM of the images that an attack recovered, by the best attack",
    "ssim_best": "SSIM of the best recovered image",
    "public_found": "share of the public images that were found",
    "membership_auc": "area under the ROC curve of the best membership inference",
    "linked": "how well the best attack tells pairs of encodings of one image from other pairs: "
    "area under the ROC curve, 0.5 by guessing",
    "matched": "share of the images for which an attacker who has all private images matched an "
    "encoding to an image in it",
    "distinguished": "of pairs of known images, one of which was encoded: share of which the "
    "attacker named the right one, 0.5 by guessing",
}
#: The figure of a result of which each is the maximum over attacks.
_OF = {
    "ssim": "ssim_mean",
    "ssim_best": "ssim_best",
    "public_found": "public_found",
    "membership_auc": "membership_auc",
    "linked": "linkage_auc",
    "matched": "matched",
    "distinguished": "distinguished",
}
#: Words in the names of an attack's figures of which the smallest is the most harmful: errors of
#: what was recovered, and p-values. All other figures are harmful if they are large.
_ERRORS = {"distance", "error", "errors", "lpips", "mae", "mse", "p", "rmse"}
#: What only participants of a federation send.
_SENT_BY_NODES = (*SENT, *FEDERATIONS)
_COMPARED: dict[str, Callable[[float, float], bool]] = {
    ">=": operator.ge, "<=": operator.le, ">": operator.gt, "<": operator.lt,
}  # fmt: skip
_EXPRESSION = re.compile(
    r"\s*(?P<name>[A-Za-z0-9_.-]+?)\s*(?P<compared>>=|<=|>|<)\s*(?P<bound>[-+0-9.eE]+)\s*"
)


class Bound(NamedTuple):
    """A parsed bound; ``expression`` is its text as it was typed."""

    expression: str
    name: str
    compared: str
    bound: float


def parse_threshold(expression: str, attacks: Collection[str]) -> Bound:
    """Parse a bound on a figure of `MEANINGS` or of an attack, as in ``labels.class_sets_right``.

    Raises:
        InstaHideError: the expression is invalid or could never be true, or the figure or attack is
            unknown.
    """
    match = _EXPRESSION.fullmatch(expression)
    try:
        bound = float(match["bound"]) if match else None
    except ValueError:
        bound = None
    if match is None or bound is None or not math.isfinite(bound):
        raise InstaHideError(
            f"{expression!r} is not a bound.",
            'Write a bound such as "ssim>0.4", with >, >=, < or <=.',
        )
    attack, dot, _ = match["name"].partition(".")
    if match["name"] not in MEANINGS and not (dot and attack in attacks):
        raise InstaHideError(
            f"There is no figure {match['name']!r}.",
            f"Use one of {', '.join(MEANINGS)}, or a figure of an attack, such as "
            "labels.class_sets_right.",
        )
    found = Bound(expression, match["name"], match["compared"], bound)
    if found.name in MEANINGS:
        _require_reachable(found)
    return found


def _require_reachable(bound: Bound) -> None:
    """Check that a figure of `MEANINGS`, a share or an SSIM, can be beyond the ``bound``.

    Raises:
        InstaHideError: it cannot, so that the bound would never be violated.
    """
    least = -1.0 if bound.name.startswith("ssim") else 0.0
    extreme = 1.0 if bound.compared.startswith(">") else least
    if not _COMPARED[bound.compared](extreme, bound.bound):
        raise InstaHideError(
            f"{bound.expression!r} can never be violated: {bound.name} is from {least:g} to 1.",
            'Write shares as numbers below 1, such as "recovered>0.05" for 5%.',
        )


def summary(results: Sequence[AttackResult]) -> dict[str, float | None]:
    """Return the figures of `MEANINGS`; None for those that no attack measured.

    Points of curves are left out, because they use fewer encodings than were published. Updates are
    left out, because only participants of a federation send them.
    """
    done = [result for result in results if result.state == "done" and not result.point]
    counted = [result for result in done if result.on not in _SENT_BY_NODES]
    found = {name: _most(counted, figure) for name, figure in _OF.items()}
    shares = [share for result in counted if (share := recovered_share(result)) is not None]
    ceilings = [ceiling_share(c) for r in results if (c := r.ceiling) is not None and not r.point]
    groups = [share for result in counted if (share := identified_share(result)) is not None]
    return {
        "recovered": max(shares, default=None),
        "ceiling": max(ceilings, default=None),
        "groups": max(groups, default=None),
        **found,
    }


def recovered_share(result: AttackResult) -> float | None:
    """Return the share of private images recovered recognizably; None if none was sought."""
    recognizable = result.figures.get("images_recognizable")
    sought = result.figures.get("images_sought")
    return None if recognizable is None or not sought else recognizable / sought


def ceiling_share(ceiling: Ceiling) -> float:
    """Return the share of private images that are recovered from a start at the truth."""
    return ceiling.images_recognizable / ceiling.images_sought


def identified_share(result: AttackResult) -> float | None:
    """Return the share of groups that were identified; None if there are no groups."""
    identified = result.figures.get("groups_identified")
    sought = result.figures.get("groups_sought")
    return None if identified is None or not sought else identified / sought


def check_thresholds(
    bounds: Sequence[Bound],
    results: Sequence[AttackResult],
    waiting: Sequence[Task] = (),
    broken: Collection[str] = (),
) -> list[Threshold]:
    """Check every bound. A bound that could not be checked counts as violated.

    This is the case if nothing was measured, or if an attack has no result that might have found
    more than the bound allows.

    Args:
        bounds: what to check.
        results: results of the attacks that ran. Those that failed or ran out of time might have
            found more.
        waiting: attacks that did not start within the budget.
        broken: attacks that could not be loaded, as named by `registry.Registered`.
    """
    overall = summary(results)
    return [
        _checked(
            bound, _value(bound, overall, results), _unchecked(bound, results, waiting, broken)
        )
        for bound in bounds
    ]


def _checked(bound: Bound, value: float | None, unchecked: list[str]) -> Threshold:
    violated = value is None or _COMPARED[bound.compared](value, bound.bound) or bool(unchecked)
    return Threshold(
        expression=bound.expression, value=value, violated=violated, unchecked=unchecked
    )


def _unchecked(
    bound: Bound,
    results: Sequence[AttackResult],
    waiting: Sequence[Task],
    broken: Collection[str],
) -> list[str]:
    """Return the attacks without a result that might have moved the figure beyond the bound.

    A figure is the maximum over attacks, so a missing attack cannot lower it; the lowest error
    cannot be raised.
    """
    if bound.compared not in (">", ">=") and not _seeks_least(bound):
        return []
    unloaded = {key: name_of_broken(key) for key in broken}
    if bound.name == "ceiling":
        late = {t.attack for t in waiting if t.attack in CEILINGS and not t.point}
        return sorted(late | {key for key, name in unloaded.items() if name in CEILINGS})
    ended = [result for result in results if result.state == "failed" or result.cut_short]
    missing: list[Task | AttackResult] = [*waiting, *ended]
    if bound.name in MEANINGS:
        found = {one.attack for one in missing if not one.point and one.on not in _SENT_BY_NODES}
        on_updates = (*UPDATES, *ON_FEDERATIONS)
        return sorted(found | {key for key, name in unloaded.items() if name not in on_updates})
    only = bound.name.partition(".")[0]
    found = {one.attack for one in missing if not one.point and one.attack == only}
    return sorted(found | {key for key, name in unloaded.items() if name == only})


def _seeks_least(bound: Bound) -> bool:
    """Return whether the bound is below a figure of which the smallest is the most harmful."""
    words = re.split(r"[^a-z0-9]+", bound.name.partition(".")[2].lower())
    return bound.compared in ("<", "<=") and not _ERRORS.isdisjoint(words)


def _value(
    bound: Bound, overall: dict[str, float | None], results: Sequence[AttackResult]
) -> float | None:
    if bound.name in overall:
        return overall[bound.name]
    attack, _, figure = bound.name.partition(".")
    mine = [r for r in results if r.attack == attack and not r.point and r.on != "plain update"]
    if _seeks_least(bound):
        return min((v for r in mine if (v := r.figures.get(figure)) is not None), default=None)
    return _most(mine, figure)


def _most(results: Sequence[AttackResult], figure: str) -> float | None:
    values = [value for r in results if (value := r.figures.get(figure)) is not None]
    return max(values, default=None)

"""The report of an audit: ``report.json`` and, for people, the page ``report.html``."""

from __future__ import annotations

import base64
import math
import platform
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from instahide._version import __version__
from instahide.attacks.registry import name_of_broken
from instahide.audit import hardness
from instahide.audit.report import charts, overview
from instahide.audit.report.guarantees import privacy_sentence
from instahide.audit.report.schema import AttackResult, Report
from instahide.audit.report.summary import (
    duration,
    finding,
    shortfall,
    summarize,
)
from instahide.audit.report.thresholds import Bound, check_thresholds, recovered_share, summary
from instahide.audit.schedule import BASELINES, WHERE, Task
from instahide.audit.session import NO_TIME, PICTURES, Session, facts, pending
from instahide.audit.target import AuditTarget
from instahide.errors import printable
from instahide.utils.atomic_write import atomic_write, write_json
from instahide.utils.optional_deps import requires_extra

if TYPE_CHECKING:
    from jinja2 import Environment
    from pydantic import BaseModel

JSON, HTML = "report.json", "report.html"
#: Steps per second and dollars per hour of one core, from which costs of attacks are computed.
RATE, PRICE = 1e9, 0.05
#: Numbers from this size on are shown as powers of ten.
MOST_DIGITS = 1e12
#: Of published attacks that are only there to compare with.
UNNAMED = (
    "This published attack recovered less from photographs than the reconstruction attack. From "
    "few encodings of small images it can recover more. It runs only if you select it by name."
)
#: What no audit includes.
NOT_HERE = {
    "this machine": "The audit does not check memory, disk, timing or the entropy of the "
    "operating system.",
    "augmentation": "The audit encrypts images without crops and flips, also for a run that uses "
    "them. This is easier to attack. Crops and flips do not make encodings safe: the "
    "reconstruction attack undoes both, crops in part.",
}


def make_report(
    session: Session,
    wanted: Collection[Task],
    results: Sequence[AttackResult],
    *,
    broken: Mapping[str, str],
    bounds: Sequence[Bound],
    seconds: float,
    command: str,
) -> Report:
    """Return the report on ``results``.

    Args:
        session: the audit that they are from.
        wanted: all attacks that the audit was to run.
        results: results of the attacks that ran.
        broken: attacks that were to run and could not be loaded, and why. They count as missing,
            except for those that run only if they are named.
        bounds: bounds that the user set.
        seconds: the budget.
        command: the command that was typed.
    """
    subject, left = session.subject, pending(wanted, results)
    about = facts(subject)
    lost = [name for name in broken if name_of_broken(name) not in BASELINES]
    cut = any(one.cut_short for one in results if not one.point)
    return Report(
        complete=not (left or lost or cut),
        budget_seconds=seconds,
        surroundings=_surroundings(),
        verdict=summarize(results, about, left, lost),
        subject=about,
        summary=summary(results),
        thresholds=check_thresholds(bounds, results, left, lost),
        results=list(results),
        untried=_untried(subject, left, results, broken),
        hardness=_hardness(subject),
        command=command,
    )


def write_report(report: Report, folder: Path) -> None:
    """Write ``report`` to ``folder``, as JSON and as a page.

    Raises:
        InstaHideError: Jinja2 is missing, or the folder cannot be written.
    """
    page = render(report, folder / PICTURES)
    write_page(folder / HTML, page, folder / JSON, report)


def write_page(html: Path, page: str, data: Path, values: BaseModel) -> None:
    """Write ``values`` as JSON to the file ``data``, and the ``page`` on them to ``html``.

    Raises:
        InstaHideError: the folder cannot be written.
    """
    write_json(data, values.model_dump(mode="json"))
    with atomic_write(html) as partial:
        partial.write_text(page, encoding="utf-8")


def render(report: Report, pictures: Path) -> str:
    """Return the page, with the ``pictures`` embedded and every text escaped."""
    environment = page_environment()
    environment.filters |= {
        "words": _words,
        "finding": finding,
        "shortfall": shortfall,
        "guarantee": privacy_sentence,
    }
    curves = [
        charts.curve(report.results, "ssim_mean", "Mean SSIM of recovered images"),
        charts.curve(report.results, "identified", "Share of recovered images that are identified"),
    ]
    return environment.get_template("report.html").render(
        report=report,
        attacks=sorted(report.results, key=_telling),
        columns=overview.COLUMNS,
        targets=overview.TARGETS,
        untried=by_reason(report.untried),
        charts=[chart for chart in curves if chart is not None],
        drawing=charts,
        picture=lambda name: _embedded(pictures / Path(name).name),
        share=recovered_share,
    )


def page_environment() -> Environment:
    """Templates of pages, in which every text is escaped and printable.

    Raises:
        IntegrationError: Jinja2 is missing.
    """
    with requires_extra("Jinja2", "audit"):
        import jinja2
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("instahide.audit.report"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        finalize=_shown,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"number": _number, "spent": duration}
    return environment


def _shown(value: object) -> object:
    """Return ``value`` without characters that reorder or hide text."""
    # Markup, the subclass of `str` for HTML that is already escaped, is returned unchanged.
    return printable(value) if type(value) is str else value


def _telling(result: AttackResult) -> tuple[float, float]:
    """Return a sort key: attacks that recovered most first, then the others in their order.

    Attacks on plain updates, which are for comparison only, come last.
    """
    if result.on == "plain update":
        return (2.0, 0.0)
    share = recovered_share(result)
    return (1.0, 0.0) if share is None else (-share, -(result.figures["ssim_mean"] or 0.0))


def _embedded(path: Path) -> str:
    return "data:image/png;base64," + base64.b64encode(path.read_bytes()).decode()


def _untried(
    subject: AuditTarget,
    left: Sequence[Task],
    results: Sequence[AttackResult],
    broken: Mapping[str, str],
) -> dict[str, str]:
    refused = {r.attack: r.reason for r in results if r.state == "not tried" and not r.point}
    waiting = {_called(task): NO_TIME for task in left}
    withheld = {"the encodings themselves": subject.withheld} if subject.withheld else {}
    tried = {result.attack for result in results} | {task.attack for task in left}
    unnamed = {name: UNNAMED for name in BASELINES if name not in tried}
    return {**refused, **waiting, **withheld, **broken, **unnamed, **NOT_HERE}


def by_reason(untried: Mapping[str, str]) -> dict[str, list[str]]:
    """Return the names of what was not tried for each reason, the reason of most names first."""
    found: dict[str, list[str]] = {}
    for name, reason in untried.items():
        found.setdefault(reason, []).append(name)
    return dict(sorted(found.items(), key=lambda group: -len(group[1])))


def _called(task: Task) -> str:
    at = f" with {task.copies} encodings per image" if task.point else ""
    return f"{task.attack}{WHERE[task.on]}{at}"


def _hardness(subject: AuditTarget) -> dict[str, object]:
    if not subject.is_scheme:
        caveat = (
            "The published estimates are for mixes under masks. There are none for the encoder "
            f"{subject.encoder.name}."
        )
        return {"caveat": caveat, "figures": []}
    public = 0 if subject.public is None else len(np.unique(subject.public.content_ids))
    count, scheme = len(subject.images), subject.scheme
    setting = hardness.Setting(
        images=count + public,
        k=scheme.k,
        private=count,
        private_k=scheme.private_k,
        encodings=count * subject.copies,
        values=math.prod(subject.images.shape),
    )
    return asdict(hardness.report(setting, rate=RATE, price=PRICE))


def _surroundings() -> dict[str, str]:
    return {
        "instahide": __version__,
        "torch": torch.__version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "threads": str(torch.get_num_threads()),
    }


def _number(value: float | None) -> str:
    """Return a whole number, or three significant digits."""
    if value is None:
        return "not finite"
    if value == int(value) or 1e3 <= abs(value) < MOST_DIGITS:
        return f"{value:,.0f}" if abs(value) < MOST_DIGITS else f"{value:.1e}"
    return f"{value:.3g}"


def _words(name: str) -> str:
    return name.replace("_", " ")

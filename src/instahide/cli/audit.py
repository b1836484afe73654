"""`instahide audit`."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import typer
from rich.progress import BarColumn, Progress, TimeElapsedColumn

from instahide.attacks.registry import Registered, registered
from instahide.audit.report.html import HTML, make_report, write_report
from instahide.audit.report.schema import AttackResult, Report
from instahide.audit.report.summary import duration
from instahide.audit.report.thresholds import Bound, parse_threshold, recovered_share
from instahide.audit.schedule import WHERE, Task, parse_duration, select_attacks, tasks
from instahide.audit.session import Session
from instahide.audit.target import AuditTarget
from instahide.cli.audit_target import Given, subject_of
from instahide.cli.console import err, out, text_column
from instahide.encryption.scheme import Scheme
from instahide.errors import printable

#: Exit code where a bound of --fail-if is violated.
VIOLATED = 3


class Asked(NamedTuple):
    """What was typed."""

    target: str
    given: Given
    budget: str
    only: Sequence[str]
    fail_if: Sequence[str]
    folder: Path


def run_audit(asked: Asked) -> None:
    """Audit, or go on with an audit; says what was found, and exits with `VIOLATED` if too much."""
    # What was mistyped is said before anything is read.
    seconds, known = parse_duration(asked.budget), registered()
    names = select_attacks(sorted(known.attacks), asked.only)
    bounds = [parse_threshold(expression, known.attacks) for expression in asked.fail_if]
    subject = subject_of(asked.target, asked.given)
    session = Session.open(asked.folder, subject)
    try:
        report = _report(session, _wanted(subject, names), known, bounds, seconds, _command(asked))
    except KeyboardInterrupt:
        err.print("Stopped. What is finished stays; go on with the same command.")
        raise
    _say(report, asked.folder)
    if any(threshold.violated for threshold in report.thresholds):
        raise typer.Exit(VIOLATED)


def _wanted(subject: AuditTarget, names: Sequence[str]) -> list[Task]:
    _, copies = subject.known_key_target()
    published = None if subject.published is None else subject.copies
    return tasks(names, copies, published, encrypted=subject.scheme != Scheme.plain())


def _report(
    session: Session,
    wanted: Sequence[Task],
    known: Registered,
    bounds: Sequence[Bound],
    seconds: float,
    command: str,
) -> Report:
    """Run what is wanted; the report is written anew after each attack."""

    def written() -> Report:
        report = make_report(
            session, wanted, list(session.done(wanted).values()), broken=known.broken,
            bounds=bounds, seconds=seconds, command=command,
        )  # fmt: skip
        write_report(report, session.folder)
        return report

    report = written()
    with _shown(len(wanted)) as shown:
        for result in session.run(wanted, known.attacks, seconds, shown):
            shown.ended(result)
            report = written()
    return report


class _Shown:
    """Progress on standard error: all attacks, and what the present one does."""

    def __init__(self, bars: Progress, total: int) -> None:
        self._bars = bars
        self._all = bars.add_task("attacks", total=total)
        self._one = bars.add_task("", total=1.0)

    def begins(self, number: int, task: Task, seconds: float) -> None:
        self._bars.update(self._all, completed=number)
        what = f"{task.attack}, up to {duration(seconds)}"
        self._bars.reset(self._one, description=printable(what), total=1.0)

    def goes_on(self, what: str, share: float) -> None:
        self._bars.update(self._one, completed=share)

    def ended(self, result: AttackResult) -> None:
        if not (result.point and result.state == "not tried"):
            err.print(_line(result))


@contextmanager
def _shown(total: int) -> Iterator[_Shown]:
    columns = (text_column("{task.description}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=err, transient=True) as bars:
        yield _Shown(bars, total)


def _line(result: AttackResult) -> str:
    """What came of one attack."""
    at = f"{result.attack}{WHERE[result.on]}, {result.encodings_per_image} of an image"
    if result.state != "done":
        return f"{at}: {result.state}. {result.reason}"
    spent = duration(result.seconds) + (", when its time was over" if result.out_of_time else "")
    if recovered_share(result) is None:
        return f"{at}: done in {spent}"
    found, sought = (result.figures[f"images_{name}"] for name in ("recognisable", "sought"))
    return (
        f"{at}: {found:.0f} of {sought:.0f} recognisable, mean SSIM "
        f"{result.figures['ssim_mean']:.2f}, {spent}"
    )


def _say(report: Report, folder: Path) -> None:
    for sentence in report.verdict:
        out.print(sentence)
    for bound in report.thresholds:
        value = "not measured" if bound.value is None else f"{bound.value:.3g}"
        if bound.unchecked:
            value += f"; without a result: {', '.join(bound.unchecked)}"
        state = "violated" if bound.violated else "not violated"
        out.print(f"{bound.expression}: {state} ({value})")
    if not report.complete:
        err.print("Not everything was tried: the same command with a larger --budget goes on.")
    out.print(f"Report, with private images in it: {folder / HTML}")


def _command(asked: Asked) -> str:
    """What to type for the same."""
    given = asked.given
    words = ["instahide", "audit", asked.target, "--images", given.source]
    words += ["--public", given.public] if given.public else []
    words += ["--size", str(given.size)] if given.size else []
    words += ["--skip-bad"] if given.skip_bad else []
    words += ["--budget", asked.budget, "--out", str(asked.folder)]
    for option, values in (("--only", asked.only), ("--fail-if", asked.fail_if)):
        for value in values:
            words += [option, value]
    return shlex.join(words)

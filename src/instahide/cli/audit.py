"""`instahide audit`."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from pydantic import Field
from rich.progress import BarColumn, Progress, TimeElapsedColumn

from instahide.cli.console import notes, out, text_column
from instahide.cli.options import LABEL_PANEL, TrustedModel, command
from instahide.data.read_settings import ReadSettings
from instahide.encryption.scheme import Scheme
from instahide.errors import printable

if TYPE_CHECKING:
    from instahide.attacks.registry import Registered
    from instahide.audit.report.schema import AttackResult, Report
    from instahide.audit.report.thresholds import Bound
    from instahide.audit.schedule import Task
    from instahide.audit.session import Session
    from instahide.audit.target import AuditTarget

#: Exit code where a bound of --fail-if is violated.
VIOLATED = 3


class AuditOptions(ReadSettings):
    """What `instahide audit` takes."""

    target: Annotated[
        str, typer.Argument(metavar="RUN_OR_ENCODED", help="Training run, or folder of encodings.")
    ]
    images: str = Field(description="private images that the target was made of")
    public: str | None = Field(
        None, description="folder of a public pool, or `photos`; if omitted, that of the run"
    )
    budget: str = Field("10m", description="time for all attacks: 90s, 10m, 1.5h")
    only: Annotated[
        list[str], typer.Option(metavar="ATTACK", help="Run only this attack; repeatable.")
    ] = Field(default_factory=list)
    fail_if: Annotated[
        list[str],
        typer.Option(metavar="BOUND", help='Exit with 3 if this holds: "ssim>0.4"; repeatable.'),
    ] = Field(default_factory=list)
    model: TrustedModel = None
    encoder: str | None = Field(
        None,
        description="encoder of the target: needed if it is of another package, whose code is run",
    )
    out: Annotated[Path, typer.Option(help="Folder of the audit.")] = Path("audit")


@command
def audit(options: Annotated[AuditOptions, {"Labels": LABEL_PANEL}]) -> None:
    """Run published attacks on your own images and report what they recover.

    An audit that was stopped or killed continues with the same command. Example:
    instahide audit runs/demo/cross --images mnist-5k
    """
    from instahide.attacks.registry import registered
    from instahide.audit.open_target import PrivateImages, open_target
    from instahide.audit.report.thresholds import parse_threshold
    from instahide.audit.schedule import parse_duration, select_attacks
    from instahide.audit.session import Session

    # Validate options before anything is read.
    seconds, known = parse_duration(options.budget), registered()
    names = select_attacks(sorted(known.attacks), options.only)
    if options.only:  # Nothing else was to run.
        known = known._replace(broken={})
    bounds = [parse_threshold(expression, known.attacks) for expression in options.fail_if]
    given = PrivateImages(options.images, options, options.public, options.model, options.encoder)
    subject = open_target(options.target, given)
    session = Session.open(options.out, subject)
    try:
        report = _report(
            session, _wanted(subject, names), known, bounds, seconds, _command(options)
        )
    except KeyboardInterrupt:
        notes.print("Stopped. Finished attacks stay; continue with the same command.")
        raise
    _print(report, options.out, sorted(known.broken))
    if any(threshold.violated for threshold in report.thresholds):
        raise typer.Exit(VIOLATED)


def _wanted(subject: AuditTarget, names: Sequence[str]) -> list[Task]:
    from instahide.audit.schedule import tasks

    _, copies = subject.known_key_target()
    published = None if subject.published is None else subject.copies
    return tasks(names, copies, published, encrypted=subject.encoder != Scheme.plain())


def _report(
    session: Session,
    wanted: Sequence[Task],
    known: Registered,
    bounds: Sequence[Bound],
    seconds: float,
    command: str,
) -> Report:
    """Run the selected attacks; the report is rewritten after each."""
    from instahide.audit.report.html import make_report, write_report

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
    """Progress on standard error: of all attacks, and of the current one."""

    def __init__(self, bars: Progress, total: int) -> None:
        self._bars = bars
        self._all = bars.add_task("attacks", total=total)
        self._one = bars.add_task("", total=1.0)

    def begins(self, number: int, task: Task, seconds: float) -> None:
        from instahide.audit.report.summary import duration

        self._bars.update(self._all, completed=number)
        what = f"{task.attack}, up to {duration(seconds)}"
        self._bars.reset(self._one, description=printable(what), total=1.0)

    def goes_on(self, what: str, share: float) -> None:
        self._bars.update(self._one, completed=share)

    def ended(self, result: AttackResult) -> None:
        if not (result.point and result.state == "not tried"):
            notes.print(_line(result))


@contextmanager
def _shown(total: int) -> Iterator[_Shown]:
    columns = (text_column("{task.description}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=notes, transient=True) as bars:
        yield _Shown(bars, total)


def _line(result: AttackResult) -> str:
    """The result of one attack in a line."""
    from instahide.audit.report.summary import duration
    from instahide.audit.report.thresholds import identified_share, recovered_share
    from instahide.audit.schedule import WHERE

    at = f"{result.attack}{WHERE[result.on]}, {result.encodings_per_image} of an image"
    ceiling = ""
    if (most := result.ceiling) is not None:
        ceiling = f", ceiling {most.images_recognizable} of {most.images_sought}"
    if result.state != "done":
        return f"{at}{ceiling}: {result.state}. {result.reason}"
    spent = duration(result.seconds) + (", when its time was over" if result.out_of_time else "")
    if recovered_share(result) is None:
        return f"{at}: done in {spent}"
    found, sought = (result.figures[f"images_{name}"] for name in ("recognizable", "sought"))
    groups = ""
    if identified_share(result) is not None:
        figures = (result.figures[f"groups_{name}"] for name in ("identified", "sought"))
        groups = ", {:.0f} of {:.0f} groups identified".format(*figures)
    return (
        f"{at}: {found:.0f} of {sought:.0f} recognizable{groups}{ceiling}, mean SSIM "
        f"{result.figures['ssim_mean']:.2f}, {spent}"
    )


def _print(report: Report, folder: Path, broken: Sequence[str]) -> None:
    from instahide.audit.report.html import HTML

    lines = list(report.verdict)
    for bound in report.thresholds:
        value = "not measured" if bound.value is None else f"{bound.value:.3g}"
        if bound.unchecked:
            value += f"; without a result: {', '.join(bound.unchecked)}"
        state = "violated" if bound.violated else "not violated"
        lines.append(f"{bound.expression}: {state} ({value})")
    results = report.model_dump(mode="json", include={"verdict", "summary", "thresholds"})
    results |= {"complete": report.complete, "report": str(folder / HTML)}
    out.results(results, *lines, f"Report, with private images in it: {folder / HTML}")
    if report.complete:
        return
    if not broken:
        notes.print("Not every attack ended; continue with a larger --budget.")
        return
    notes.print(
        f"Not every attack could be loaded ({', '.join(broken)}). Repair or remove their packages, "
        "and run the same command again; with a larger --budget if attacks are left."
    )


def _command(options: AuditOptions) -> str:
    """The command line that repeats this audit."""
    words = ["instahide", "audit", options.target, "--images", options.images]
    words += ["--public", options.public] if options.public else []
    for name in ReadSettings.model_fields:
        option, value = f"--{name.replace('_', '-')}", getattr(options, name)
        if name in options.model_fields_set and value not in (None, False):
            words += [option] if value is True else [option, str(value)]
    words += ["--model", options.model] if options.model else []
    words += ["--encoder", options.encoder] if options.encoder else []
    words += ["--budget", options.budget, "--out", str(options.out)]
    for option, values in (("--only", options.only), ("--fail-if", options.fail_if)):
        for value in values:
            words += [option, value]
    return shlex.join(words)

"""`instahide advise`."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from pydantic import Field
from rich.progress import BarColumn, Progress, TimeElapsedColumn

from instahide.cli.console import notes, out, text_column
from instahide.cli.options import LABEL_PANEL, MOST, EncoderSettings, Source, command
from instahide.data.read_settings import ReadSettings

if TYPE_CHECKING:
    from instahide.audit.advice.bench import Job
    from instahide.audit.advice.encoder_candidate import AnyCandidate
    from instahide.audit.advice.open_search import Request
    from instahide.audit.advice.schema import Advice, Measurement
    from instahide.audit.advice.search import Search

#: Exit code where no setting meets both targets, or the one that does is not confirmed.
NOT_MET = 3


class AdviseOptions(ReadSettings):
    """What `instahide advise` takes."""

    source: Source
    max_recovered: float = Field(
        0.01, ge=0, le=1, allow_inf_nan=False,
        description="largest share of the images that attacks may recover, from 0 to 1",
    )  # fmt: skip
    max_drop: float = Field(
        3.0, ge=0, le=100, allow_inf_nan=False,
        description="largest loss of accuracy against plain training, in points",
    )  # fmt: skip
    budget: str = Field("30m", description="time for everything: 10m, 30m, 2h")
    test: str | None = Field(
        None, description="images to test on; if omitted, the test images of the source, or a part"
    )
    public: str = Field("photos", description="public pool: a folder, or the built-in `photos`")
    scheme: Annotated[
        list[str],
        typer.Option(metavar="SCHEME", help="Search only inside or only cross; repeatable."),
    ] = Field(default_factory=list)
    encoder: Annotated[
        list[str],
        typer.Option(
            metavar="NAME",
            help="Try this encoder too, beside the schemes; repeatable. One of another package may "
            "be named as package.module:Name, whose code is then run.",
        ),
    ] = Field(default_factory=list)
    encoder_settings: EncoderSettings = Field(default_factory=list)
    model: str = Field("small", max_length=200, description="network that is trained")
    steps: int = Field(200, ge=1, le=MOST, description="training steps of each network, about")
    out: Annotated[Path, typer.Option(help="Folder of the advice.")] = Path("advice")


PANELS = {
    "Targets": ("max_recovered", "max_drop", "budget"),
    "Search": ("scheme", "encoder", "encoder_settings", "public", "test", "model", "steps"),
    "Labels": LABEL_PANEL,
}


@command
def advise(options: Annotated[AdviseOptions, PANELS]) -> None:
    """Search for settings that meet your targets, on your own images.

    A search that was stopped or killed continues with the same command. Example:
    instahide advise mnist-5k --max-recovered 0.01 --max-drop 3 --budget 30m
    """
    from instahide.audit.advice.open_search import common_settings, open_search
    from instahide.audit.advice.page import make_advice, write_advice

    request = _request(options)
    search = open_search(request, options.out)

    def written() -> Advice:
        advice = make_advice(search, common_settings(request), _command(options))
        write_advice(advice, options.out)
        return advice

    try:
        with _bars() as bars:
            search.run(_Shown(bars, search, written))
    except KeyboardInterrupt:
        notes.print("Stopped. Finished measurements stay; continue with the same command.")
        raise
    advice = written()
    _print(advice, options.out)
    if advice.verdict != "recommended":
        raise typer.Exit(NOT_MET)


def _request(options: AdviseOptions) -> Request:
    """What is searched. Options are refused before anything is read."""
    from instahide.audit.advice.candidate import searched
    from instahide.audit.advice.encoder_candidate import encoder_candidates
    from instahide.audit.advice.open_search import Request
    from instahide.audit.advice.schema import Targets
    from instahide.audit.schedule import parse_duration

    return Request(
        options.source,
        options,
        Targets(max_recovered=options.max_recovered, max_drop=options.max_drop),
        parse_duration(options.budget),
        test=options.test,
        public=options.public,
        schemes=searched(options.scheme),
        encoders=encoder_candidates(options.encoder, options.encoder_settings),
        model=options.model,
        steps=options.steps,
    )


class _Shown:
    """Progress on standard error: of the budget, and of the current measurement."""

    def __init__(self, bars: Progress, search: Search, write: Callable[[], object]) -> None:
        self._bars = bars
        self._search = search
        self._write = write
        self._all = bars.add_task("budget", total=1.0)
        self._one = bars.add_task("", total=None)
        self._name = ""

    def begins(self, job: Job, share: float) -> None:
        self._name = f"{_named(job.candidate)}, seed {job.seed}"
        self._bars.update(self._all, completed=share)
        self.step("training")

    def step(self, what: str) -> None:
        self._bars.reset(self._one, description=f"{self._name}: {what}", total=None)

    def ended(self, measurement: Measurement) -> None:
        notes.print(_line(measurement, len(self._search.journal.measurements)))
        # The page is there also if the search is killed.
        self._write()


@contextmanager
def _bars() -> Iterator[Progress]:
    columns = (text_column("{task.description}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=notes, transient=True) as bars:
        yield bars


def _named(candidate: AnyCandidate | None) -> str:
    return "plain training" if candidate is None else candidate.name


def _line(measurement: Measurement, number: int) -> str:
    """One measurement in a line."""
    from instahide.audit.advice.decision import percent
    from instahide.audit.report.summary import duration

    name = f"{number}. {_named(measurement.candidate)}, seed {measurement.seed}"
    score = measurement.accuracy if measurement.accuracy is not None else measurement.early or 0.0
    parts = [f"accuracy {percent(score)}" + (" early" if measurement.accuracy is None else "")]
    if measurement.ceiling is not None:
        parts.append(f"ceiling {percent(measurement.ceiling)}")
    if measurement.recovered is not None:
        parts.append(f"recovered {percent(measurement.recovered)}")
    if measurement.missing:
        parts.append(f"no result of {', '.join(measurement.missing)}")
    stopped = {
        "stopped": ", stopped: another setting is better in both",
        "not attacked": ", not attacked: another setting is better in both",
    }
    spent = duration(measurement.seconds) + (", thorough" if measurement.thorough else "")
    return f"{name}: {', '.join(parts)}, {spent}{stopped.get(measurement.state, '')}"


def _print(advice: Advice, folder: Path) -> None:
    from instahide.audit.advice.decision import described, percent
    from instahide.audit.advice.page import HTML, SETTINGS

    lines = [*advice.answer, f"The front has {len(advice.front)} settings:"]
    lines += [
        f"  {percent(s.exposure)} exposed, {s.drop:.1f} points lost: {described(s)}"
        for s in advice.front
    ]
    recommended = advice.verdict == "recommended"
    if recommended:
        lines.append(f"Settings for encrypt and train: {folder / SETTINGS}")
    values = advice.model_dump(mode="json", include={"verdict", "answer", "recommended"})
    values |= {
        "nearest": [
            nearest and nearest.model_dump(mode="json")
            for nearest in (advice.nearest_private, advice.nearest_accurate)
        ],
        "front": len(advice.front),
        "settings": str(folder / SETTINGS) if recommended else None,
        "report": str(folder / HTML),
    }
    out.results(values, *lines, f"All that was tried: {folder / HTML}")


def _command(options: AdviseOptions) -> str:
    """The command line that continues this search."""
    words = ["instahide", "advise", options.source]
    for name in type(options).model_fields:
        option, value = f"--{name.replace('_', '-')}", getattr(options, name)
        if name == "source" or name not in options.model_fields_set or value in (None, False):
            continue
        for part in value if isinstance(value, list) else [value]:
            words += [option] if part is True else [option, str(part)]
    return shlex.join(words)

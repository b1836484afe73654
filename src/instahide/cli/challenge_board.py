"""`instahide challenge baselines | leaderboard`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from pydantic import BaseModel, Field
from rich.progress import BarColumn, Progress, TimeElapsedColumn
from rich.table import Table

from instahide.cli.console import notes, out, text_column
from instahide.cli.options import GivenFolder, TruthFolder, command
from instahide.data import open_images

if TYPE_CHECKING:
    from instahide.audit.challenge.leaderboard import Entry


class BaselineOptions(BaseModel):
    """What `instahide challenge baselines` takes."""

    folder: GivenFolder
    truth: TruthFolder
    leaderboard: Annotated[Path, typer.Option(help="CSV file that the entries are added to.")] = (
        Path("leaderboard.csv")
    )
    out: Annotated[Path, typer.Option(help="Folder for the submissions.")] = Path("baselines")
    shadow: str | None = Field(
        None,
        description="images of the attacker's own, like the private ones; those that are private "
        "are left out",
    )
    encoder: str | None = Field(
        None, description="encoder of the challenge, if it is of another package"
    )
    budget: str = Field("30m", description="time for all attacks: 90s, 10m, 1.5h")


@command
def baselines(options: BaselineOptions) -> None:
    """Run known attacks on a challenge, and enter them in its leaderboard.

    The attacks: blank, reconstruction, averaging, averaging-absolute, carlini, fusion-denoising.
    One that was stopped continues with the same command: attacks that have a score are not run
    again.
    """
    from instahide.audit.challenge.baselines import foreign_images, run_baselines
    from instahide.audit.challenge.challenge import Challenge, ChallengeTruth
    from instahide.audit.schedule import parse_duration

    seconds = parse_duration(options.budget)
    given = Challenge.open(options.folder, options.encoder)
    kept = ChallengeTruth.open(options.truth)
    shadow = None
    if options.shadow is not None:
        _, height, width = kept.originals.shape[1:]
        # Resizing would make the images square.
        size = height if height == width else None
        shadow = foreign_images(open_images(options.shadow, size=size), kept)
    with _shown() as shown:
        for made in run_baselines(
            given, kept, options.leaderboard, options.out, seconds, shown, shadow
        ):
            notes.print(_line(made))
    _print_ranking(options.leaderboard)


@command
def leaderboard(
    file: Annotated[Path, typer.Argument(help="CSV file of a leaderboard.")],
) -> None:
    """Show a leaderboard, ranked by Max_SSIM."""
    _print_ranking(file)


def _print_ranking(file: Path) -> None:
    from instahide.audit.challenge.leaderboard import ranked, read_leaderboard

    entries = ranked(read_leaderboard(file))
    table = Table("rank", "attack", "version", "author", "Max_SSIM", "recovered", "at", "note")
    for rank, one in entries:
        table.add_row(*_row(rank, one))
    values = [{"rank": rank, **asdict(one)} for rank, one in entries]
    sha256 = entries[0][1].challenge if entries else None
    out.results({"challenge": sha256, "entries": values}, f"Challenge {sha256}", table)


def _row(rank: int | None, one: Entry) -> Sequence[str]:
    ssim = recovered = ""
    if one.figures is not None:
        ssim = "{max_ssim:.4f} ({max_ssim_low:.2f} to {max_ssim_high:.2f})".format(**one.figures)
        recovered = f"{one.figures['images_recovered']:.0f}"
    place = "" if rank is None else str(rank)
    return place, one.attack, one.version, one.author, ssim, recovered, one.at[:10], one.note


def _line(made: Entry) -> str:
    if made.figures is None:
        return f"{made.attack}: not scored, {made.note}"
    figures = made.figures
    return (
        f"{made.attack}: Max_SSIM {figures['max_ssim']:.3f}, "
        f"{figures['images_recovered']:.0f} images recovered"
    )


class _Shown:
    """Progress of the current attack, on standard error."""

    def __init__(self, bars: Progress) -> None:
        self._bars, self._task = bars, bars.add_task("", total=1.0)

    def begins(self, number: int, attack: str, seconds: float) -> None:
        title = f"{attack}, up to {seconds:.0f} s"
        self._bars.reset(self._task, description=title, total=1.0)

    def goes_on(self, what: str, share: float) -> None:
        self._bars.update(self._task, completed=share)


@contextmanager
def _shown() -> Iterator[_Shown]:
    columns = (text_column("{task.description}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=notes, transient=True) as bars:
        yield _Shown(bars)

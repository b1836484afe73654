"""The leaderboard of a challenge: a CSV file of entries, ranked by Max_SSIM when it is shown."""

from __future__ import annotations

import csv
import fcntl
import io
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from pathlib import Path
from tempfile import NamedTemporaryFile

from instahide.audit.challenge.baseline_names import (
    AUTHOR,
    require_other_attack,
    require_other_author,
)
from instahide.audit.challenge.score import ChallengeScore
from instahide.audit.challenge.submission import SubmissionFacts
from instahide.errors import DamagedFileError, DataError, failure_reason
from instahide.utils.atomic_write import atomic_write, read_regular
from instahide.utils.csv_text import csv_text
from instahide.utils.number_text import plain_float

#: Largest size of a leaderboard in bytes.
MOST_BYTES = 1 << 24
#: The columns of text, and those of figures.
TEXTS = ("challenge", "attack", "version", "author", "url", "at", "note")
FIGURES = tuple(field.name for field in fields(ChallengeScore))


@dataclass(frozen=True)
class Entry:
    """A row of a leaderboard. Texts are as in the file, see `csv_text`.

    Attributes:
        challenge: SHA-256 of the challenge.
        attack: name of the attack.
        version: version of the attack.
        author: who ran it.
        url: where it is described.
        at: when it was entered, in UTC.
        note: a remark; the reason, if there is no score.
        figures: the score by name of the figure; None if the attack was not scored.
    """

    challenge: str
    attack: str
    version: str
    author: str
    url: str
    at: str
    note: str
    figures: Mapping[str, float] | None

    @property
    def max_ssim(self) -> float:
        """The figure that ranks; below all scores if there is none."""
        return -math.inf if self.figures is None else self.figures["max_ssim"]

    @property
    def name(self) -> tuple[str, str]:
        """Attack and version, of which a leaderboard has one entry."""
        return self.attack, self.version

    @property
    def is_baseline(self) -> bool:
        """Whether whoever keeps the leaderboard ran the attack as a baseline."""
        return self.author == AUTHOR


def entry(facts: SubmissionFacts, score: ChallengeScore | None, note: str = "") -> Entry:
    """The entry of a submission, now. Its texts become harmless to spreadsheets.

    Args:
        facts: challenge and attack.
        score: the score; None for an attack that could not be run.
        note: a remark, or why there is no score.

    Examples:
        >>> from instahide.audit.challenge.leaderboard import entry
        >>> from instahide.audit.challenge.submission import SubmissionFacts
        >>> facts = SubmissionFacts(challenge="0" * 64, attack="=1+1", version="1")
        >>> print(entry(facts, None, "too few encodings").attack)
        '=1+1
    """
    return Entry(
        facts.challenge,
        csv_text(facts.attack),
        csv_text(facts.version),
        csv_text(facts.author),
        csv_text(facts.url),
        datetime.now(UTC).isoformat(timespec="seconds"),
        csv_text(note),
        None if score is None else asdict(score),
    )


def enter(leaderboard: Path, added: Entry, *, baseline: bool = False) -> None:
    """Add an entry to a CSV file, which is created if it does not exist.

    An entry without a score is replaced by a later one of the same attack and version. Other
    processes that add entries at the same time wait.

    Args:
        leaderboard: the file.
        added: the entry.
        baseline: whether the entry is of a baseline that the caller ran. Other entries may have
            neither its name nor its author.

    Raises:
        DataError: the leaderboard is of another challenge, or has a score of this version of the
            attack; or the attack or the author is named as only that of a baseline may be.
        DamagedFileError: the file is not a leaderboard.
    """
    if not baseline:
        require_other_attack(added.attack)
        require_other_author(added.author)
    leaderboard.parent.mkdir(parents=True, exist_ok=True)
    with _locked(leaderboard):
        before = entries_of(leaderboard, added.challenge)
        if any(_is_same(old, added) and old.figures is not None for old in before):
            raise DataError(
                f"{leaderboard} has a score of {added.attack}, version {added.version}.",
                "Give the submission another version.",
            )
        kept = [old for old in before if not _is_same(old, added)]
        with atomic_write(leaderboard) as partial:
            partial.write_text(_csv([*kept, added]), encoding="utf-8", newline="")


def read_leaderboard(leaderboard: Path) -> list[Entry]:
    """All entries, in the order in which they were added.

    Raises:
        DamagedFileError: the file is not a leaderboard.
    """
    try:
        text = read_regular(leaderboard, MOST_BYTES).decode("utf-8")
        rows = csv.DictReader(io.StringIO(text, newline=""), strict=True)
        if tuple(rows.fieldnames or ()) != (*TEXTS, *FIGURES):
            raise ValueError(f"its columns are not {', '.join((*TEXTS, *FIGURES))}")
        found = [_entry(row) for row in rows]
        if len({one.challenge for one in found}) > 1:
            raise ValueError("its entries are of different challenges")
    except (OSError, ValueError, csv.Error) as error:
        raise DamagedFileError(
            f"{leaderboard} is not a readable leaderboard ({failure_reason(error)}).",
            "Name another file, or move this one away.",
        ) from error
    return found


def ranked(entries: Sequence[Entry]) -> list[tuple[int | None, Entry]]:
    """Rank and entry, from the largest Max_SSIM; entries without a score have no rank.

    Equal scores have the same rank, and the next rank is left out for each. The earlier entry of
    them stands first.
    """
    found: list[tuple[int | None, Entry]] = []
    ordered = sorted(entries, key=lambda one: one.max_ssim, reverse=True)
    for place, one in enumerate(ordered, 1):
        tied = bool(found) and found[-1][1].max_ssim == one.max_ssim
        rank = found[-1][0] if tied else place
        found.append((None if one.figures is None else rank, one))
    return found


def entries_of(leaderboard: Path, challenge: str) -> list[Entry]:
    """The entries of a leaderboard; none if the file does not exist.

    Args:
        leaderboard: the file.
        challenge: SHA-256 of the challenge that it must be of.

    Raises:
        DataError: the leaderboard is of another challenge.
        DamagedFileError: the file is not a leaderboard.
    """
    entries = read_leaderboard(leaderboard) if leaderboard.exists() else []
    if entries and entries[0].challenge != challenge:
        raise DataError(
            f"{leaderboard} is of the challenge {entries[0].challenge}, not of {challenge}.",
            "Name a new file: entries of different challenges cannot be ranked.",
        )
    return entries


def _is_same(one: Entry, other: Entry) -> bool:
    """Whether both are of one version of an attack; a file may have one named like a baseline."""
    return one.name == other.name and one.is_baseline == other.is_baseline


def _entry(row: Mapping[str, str | None]) -> Entry:
    values = [row[name] for name in (*TEXTS, *FIGURES)]
    if None in row or None in values:
        raise ValueError("a row has another number of cells")
    challenge, attack, version, author, url, at, note = map(str, values[: len(TEXTS)])
    cells = values[len(TEXTS) :]
    figures = None
    if any(cells):
        figures = {name: plain_float(str(cell)) for name, cell in zip(FIGURES, cells, strict=True)}
        if not all(map(math.isfinite, figures.values())):
            raise ValueError("a figure is not finite")
    return Entry(challenge, attack, version, author, url, at, note, figures)


def _csv(entries: Sequence[Entry]) -> str:
    out = io.StringIO(newline="")
    writer = csv.writer(out)
    writer.writerow([*TEXTS, *FIGURES])
    for one in entries:
        figures = [""] * len(FIGURES)
        if one.figures is not None:
            figures = [repr(float(one.figures[name])).removesuffix(".0") for name in FIGURES]
        writer.writerow([*(getattr(one, name) for name in TEXTS), *figures])
    return out.getvalue()


@contextmanager
def _locked(leaderboard: Path) -> Iterator[None]:
    """Let one process or thread at a time change ``leaderboard``; others wait.

    The file itself is locked, so that none is left. Its folder may be in use for longer: by the
    attacks whose submissions are entered.

    Raises:
        DamagedFileError: the file cannot be opened or locked.
    """
    try:
        opened = _opened_and_locked(leaderboard)
    except OSError as error:
        raise DamagedFileError(
            f"{leaderboard} cannot be opened or locked ({failure_reason(error)}).",
            "Name another file, on a disk of this machine.",
        ) from error
    try:
        yield
    finally:
        os.close(opened)


def _opened_and_locked(leaderboard: Path) -> int:
    while True:
        if not leaderboard.exists():
            _create(leaderboard)
        opened = os.open(leaderboard, os.O_RDONLY | os.O_NONBLOCK)
        try:
            fcntl.flock(opened, fcntl.LOCK_EX)
            # The process that had the lock has replaced the file, and the lock is of the old one.
            if os.path.samestat(os.fstat(opened), leaderboard.stat()):
                return opened
        except BaseException:
            os.close(opened)
            raise
        os.close(opened)


def _create(leaderboard: Path) -> None:
    """Make a leaderboard without entries, whole or not at all, unless there is one meanwhile."""
    with NamedTemporaryFile("w", encoding="utf-8", dir=leaderboard.parent) as whole:
        whole.write(_csv([]))
        whole.flush()
        with suppress(FileExistsError):
            os.link(whole.name, leaderboard)

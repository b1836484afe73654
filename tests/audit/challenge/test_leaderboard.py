"""The leaderboard: ranked, of one challenge, harmless to spreadsheets, whole under concurrency."""

from __future__ import annotations

import csv
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from instahide.audit.challenge import leaderboard as module
from instahide.audit.challenge.baseline_names import AUTHOR
from instahide.audit.challenge.leaderboard import (
    FIGURES,
    TEXTS,
    Entry,
    enter,
    entries_of,
    entry,
    ranked,
    read_leaderboard,
)
from instahide.audit.challenge.score import ChallengeScore
from instahide.audit.challenge.submission import SubmissionFacts
from instahide.errors import DamagedFileError, InstaHideError
from instahide.utils.folder_lock import only_process
from tests.audit.challenge.examples import score_of
from tests.waiting import LIMIT

CHALLENGE = "ab" * 32


def made(attack: str, score: ChallengeScore | None, version: str = "1", note: str = "") -> Entry:
    facts = SubmissionFacts(challenge=CHALLENGE, attack=attack, version=version, author="anna")
    return entry(facts, score, note)


def test_entries_are_appended_and_read(tmp_path: Path) -> None:
    board = tmp_path / "leaderboard.csv"
    enter(board, made("first", score_of(0.5)))
    enter(board, made("second, with a comma", score_of(0.25), "2.0"))
    rows = list(csv.DictReader(board.read_text().splitlines()))
    assert [row["attack"] for row in rows] == ["first", "second, with a comma"]
    assert (rows[1]["version"], rows[1]["mean_ssim"]) == ("2.0", "0.25")
    assert {row["challenge"] for row in rows} == {CHALLENGE}
    assert list(rows[0]) == [*TEXTS, *FIGURES]
    before = board.read_bytes()
    enter(board, made("third", score_of(1)))
    assert board.read_bytes().startswith(before)


def test_equal_scores_share_a_rank(tmp_path: Path) -> None:
    board = tmp_path / "board.csv"
    for attack, value in (("c", 0.2), ("a", 0.7), ("late", 0.7), ("d", 0.1)):
        enter(board, made(attack, score_of(value)))
    enter(board, made("refused", None, note="too few encodings"))
    found = [(rank, one.attack) for rank, one in ranked(read_leaderboard(board))]
    assert found == [(1, "a"), (1, "late"), (3, "c"), (4, "d"), (None, "refused")]


@given(values=st.lists(st.sampled_from([0.1, 0.2, 0.3, None]), max_size=12))
def test_a_rank_is_one_more_than_the_number_of_better_entries(values: list[float | None]) -> None:
    entries = [
        made(str(number), None if value is None else score_of(value))
        for number, value in enumerate(values)
    ]
    found = ranked(entries)
    assert sorted(one.attack for _, one in found) == sorted(one.attack for one in entries)
    for rank, one in found:
        better = sum(other.max_ssim > one.max_ssim for other in entries)
        assert rank == (None if one.figures is None else better + 1)


@settings(max_examples=40)
@given(
    texts=st.lists(st.text(min_size=1, max_size=40), min_size=2, max_size=2),
    author=st.text(max_size=40),
    value=st.floats(-1, 1),
)
def test_any_text_comes_back_and_is_no_formula(
    tmp_path_factory: pytest.TempPathFactory, texts: list[str], author: str, value: float
) -> None:
    board = tmp_path_factory.mktemp("board") / "board.csv"
    facts = SubmissionFacts.model_construct(
        challenge=CHALLENGE, attack=texts[0], version=texts[1], author=author, url=""
    )
    added = entry(facts, score_of(value))
    enter(board, added)
    (found,) = read_leaderboard(board)
    assert found == added
    with board.open(newline="", encoding="utf-8") as file:
        cells = list(csv.reader(file))[1]
    for cell in cells[: len(TEXTS)]:
        assert cell.lstrip(" ")[:1] not in tuple("=+-@\t\r")
        assert cell.isprintable()


@pytest.mark.parametrize("first", list("=+-@"))
def test_a_formula_is_quoted(tmp_path: Path, first: str) -> None:
    board = tmp_path / "board.csv"
    enter(board, made(f"{first}HYPERLINK(1)", score_of(0.5), f"{first}1"))
    row = next(csv.DictReader(board.read_text().splitlines()))
    assert (row["attack"], row["version"]) == (f"'{first}HYPERLINK(1)", f"'{first}1")


def test_a_version_is_scored_once(tmp_path: Path) -> None:
    board = tmp_path / "board.csv"
    enter(board, made("a", score_of(0.5)))
    with pytest.raises(InstaHideError, match="another version"):
        enter(board, made("a", score_of(0.9)))
    enter(board, made("a", score_of(0.9), "2"))
    assert len(read_leaderboard(board)) == 2


@pytest.mark.parametrize("attack", ["reconstruction", " Blank ", "CARLINI"])
def test_the_name_of_a_baseline_is_refused(tmp_path: Path, attack: str) -> None:
    board = tmp_path / "board.csv"
    with pytest.raises(InstaHideError, match=r"as a baseline.*another name"):
        enter(board, made(attack, score_of(0.5)))
    assert not board.exists()


@pytest.mark.parametrize("author", [AUTHOR, f" {AUTHOR.upper()}"])
def test_the_author_of_the_baselines_is_refused(tmp_path: Path, author: str) -> None:
    board = tmp_path / "board.csv"
    for attack in ("mine", "blank"):
        facts = SubmissionFacts(challenge=CHALLENGE, attack=attack, version="1", author=author)
        with pytest.raises(InstaHideError, match="baseline"):
            enter(board, entry(facts, score_of(0.5)))
    assert not board.exists()


def test_an_entry_without_a_score_is_replaced(tmp_path: Path) -> None:
    board = tmp_path / "board.csv"
    enter(board, made("a", None, note="no time"))
    assert read_leaderboard(board)[0].note == "no time"
    enter(board, made("a", score_of(0.5)))
    (found,) = read_leaderboard(board)
    assert found.figures == dict.fromkeys(FIGURES, 0.5)


def test_another_challenge_is_refused(tmp_path: Path) -> None:
    board = tmp_path / "board.csv"
    enter(board, made("a", score_of(0.5)))
    facts = SubmissionFacts(challenge="cd" * 32, attack="b", version="1")
    before = board.read_bytes()
    with pytest.raises(InstaHideError, match="is of the challenge"):
        enter(board, entry(facts, score_of(1)))
    with pytest.raises(InstaHideError, match="is of the challenge"):
        entries_of(board, "cd" * 32)
    assert board.read_bytes() == before


HEADER = ",".join([*TEXTS, *FIGURES])
CELLS = [CHALLENGE, "a", "1", "", "", "", "", *["0.5"] * len(FIGURES)]


@pytest.mark.parametrize(
    "content",
    [
        b"name,at,score\n",
        b"\xff\xfe",
        b"nothing",
        b"",
        f"{HEADER}\n{','.join(CELLS[:-1])}\n".encode(),
        f"{HEADER}\n{','.join(CELLS)},more\n".encode(),
        f"{HEADER}\n{','.join([*CELLS[:-1], 'nan'])}\n".encode(),
        f"{HEADER}\n{','.join([*CELLS[:-1], 'much'])}\n".encode(),
        f"{HEADER}\n{','.join([*CELLS[:-1], ''])}\n".encode(),
        f"{HEADER}\n{','.join([*CELLS[:-1], '0_1'])}\n".encode(),
        f"{HEADER}\n{','.join([*CELLS[:-1], chr(0xFF11)])}\n".encode(),
        "\n".join([HEADER, ",".join(CELLS), ",".join(["x", *CELLS[1:]])]).encode(),
    ],
)
def test_another_file_is_neither_read_nor_written(tmp_path: Path, content: bytes) -> None:
    board = tmp_path / "other.csv"
    board.write_bytes(content)
    with pytest.raises(InstaHideError, match=r"other\.csv"):
        enter(board, made("a", score_of(0.5)))
    with pytest.raises(InstaHideError, match=r"other\.csv"):
        read_leaderboard(board)
    assert board.read_bytes() == content


def test_a_leaderboard_may_be_where_another_process_writes_submissions(tmp_path: Path) -> None:
    """The attacks whose submissions are entered hold their folder for hours."""
    program = """
        from pathlib import Path
        from instahide.audit.challenge.leaderboard import enter, entry
        from instahide.audit.challenge.submission import SubmissionFacts
        facts = SubmissionFacts(challenge="ab" * 32, attack="mine", version="1")
        enter(Path("board.csv"), entry(facts, None, "x"))
    """
    with only_process(tmp_path):
        command = [sys.executable, "-c", textwrap.dedent(program)]
        subprocess.run(command, cwd=tmp_path, timeout=LIMIT, check=True)
    assert [one.attack for one in read_leaderboard(tmp_path / "board.csv")] == ["mine"]


def test_what_ends_before_its_entry_leaves_a_leaderboard_without_entries(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    board = tmp_path / "board.csv"
    facts = SubmissionFacts(challenge="ab" * 32, attack="mine", version="1")
    with monkeypatch.context() as broken:
        broken.setattr(module, "atomic_write", lambda _: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            enter(board, entry(facts, None, "x"))
    assert [path.name for path in tmp_path.iterdir()] == ["board.csv"]
    assert read_leaderboard(board) == []
    enter(board, entry(facts, None, "x"))
    assert len(read_leaderboard(board)) == 1


@pytest.mark.parametrize("what", ["a folder", "no locks"])
def test_a_leaderboard_that_cannot_be_locked_is_refused(
    what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unsupported(*words: object) -> None:
        raise OSError(95, "Operation not supported")

    board = tmp_path / "board.csv"
    if what == "a folder":
        board.mkdir()
    else:
        monkeypatch.setattr("fcntl.flock", unsupported)
    facts = SubmissionFacts(challenge="ab" * 32, attack="mine", version="1")
    with pytest.raises(DamagedFileError, match=r"board\.csv .*(Is a directory|not supported)"):
        enter(board, entry(facts, None, "x"))


@pytest.mark.slow
def test_no_entry_is_lost_when_many_are_added_at_once(tmp_path: Path) -> None:
    program = """
        import sys
        from pathlib import Path
        from instahide.audit.challenge.leaderboard import enter, entry
        from instahide.audit.challenge.submission import SubmissionFacts
        for number in range(15):
            attack = f"{sys.argv[1]}-{number}"
            facts = SubmissionFacts(challenge="ab" * 32, attack=attack, version="1")
            enter(Path("board.csv"), entry(facts, None, "x"))
    """
    command = [sys.executable, "-c", textwrap.dedent(program)]
    running = [subprocess.Popen([*command, name], cwd=tmp_path) for name in "ab"]
    assert [process.wait(LIMIT) for process in running] == [0, 0]
    names = sorted(one.attack for one in read_leaderboard(tmp_path / "board.csv"))
    assert names == sorted(f"{name}-{number}" for name in "ab" for number in range(15))
    assert np.array_equal([path.name for path in tmp_path.iterdir()], ["board.csv"])

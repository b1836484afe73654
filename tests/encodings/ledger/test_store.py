"""The ledger's file gives nothing away, and no damage to it is taken for a count."""

from __future__ import annotations

import contextlib
import functools
import sqlite3
import stat
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from instahide.data import ImageTable
from instahide.encodings.ledger.counts import sum_counts
from instahide.encodings.ledger.ledger import Ledger, default_ledger
from instahide.encodings.ledger.schema import PAGE, create, with_crc
from instahide.errors import InstaHideError, LedgerError
from tests.encodings.ledger.recorder import drawn, some, table

# What the file gives away.


def test_the_file_gives_nothing_away(path: Path) -> None:
    generator = np.random.default_rng()
    pixels = generator.integers(0, 256, (300, 3, 8, 8), np.uint8)
    images = ImageTable.from_arrays(pixels, np.arange(300) % 2, ["striped cats", "spotted dogs"])
    needles = [*(row.tobytes()[:12] for row in pixels), b"striped", b"spotted"]
    with Ledger.open(path) as ledger:
        account = ledger.account(images)
        entries = account._entries
        for _ in range(4):
            rows = drawn(generator, 300, 20)
            coefficients = generator.random(rows.shape, np.float32)
            account.record(rows, coefficients)
            for numbers in (rows.reshape(-1), entries[rows].reshape(-1)):
                for order in (numbers, np.sort(numbers)):
                    # Not the smallest numbers: counts may look like them.
                    needles += [order[i : i + 4].astype("<u4").tobytes() for i in (8, 20, 30)]
            squares = np.square(coefficients).reshape(-1)
            needles += [squares[i : i + 2].tobytes() for i in range(0, 40, 2)]
            by_entry = np.argsort(entries[rows].reshape(-1))
            needles += [squares[by_entry][i : i + 2].tobytes() for i in range(0, 40, 2)]
        during = b"".join(file.read_bytes() for file in path.parent.iterdir())
        assert any(needle in during for needle in needles), "the search finds what is there"
    files = list(path.parent.iterdir())
    assert files == [path]
    content = path.read_bytes()
    assert [needle for needle in needles if needle in content] == []
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_pages_are_as_large_as_asked_for(ledger: Ledger, path: Path) -> None:
    with contextlib.closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA page_size").fetchone() == (PAGE,)


def test_what_is_folded_takes_no_room(path: Path) -> None:
    with Ledger.open(path) as ledger:
        ledger.account(table(2000))
    entered = path.stat().st_size
    with Ledger.open(path) as ledger:
        account = ledger.account(table(2000))
        for _ in range(10):
            account.record(*some([[n, n + 1] for n in range(1999)]))
    assert path.stat().st_size <= entered + 2 * PAGE


def test_all_files_are_the_owners_alone(ledger: Ledger, path: Path) -> None:
    ledger.account(table(3)).record(*some([[0, 1]]))
    names = {file.name for file in path.parent.iterdir()}
    assert names == {"ledger.sqlite", "ledger.sqlite-wal", "ledger.sqlite-shm"}
    assert {stat.S_IMODE(file.stat().st_mode) for file in path.parent.iterdir()} == {0o600}


def test_two_ledgers_have_nothing_in_common(tmp_path: Path) -> None:
    kept = []
    for name in "ab":
        with Ledger.open(tmp_path / name) as ledger:
            ledger.account(table(10))
            kept.append(set(ledger._file._names()._own.tolist()))
    assert not kept[0] & kept[1]


# Where it lies, and what can be wrong with it.


def test_where_the_ledger_lies(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("INSTAHIDE_LEDGER", raising=False)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    assert default_ledger() == tmp_path / "instahide" / "ledger.sqlite"
    monkeypatch.setenv("INSTAHIDE_LEDGER", str(tmp_path / "mine"))
    with Ledger.open() as ledger:
        ledger.account(table(2))
    assert (tmp_path / "mine").exists()


@pytest.mark.parametrize("variable", ["ledger.sqlite", "./mine/ledger.sqlite", "~/ledger.sqlite"])
def test_a_variable_that_means_another_ledger_in_each_folder_is_refused(
    variable: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("INSTAHIDE_LEDGER", variable)
    with pytest.raises(LedgerError, match="another file in each working directory"):
        Ledger.open()
    assert not list(tmp_path.iterdir())


def test_a_tilde_that_no_shell_has_expanded_is_no_folder(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(LedgerError, match="earlier encodings would not be counted"):
        Ledger.open(Path("~/ledger.sqlite"))
    with Ledger.open(Path("here.sqlite")):  # The user named a file of this folder.
        assert [file.name for file in tmp_path.glob("*.sqlite")] == ["here.sqlite"]


def test_a_ledger_that_is_there_is_never_made_anew(path: Path) -> None:
    with Ledger.open(path) as ledger:
        ledger.account(table(2)).record(*some([[0, 1]]))
    create(path)
    assert [file.name for file in path.parent.iterdir()] == [path.name]
    with Ledger.open(path) as ledger:
        assert ledger.totals().counts.tolist() == [1, 1]


@functools.cache
def content() -> bytes:
    """A ledger in which every image but two was in two encodings."""
    with TemporaryDirectory() as folder:
        return written(Path(folder) / "ledger.sqlite")


def require_truth(path: Path) -> None:
    """All counts are as in `content`, and something can be counted on top."""
    with Ledger.open(path) as ledger:
        account = ledger.account(table(2000))
        assert account.counts.tolist() == [1, *[2] * 1998, 1]
        account.record(*some([[0, 1]]))
        assert account.counts.tolist() == [2, 3, *[2] * 1997, 1]


def written(path: Path) -> bytes:
    with Ledger.open(path) as ledger:
        ledger.account(table(2000)).record(*some([[n, n + 1] for n in range(1999)]))
    return path.read_bytes()


@pytest.mark.parametrize("keep", [0, 1, 50, 100, 4096, 8192, 0.5, 0.9])
def test_a_truncated_ledger_is_refused_and_left_alone(path: Path, keep: float) -> None:
    whole = content()
    part = whole[: int(keep * len(whole)) if isinstance(keep, float) else keep]
    path.write_bytes(part)
    with pytest.raises(InstaHideError, match="damaged") as refused:
        Ledger.open(path).account(table(2000))
    assert "backup" in refused.value.remedy
    assert path.read_bytes() == part


@pytest.mark.parametrize("other", [b"not a database " * 400, bytes(8192)])
def test_what_is_no_ledger_is_refused_and_left_alone(path: Path, other: bytes) -> None:
    path.write_bytes(other)
    with pytest.raises(InstaHideError, match="not a ledger"):
        Ledger.open(path)
    assert path.read_bytes() == other


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("PRAGMA application_id = 5", "not a ledger"),
        ("PRAGMA user_version = 5", "version 5"),
        ("DROP TABLE totals", "damaged"),
        ("DELETE FROM state", "damaged"),
        ("UPDATE state SET folded = folded + 1", "damaged"),
        ("UPDATE totals SET counts = x'010203'", "damaged"),
        ("UPDATE totals SET squares = NULL", "damaged"),
        ("DELETE FROM totals", "damaged"),
        ("INSERT INTO takes VALUES (99, x'00000000', x'00000000', 1.0, 0)", "damaged"),
        ("INSERT INTO takes VALUES (99, 'text', 1.5, 1.0, NULL)", "damaged"),
    ],
)
def test_a_database_that_is_not_as_it_should_be(path: Path, change: str, words: str) -> None:
    written(path)
    connection = sqlite3.connect(path)
    with connection:
        connection.execute(change)
    connection.close()
    with pytest.raises(InstaHideError, match=words):
        Ledger.open(path)


@pytest.mark.parametrize("value", [-1e6, float("nan")])
@pytest.mark.parametrize("column", ["squares", "losses"])
def test_sums_below_zero_are_refused_though_their_checksum_is_right(
    path: Path, column: str, value: float
) -> None:
    written(path)
    with contextlib.closing(sqlite3.connect(path)) as connection, connection:
        first, counts, *_ = connection.execute("SELECT * FROM totals").fetchone()
        sums = {name: np.ones(2000).tobytes() for name in ("squares", "losses")}
        sums[column] = np.full(2000, value).tobytes()
        row = with_crc(first, counts, sums["squares"], sums["losses"])
        connection.execute("REPLACE INTO totals VALUES (?, ?, ?, ?, ?)", row)
    with pytest.raises(InstaHideError, match="damaged"):
        Ledger.open(path)


@pytest.mark.slow
@settings(max_examples=200, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    bytes_changed=st.integers(1, 20),
    cut=st.just(1.0) | st.floats(0.5, 1),
)
def test_damage_is_refused_or_changes_no_count(
    tmp_path_factory: pytest.TempPathFactory, seed: int, bytes_changed: int, cut: float
) -> None:
    path = tmp_path_factory.mktemp("damaged") / "ledger.sqlite"
    generator, damaged = np.random.default_rng(seed), bytearray(content())
    for place in generator.integers(0, len(damaged), bytes_changed):
        damaged[place] ^= generator.integers(1, 256)
    path.write_bytes(damaged[: int(cut * len(damaged))])
    # Much of a database is empty, and may be anything.
    with contextlib.suppress(InstaHideError):
        require_truth(path)


def test_a_locked_ledger_says_so(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("instahide.encodings.ledger.schema.PATIENCE", 0.1)
    with Ledger.open(path) as ledger, Ledger.open(path) as other:
        account = ledger.account(table(3))
        with other._file.changing(), pytest.raises(InstaHideError, match="Another process"):
            account.record(*some([[0, 1]]))
        assert account.record(*some([[0, 1]])) == 1


def test_a_full_disk_counts_nothing_and_says_so(path: Path) -> None:
    with Ledger.open(path) as ledger:
        account = ledger.account(table(2000))
        connection = ledger._file._connection
        (pages,) = connection.execute("PRAGMA page_count").fetchone()
        # What SQLite reports beyond this many pages is what it reports of a full disk.
        connection.execute(f"PRAGMA max_page_count = {pages}")
        with pytest.raises(InstaHideError, match="full") as refused:
            account.record(*some([[n, n + 1] for n in range(1999)]))
        assert "space" in refused.value.remedy
        connection.execute("PRAGMA max_page_count = 100000")
        assert account.counts.sum() == 0
        assert account.record(*some([[0, 1]])) == 1
        assert account.counts.sum() == 2


def test_a_read_only_ledger_says_so(
    path: Path, read_only: Callable[[Path], AbstractContextManager[None]]
) -> None:
    written(path)
    with read_only(path.parent), pytest.raises(InstaHideError, match="cannot be written"):
        Ledger.open(path)


def test_a_place_that_is_no_folder_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InstaHideError, match="cannot be written"):
        Ledger.open(tmp_path / "file" / "ledger.sqlite")
    with pytest.raises(InstaHideError):
        Ledger.open(tmp_path)


def test_a_limit_below_one_is_refused(ledger: Ledger) -> None:
    with pytest.raises(InstaHideError, match="per image is 0"):
        ledger.account(table(2), limit=0)


def test_what_was_not_committed_was_not_counted(ledger: Ledger) -> None:
    account, file = ledger.account(table(3)), ledger._file

    def stop_in_the_middle() -> None:
        with file.changing():
            file.add(np.array([0, 1]), np.ones(2, np.float32), 1.0)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stop_in_the_middle()
    assert account.counts.tolist() == [0, 0, 0]
    account.record(*some([[0, 1]]))
    assert sorted(account.counts.tolist()) == [0, 1, 1]


@given(
    images=st.integers(1, 40),
    numbers=st.lists(st.integers(0, 39), max_size=60),
    seed=st.integers(0, 100),
)
def test_adding_up_together_is_adding_up_one_by_one(
    images: int, numbers: list[int], seed: int
) -> None:
    places = np.array([number % images for number in numbers], np.intp)
    values = np.random.default_rng(seed).random(len(places))
    counts, sums = np.zeros(images, np.int64), np.zeros(images)
    sum_counts(counts, places, None)
    sum_counts(sums, places, values)
    for image in range(images):
        assert counts[image] == (places == image).sum()
        assert sums[image] == pytest.approx(values[places == image].sum())

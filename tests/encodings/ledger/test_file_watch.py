"""A ledger whose file is removed, replaced or given another name stops the work."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from instahide import ImageTable, InstaHideError, Scheme
from instahide.encodings import publish as publishing
from instahide.encodings.folder import EncodedFolder
from instahide.encodings.ledger.account import LedgerAccount
from instahide.encodings.ledger.ledger import Ledger
from instahide.encodings.publish import Publication, publish, threads
from tests.encodings.ledger.recorder import some, table

#: What happens to the ledger at a path; the second path has an older copy of it.
Event = Callable[[Path, Path], object]


def other_ledger(path: Path) -> Path:
    """Another ledger, of as many images, in a folder of its own."""
    place = path.parent / "other" / "ledger.sqlite"
    with Ledger.open(place) as ledger:
        ledger.account(table(8)).record(*some([[0, 1]]))
    return place


def move_and_link(path: Path, _: Path) -> None:
    path.rename(path.with_name("moved.sqlite"))
    path.symlink_to("moved.sqlite")


def move_folder_and_link(path: Path, _: Path) -> None:
    folder = path.parent
    folder.rename(folder.with_name("moved"))
    folder.symlink_to("moved")


def overwrite(path: Path, other: Path) -> None:
    """Other bytes in the same file."""
    with path.open("r+b") as file:
        file.write(other.read_bytes())
        file.truncate()


def suffixed(path: Path, suffix: str) -> Path:
    return Path(f"{path}{suffix}")


EVENTS: dict[str, Event] = {
    "removed": lambda path, _: path.unlink(),
    "all removed": lambda path, _: [each.unlink() for each in path.parent.glob("ledger.*")],
    "moved": lambda path, _: path.rename(path.with_name("moved.sqlite")),
    "moved and linked": move_and_link,
    "folder moved": lambda path, _: path.parent.rename(path.parent.with_name("moved")),
    "folder moved and linked": move_folder_and_link,
    "folder removed": lambda path, _: shutil.rmtree(path.parent),
    "replaced by another": lambda path, _: other_ledger(path).replace(path),
    "replaced by an older copy": lambda path, older: (
        shutil.copy(older, older.with_name("o")) and older.with_name("o").replace(path)
    ),
    "overwritten by another": lambda path, _: overwrite(path, other_ledger(path)),
    "overwritten by an older copy": overwrite,
    "overwritten, times kept": lambda path, older: shutil.copy2(older, path),
    "emptied": lambda path, _: os.truncate(path, 0),
    "cut off": lambda path, _: os.truncate(path, path.stat().st_size // 2),
    "a hard link": lambda path, _: path.with_name("second.sqlite").hardlink_to(path),
    "log removed": lambda path, _: suffixed(path, "-wal").unlink(),
    "log emptied": lambda path, _: os.truncate(suffixed(path, "-wal"), 0),
    "log replaced": lambda path, _: (
        shutil.copy(suffixed(path, "-wal"), path.with_name("w"))
        and path.with_name("w").replace(suffixed(path, "-wal"))
    ),
    "index removed": lambda path, _: suffixed(path, "-shm").unlink(),
}


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A ledger in which images were counted, and in ``older`` how it was before."""
    path = tmp_path / "folder" / "ledger.sqlite"
    with Ledger.open(path) as ledger:
        ledger.account(table(8))
    shutil.copy(path, tmp_path / "older")
    with Ledger.open(path) as ledger:
        ledger.account(table(8)).record(*some([[0, 1], [2, 3]]))
    return path


USES: dict[str, Callable[[Ledger, LedgerAccount], object]] = {
    "take": lambda _, account: account.record(*some([[0, 1]])),
    "sync": lambda _, account: account.sync(),
    "check": lambda _, account: account.check(),
    "counts": lambda _, account: account.counts,
    "totals": lambda ledger, _: ledger.totals(),
    "pending": lambda _, account: account.pending("p", {"s": np.arange(3)}),
    "another account": lambda ledger, _: ledger.account(table(3)),
    "close": lambda ledger, _: ledger.close(),
}


#: Every event before two uses, and every use after two events.
CASES = [
    (event, use)
    for event in EVENTS
    for use in USES
    if use in ("take", "close") or event in ("removed", "overwritten by an older copy")
]


@pytest.mark.parametrize(("event", "use"), CASES)
def test_no_use_goes_on(place: Path, event: str, use: str) -> None:
    ledger = Ledger.open(place)
    account = ledger.account(table(8), limit=100)
    account.record(*some([[0, 1], [4, 5]]))
    EVENTS[event](place, place.parents[1] / "older")
    with pytest.raises(InstaHideError) as caught:
        USES[use](ledger, account)
    assert str(place) in caught.value.problem
    assert "Restore" in caught.value.remedy
    # It stays so, whatever is put back meanwhile; and to close it does no harm.
    with pytest.raises(InstaHideError):
        account.record(*some([[0, 1]]))
    ledger.close()


@pytest.mark.parametrize("event", ["removed", "moved", "replaced by another"])
def test_the_files_that_are_there_now_are_left_alone(place: Path, event: str) -> None:
    ledger = Ledger.open(place)
    account = ledger.account(table(8))
    EVENTS[event](place, place.parents[1] / "older")
    before = {each.name: each.read_bytes() for each in place.parent.glob("*.sqlite*")}
    with pytest.raises(InstaHideError):
        account.check()
    ledger.close()
    del account, ledger
    after = {each.name: each.read_bytes() for each in place.parent.glob("*.sqlite*")}
    assert after == before


def test_writing_by_others_is_no_loss(place: Path) -> None:
    with Ledger.open(place) as one:
        account = one.account(table(8))
        for _ in range(5):
            # Opens, folds and closes: the log goes into the database each time it can.
            with Ledger.open(place) as two:
                two.account(table(30)).record(*some([[0, 1]]))
                two._file._connection.execute("PRAGMA wal_checkpoint(PASSIVE)")
            account.record(*some([[0, 1]]))
            account.check()
        assert account.counts.tolist() == [11, 11, 1, 1, 0, 0, 0, 0]
    with Ledger.open(place) as again:
        assert again.account(table(8)).counts.tolist() == [11, 11, 1, 1, 0, 0, 0, 0]


def test_touching_the_file_is_no_loss(place: Path) -> None:
    with Ledger.open(place) as ledger:
        account = ledger.account(table(8))
        os.utime(place)
        place.chmod(0o640)
        account.record(*some([[0, 1]]))
        account.check()


# Names.


def test_symbolic_links_lead_to_one_count(place: Path, tmp_path: Path) -> None:
    (tmp_path / "link.sqlite").symlink_to(place)
    (tmp_path / "linked").symlink_to(place.parent)
    paths = [place, tmp_path / "link.sqlite", tmp_path / "linked" / "ledger.sqlite"]
    ledgers = [Ledger.open(path) for path in paths]
    accounts = [ledger.account(table(8), limit=5) for ledger in ledgers]
    for account in accounts:
        assert account.record(*some([[0, 1]])) == 1
    assert [account.counts[0] for account in accounts] == [4] * 3
    assert accounts[0].record(*some([[0, 1], [0, 1]])) == 1
    for ledger in ledgers:
        ledger.close()
    assert [each.name for each in place.parent.iterdir()] == ["ledger.sqlite"]


def test_a_symbolic_link_that_leads_elsewhere_now_stops_the_work(
    place: Path, tmp_path: Path
) -> None:
    link = tmp_path / "link.sqlite"
    link.symlink_to(place)
    ledger = Ledger.open(link)
    account = ledger.account(table(8))
    link.unlink()
    link.symlink_to(other_ledger(place))
    with pytest.raises(InstaHideError, match="another path"):
        account.record(*some([[0, 1]]))


def test_a_hard_link_is_refused(place: Path) -> None:
    second = place.with_name("second.sqlite")
    second.hardlink_to(place)
    for path in (place, second):
        with pytest.raises(InstaHideError, match="hard link"):
            Ledger.open(path)
    second.unlink()
    Ledger.open(place).close()


def test_a_name_that_a_killed_maker_left_is_removed(place: Path) -> None:
    left = place.with_name(".ledger-abc123.new")
    left.hardlink_to(place)
    with Ledger.open(place) as ledger:
        assert ledger.account(table(8)).counts.sum() == 4
    assert not left.exists()


def test_a_link_to_nothing_and_a_log_without_its_ledger_are_refused(
    place: Path, tmp_path: Path
) -> None:
    (tmp_path / "link.sqlite").symlink_to(tmp_path / "nowhere.sqlite")
    with pytest.raises(InstaHideError, match="symbolic link"):
        Ledger.open(tmp_path / "link.sqlite")
    assert not (tmp_path / "nowhere.sqlite").exists()
    with Ledger.open(place) as ledger:
        ledger.account(table(8)).record(*some([[0, 1]]))
        wal = suffixed(place, "-wal").read_bytes()
    place.unlink()
    suffixed(place, "-wal").write_bytes(wal)
    with pytest.raises(InstaHideError, match="log"):
        Ledger.open(place)
    assert not place.exists()


def test_what_is_no_file_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(InstaHideError, match="not a ledger"):
        Ledger.open(tmp_path / "pipe")


@pytest.mark.slow
def test_a_file_mounted_by_itself_is_refused(place: Path, tmp_path: Path) -> None:
    target = tmp_path / "mount [1] point.sqlite"
    target.touch()
    mount = f"mount --bind '{place}' '{target}'"
    probe = subprocess.run(
        ["unshare", "--mount", "sh", "-c", mount], capture_output=True, check=False
    )
    if probe.returncode:
        pytest.skip("This user may not mount a file.")
    script = (
        f"{mount} && exec '{sys.executable}' -c \""
        "import sys; from pathlib import Path; "
        "from instahide.encodings.ledger import Ledger; "
        'Ledger.open(Path(sys.argv[1]))" "$0"'
    )
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", script, str(target)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert "mounted by itself" in done.stderr
    Ledger.open(place).close()


# Copies.


def test_an_older_copy_does_not_take_back_a_pickled_account(place: Path) -> None:
    with Ledger.open(place) as ledger:
        account = ledger.account(table(8))
        account.record(*some([[0, 1]]))
        reopen, arguments = account.__reduce__()
    assert reopen(*arguments).counts[0] == 2
    shutil.copy(place.parents[1] / "older", place)
    with pytest.raises(InstaHideError, match="older"):
        reopen(*arguments)


# Encoded folders.


def publication(copies: int) -> Publication:
    pixels = np.random.default_rng(0).integers(0, 256, (24, 1, 4, 4), np.uint8)
    images = ImageTable.from_arrays(pixels, np.arange(24) % 2)
    return Publication(images, None, Scheme.inside(2), copies)


@pytest.mark.parametrize("event", ["removed", "replaced by another", "log removed", "moved"])
def test_an_encoded_folder_is_left_unfinished(
    place: Path, tmp_path: Path, event: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(publishing, "SHARD_BYTES", 400)
    shards = []

    def progress(count: int) -> None:
        shards.append(count)
        if len(shards) == 4:
            EVENTS[event](place, place.parents[1] / "older")

    with pytest.raises(InstaHideError), Ledger.open(place) as ledger:
        publish(publication(20), tmp_path / "enc", ledger, engine=threads, progress=progress)
    # The first call is for none; what came after the event is in no manifest.
    assert len(shards) == 4
    folder = EncodedFolder.open(tmp_path / "enc", partial=True)
    assert folder.manifest.ended is None
    assert len(folder.manifest.shards) == 3


def test_an_older_copy_does_not_know_the_shards_of_a_folder(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(publishing, "SHARD_BYTES", 400)

    def run(stop_after: int, resume: bool) -> None:
        shards = []

        def progress(count: int) -> None:
            shards.append(count)
            if len(shards) > stop_after:
                raise KeyboardInterrupt

        with Ledger.open(place) as ledger:
            publish(
                publication(20), tmp_path / "enc", ledger,
                engine=threads, resume=resume, progress=progress,
            )  # fmt: skip

    with pytest.raises(KeyboardInterrupt):
        run(3, resume=False)
    shutil.copy(place, tmp_path / "between")
    with pytest.raises(KeyboardInterrupt):
        run(20, resume=True)
    newest = place.read_bytes()
    shutil.copy(tmp_path / "between", place)
    with pytest.raises(InstaHideError, match="older copy"):
        run(1000, resume=True)
    place.write_bytes(newest)
    run(1000, resume=True)
    assert EncodedFolder.open(tmp_path / "enc").manifest.ended == "all"


@pytest.mark.parametrize(
    "event",
    [
        "removed",
        *(pytest.param(e, marks=pytest.mark.slow) for e in ("log removed", "folder moved")),
    ],
)
def test_the_command_stops_and_promises_nothing(place: Path, tmp_path: Path, event: str) -> None:
    process = subprocess.Popen(
        [
            sys.executable, "-m", "instahide", "encrypt", "digits", "--scheme", "inside", "--k",
            "2", "--copies", "1000", "--noise", "100", "--ledger", str(place), "--out",
            str(tmp_path / "enc"),
        ],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    while not list((tmp_path / "enc").glob("*.safetensors")):
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)
    EVENTS[event](place, place.parents[1] / "older")
    out, error = process.communicate()
    assert process.returncode == 2, error
    assert "Differential privacy" not in out + error
    assert str(place) in error.replace("\n", "")
    # Before the first shard is in the manifest, the folder is given up; after it, it is unfinished.
    if any((tmp_path / "enc").glob("*.json")):
        assert EncodedFolder.open(tmp_path / "enc", partial=True).manifest.ended is None


@pytest.mark.slow
@pytest.mark.parametrize("event", ["removed", "overwritten by an older copy"])
def test_training_stops_and_promises_nothing(place: Path, tmp_path: Path, event: str) -> None:
    process = subprocess.Popen(
        [
            sys.executable, "-m", "instahide", "train", "digits", "--scheme", "inside", "--k", "2",
            "--epochs", "10000", "--noise", "100", "--ledger", str(place), "--out",
            str(tmp_path / "run"),
        ],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stderr is not None
    # A line of the first epoch.
    assert process.stderr.readline()
    EVENTS[event](place, place.parents[1] / "older")
    out, error = process.communicate()
    assert process.returncode == 2, error
    assert "Differential privacy" not in out + error
    assert str(place) in error.replace("\n", "")
    assert not (tmp_path / "run" / "results.json").exists()

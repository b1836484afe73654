"""The ledger counts exactly, for everybody at once, whatever is killed; and says nothing else."""

from __future__ import annotations

import os
import pickle
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from instahide.data import ImageTable
from instahide.encodings.ledger import store, stored_hashes
from instahide.encodings.ledger.account import LedgerAccount
from instahide.encodings.ledger.ledger import Ledger
from instahide.encryption.encoder import Encoder
from instahide.encryption.scheme import Scheme
from instahide.errors import ExposureLimitError, InstaHideError
from tests.encodings.ledger.recorder import IMAGES, MIXES, drawn, some, table, table_of
from tests.waiting import LIMIT

TAKER = Path(__file__).parent / "recorder.py"


class Oracle:
    """What an account promises, one exposure at a time."""

    def __init__(self, numbers: list[int], limit: int | None) -> None:
        self.numbers, self.limit = numbers, limit
        self.counts: dict[int, int] = dict.fromkeys(numbers, 0)
        self.squares: dict[int, float] = dict.fromkeys(numbers, 0.0)

    def record(self, rows: NDArray[np.int64], coefficients: NDArray[np.float32]) -> int:
        for done, (mix, weights) in enumerate(zip(rows, coefficients, strict=True)):
            # An image that is there twice is in one encoding, with the sum of its coefficients.
            sums: dict[int, float] = {}
            for row, weight in zip(mix, weights, strict=True):
                image = self.numbers[row]
                sums[image] = sums.get(image, 0.0) + float(weight)
            if any(self.passes(image) for image in sums):
                return done
            for image, total in sums.items():
                self.counts[image] += 1
                self.squares[image] += total**2
        return len(rows)

    def passes(self, image: int) -> bool:
        return self.limit is not None and self.counts[image] + 1 > self.limit

    def require_same(self, account: LedgerAccount) -> None:
        assert account.counts.tolist() == [self.counts[image] for image in self.numbers]
        expected = [self.squares[image] for image in self.numbers]
        np.testing.assert_allclose(account.squares, expected, rtol=1e-6)
        if self.limit is not None:
            spent = account.counts >= self.limit
            assert (account.exhausted() is None) == (not spent.any())
            assert account.exhausted() is None or (account.exhausted() == spent).all()


@pytest.mark.slow
@settings(max_examples=40, deadline=None)
@given(
    numbers=st.lists(st.integers(0, 6), min_size=2, max_size=9),
    limit=st.none() | st.integers(1, 6),
    seed=st.integers(0, 2**32),
    fold_at=st.sampled_from([0, 1, 4, 10**6]),
    reopen=st.booleans(),
)
def test_counts_are_those_of_counting_one_by_one(
    tmp_path_factory: pytest.TempPathFactory,
    numbers: list[int],
    limit: int | None,
    seed: int,
    fold_at: int,
    reopen: bool,
) -> None:
    path = tmp_path_factory.mktemp("ledger") / "ledger.sqlite"
    generator, oracle = np.random.default_rng(seed), Oracle(numbers, limit)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(store, "FOLD_AT", fold_at)
        ledger = Ledger.open(path)
        account = ledger.account(table_of(numbers), limit=limit)
        for _ in range(5):
            rows = drawn(generator, len(numbers), int(generator.integers(0, 5)))
            coefficients = generator.random(rows.shape, np.float32)
            assert account.record(rows, coefficients) == oracle.record(rows, coefficients)
            oracle.require_same(account)
            if reopen:
                ledger.close()
                ledger = Ledger.open(path)
                account = ledger.account(table_of(numbers), limit=limit)
        oracle.require_same(account)
        totals = ledger.totals()
        assert sorted(totals.counts) == sorted(oracle.counts.values())
        ledger.close()


def test_an_image_is_the_same_wherever_it_comes_from(path: Path) -> None:
    with Ledger.open(path) as ledger:
        ledger.account(table(5)).record(*some([[0, 1], [1, 2]]))
        other = ledger.account(table_of([9, 1, 2, 1]))
        assert other.counts.tolist() == [0, 2, 1, 2]
        # Both rows of the image 1 count for it, and a mix of both is one encoding of it.
        other.record(*some([[1, 3]]))
        assert other.counts.tolist() == [0, 3, 1, 3]
    with Ledger.open(path) as ledger:
        totals = ledger.totals()
        assert sorted(totals.counts) == [0, 0, 0, 1, 1, 3]
        of_data = ledger.totals(table_of([1, 1, 2, 77]))
        assert sorted(of_data.counts) == [0, 1, 3]
        assert len(ledger.totals().counts) == 6, "to look enters nothing"


def test_the_same_bytes_in_another_shape_are_another_image(ledger: Ledger) -> None:
    flat = table(3)
    wide = ImageTable.from_arrays(flat.pixels.reshape(3, 1, 2, 8), flat.labels, ["a", "b"])
    ledger.account(flat).record(*some([[0, 1]]))
    assert ledger.account(wide).counts.tolist() == [0, 0, 0]


def test_what_two_ledgers_on_one_file_count_is_one(path: Path) -> None:
    with Ledger.open(path) as one, Ledger.open(path) as two:
        first, second = one.account(table(4), limit=2), two.account(table(4), limit=2)
        assert first.record(*some([[0, 1]])) == 1
        assert second.record(*some([[0, 1], [0, 2]])) == 1
        assert first.record(*some([[1, 2]])) == 0
        assert first.exhausted() is not None
        # A fold, and images that the other does not know yet.
        two.account(table(3, first=50)).record(*some([[0, 1], [1, 2]]))
        two._file.fold()
        assert first.counts.tolist() == second.counts.tolist() == [2, 2, 0, 0]
        assert first.record(*some([[2, 3]])) == 1
        assert second.counts.tolist() == [2, 2, 1, 1]
    with Ledger.open(path) as ledger:
        assert int(ledger.totals().counts.sum()) == 10


def test_threads_share_an_account(ledger: Ledger) -> None:
    account = ledger.account(table(20), limit=100)

    def work() -> None:
        for _ in range(30):
            account.record(*some([[n, (n + 1) % 20] for n in range(20)]))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    # The limit ends it at 50 rounds of two exposures an image.
    assert account.counts.max() <= 100
    assert account.counts.min() >= 99


def test_blobs_are_of_bounded_size(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stored_hashes, "CHUNK", 3)
    with Ledger.open(path) as ledger:
        account = ledger.account(table(10))
        account.record(*some([[n, 9 - n] for n in range(10)]))
    with Ledger.open(path) as ledger:
        assert ledger.account(table(10)).counts.tolist() == [2] * 10
    with sqlite3.connect(path) as connection:
        sizes = connection.execute("SELECT max(length(counts)), count(*) FROM totals").fetchone()
    connection.close()
    assert sizes == (12, 4)


def test_an_encoder_stops_at_the_limit_of_the_ledger(path: Path) -> None:
    images = table(30)
    with Ledger.open(path) as ledger:
        ledger.account(images).record(*some([[n, n + 1] for n in range(29)]))
        account = ledger.account(images, limit=9)
        encoder = Encoder(Scheme.inside(3), images, exposure=account)
        rows = np.tile(np.arange(30), 10)
        made = len(encoder.encode(rows).images)
        assert 0 < made < len(rows)
        assert account.counts.max() == 9
        assert account.counts.sum() == 2 * 29 + 3 * made
        with pytest.raises(ExposureLimitError):
            encoder.encode(np.flatnonzero(account.counts == 9))


# Processes.


def taker(path: Path, limit: int, rounds: int) -> subprocess.Popen[str]:
    """A process that counts, and says after each take what of every image was in it."""
    process = subprocess.Popen(
        [sys.executable, TAKER, str(path), str(limit), str(rounds)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def go(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    process.stdin.write("\n")
    process.stdin.flush()


def said(text: str) -> NDArray[np.int64]:
    """Sum of what a taker printed, but for a line that was cut off."""
    whole = text[: text.rfind("\n") + 1]
    return np.array(whole.split(), np.int64).reshape(-1, IMAGES).sum(axis=0)


def test_processes_keep_to_one_limit_together(path: Path) -> None:
    limit = 60
    processes = [taker(path, limit, 40) for _ in range(3)]
    for process in processes:
        go(process)
    counted = [said(process.communicate(timeout=LIMIT)[0]) for process in processes]
    with Ledger.open(path) as ledger:
        account = ledger.account(table(IMAGES))
        assert account.counts.tolist() == np.sum(counted, axis=0).tolist()
        # 3 x 40 x 25 mixes of two would be 150 exposures an image.
        assert account.counts.max() == limit
        np.testing.assert_allclose(account.squares, account.counts / 4)
    assert sum(int(each.sum()) > 0 for each in counted) >= 2, "they were at it at the same time"


@pytest.mark.slow
def test_kills_never_lose_a_count(path: Path) -> None:
    published = np.zeros(IMAGES, np.int64)
    generator, kills = np.random.default_rng(), 10
    for number in range(kills):
        process = taker(path, 0, 10**6)
        go(process)
        # Half of them once something is published, however long that takes.
        assert process.stdout is not None
        first = process.stdout.readline() if number % 2 else ""
        time.sleep(generator.uniform(0, 0.08))
        process.send_signal(signal.SIGKILL)
        # Not `communicate`, which does not see what `readline` has read ahead.
        published += said(first + process.stdout.read())
        process.communicate(timeout=LIMIT)
    with Ledger.open(path) as ledger:
        counts = ledger.account(table(IMAGES)).counts
    assert (counts >= published).all()
    # One take of mixes of two was in flight at each kill.
    assert int((counts - published).sum()) <= kills * 2 * MIXES
    assert int(published.sum()) > 0


def test_a_fork_is_refused(ledger: Ledger) -> None:
    account = ledger.account(table(4))
    child = os.fork()
    if child == 0:
        try:
            account.record(*some([[0, 1]]))
        except InstaHideError:
            os._exit(7)
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
    assert account.counts.tolist() == [0] * 4


def test_a_pickled_account_counts_in_the_same_ledger(path: Path, tmp_path: Path) -> None:
    with Ledger.open(path) as ledger:
        account = ledger.account(table_of([3, 1, 3]), limit=3)
        account.record(*some([[0, 1]]))
        copy: LedgerAccount = pickle.loads(pickle.dumps(account))  # noqa: S301
        copy.record(*some([[1, 2]]))
        assert account.counts.tolist() == [2, 2, 2]
        assert copy.record(*some([[1, 2], [1, 2]])) == 1
        pickled = pickle.dumps(account)
    for moved in (path, *tmp_path.glob("ledger.sqlite-*")):
        moved.unlink()
    with pytest.raises(InstaHideError):
        pickle.loads(pickled)  # noqa: S301
    assert not path.exists()
    Ledger.open(path).close()
    with pytest.raises(InstaHideError, match="another ledger"):
        pickle.loads(pickled)  # noqa: S301


# Encoded folders.


def test_remaining_is_what_no_finished_shard_holds(path: Path) -> None:
    with Ledger.open(path) as ledger:
        account = ledger.account(table(5))
        account.begin("id", 2)
        assert account.remaining("id", set()).tolist() == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]
        account.pending("id", {"one": np.array([4, 0, 2]), "two": np.array([0, 1])})
        account.pending("other", {"one": np.array([3, 3])})
        account.sync()
    with Ledger.open(path) as ledger:
        account = ledger.account(table(5))
        assert account.remaining("id", {"one"}).tolist() == [0, 1, 1, 2, 3, 3, 4]
        # Shard two was dropped, even if its file should turn up; one is not done twice.
        assert account.remaining("id", {"one", "two"}).tolist() == [0, 1, 1, 2, 3, 3, 4]
        account.pending("id", {"three": np.array([0, 1, 1, 2, 3, 3, 4])})
        assert account.remaining("id", {"one", "three"}).tolist() == []
        assert account.counts.tolist() == [0] * 5


def test_a_folder_begun_again_has_nothing_done(ledger: Ledger) -> None:
    account = ledger.account(table(2))
    for _ in range(2):
        account.begin("id", 1)
        assert account.remaining("id", set()).tolist() == [0, 1]
        account.pending("id", {"one": np.array([0, 1])})
        assert account.remaining("id", {"one"}).tolist() == []


def test_a_folder_of_other_images_is_not_gone_on_with(ledger: Ledger) -> None:
    ledger.account(table(5)).begin("id", 2)
    for other in (table(4), table(5, first=1), table_of([1, 0, 2, 3, 4])):
        with pytest.raises(InstaHideError, match="begun"):
            ledger.account(other).remaining("id", set())
    with pytest.raises(InstaHideError, match="begun"):
        ledger.account(table(5)).remaining("unknown", set())

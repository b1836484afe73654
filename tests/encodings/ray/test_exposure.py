"""Encoders anywhere count in one ledger as one encoder would, and say no more than they must."""

from __future__ import annotations

import pickle
import threading

import numpy as np
import pytest
from numpy.typing import NDArray

from instahide.encodings.ledger.account import LedgerAccount
from instahide.encodings.ledger.ledger import Ledger
from instahide.encodings.ray.exposure import Counter, RemoteExposure
from instahide.errors import ExposureLimitError, InstaHideError
from tests import waiting
from tests.encodings.ledger.recorder import drawn, some, table, table_of

IMAGES, LIMIT = 40, 30


def remote(account: LedgerAccount) -> RemoteExposure:
    return RemoteExposure(Counter(account), account.images, account.limit)


def test_counts_arrive_in_the_ledger_as_they_would_directly(ledger: Ledger) -> None:
    account = ledger.account(table(3))
    assert remote(account).record(*some([[0, 1], [0, 2], [2, 1], [1, 0]])) == 4
    direct = ledger.account(table(3, first=3))
    direct.record(*some([[0, 1], [0, 2], [2, 1], [1, 0]]))
    assert account.counts.tolist() == direct.counts.tolist() == [3, 3, 2]
    assert account.squares == pytest.approx(direct.squares)


def test_a_limit_takes_the_longest_run_that_fits(ledger: Ledger) -> None:
    account = ledger.account(table(3), limit=2)
    exposure = remote(account)
    assert exposure.exhausted() is None
    assert exposure.record(*some([[0, 1], [0, 2], [0, 1]])) == 2
    assert exposure.exhausted() is not None
    assert account.counts.tolist() == exposure.counts.tolist() == [2, 1, 1]


def test_what_others_counted_meanwhile_is_seen(ledger: Ledger) -> None:
    account = ledger.account(table(3), limit=2)
    ours, theirs = remote(account), remote(account)
    assert theirs.record(*some([[0, 1], [0, 2]])) == 2
    assert ours.exhausted() is None
    assert ours.record(*some([[1, 2], [0, 1], [1, 2]])) == 1
    assert ours.counts.tolist() == account.counts.tolist() == [2, 2, 2]


def test_rows_of_the_same_pixels_share_a_limit_and_nobody_waits_forever(ledger: Ledger) -> None:
    account = ledger.account(table_of([0, 0, 1, 2]), limit=3)
    exposure = remote(account)
    assert exposure.record(*some([[0, 2], [1, 3], [0, 3], [1, 2]])) == 3
    assert exposure.record(*some([[0, 1]])) == 0
    assert account.counts.tolist() == [3, 3, 1, 2]


def test_no_image_passes_a_limit_that_many_encoders_share(ledger: Ledger) -> None:
    account = ledger.account(table(IMAGES), limit=LIMIT)
    taken: list[NDArray[np.int64]] = []

    def encode() -> None:
        generator, exposure = np.random.default_rng(), remote(account)
        for _ in range(20):
            rows = drawn(generator, IMAGES, 25)
            count = exposure.record(rows, np.full(rows.shape, 0.5, np.float32))
            taken.append(rows[:count])

    threads = [threading.Thread(target=encode) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=waiting.LIMIT)
    true = np.bincount(np.concatenate(taken).reshape(-1), minlength=IMAGES)
    assert (account.counts == true).all()
    assert true.max() == LIMIT


def test_images_are_sent_in_an_order_that_hides_their_mixes(ledger: Ledger) -> None:
    sent: list[tuple[NDArray[np.int64], NDArray[np.float32]]] = []

    class Noting(Counter):
        def count(self, rows: NDArray[np.int64], coefficients: NDArray[np.float32]) -> bool:
            sent.append((rows, coefficients))
            return super().count(rows, coefficients)

    rows, coefficients = some([[2, 1], [0, 2], [1, 0]])
    RemoteExposure(Noting(ledger.account(table(3))), 3, None).record(rows, coefficients)
    assert sent[0][0].tolist() == [0, 0, 1, 1, 2, 2]
    paired = sorted(zip(rows.reshape(-1), coefficients.reshape(-1), strict=True))
    assert sorted(zip(*sent[0], strict=True)) == paired


def test_a_copy_counts_in_the_same_place(ledger: Ledger) -> None:
    account = ledger.account(table(3), limit=2)
    exposure = remote(account)
    exposure.record(*some([[0, 1]]))
    copy = pickle.loads(pickle.dumps(exposure))  # noqa: S301
    assert copy.counts.tolist() == [1, 1, 0]
    assert copy.record(*some([[0, 1], [0, 1]])) == 1
    assert account.counts.tolist() == [2, 2, 0]


@pytest.mark.parametrize("kind", [InstaHideError, ExposureLimitError])
def test_errors_are_the_same_in_another_process(kind: type[InstaHideError]) -> None:
    copy = pickle.loads(pickle.dumps(kind("It is wrong.", "Change it.")))  # noqa: S301
    assert type(copy) is kind
    assert (copy.problem, copy.remedy, str(copy)) == (
        "It is wrong.", "Change it.", "It is wrong. Change it.",
    )  # fmt: skip

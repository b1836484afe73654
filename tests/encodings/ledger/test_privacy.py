"""The ledger keeps what noise guarantees: over schemes, restarts and ledgers from before noise."""

from __future__ import annotations

import math
import pickle
from pathlib import Path

import numpy as np
import pytest

from instahide.encodings.ledger.ledger import Ledger
from instahide.encodings.publish import Publication, publish, threads
from instahide.encryption.encoder import Encoder
from instahide.encryption.privacy import mu_squared_rate
from instahide.encryption.scheme import Scheme
from tests.encodings.ledger.recorder import some, table

LOUD, SOFT = Scheme.inside(2, noise=10.0), Scheme.inside(2, noise=2.0)


def test_losses_add_up_over_schemes(path: Path) -> None:
    images, expected = table(20), np.zeros(20)
    for scheme in (LOUD, SOFT, LOUD):
        with Ledger.open(path) as ledger:
            account = ledger.account(images, scheme=scheme)
            before = account.squares
            Encoder(scheme, images, exposure=account).encode(np.arange(20))
            rate = mu_squared_rate(scheme, images.shape, images.std)
            expected += (account.squares - before) * rate
            np.testing.assert_allclose(account.losses, expected, rtol=1e-6)
    with Ledger.open(path) as ledger:
        np.testing.assert_allclose(np.sort(ledger.totals().losses), np.sort(expected), rtol=1e-6)
        np.testing.assert_allclose(ledger.totals(table(20)).losses.max(), expected.max())


@pytest.mark.parametrize("scheme", [None, Scheme.inside(2)])
def test_what_went_out_without_noise_has_no_guarantee_for_ever(
    path: Path, scheme: Scheme | None
) -> None:
    for used in (LOUD, scheme, LOUD):
        with Ledger.open(path) as ledger:
            # The first image of the first two alone: others keep what they have.
            account = ledger.account(table(3), scheme=used)
            account.record(*some([[0, 1]] if used is not LOUD else [[0, 1], [1, 2]]))
    with Ledger.open(path) as ledger:
        losses = ledger.account(table(3)).losses
        assert losses[:2].tolist() == [math.inf, math.inf]
        assert 0 < losses[2] < math.inf


def test_a_copy_of_an_account_counts_alike(ledger: Ledger) -> None:
    account = ledger.account(table(3), scheme=LOUD)
    pickle.loads(pickle.dumps(account)).record(*some([[0, 1]]))  # noqa: S301
    assert 0 < account.losses[0] < math.inf


def test_publishing_keeps_the_guarantee(tmp_path: Path, ledger: Ledger) -> None:
    images = table(30)
    publication = Publication(images, None, LOUD, 2)
    folder = publish(publication, tmp_path / "encoded", ledger, engine=threads)
    totals = ledger.totals(images)
    rate = mu_squared_rate(LOUD, images.shape, images.std)
    np.testing.assert_allclose(totals.losses, totals.squares * rate, rtol=1e-6)
    # Values go further than those of a mix, and are stored and believed all the same.
    assert folder.verify() == []


@pytest.mark.parametrize("values", ["float32", "float16", "uint8"])
def test_stored_noise_is_as_far_off_as_the_manifest_says(
    tmp_path: Path, ledger: Ledger, values: str
) -> None:
    publication = Publication(table(300), None, LOUD, 1, values)  # type: ignore[arg-type]
    folder = publish(publication, tmp_path / "encoded", ledger, engine=threads)
    assert folder.verify() == []
    images = folder.decoded(folder.shard(0).images)
    assert 9 < images.std() < 11

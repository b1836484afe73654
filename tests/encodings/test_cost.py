"""What a publication would come to, said beforehand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from instahide import ImageTable, Scheme
from instahide.encodings.cost import estimate_cost
from instahide.encodings.ledger.ledger import Ledger
from instahide.encodings.publish import Publication, publish, threads

IMAGES, COPIES = 300, 8


@pytest.fixture
def publication() -> Publication:
    pixels = np.random.default_rng(0).integers(0, 256, (IMAGES, 3, 8, 8), np.uint8)
    images = ImageTable.from_arrays(pixels, np.arange(IMAGES) % 10)
    return Publication(images, None, Scheme.inside(3), COPIES)


def test_it_foretells_size_and_exposure(publication: Publication, tmp_path: Path) -> None:
    known = np.arange(IMAGES) % 4
    foretold = estimate_cost(publication, known, tmp_path / "not/yet/there")
    assert not list(tmp_path.iterdir())
    with Ledger.open(tmp_path / "ledger.sqlite") as ledger:
        folder = publish(publication, tmp_path / "enc", ledger, engine=threads)
        counts = ledger.account(publication.images).counts
    assert foretold.encodings == len(folder)
    size = sum(shard.bytes for shard in folder.manifest.shards)
    assert foretold.bytes == pytest.approx(size, rel=0.02)
    assert foretold.before == 3
    assert foretold.mean == pytest.approx(known.mean() + counts.mean())
    # The largest of 300 Poisson counts of mean 16 is nearly always between 24 and 40.
    assert 3 + COPIES + 20 <= foretold.most <= 3 + COPIES + 45
    assert foretold.seconds > 0


@pytest.mark.parametrize("shared", [IMAGES, 60])
def test_private_images_in_the_public_pool_count(
    publication: Publication, tmp_path: Path, shared: int
) -> None:
    images = publication.images
    others = np.random.default_rng(1).integers(0, 256, (90, 3, 8, 8), np.uint8)
    pool = ImageTable.from_arrays(np.concatenate([images.pixels[:shared], others]))
    mixed = Publication(images, pool, Scheme.cross(4), COPIES)
    foretold = estimate_cost(mixed, np.zeros(IMAGES, np.int64), tmp_path / "not/yet/there")
    with Ledger.open(tmp_path / "ledger.sqlite") as ledger:
        folder = publish(mixed, tmp_path / "enc", ledger, engine=threads)
        counts = ledger.account(images).counts
    assert folder.manifest.limited
    assert foretold.private_in_pool == shared
    assert 2.5 * COPIES < counts.mean() <= 1.02 * foretold.mean <= 1.1 * counts.mean()
    assert foretold.most == pytest.approx(counts.max(), rel=0.3)


def test_a_url_need_not_be_there(publication: Publication) -> None:
    foretold = estimate_cost(publication, np.zeros(IMAGES, np.int64), "memory://nowhere/enc")
    assert foretold.seconds > 0

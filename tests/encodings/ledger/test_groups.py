"""A group of images, such as those of a patient, has one count, over runs and whatever is opened.

The images of the tests are a class each, so that labels say which are in an encoding.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader, TensorDataset

from instahide import Encoder, Exposure, ImageTable, InstaHideError, Scheme, encode_loader
from instahide.data.sources import _resized
from instahide.encodings.ledger.account import LedgerAccount
from instahide.encodings.ledger.ledger import Ledger
from instahide.encodings.publish import Publication, publish, threads
from instahide.encodings.ray.exposure import Counter, RemoteExposure
from instahide.encryption.privacy import mu_squared_rate
from instahide.errors import ExposureLimitError

COUNT, EACH = 24, 3
NAMES = [f"Miller, Anna {row // EACH}" for row in range(COUNT)]
GROUPS = np.arange(COUNT) // EACH
SCHEME = Scheme.inside(4)


def table(seed: int = 0, count: int = COUNT) -> ImageTable:
    pixels = np.random.default_rng(seed).integers(0, 256, (count, 1, 8, 8), np.uint8)
    return ImageTable.from_arrays(pixels, np.arange(count))


def encoded(images: ImageTable, account: Exposure, scheme: Scheme = SCHEME) -> NDArray[np.int64]:
    """(groups,) in how many of one encoding of each image each group is."""
    labels = Encoder(scheme, images, exposure=account).encode(np.arange(len(images))).labels
    return of_groups(labels.numpy() > 0)


def of_groups(present: NDArray[np.bool]) -> NDArray[np.int64]:
    return present.reshape(len(present), -1, EACH).any(axis=2).sum(axis=0)


def test_a_group_has_one_count_over_runs_of_all_kinds(path: Path) -> None:
    grouped = table().grouped(NAMES)
    other = table(1).grouped(NAMES)  # Other images of the same patients.
    with Ledger.open(path) as ledger:
        true = encoded(grouped, ledger.account(grouped))
        assert (ledger.account(grouped).counts == true[GROUPS]).all()
    assert b"Miller" not in path.read_bytes()
    with Ledger.open(path) as ledger:
        assert (ledger.account(other).counts == true[GROUPS]).all()
        true += encoded(other, ledger.account(other))
        assert (ledger.account(grouped).counts == true[GROUPS]).all()
        small = _resized(grouped, 5)
        true += encoded(small, ledger.account(small))
        # Without the names, an image is still known as one of its group.
        assert (ledger.account(table()).counts == true[GROUPS]).all()
        some = grouped.subset(np.array([0, 4, 5, 23]))
        assert (ledger.account(some).counts == true[[0, 1, 1, 7]]).all()
        totals = ledger.totals(grouped)
        assert sorted(totals.counts.tolist()) == sorted(true.tolist())
        assert sorted(ledger.totals(some).counts.tolist()) == sorted(true[[0, 1, 7]].tolist())


def test_what_was_counted_for_images_counts_for_their_group(path: Path) -> None:
    images = table()
    with Ledger.open(path) as ledger:
        account = ledger.account(images)
        labels = Encoder(SCHEME, images, exposure=account).encode(np.arange(COUNT)).labels.numpy()
        before = account.counts
        true = of_groups(labels > 0)
        found = ledger.account(images.grouped(NAMES)).counts
        assert (found == np.bincount(GROUPS, before)[GROUPS]).all()
        assert (found >= true[GROUPS]).all()


def test_the_loss_of_a_group_is_no_less_than_that_of_its_mixes(path: Path) -> None:
    """A mix of several of its images changes by all of them at once."""
    images, noisy = table(), Scheme.inside(4, noise=1.0)
    rate = mu_squared_rate(noisy, images.shape, images.std)
    with Ledger.open(path) as ledger:
        account = ledger.account(images, scheme=noisy)
        rows = np.array([[0, 1], [1, 2], [0, 3]])
        weights = np.array([[0.5, 0.5], [0.25, 0.75], [0.6, 0.4]], np.float32)
        assert account.record(rows, weights) == 3
        grouped = ledger.account(images.grouped(NAMES), scheme=noisy)
        assert grouped.losses[0] >= rate * (1 + 1 + 0.36) * (1 - 1e-6)
        assert grouped.losses[3] == pytest.approx(rate * 0.16)


def test_the_limit_holds_for_groups(path: Path) -> None:
    grouped = table().grouped(NAMES)
    with Ledger.open(path) as ledger:
        account = ledger.account(grouped, limit=20)
        encoder = Encoder(SCHEME, grouped, exposure=account)
        true = np.zeros(COUNT // EACH, np.int64)

        def run() -> None:
            while True:
                encoded = encoder.encode(encoder.permutation())
                true[:] += of_groups(encoded.labels.numpy() > 0)

        with pytest.raises(ExposureLimitError, match="or the group that it is of"):
            run()
        assert (account.counts == true[GROUPS]).all()
        assert true.max() == 20


def test_a_folder_is_resumed_with_the_same_images_alone(path: Path, tmp_path: Path) -> None:
    """The same groups in the same order are not the same images."""
    with Ledger.open(path) as ledger:
        mine = ledger.account(table().grouped(NAMES))
        mine.begin("a" * 32, 2)
        assert len(mine.remaining("a" * 32, [])) == 2 * COUNT
        for other in (table(1).grouped(NAMES), table()):
            with pytest.raises(InstaHideError, match="did not see the encoded folder begun"):
                ledger.account(other).remaining("a" * 32, [])


def test_a_published_folder_of_groups_claims_no_epsilon_of_images(
    path: Path, tmp_path: Path
) -> None:
    grouped = table().grouped(NAMES)
    with Ledger.open(path) as ledger:
        publication = Publication(grouped, None, SCHEME, 2)
        folder = publish(publication, tmp_path / "out", ledger, engine=threads)
        assert folder.manifest.limited
        labels = torch.cat([folder.shard(n).labels for n in range(len(folder.manifest.shards))])
        assert (ledger.account(grouped).counts == of_groups(labels.numpy() > 0)[GROUPS]).all()
    for file in (tmp_path / "out").iterdir():
        assert b"Miller" not in file.read_bytes()


def dataset() -> TensorDataset:
    return TensorDataset(torch.from_numpy(table().normalized()), torch.arange(COUNT))


def test_a_wrapped_loader_counts_groups_in_memory() -> None:
    exposure = Exposure(COUNT, groups=NAMES)
    loader = encode_loader(
        DataLoader(dataset(), 6, shuffle=True), SCHEME, classes=COUNT, exposure=exposure
    )
    require_exact(loader, exposure)


@pytest.mark.parametrize("groups", [NAMES, lambda row: NAMES[row]], ids=["names", "function"])
def test_a_wrapped_loader_counts_groups_in_a_ledger(path: Path, groups: Any) -> None:
    with Ledger.open(path) as ledger:
        images = table()
        known = {"mean": images.mean, "std": images.std}
        account = ledger.account(dataset(), groups=groups, **known)
        loader = encode_loader(
            DataLoader(dataset(), 6, shuffle=True), SCHEME, classes=COUNT, exposure=account
        )
        true = require_exact(loader, account)
        # A table of the same images and groups is the same to the ledger.
        assert (ledger.account(images.grouped(NAMES)).counts == true[GROUPS]).all()


def require_exact(loader: Any, exposure: Exposure) -> NDArray[np.int64]:
    true = np.zeros(COUNT // EACH, np.int64)
    for _ in range(5):
        for _, labels in loader:
            present = labels.numpy() > 0
            groups = present.reshape(len(present), -1, EACH).sum(axis=2)
            assert groups.max() == 1
            true += groups.sum(axis=0)
    assert (exposure.counts == true[GROUPS]).all()
    assert true.sum() == 5 * 4 * COUNT
    return true


def test_wrong_groups_of_an_account_are_refused(path: Path) -> None:
    with Ledger.open(path) as ledger:
        with pytest.raises(InstaHideError, match="24 images but the groups of 23"):
            ledger.account(dataset(), groups=NAMES[1:])
        with pytest.raises(InstaHideError, match=r"table\.grouped"):
            ledger.account(table(), groups=NAMES)
        with pytest.raises(InstaHideError, match="24 images but the groups of 23"):
            Exposure(COUNT, groups=NAMES[1:])


def test_encoders_elsewhere_count_all_groups_of_a_row(path: Path) -> None:
    """A picture in two groups connects them, and each row counts for its own groups."""
    images = table(0, 6)
    pixels = images.pixels.copy()
    pixels[2] = pixels[1]
    images = ImageTable.from_arrays(pixels, images.labels).grouped(["a", "a", "b", "b", "c", "d"])
    with Ledger.open(path) as ledger:
        account = ledger.account(images)
        far = RemoteExposure(Counter(account), 6, None)
        assert far.record(np.array([[3, 4]]), np.array([[0.5, 0.5]], np.float32)) == 1
        assert ledger.account(images).counts.tolist() == [0, 1, 1, 1, 1, 0]
        assert isinstance(account, LedgerAccount)
        assert far.record(np.array([[0, 5]]), np.array([[0.5, 0.5]], np.float32)) == 1
        assert ledger.account(images).counts.tolist() == [1, 1, 1, 1, 1, 1]

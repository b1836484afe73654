"""Publishing: every image as often as promised, counted before anybody can see it."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import closing, contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from instahide import ImageTable, InstaHideError, Scheme
from instahide.encodings import publish as module
from instahide.encodings.folder import EncodedFolder, new_shard_name
from instahide.encodings.ledger.account import LedgerAccount
from instahide.encodings.ledger.ledger import Ledger
from instahide.encodings.publish import Publication, encodings_a_shard, publish, threads
from instahide.encodings.storage import LocalStore, open_store
from instahide.encodings.verification.value_ranges import value_problems
from instahide.encryption import keys
from instahide.encryption.sampling import sampler
from instahide.errors import ExposureLimitError

IMAGES, SIDE = 24, 4
SIZE = 10
#: One private image in a mix, which its label names: every image is a class.
SCHEME = Scheme.cross(2, private_k=1)


@pytest.fixture(autouse=True)
def _small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SHARD_BYTES", SIZE * (2 * SIDE * SIDE + 4 * IMAGES))


def table(count: int, seed: int = 0) -> ImageTable:
    pixels = np.random.default_rng(seed).integers(0, 256, (count, 1, SIDE, SIDE), np.uint8)
    return ImageTable.from_arrays(pixels, np.arange(count), [str(n) for n in range(count)])


def publication(copies: int, **changes: Any) -> Publication:
    values = {"method": SCHEME, "public": table(50, seed=1), "copies": copies, **changes}
    return Publication(table(IMAGES), **values)


def shown(folder: EncodedFolder) -> NDArray[np.int64]:
    """(IMAGES,) in how many encodings each image is the encrypted one."""
    labels = [folder.shard(number).labels for number in range(len(folder.manifest.shards))]
    return (torch.cat(labels) > 0).sum(dim=0).numpy()


def run(ledger: Ledger, folder: Path, copies: int, **options: Any) -> EncodedFolder:
    return publish(publication(copies), folder, ledger, engine=threads, **options)


def test_every_image_is_there_as_often_as_promised(tmp_path: Path, ledger: Ledger) -> None:
    folder = run(ledger, tmp_path / "enc", 5)
    assert shown(folder).tolist() == [5] * IMAGES
    assert [shard.encodings for shard in folder.manifest.shards] == [SIZE] * 12
    assert folder.verify() == []


@pytest.mark.parametrize("values", ["float32", "float16", "uint8"])
def test_noise_far_from_any_mix_is_clipped(
    tmp_path: Path, ledger: Ledger, monkeypatch: pytest.MonkeyPatch, values: str
) -> None:
    """Noise has no largest value; stored values have one."""
    far = np.array([50.0, -50.0])

    def extreme(block: Any, shape: tuple[int, ...], deviation: float) -> NDArray[np.float64]:
        return deviation * np.resize(far, shape)

    monkeypatch.setattr(sampler, "noise", extreme)
    noisy = publication(1, method=Scheme.cross(2, private_k=1, noise=0.5), values=values)
    folder = publish(noisy, tmp_path / "enc", ledger, engine=threads)
    most = folder.manifest.max_abs + folder.manifest.max_quantization_error
    for number in range(len(folder.manifest.shards)):
        images = folder.shard(number).images
        images = folder.decoded(images)
        assert value_problems(images, folder.shard(number).labels, folder.manifest) is None
        assert 0.99 * most < images.abs().min() <= images.abs().max() <= most * (1 + 1e-6)


def test_a_folder_with_private_images_in_the_pool_refers_to_the_ledger(
    tmp_path: Path, ledger: Ledger
) -> None:
    apart = publish(publication(2), tmp_path / "apart", ledger, engine=threads)
    assert not apart.manifest.limited
    own = publication(2, public=table(IMAGES))
    folder = publish(own, tmp_path / "own", ledger, engine=threads)
    assert folder.manifest.limited
    # The private images of the mixes of the first folder, and all images of those of the second.
    known = 2 * IMAGES * (SCHEME.private_k + SCHEME.k)
    assert ledger.totals(table(IMAGES)).counts.sum() == known


def test_what_a_limit_left_out_is_made_up_for_under_a_higher_one(
    tmp_path: Path, ledger: Ledger
) -> None:
    # Somebody has shown the last image before, so that its turn ends the work.
    rows, coefficients = np.array([[IMAGES - 1]]), np.ones((1, 1), np.float32)
    ledger.account(table(IMAGES)).record(rows, coefficients)
    part = run(ledger, tmp_path / "enc", 6, limit=6)
    assert part.manifest.ended == "limit"
    assert part.verify() == []
    assert shown(part)[-1] < 6
    whole = run(ledger, tmp_path / "enc", 6, resume=True)
    assert whole.manifest.ended == "all"
    assert part.manifest.limited
    assert whole.manifest.limited
    # Shards that the limit cut short are remembered for what they hold.
    assert shown(whole).tolist() == [6] * IMAGES


def test_participants_have_other_keys_even_with_the_same_entropy(
    tmp_path: Path, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    # An operating system that gives everybody the same: only the names are left to differ.
    monkeypatch.setattr(keys.secrets, "token_bytes", bytes)
    monkeypatch.setattr(keys, "_fresh", bytes)
    found = {}
    for number, name in enumerate(["anna", "anna", "ben", ""]):
        whole = publication(1, participant=name, method=Scheme.inside(1, c1=1.0), public=None)
        folder = publish(whole, tmp_path / str(number), ledger, engine=threads)
        parts = [folder.shard(shard) for shard in range(len(folder.manifest.shards))]
        images = torch.cat([part.images for part in parts])
        order = torch.cat([part.labels for part in parts]).argmax(1).argsort()
        found[number] = (images[order] > 0).flatten(1)
    assert found[0].equal(found[1])
    for one, two in ((0, 2), (0, 3), (2, 3)):
        # One mask in two would be all the same, or all the opposite.
        same = (found[one] == found[two]).float().mean(1)
        assert float(same.min()) > 0.0
        assert float(same.max()) < 1.0


def test_progress_tells_of_every_encoding_once(tmp_path: Path, ledger: Ledger) -> None:
    told: list[int] = []
    run(ledger, tmp_path / "enc", 5, progress=told.append)
    assert sum(told) == 5 * IMAGES
    told.clear()
    run(ledger, tmp_path / "enc", 5, resume=True, progress=told.append)
    assert told == [5 * IMAGES]


def test_counts_are_safe_before_a_file_is_written(
    tmp_path: Path, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Encodings that may be on disk are at all times fewer than those that were synced."""
    safe = 0
    began: list[int] = []
    sync, writing = LedgerAccount.sync, LocalStore.writing

    def synced(account: LedgerAccount) -> None:
        nonlocal safe
        counted = int(account.counts.sum())
        sync(account)
        safe = max(safe, counted)

    @contextmanager
    def written(store: LocalStore, name: str) -> Iterator[Path]:
        if name.endswith(".safetensors"):
            began.append(safe)
            assert safe >= SIZE * len(began)
        with writing(store, name) as path:
            yield path

    monkeypatch.setattr(LedgerAccount, "sync", synced)
    monkeypatch.setattr(LocalStore, "writing", written)
    run(ledger, tmp_path / "enc", 5)
    assert len(began) == 12


@pytest.mark.parametrize("broken", [".safetensors", "manifest.json"])
def test_a_full_disk_leaves_a_folder_that_resumes(
    tmp_path: Path, ledger: Ledger, monkeypatch: pytest.MonkeyPatch, broken: str
) -> None:
    writing, left = LocalStore.writing, 4

    @contextmanager
    def full(store: LocalStore, name: str) -> Iterator[Path]:
        nonlocal left
        left -= name.endswith(broken)
        with writing(store, name) as path:
            yield path
            if left < 0 and name.endswith(broken):
                raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(LocalStore, "writing", full)
        with pytest.raises(InstaHideError, match="No space left"):
            run(ledger, tmp_path / "enc", 5)
    part = EncodedFolder.open(tmp_path / "enc", partial=True)
    assert len(part) < 5 * IMAGES
    # Nothing of the failed run is at work any more: the folder may be written again.
    folder = run(ledger, tmp_path / "enc", 5, resume=True)
    assert folder.manifest.shards[: len(part.manifest.shards)] == part.manifest.shards
    assert shown(folder).tolist() == [5] * IMAGES
    assert folder.verify() == []


def test_nothing_is_left_where_nothing_fits_the_limit(tmp_path: Path, ledger: Ledger) -> None:
    run(ledger, tmp_path / "enc", 5)
    with pytest.raises(ExposureLimitError):
        run(ledger, tmp_path / "more", 5, limit=1)
    assert open_store(tmp_path / "more").names() == set()
    assert len(run(ledger, tmp_path / "more", 5)) == 5 * IMAGES


def failing(error: BaseException, after: int) -> Any:
    """An engine that writes ``after`` shards and a file that is in no manifest, and then fails."""

    def engine(*given: Any) -> Iterator[Any]:
        store = given[2]
        with closing(threads(*given)) as shards:
            yield from islice(shards, after)
            next(shards)
        with store.writing(new_shard_name()) as path:
            path.write_bytes(b"half of a shard")
        raise error

    return engine


@pytest.mark.parametrize(
    "error",
    [
        InstaHideError("It is full.", "Empty it."),
        OSError("The disk fails."),
        MemoryError(),
        RuntimeError(),
    ],
)
def test_what_fails_before_its_first_shard_leaves_no_folder(
    tmp_path: Path, ledger: Ledger, error: Exception
) -> None:
    with pytest.raises(type(error)):
        publish(publication(5), tmp_path / "enc", ledger, engine=failing(error, 0))
    assert open_store(tmp_path / "enc").names() == set()
    assert len(run(ledger, tmp_path / "enc", 5)) == 5 * IMAGES


@pytest.mark.parametrize(("error", "after"), [(KeyboardInterrupt(), 0), (RuntimeError(), 1)])
def test_what_was_interrupted_or_has_a_shard_is_resumed(
    tmp_path: Path, ledger: Ledger, error: BaseException, after: int
) -> None:
    with pytest.raises(type(error)):
        publish(publication(5), tmp_path / "enc", ledger, engine=failing(error, after))
    assert len(EncodedFolder.open(tmp_path / "enc", partial=True).manifest.shards) == after
    folder = run(ledger, tmp_path / "enc", 5, resume=True)
    assert shown(folder).tolist() == [5] * IMAGES
    assert folder.verify() == []


def test_the_first_error_is_told_where_the_folder_cannot_be_removed(
    tmp_path: Path, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise OSError("It cannot be removed.")

    monkeypatch.setattr(LocalStore, "remove", fail)
    failed = failing(RuntimeError("the first"), 0)
    with pytest.raises(RuntimeError, match="the first"):
        publish(publication(5), tmp_path / "enc", ledger, engine=failed)


def test_whoever_may_enter_the_folder_may_read_it(tmp_path: Path, ledger: Ledger) -> None:
    before = os.umask(0o022)
    try:
        run(ledger, tmp_path / "enc", 1)
    finally:
        os.umask(before)
    modes = {path.stat().st_mode & 0o777 for path in (tmp_path / "enc").glob("[!.]*")}
    assert modes == {0o644}


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"copies": 0}, "copies = 0 is below 1"),
        ({"participant": "x" * 201}, "participant"),
    ],
)
def test_what_cannot_be_said_is_refused(changes: dict[str, Any], told: str) -> None:
    with pytest.raises(InstaHideError, match=told):
        publication(**{"copies": 1, **changes})


def test_shards_are_larger_where_there_would_be_too_many() -> None:
    manifest = publication(3 * module.MOST_SHARDS * SIZE).manifest()
    assert encodings_a_shard(publication(1).manifest()) == SIZE
    assert manifest.total / encodings_a_shard(manifest) <= module.MOST_SHARDS + 1
    many = module.MANY_SHARDS * SIZE // IMAGES
    assert encodings_a_shard(publication(many).manifest()) == SIZE
    assert encodings_a_shard(publication(many + 1).manifest()) == 2 * SIZE

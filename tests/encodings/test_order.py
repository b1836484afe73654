"""What a published folder gives away of its making: neither order, nor file times, nor names.

Images are published as they are, each a class of its own, so that every encoding shows by its label
which image it came from. A test that finds a structure where there is none does so once in a
million runs; that it finds what it looks for is tested on orders that do have a structure.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from instahide import Encoder, ImageTable, Scheme
from instahide.data import open_images
from instahide.encodings import publish as publishing
from instahide.encodings.folder import EncodedFolder
from instahide.encodings.ledger.ledger import Ledger
from instahide.encodings.publish import Publication, publish, threads
from instahide.encryption.augmentation import Augmentation
from instahide.encryption.exposure import Exposure
from instahide.encryption.keys import KeyStream, OneTimeKeys
from instahide.encryption.sampling import sampler
from tests.test_secrets import KEY, PARTICIPANT, holds_any, needles

IMAGES, COPIES, SHARDS = 240, 3, 12
#: A false alarm, at most so often.
ALARM = 1e-6


def orders_of(folder: EncodedFolder, path: Path) -> dict[str, NDArray[np.int64]]:
    """The source image of every encoding, in each order in which a reader may put the shards."""
    sources = {
        shard.name: folder.shard(number).labels.argmax(1).numpy()
        for number, shard in enumerate(folder.manifest.shards)
    }
    return {
        "manifest": np.concatenate(list(sources.values())),
        "names": np.concatenate([sources[name] for name in sorted(sources)]),
        "times": np.concatenate(
            [sources[name] for name in sorted(sources, key=lambda n: (path / n).stat().st_mtime_ns)]
        ),
    }


def chances(order: NDArray[np.int64]) -> dict[str, float]:
    """How likely a random order is to show as much structure, for several structures."""
    quarter = order * 4 // IMAGES
    place = np.arange(len(order))
    pairs = np.zeros((4, 4))
    np.add.at(pairs, (quarter[:-1:2], quarter[1::2]), 1)
    parts = np.zeros((SHARDS, 4))
    np.add.at(parts, (place * SHARDS // len(order), quarter), 1)
    # Different images in the first third: all of them, if copies are written one after another.
    first = len(set(order[: len(order) // COPIES].tolist()))
    shuffled = np.random.default_rng().permuted(np.tile(order, (1000, 1)), axis=1)
    usual = np.array([len(set(row[: len(row) // COPIES].tolist())) for row in shuffled])
    return {
        "place": float(stats.spearmanr(place, order).pvalue),
        "neighbours": float(stats.chi2_contingency(pairs).pvalue),
        "shards": float(stats.chi2_contingency(parts).pvalue),
        "copies": float(2 * stats.norm.sf(abs(first - usual.mean()) / usual.std())),
    }


def test_neither_order_nor_times_nor_names_tell_images_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (IMAGES, 1, 4, 4), dtype=np.uint8)
    images = ImageTable.from_arrays(pixels, np.arange(IMAGES))
    publication = Publication(images, None, Scheme.plain(), COPIES)
    each = publication.manifest().bytes_each
    monkeypatch.setattr(publishing, "SHARD_BYTES", IMAGES * COPIES // SHARDS * each)
    with Ledger.open(tmp_path / "ledger.sqlite") as ledger:
        folder = publish(publication, tmp_path / "encodings", ledger, engine=threads)
    assert len(folder.manifest.shards) == SHARDS
    for name, order in orders_of(folder, tmp_path / "encodings").items():
        assert np.array_equal(np.bincount(order), np.full(IMAGES, COPIES))
        found = chances(order)
        # Twelve tests in all.
        assert min(found.values()) > ALARM / 12, (name, found)


@pytest.mark.parametrize(
    ("structure", "shown_by"),
    [("sorted", "place"), ("descending", "place"), ("by copy", "copies"), ("pairs", "neighbours"),
     ("beside itself", "copies"), ("by shard", "shards")],
)  # fmt: skip
def test_a_structure_would_be_found(structure: str, shown_by: str) -> None:
    generator = np.random.default_rng()
    once = np.arange(IMAGES)
    by_copy = np.concatenate([generator.permutation(IMAGES) for _ in range(COPIES)])
    # Half of the images in the first half of the shards, but for one encoding in five.
    keys = np.repeat(once, COPIES) // (IMAGES // 2) + generator.random(IMAGES * COPIES) * 1.25
    order = {
        "sorted": np.repeat(once, COPIES),
        "descending": np.tile(once, COPIES)[np.argsort(-np.tile(once, COPIES), kind="stable")],
        "by copy": by_copy,
        "pairs": np.concatenate([once.reshape(-1, 2)[generator.permutation(IMAGES // 2)].ravel()
                                 for _ in range(COPIES)]),
        "beside itself": np.repeat(generator.permutation(IMAGES), COPIES),
        "by shard": np.repeat(once, COPIES)[np.argsort(keys)],
    }[structure]  # fmt: skip
    assert chances(order)[shown_by] < ALARM / 12


def picture_folder(path: Path) -> set[bytes]:
    """Pictures in two classes, under names that are nobody's business; returns these."""
    from PIL import Image

    generator, names = np.random.default_rng(0), set()
    for number in range(24):
        name = f"patient-{4711 + number}-Mueller"
        file = path / ("ill" if number % 2 else "well") / f"{name}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(generator.integers(0, 256, (8, 8), dtype=np.uint8)).save(file)
        names |= {name.encode(), name.encode("utf-16-le")}
    return names


def test_no_byte_of_a_folder_is_secret(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    noted: list[OneTimeKeys] = []
    draw = sampler.one_time_keys

    def noting(*arguments: object, **more: object) -> OneTimeKeys:
        noted.append(draw(*arguments, **more))  # type: ignore[arg-type]
        return noted[-1]

    def encoder(publication: Publication, exposure: Exposure) -> Encoder:
        keys = KeyStream(PARTICIPANT, fixed_key=KEY)
        return Encoder(
            publication.method, publication.images, keys=keys, exposure=exposure,
            augmentation=Augmentation(1, flip=True),
        )  # fmt: skip

    monkeypatch.setattr(sampler, "one_time_keys", noting)
    monkeypatch.setattr(Publication, "encoder", encoder)
    names = picture_folder(tmp_path / "pictures of patients")
    images = open_images(tmp_path / "pictures of patients")
    publication = Publication(images, None, Scheme.inside(4), 4, values="float32")
    with Ledger.open(tmp_path / "ledger.sqlite") as ledger:
        publish(publication, tmp_path / "encodings", ledger, engine=threads)
    secrets = needles(noted) | names | {b"pictures of patients"}
    files = [path for path in (tmp_path / "encodings").rglob("*") if path.is_file()]
    assert {path.suffix for path in files} >= {".json", ".safetensors"}
    for path in files:
        assert not holds_any(path.read_bytes(), secrets), path.name
        assert not holds_any(path.name.encode(), secrets)

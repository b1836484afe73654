"""A folder of encodings is what was written, or it is refused: whatever happened to its files."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from instahide import Encoder, InstaHideError, Scheme
from instahide.encodings.folder import EncodedFolder, new_shard_name, writing_encodings
from tests.encodings.conftest import (
    CLASSES,
    SHAPE,
    Write,
    manifest_of,
    private_images,
    problems,
    read_all,
    shards,
    tree,
)

FLIPS = 1_000


@pytest.mark.parametrize("values", ["float32", "float16", "uint8"])
def test_what_was_written_is_read(tmp_path: Path, write_folder: Write, values: str) -> None:
    encoded = Encoder(Scheme.inside(2), private_images(12)).encode(np.arange(12))
    folder = write_folder(tmp_path / "encodings", encoded, values=values)
    assert folder.verify() == []
    assert len(folder) == 12
    images, labels = read_all(folder)
    assert images.dtype == torch.float32
    assert torch.equal(labels, encoded.labels)
    assert float((images - encoded.images).abs().max()) <= folder.manifest.max_quantization_error


def test_no_flipped_bit_is_missed(folder: Path) -> None:
    files, generator = sorted(folder.glob("[!.]*")), np.random.default_rng()
    assert problems(folder) == []
    for _ in range(FLIPS):
        path = files[generator.integers(len(files))]
        content = path.read_bytes()
        place, bit = generator.integers(len(content)), generator.integers(8)
        flipped = bytearray(content)
        flipped[place] ^= 1 << bit
        path.write_bytes(flipped)
        assert problems(folder), f"bit {bit} of byte {place} of {path.name}"
        path.write_bytes(content)
    assert problems(folder) == []


def test_a_flipped_bit_does_not_crash_a_reader(folder: Path) -> None:
    generator, path = np.random.default_rng(), shards(folder)[0]
    content = path.read_bytes()
    for _ in range(200):
        flipped = bytearray(content)
        # The first bytes are those of the header, which everything else hangs on.
        flipped[generator.integers(200)] ^= 1 << int(generator.integers(8))
        path.write_bytes(flipped)
        try:
            opened = EncodedFolder.open(folder)
            images, labels = opened.shard(0)
            assert tuple(opened.decoded(images).shape) == (4, *SHAPE)
            assert tuple(labels.shape) == (4, len(CLASSES))
        except InstaHideError:
            pass


@pytest.mark.parametrize("name", ["shard", "manifest"])
@pytest.mark.parametrize("length", [0, 1, 7, 8, 100, -1])
def test_truncated_files_are_found(folder: Path, name: str, length: int) -> None:
    path = shards(folder)[1] if name == "shard" else folder / "manifest.json"
    path.write_bytes(path.read_bytes()[:length])
    assert problems(folder)
    with pytest.raises(InstaHideError):
        EncodedFolder.open(folder)


def test_a_longer_shard_is_found(folder: Path) -> None:
    shards(folder)[1].write_bytes(shards(folder)[1].read_bytes() + b"\0")
    with pytest.raises(InstaHideError, match="has not"):
        EncodedFolder.open(folder)


def test_a_missing_shard_is_found(folder: Path) -> None:
    gone = shards(folder)[2]
    gone.unlink()
    with pytest.raises(InstaHideError, match=rf"{gone.name} of {folder} .*missing"):
        EncodedFolder.open(folder)


def test_a_missing_manifest_is_found(folder: Path) -> None:
    (folder / "manifest.json").unlink()
    with pytest.raises(InstaHideError, match="holds no encodings"):
        EncodedFolder.open(folder)
    with pytest.raises(InstaHideError, match="holds no encodings"):
        EncodedFolder.open(folder / "nowhere")


@pytest.mark.parametrize("name", ["notes.txt", "fedcba9876543210.safetensors", "keys.bin"])
def test_an_extra_file_is_found(folder: Path, name: str) -> None:
    shutil.copy(shards(folder)[0], folder / name)
    assert problems(folder) == [f"{name!r} is not in the manifest."]


def test_a_renamed_shard_is_found(folder: Path) -> None:
    shards(folder)[0].rename(folder / new_shard_name())
    assert problems(folder)


def test_swapped_shards_are_found(folder: Path) -> None:
    one, other = (path.read_bytes() for path in shards(folder)[:2])
    assert len(one) == len(other)
    shards(folder)[0].write_bytes(other)
    shards(folder)[1].write_bytes(one)
    assert len(problems(folder)) == 2


def test_every_damaged_shard_is_named(folder: Path) -> None:
    for path in shards(folder)[:2]:
        path.write_bytes(path.read_bytes()[:-1] + b"\x7f")
    found = problems(folder)
    assert len(found) == 2
    assert all(path.name in problem for path, problem in zip(shards(folder), found, strict=False))


def test_a_shard_that_lies_elsewhere_is_refused(folder: Path, tmp_path: Path) -> None:
    outside = tmp_path / "private"
    shards(folder)[0].rename(outside)
    shards(folder)[0].symlink_to(outside)
    with pytest.raises(InstaHideError, match="leads out of the folder"):
        EncodedFolder.open(folder)


@pytest.mark.parametrize("kind", ["folder", "pipe", "dangling link", "device"])
def test_a_shard_that_is_no_file_is_refused(folder: Path, kind: str) -> None:
    path = shards(folder)[0]
    path.unlink()
    if kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    else:
        path.symlink_to("/dev/zero" if kind == "device" else folder / "nowhere")
    with pytest.raises(InstaHideError, match="missing"):
        EncodedFolder.open(folder)


def test_an_unfinished_folder_is_opened_only_if_asked(tmp_path: Path, write_folder: Write) -> None:
    folder = write_folder(tmp_path / "encodings", finish=False)
    assert folder.verify() == []
    with pytest.raises(InstaHideError, match="not finished: 12 of 12"):
        EncodedFolder.open(tmp_path / "encodings")


# Writing, and going on.


def test_nobody_writes_into_a_folder_that_is_used(folder: Path, tmp_path: Path) -> None:
    manifest = EncodedFolder.open(folder).manifest
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "notes.txt").write_text("mine")
    for taken in (folder, tmp_path / "other"):
        before = tree(taken)
        with pytest.raises(InstaHideError, match="not empty"), writing_encodings(taken, manifest):
            pass
        assert tree(taken) == before


def test_resuming_removes_unfinished_shards_and_nothing_else(
    tmp_path: Path, write_folder: Write
) -> None:
    folder = tmp_path / "encodings"
    manifest = write_folder(folder, finish=False).manifest
    unfinished, notes = folder / new_shard_name(), folder / "notes.txt"
    unfinished.write_bytes(b"half")
    notes.write_text("mine")
    with writing_encodings(folder, manifest, resume=True) as writer:
        writer.finish("all")
    assert not unfinished.exists()
    assert notes.read_text() == "mine"
    assert problems(folder) == ["'notes.txt' is not in the manifest."]


def test_resuming_needs_the_finished_shards(tmp_path: Path, write_folder: Write) -> None:
    manifest = write_folder(tmp_path / "encodings", finish=False).manifest
    shards(tmp_path / "encodings")[1].unlink()
    with (
        pytest.raises(InstaHideError, match="missing"),
        writing_encodings(tmp_path / "encodings", manifest, resume=True),
    ):
        pass


def test_a_folder_is_not_finished_before_all_is_there(tmp_path: Path) -> None:
    manifest = manifest_of(private_images(12), Scheme.inside(2))
    with writing_encodings(tmp_path / "encodings", manifest) as writer:
        with pytest.raises(ValueError, match="hold 0 encodings, not 12"):
            writer.finish("all")
        assert writer.manifest.ended is None


# What the page says.


@pytest.mark.parametrize("values", ["float32", "float16", "uint8"])
def test_the_reader_in_the_docs_reads_the_same(
    tmp_path: Path, write_folder: Write, values: str
) -> None:
    page = (Path(__file__).parents[2] / "docs" / "format.md").read_text()
    code = re.search(r"## A reader\n+```python\n(.*?)```", page, re.S)
    assert code is not None
    reader: dict[str, Any] = {}
    exec(code[1], reader)  # noqa: S102
    folder = write_folder(tmp_path / "encodings", values=values)
    manifest = reader["read_manifest"](tmp_path / "encodings")
    for number, shard in enumerate(manifest["shards"]):
        images, labels = reader["read_shard"](tmp_path / "encodings", manifest, shard)
        ours = folder.shard(number)
        assert np.abs(images - folder.decoded(ours.images).numpy()).max() < 1e-6
        assert np.array_equal(labels, ours.labels.numpy())
    content = shards(tmp_path / "encodings")[0].read_bytes()
    assert hashlib.sha256(content).hexdigest() == folder.manifest.shards[0].sha256

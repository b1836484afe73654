"""A folder of encodings is what was written, or it is refused: whatever happened to its files."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from instahide import Encoder, InstaHideError, Scheme
from instahide.encodings.format import EncodedFolder, new_shard_name, writing_encodings
from instahide.encodings.shards import write_shard
from instahide.encryption.encoder import Encoded
from tests.encodings.conftest import CLASSES, SHAPE, manifest_of, private_images
from tests.encodings.test_manifest import ANYTHING, CLIMBING, sealed

FLIPS = 1_000
Write = Callable[..., EncodedFolder]


@pytest.fixture
def folder(tmp_path: Path, write_folder: Write) -> Path:
    write_folder(tmp_path / "encodings")
    return tmp_path / "encodings"


def shards(folder: Path) -> list[Path]:
    """In the order of the manifest."""
    names = [
        shard["name"] for shard in json.loads((folder / "manifest.json").read_bytes())["shards"]
    ]
    return [folder / name for name in names]


def problems(folder: Path) -> list[str]:
    """What opening or verifying finds; anything but an `InstaHideError` is a crash."""
    try:
        return EncodedFolder.open(folder).verify()
    except InstaHideError as error:
        return [error.problem]


def read_all(folder: EncodedFolder) -> Encoded:
    parts = [folder.shard(number) for number in range(len(folder.manifest.shards))]
    images, labels = (torch.cat(tensors) for tensors in zip(*parts, strict=True))
    return Encoded(folder.decoded(images), labels)


def rewritten(folder: Path, **changes: Any) -> None:
    """Change the manifest as an attacker would, with a right checksum."""
    found = json.loads((folder / "manifest.json").read_bytes())
    del found["checksum"]
    (folder / "manifest.json").write_bytes(sealed(json.dumps(found | changes)))


@pytest.mark.parametrize("values", ["float32", "float16", "uint8"])
def test_what_was_written_is_read(tmp_path: Path, write_folder: Write, values: str) -> None:
    encoded = Encoder(Scheme.inside(2), private_images(12)).encode(np.arange(12))
    folder = write_folder(tmp_path / "encodings", encoded, values=values)
    assert folder.verify() == []
    assert len(folder) == 12
    images, labels = read_all(folder)
    assert images.dtype == torch.float32
    assert torch.equal(labels, encoded.labels)
    assert float((images - encoded.images).abs().max()) <= folder.manifest.worst_error


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


def test_a_folder_of_a_newer_version_is_refused(folder: Path) -> None:
    rewritten(folder, format=2)
    with pytest.raises(InstaHideError, match=f"{folder} was written by a newer version"):
        EncodedFolder.open(folder)


def test_an_unfinished_folder_is_opened_only_if_asked(tmp_path: Path, write_folder: Write) -> None:
    folder = write_folder(tmp_path / "encodings", finish=False)
    assert folder.verify() == []
    with pytest.raises(InstaHideError, match="not finished: 12 of 12"):
        EncodedFolder.open(tmp_path / "encodings")


# What a publisher got wrong, or made up: checksums are right.


def made_up(images: torch.Tensor, labels: torch.Tensor | None = None) -> Encoded:
    if labels is None:
        labels = torch.eye(len(CLASSES))[torch.arange(len(images)) % len(CLASSES)]
    return Encoded(images, labels)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf"), 100.0, -100.0])
def test_impossible_values_are_found(tmp_path: Path, write_folder: Write, value: float) -> None:
    images = torch.randn(12, *SHAPE).clamp(-1, 1)
    images[7, 0, 3, 3] = value
    folder = write_folder(tmp_path / "encodings", made_up(images))
    assert len(folder.verify()) == 1


def test_a_byte_that_stands_for_nothing_is_found(tmp_path: Path, write_folder: Write) -> None:
    folder = write_folder(tmp_path / "encodings", values="uint8")
    stored, labels = (tensor.clone() for tensor in folder.shard(0))
    stored[0, 0, 0, 0] = 0
    name = folder.manifest.shards[0].name
    shard = write_shard(tmp_path / "encodings" / name, name, stored, labels)
    rest = json.loads(folder.manifest.to_json())["shards"][1:]
    rewritten(tmp_path / "encodings", shards=[shard.model_dump(), *rest])
    assert len(problems(tmp_path / "encodings")) == 1


@pytest.mark.parametrize(
    "label",
    [[0.5, 0.4, 0.0], [0.5, 0.6, 0.0], [1.5, -0.5, 0.0], [float("nan"), 0.5, 0.5], [0.0] * 3],
)
def test_impossible_labels_are_found(
    tmp_path: Path, write_folder: Write, label: list[float]
) -> None:
    encoded = made_up(torch.randn(12, *SHAPE).clamp(-1, 1))
    encoded.labels[5] = torch.tensor(label)
    assert len(write_folder(tmp_path / "encodings", encoded).verify()) == 1


def test_a_private_share_below_c2_is_found(tmp_path: Path, write_folder: Write) -> None:
    scheme, images = Scheme.cross(4), private_images(12)
    encoded = Encoder(scheme, images, images).encode(np.arange(12))
    assert write_folder(tmp_path / "right", encoded, scheme=scheme).verify() == []
    encoded.labels[3] *= 0.1
    assert len(write_folder(tmp_path / "wrong", encoded, scheme=scheme).verify()) == 1


def test_a_worst_error_that_is_too_good_is_found(folder: Path) -> None:
    rewritten(folder, worst_error=1e-9)
    assert "worst error" in problems(folder)[0]


@pytest.mark.parametrize("values", ["float32", "float16", "uint8"])
def test_a_key_that_was_used_twice_is_found(
    tmp_path: Path, write_folder: Write, values: str
) -> None:
    encoded = Encoder(Scheme.inside(2), private_images(12)).encode(np.arange(12))
    signs = torch.randint(0, 2, SHAPE) * 2 - 1
    # In another shard, and under another mask.
    encoded.images[10], encoded.labels[10] = encoded.images[1] * signs, encoded.labels[1]
    folder = write_folder(tmp_path / "encodings", encoded, values=values)
    assert folder.verify() == ["1 encodings show the mix of another: a key was used twice."]


def test_empty_images_and_plain_copies_are_no_keys_used_twice(
    tmp_path: Path, write_folder: Write
) -> None:
    encoded = Encoder(Scheme.inside(2), private_images(12)).encode(np.arange(12))
    encoded.images[3:6] = torch.tensor([-0.5, 0.5, 0.5])[:, None, None, None]
    encoded.labels[3:6] = torch.tensor([1.0, 0, 0])
    assert write_folder(tmp_path / "empty", encoded).verify() == []
    plain = Encoder(Scheme.plain(), private_images(12)).encode(np.arange(12) % 6)
    assert write_folder(tmp_path / "plain", plain, scheme=Scheme.plain()).verify() == []


# Hostile manifests.


@pytest.fixture(scope="session")
def opened_files() -> Iterator[list[str]]:
    """Every path that Python opens, until the test has it emptied."""
    noted: list[str] = []
    active = True

    def note(event: str, arguments: tuple[Any, ...]) -> None:
        if active and event == "open" and isinstance(arguments[0], str | bytes | Path):
            noted.append(os.fsdecode(arguments[0]))

    sys.addaudithook(note)
    yield noted
    active = False


def tree(folder: Path) -> dict[str, bytes]:
    """All files but the locks that writers leave."""
    files = (path for path in sorted(folder.rglob("[!.]*")) if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_a_hostile_manifest_reaches_nothing_outside(
    data: st.DataObject, hostile: tuple[Path, bytes], opened_files: list[str]
) -> None:
    folder, manifest = hostile
    found = json.loads(manifest)
    del found["checksum"]
    victim = data.draw(st.sampled_from([found, found["scheme"], *found["shards"]]))
    name = data.draw(st.sampled_from(sorted(victim)))
    large = st.integers(1, 1 << 48)
    victim[name] = data.draw(
        st.sampled_from(CLIMBING) | st.just("secret.safetensors") if name == "name"
        else large | ANYTHING
    )  # fmt: skip
    (folder / "manifest.json").write_bytes(sealed(json.dumps(found)))
    before = tree(folder.parent)
    opened_files.clear()
    try:
        opened = EncodedFolder.open(folder, partial=True)
        opened.verify()
        assert read_all(opened).images.numel() <= 4 * sum(map(len, before.values()))
    except InstaHideError:
        pass
    assert all(Path(path).parent == folder for path in opened_files)
    assert tree(folder.parent) == before


@pytest.fixture(scope="session")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, bytes]:
    """A folder beside a file that is nobody's business, and its manifest as it was."""
    root = tmp_path_factory.mktemp("hostile")
    images, scheme = private_images(4), Scheme.inside(2)
    encoded = Encoder(scheme, images, dtype=torch.float16).encode(np.arange(4))
    with writing_encodings(root / "encodings", manifest_of(images, scheme)) as writer:
        for name, rows in ((new_shard_name(), slice(0, 2)), (new_shard_name(), slice(2, 4))):
            with writer.store.writing(name) as file:
                shard = write_shard(file, name, encoded.images[rows], encoded.labels[rows])
            writer.commit(shard)
    shutil.copy(root / "encodings" / name, root / "secret.safetensors")
    return root / "encodings", (root / "encodings" / "manifest.json").read_bytes()


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

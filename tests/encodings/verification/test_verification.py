"""What a publisher got wrong, or made up, with right checksums: it is found, and harms nobody."""

from __future__ import annotations

import copy
import json
import os
import shutil
import sys
import sysconfig
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from instahide import Encoder, ImageTable, InstaHideError, Scheme
from instahide.cli.main import app
from instahide.encodings.folder import EncodedFolder, new_shard_name, writing_encodings
from instahide.encodings.shards import write_shard
from instahide.encryption.encoder import Encoded
from tests.encodings.conftest import (
    CLASSES,
    SHAPE,
    Write,
    manifest_of,
    private_images,
    problems,
    read_all,
    tree,
)
from tests.encodings.test_manifest import ANYTHING, CLIMBING, sealed

#: The modules that Python comes with.
PYTHON = sysconfig.get_paths()["stdlib"]


def rewritten(folder: Path, **changes: Any) -> None:
    """Change the manifest as an attacker would, with a right checksum."""
    found = json.loads((folder / "manifest.json").read_bytes())
    del found["checksum"]
    (folder / "manifest.json").write_bytes(sealed(json.dumps(found | changes)))


def test_a_folder_of_a_newer_version_is_refused(folder: Path) -> None:
    rewritten(folder, format=2)
    with pytest.raises(InstaHideError, match=f"{folder} was written by a newer version"):
        EncodedFolder.open(folder)


def made_up(images: torch.Tensor) -> Encoded:
    return Encoded(images, torch.eye(len(CLASSES))[torch.arange(len(images)) % len(CLASSES)])


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


@pytest.mark.parametrize("error", [1e-9, 1.0])
def test_a_false_quantization_error_is_found(folder: Path, error: float) -> None:
    """A larger one would let the other checks allow for noise or a mask that is not there."""
    rewritten(folder, max_quantization_error=error)
    assert "worst error" in problems(folder)[0]


@pytest.mark.parametrize("values", ["float32", "float16", "uint8"])
def test_a_key_that_was_used_twice_is_found(
    tmp_path: Path, write_folder: Write, values: str
) -> None:
    scheme = Scheme.inside(4)
    encoded = Encoder(scheme, private_images(12)).encode(np.arange(12))
    signs = torch.randint(0, 2, SHAPE) * 2 - 1
    # In another shard, and under another mask.
    encoded.images[10], encoded.labels[10] = encoded.images[1] * signs, encoded.labels[1]
    folder = write_folder(tmp_path / "encodings", encoded, values=values, scheme=scheme)
    assert folder.verify() == ["1 encodings show the mix of another: a key was used twice."]


@pytest.mark.parametrize("values", ["float32", "float16", "uint8"])
def test_two_mixes_of_the_same_two_images_may_agree_but_for_their_masks(
    tmp_path: Path, write_folder: Write, values: str
) -> None:
    """Of 12,000 mixes of 60 images of 64 values, about one did so by chance in three runs."""
    encoded = Encoder(Scheme.inside(2), private_images(12)).encode(np.arange(12))
    signs = torch.randint(0, 2, SHAPE) * 2 - 1
    encoded.images[10], encoded.labels[10] = encoded.images[1] * signs, encoded.labels[1]
    assert write_folder(tmp_path / "chance", encoded, values=values).verify() == []
    encoded.images[10] = encoded.images[1]
    folder = write_folder(tmp_path / "key", encoded, values=values)
    assert folder.verify() == ["1 encodings show the mix of another: a key was used twice."]


@pytest.mark.parametrize("scheme", [Scheme.inside(2), Scheme.mixup(2)], ids=["inside", "mixup"])
def test_several_equal_mixes_of_two_images_are_no_chance(
    tmp_path: Path, write_folder: Write, scheme: Scheme
) -> None:
    """Labels show the coefficients; one pair may still agree, two hardly ever do."""
    encoded = Encoder(scheme, private_images(12)).encode(np.arange(12))
    encoded.labels[:3] = torch.tensor([[0.3, 0.7, 0], [0, 0.4, 0.6], [0.9, 0, 0.1]])
    signs = (torch.randint(0, 2, SHAPE) * 2 - 1) if scheme.mask else torch.ones(SHAPE)
    encoded.images[10], encoded.labels[10] = encoded.images[1] * signs, encoded.labels[1]
    assert write_folder(tmp_path / "one", encoded, scheme=scheme).verify() == []
    encoded.images[11], encoded.labels[11] = encoded.images[2] * signs, encoded.labels[2]
    folder = write_folder(tmp_path / "two", encoded, scheme=scheme)
    assert folder.verify() == ["2 encodings show the mix of another: a key was used twice."]


def test_labels_that_two_coefficients_give_show_none(tmp_path: Path, write_folder: Write) -> None:
    """Two images of one class, of which the coefficients sum to 1 but for rounding."""
    encoded = Encoder(Scheme.inside(2), private_images(12)).encode(np.arange(12))
    encoded.labels[:4] = torch.tensor([1 - 6e-8, 0, 0])
    signs = torch.randint(0, 2, SHAPE) * 2 - 1
    for new, old in ((2, 0), (3, 1)):
        encoded.images[new] = encoded.images[old] * signs
    assert write_folder(tmp_path / "encodings", encoded).verify() == []


def test_empty_images_and_plain_copies_are_no_keys_used_twice(
    tmp_path: Path, write_folder: Write
) -> None:
    encoded = Encoder(Scheme.inside(2), private_images(12)).encode(np.arange(12))
    encoded.images[3:6] = torch.randint(0, 2, (3, *SHAPE)) - 0.5
    encoded.labels[3:6] = torch.tensor([1.0, 0, 0])
    assert write_folder(tmp_path / "empty", encoded).verify() == []
    plain = Encoder(Scheme.plain(), private_images(12)).encode(np.arange(12) % 6)
    assert write_folder(tmp_path / "plain", plain, scheme=Scheme.plain()).verify() == []


# Hostile manifests.


@pytest.mark.slow
def test_a_hostile_manifest_reaches_nothing_outside(hostile: tuple[Path, bytes]) -> None:
    # In a process of its own: what an audit hook notes, it notes until the process ends.
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        pool.submit(open_hostile_manifests, *hostile).result()


def open_hostile_manifests(folder: Path, manifest: bytes) -> None:
    """Fails where one of them makes Python open a file outside the folder, or changes a file."""
    opened: list[str] = []

    def note(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open" and isinstance(arguments[0], str | bytes | Path):
            opened.append(os.fsdecode(arguments[0]))

    @settings(max_examples=60, deadline=None, database=None)
    @given(changed=manifests(json.loads(manifest)))
    def check(changed: bytes) -> None:
        (folder / "manifest.json").write_bytes(changed)
        before = tree(folder.parent)
        opened.clear()
        try:
            found = EncodedFolder.open(folder, partial=True)
            found.verify()
            numbers = range(len(found.manifest.shards))
            values = sum(found.decoded(found.shard(number).images).numel() for number in numbers)
            assert values <= 4 * sum(map(len, before.values()))
        except InstaHideError:
            pass
        # Python loads modules of its own, such as encodings of text, when they are first used.
        read = [Path(path) for path in opened if not Path(path).is_relative_to(PYTHON)]
        outside = [path for path in read if path.parent != folder]
        assert not outside, outside
        assert tree(folder.parent) == before

    # First without the hook, and with the right one, which is looked through to the end: modules
    # are loaded from their files.
    (folder / "manifest.json").write_bytes(manifest)
    right = EncodedFolder.open(folder, partial=True)
    assert right.verify() == []
    assert len(read_all(right).images)
    check()
    sys.addaudithook(note)
    check()


@st.composite
def manifests(draw: st.DrawFn, found: dict[str, Any]) -> bytes:
    """The manifest ``found`` with one value made up, and with a right checksum."""
    made_up = copy.deepcopy(found)
    del made_up["checksum"]
    victim = draw(st.sampled_from([made_up, made_up["scheme"], *made_up["shards"]]))
    name = draw(st.sampled_from(sorted(victim)))
    large = st.integers(1, 1 << 48)
    victim[name] = draw(
        st.sampled_from(CLIMBING) | st.just("secret.safetensors") if name == "name"
        else large | ANYTHING
    )  # fmt: skip
    return sealed(json.dumps(made_up))


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


def test_what_a_publisher_calls_himself_is_shown_as_it_is(
    tmp_path: Path, write_folder: Write
) -> None:
    write_folder(tmp_path / "encodings", participant="[/] [red]us[/red]")
    result = CliRunner().invoke(app, ["info", str(tmp_path / "encodings")])
    assert "[/] [red]us[/red]" in result.stdout


@pytest.mark.parametrize("values", ["float32", "float16", "uint8"])
@pytest.mark.parametrize("pixels", [True, False])
def test_encodings_that_show_a_single_picture_are_found(
    tmp_path: Path, write_folder: Write, values: str, pixels: bool
) -> None:
    images = private_images(60)
    encoded = Encoder(Scheme.inside(2), images).encode(np.arange(60))
    assert write_folder(tmp_path / "right", encoded, values=values).verify() == []
    # Mixes of a picture with itself, under masks, coefficients and labels of their own.
    picture = torch.from_numpy(images.normalized(slice(7, 8)))[0]
    picture = picture if pixels else torch.randn(SHAPE, generator=torch.manual_seed(1)).clamp(-1, 1)
    for row, share in ((3, 0.3), (40, 0.62), (51, 0.45)):
        signs = torch.randint(0, 2, SHAPE) * 2 - 1
        encoded.images[row] = (share * picture + (1 - share) * picture) * signs
        encoded.labels[row] = torch.tensor([share, 1 - share, 0.0])
    found = write_folder(tmp_path / "wrong", encoded, values=values).verify()
    assert len(found) == 1
    assert found[0].startswith("3 encodings show a single picture")


@pytest.mark.parametrize("values", ["float32", "float16"])
def test_a_lone_encoding_of_a_single_picture_is_found(
    tmp_path: Path, write_folder: Write, values: str
) -> None:
    images = private_images(20)
    encoded = Encoder(Scheme.inside(3), images).encode(np.arange(20))
    encoded.images[5] = torch.from_numpy(images.normalized(slice(5, 6)))[0] * -1
    found = write_folder(
        tmp_path / "wrong", encoded, scheme=Scheme.inside(3), values=values
    ).verify()
    assert len(found) == 1
    assert found[0].startswith("1 encodings show a single picture")


def test_mixes_of_few_grey_levels_are_taken_for_no_single_picture(
    tmp_path: Path, write_folder: Write
) -> None:
    # Black and white drawings, mixed in equal shares of a third: all values are whole pixels.
    generator = np.random.default_rng(2)
    drawings = generator.integers(0, 2, (12, *SHAPE), np.uint8) * 255
    table = ImageTable.from_arrays(drawings, np.arange(12) % len(CLASSES), CLASSES)
    values = torch.from_numpy(table.normalized())
    mixes = torch.stack([values[[n, (n + 1) % 12, (n + 5) % 12]].mean(0) for n in range(12)])
    labels = torch.full((12, len(CLASSES)), 1 / 3)
    folder = write_folder(tmp_path / "encodings", Encoded(mixes, labels), scheme=Scheme.inside(3),
                          values="float32", mean=table.mean, std=table.std)  # fmt: skip
    assert folder.verify() == []


@pytest.mark.parametrize("values", ["float32", "float16"])
def test_noise_as_small_as_a_rounding_does_not_hide_a_single_picture(
    tmp_path: Path, write_folder: Write, values: str
) -> None:
    scheme, images = Scheme.inside(3, noise=1e-6), private_images(20)
    encoded = Encoder(scheme, images).encode(np.arange(20))
    folder = write_folder(tmp_path / "right", encoded, scheme=scheme, values=values)
    assert folder.verify() == []
    picture = torch.from_numpy(images.normalized(slice(5, 6)))[0]
    encoded.images[5] = -picture + 1e-6 * torch.randn(SHAPE)
    found = write_folder(tmp_path / "wrong", encoded, scheme=scheme, values=values).verify()
    assert len(found) == 1
    assert found[0].startswith("1 encodings show a single picture")


@pytest.mark.parametrize("values", ["float32", "float16", "uint8"])
@pytest.mark.parametrize("noise", [2e-3, 0.05, 0.5])
def test_noise_that_is_claimed_and_not_there_does_not_hide_a_single_picture(
    tmp_path: Path, write_folder: Write, values: str, noise: float
) -> None:
    scheme, images = Scheme.inside(3, noise=noise), private_images(20)
    encoded = Encoder(scheme, images).encode(np.arange(20))
    folder = write_folder(tmp_path / "right", encoded, scheme=scheme, values=values)
    assert folder.verify() == []
    picture = torch.from_numpy(images.normalized(slice(5, 6)))[0]
    for row, share in ((5, 0.3), (9, 0.6)):
        encoded.images[row] = picture * (torch.randint(0, 2, SHAPE) * 2 - 1)
        encoded.labels[row] = torch.tensor([share, 1 - share, 0.0])
    found = write_folder(tmp_path / "wrong", encoded, scheme=scheme, values=values).verify()
    assert len(found) == 1
    assert found[0].startswith("2 encodings show a single picture")


@pytest.mark.parametrize("noise", [1e-5, 1e-4, 1e-3])
def test_mixes_of_few_grey_levels_with_weak_noise_are_no_single_pictures(
    tmp_path: Path, write_folder: Write, noise: float
) -> None:
    """Where noise is allowed for, one lucky coefficient makes all values fit those of pixels."""
    pixels = np.random.default_rng(3).integers(0, 4, (400, *SHAPE)).astype(np.uint8) * 85
    table = ImageTable.from_arrays(pixels, np.arange(400) % len(CLASSES), CLASSES)
    scheme = Scheme.inside(2, noise=noise)
    folder = write_folder(
        tmp_path / "encodings", Encoder(scheme, table).encode(np.arange(400)), scheme=scheme,
        values="float32", mean=table.mean, std=table.std,
    )  # fmt: skip
    assert folder.verify() == []

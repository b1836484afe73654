"""Encodings to other formats and back: read by the libraries of these, and distrusted."""

from __future__ import annotations

import io
import json
import os
import pickle
import subprocess
import sys
import tarfile
import tracemalloc
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from typer.testing import CliRunner

from instahide.cli.main import app
from instahide.encodings import publish
from instahide.encodings.convert import webdataset
from instahide.encodings.convert.exporter import export_encodings
from instahide.encodings.convert.formats import Name
from instahide.encodings.convert.importer import ExternalEncodings, Provenance
from instahide.encodings.folder import (
    EncodedFolder,
    new_publication,
    new_shard_name,
    writing_encodings,
)
from instahide.encodings.manifest import NAME, Manifest
from instahide.encodings.shards import max_quantization_error, quantize, write_shard
from instahide.encryption.scheme import Scheme
from instahide.errors import InstaHideError
from tests.waiting import LIMIT

FORMS = get_args(Name)
#: What `folder` holds: 7 images, 3 copies, 3 classes, in shards of 8, 8 and 5.
IMAGES, COPIES, CLASSES, SHARD, SHAPE = 7, 3, ("cat", "dog", "owl"), 8, (3, 5, 4)
ORIGIN = Provenance(Scheme.cross(4), IMAGES, COPIES, (0.5,) * 3, (0.25,) * 3)


def mixes(count: int = IMAGES * COPIES, shape: tuple[int, ...] = SHAPE) -> tuple[Any, Any]:
    """Float32 images within reach, and labels as of a cross-dataset scheme."""
    generator = np.random.default_rng(0)
    images = generator.uniform(-2, 2, (count, *shape)).astype(np.float32)
    labels = generator.dirichlet(np.ones(len(CLASSES)), count).astype(np.float32)
    return images, labels * np.float32(0.7)


def write(
    path: Path,
    values: str = "float16",
    count: int = IMAGES * COPIES,
    shape: tuple[int, ...] = SHAPE,
    *,
    limit: bool = False,
) -> EncodedFolder:
    """A finished folder; with ``limit`` one that ended before its last copies."""
    images, labels = (torch.from_numpy(part) for part in mixes(count, shape))
    manifest = Manifest(
        publication=new_publication(), participant="anna", scheme=asdict(ORIGIN.scheme),
        shape=shape, classes=CLASSES, mean=ORIGIN.mean, std=ORIGIN.std,
        value_range=ORIGIN.value_range,
        private_images=count // COPIES, copies=COPIES + limit, values=values,
        max_quantization_error=0.0,
    )  # fmt: skip
    error = max_quantization_error(manifest.values, manifest.max_abs)
    with writing_encodings(
        path, manifest.model_copy(update={"max_quantization_error": error})
    ) as writer:
        stored = quantize(images, manifest.values, manifest.max_abs)
        for start in range(0, count, SHARD):
            name, rows = new_shard_name(), slice(start, start + SHARD)
            with writer.store.writing(name) as file:
                shard = write_shard(file, name, stored[rows], labels[rows])
            writer.commit(shard)
        writer.finish("limit" if limit else "all")
    return EncodedFolder.open(path)


def contents(folder: EncodedFolder) -> tuple[NDArray[Any], NDArray[Any]]:
    """All images as they are stored, and all labels."""
    shards = [folder.shard(number) for number in range(len(folder.manifest.shards))]
    return (
        torch.cat([shard.images for shard in shards]).numpy(),
        torch.cat([shard.labels for shard in shards]).numpy(),
    )


def decoded(folder: EncodedFolder) -> NDArray[Any]:
    return folder.decoded(torch.from_numpy(contents(folder)[0])).numpy()


@pytest.fixture
def folder(tmp_path: Path) -> EncodedFolder:
    return write(tmp_path / "encoded")


@pytest.fixture
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Several tars, and several shards of an import."""
    monkeypatch.setattr(publish, "SHARD_BYTES", 1000)
    monkeypatch.setattr(webdataset, "TAR_BYTES", 20_000)


def refusal(action: Callable[[], object]) -> str:
    with pytest.raises(InstaHideError) as caught:
        action()
    return caught.value.problem


def nothing_but(*paths: Path) -> bool:
    """Whether no other file, hidden or not, is beside ``paths``."""
    return set(paths[0].parent.iterdir()) == set(paths)


@pytest.mark.usefixtures("_small")
@pytest.mark.parametrize("values", ["float16", "float32", "uint8"])
@pytest.mark.parametrize("form", FORMS)
def test_there_and_back_nothing_changes(form: Name, values: str, tmp_path: Path) -> None:
    folder = write(tmp_path / "encoded", values)
    done: list[int] = []
    export_encodings(folder, tmp_path / "out", form, done.append)
    assert sum(done) == len(folder)
    back = ExternalEncodings.open(tmp_path / "out", form).convert(tmp_path / "back", done.append)
    assert sum(done) == 2 * len(folder)
    assert back.verify() == []
    assert len(back.manifest.shards) > 1
    for here, there in zip(contents(folder), contents(back), strict=True):
        assert here.dtype == there.dtype
        assert np.array_equal(here, there)
    shards = {"shards", "checksum"}
    assert back.manifest.model_dump(exclude=shards) == folder.manifest.model_dump(exclude=shards)
    assert nothing_but(*(tmp_path / name for name in ("encoded", "out", "back")))


@pytest.mark.parametrize("form", FORMS)
def test_a_folder_that_ended_at_its_limit_stays_one(form: Name, tmp_path: Path) -> None:
    export_encodings(write(tmp_path / "encoded", limit=True), tmp_path / "out", form)
    back = ExternalEncodings.open(tmp_path / "out", form).convert(tmp_path / "back")
    assert (back.manifest.ended, back.manifest.copies) == ("limit", COPIES + 1)


@pytest.mark.parametrize("form", FORMS)
def test_exported_files_name_no_place_of_this_machine(
    form: Name, folder: EncodedFolder, tmp_path: Path
) -> None:
    export_encodings(folder, tmp_path / "out", form)
    for path in (tmp_path / "out").rglob("*"):
        assert os.fsencode(tmp_path) not in path.read_bytes()


def test_the_challenge_is_what_its_authors_published(folder: EncodedFolder, tmp_path: Path) -> None:
    export_encodings(folder, tmp_path / "out", "challenge")
    images = np.load(tmp_path / "out/encryption.npy", allow_pickle=False)
    labels = np.load(tmp_path / "out/label.npy", allow_pickle=False)
    assert (images.dtype, labels.dtype) == (np.float32, np.float32)
    assert images.shape == (len(folder), 5, 4, 3)
    assert np.array_equal(images.transpose(0, 3, 1, 2), decoded(folder))
    assert np.array_equal(labels, contents(folder)[1])


@pytest.mark.usefixtures("_small")
# Theirs: the library leaves it to the garbage collector to close what it has read.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_webdataset_reads_our_tars(folder: EncodedFolder, tmp_path: Path) -> None:
    from webdataset import WebDataset

    export_encodings(folder, tmp_path / "out", "webdataset")
    tars = sorted(map(str, (tmp_path / "out").glob("*.tar")))
    assert len(tars) > 1
    assert all(
        Path(tar).stat().st_size <= webdataset.TAR_BYTES + tarfile.RECORDSIZE for tar in tars
    )
    samples = list(WebDataset(tars, shardshuffle=False).decode())
    assert [sample["__key__"] for sample in samples] == [f"{n:012d}" for n in range(len(folder))]
    images, labels = contents(folder)
    assert np.array_equal(np.stack([sample["image.npy"] for sample in samples]), images)
    assert np.array_equal(np.stack([sample["label.npy"] for sample in samples]), labels)


def test_tars_say_nothing_of_when_and_by_whom(folder: EncodedFolder, tmp_path: Path) -> None:
    export_encodings(folder, tmp_path / "out", "webdataset")
    with tarfile.open(tmp_path / "out/encodings-000000.tar") as tar:
        facts = {(m.mtime, m.uid, m.gid, m.uname, m.gname, m.mode) for m in tar}
    assert facts == {(0, 0, 0, "", "", 0o644)}


READ_BY_DATASETS = """
import sys, numpy as np
from datasets import load_dataset, load_from_disk

out = sys.argv[1]
sets = {
    "arrow": load_from_disk(f"{out}/huggingface"),
    "parquet": load_dataset("parquet", data_files=f"{out}/parquet/*.parquet", split="train"),
    "folder": load_dataset(f"{out}/parquet", split="train"),
}
for name, rows in sets.items():
    assert set(rows.features) == {"image", "label"}, rows.features
    assert rows.features["image"].shape == (3, 5, 4), rows.features
    assert rows.features["image"].dtype == "float16", rows.features
    assert rows.features["label"].length == 3, rows.features
    np.savez(f"{out}/{name}.npz", **rows.with_format("numpy")[:])
"""


@pytest.mark.slow
def test_datasets_reads_ours_without_a_network(folder: EncodedFolder, tmp_path: Path) -> None:
    for form in ("huggingface", "parquet"):
        export_encodings(folder, tmp_path / form, form)
    subprocess.run(
        [sys.executable, "-c", READ_BY_DATASETS, str(tmp_path)],
        env={**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "home")},
        check=True,
        timeout=LIMIT,
    )
    labels = contents(folder)[1]
    for name in ("arrow", "parquet", "folder"):
        with np.load(tmp_path / f"{name}.npz") as rows:
            assert np.array_equal(rows["image"], decoded(folder))
            assert np.array_equal(rows["label"], labels)


@pytest.mark.parametrize(("form", "dtype"), [("challenge", np.float64), ("webdataset", np.float16)])
def test_without_a_manifest_one_is_made_of_what_is_told(
    form: Name, dtype: type, folder: EncodedFolder, tmp_path: Path
) -> None:
    source = tmp_path / "out"
    export_encodings(folder, source, form)
    (source / NAME).unlink()
    if form == "challenge":
        np.save(source / "encryption.npy", np.load(source / "encryption.npy").astype(dtype))
    back = ExternalEncodings.open(source, form, replace(ORIGIN, participant="ben")).convert(
        tmp_path / "back"
    )
    manifest = back.manifest
    assert back.verify() == []
    assert manifest.values == ("float16" if dtype == np.float16 else "float32")
    assert np.array_equal(decoded(back), decoded(folder))
    assert manifest.publication != folder.manifest.publication
    assert (manifest.classes, manifest.participant) == (("0", "1", "2"), "ben")
    assert (manifest.private_images, manifest.copies, manifest.ended) == (IMAGES, COPIES, "all")
    assert (manifest.encryption(), manifest.mean, manifest.std) == (
        ORIGIN.scheme, ORIGIN.mean, ORIGIN.std,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("origin", "reason"),
    [
        (None, "it is unknown how"),
        (replace(ORIGIN, copies=COPIES + 1), "does not hold 28 encodings"),
        (replace(ORIGIN, copies=COPIES - 1), "does not hold 14 encodings"),
        (replace(ORIGIN, private_images=0), "private_images"),
        (replace(ORIGIN, mean=(0.5,)), "one value a channel"),
        (replace(ORIGIN, mean=(0.5, 5.0, 0.5)), "mean of 5 is impossible"),
        (replace(ORIGIN, std=(1.0,) * 3), "values lie beyond 0.5"),
        (replace(ORIGIN, scheme=Scheme.inside(4)), "labels are not those"),
    ],
)
def test_what_is_told_must_fit(
    origin: Provenance | None, reason: str, folder: EncodedFolder, tmp_path: Path
) -> None:
    source = tmp_path / "out"
    export_encodings(folder, source, "challenge")
    (source / NAME).unlink()
    assert reason in refusal(
        lambda: ExternalEncodings.open(source, "challenge", origin).convert(tmp_path / "back")
    )
    assert nothing_but(tmp_path / "encoded", source)


def test_what_is_told_and_a_manifest_are_one_too_many(
    folder: EncodedFolder, tmp_path: Path
) -> None:
    export_encodings(folder, tmp_path / "out", "challenge")
    problem = refusal(lambda: ExternalEncodings.open(tmp_path / "out", "challenge", ORIGIN))
    assert "already describes its encodings" in problem


def test_what_was_not_finished_is_refused(folder: EncodedFolder, tmp_path: Path) -> None:
    source = tmp_path / "out"
    export_encodings(folder, source, "challenge")
    # Nobody's export: an unfinished folder, which has no shard yet, is not exported.
    begun = folder.manifest.model_copy(update={"ended": None, "shards": ()})
    (source / NAME).write_bytes(begun.to_json())
    problem = refusal(lambda: ExternalEncodings.open(source, "challenge"))
    assert "not finished: 0 of 21 encodings" in problem
    assert nothing_but(tmp_path / "encoded", source)


class Bomb:
    """Leaves a file behind when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


def spoil(images: NDArray[Any], index: tuple[int, ...], value: float) -> NDArray[Any]:
    images[index] = value
    return images


SPOILT: dict[str, Callable[[NDArray[Any], NDArray[Any], Path], tuple[Any, Any]]] = {
    "NaN": lambda x, y, _: (spoil(x, (3, 0, 0, 0), np.nan), y),
    "infinity": lambda x, y, _: (spoil(x, (20, 0, 0, 0), -np.inf), y),
    "beyond reach": lambda x, y, _: (spoil(x, (0, 1, 1, 1), 2.1), y),
    "beyond float32": lambda x, y, _: (spoil(x.astype(np.float64), (0, 1, 1, 1), 1e300), y),
    "label of NaN": lambda x, y, _: (x, spoil(y, (9, 1), np.nan)),
    "negative label": lambda x, y, _: (x, spoil(y, (9, 1), -0.1)),
    "label above 1": lambda x, y, _: (x, spoil(y, (9, 1), 1.2)),
    "whole numbers": lambda x, y, _: (x.astype(np.int32), y),
    "complex": lambda x, y, _: (x.astype(np.complex64), y),
    "other shape": lambda x, y, _: (x[:, :, :2], y),
    "fewer dimensions": lambda x, y, _: (x[0, 0, 0], y),
    "other classes": lambda x, y, _: (x, y[:, :2]),
    "hard labels": lambda x, y, _: (x, y[:, 0]),
    "fewer encodings": lambda x, y, _: (x[:9], y[:9]),
    "more encodings": lambda x, y, _: (np.concatenate([x, x]), np.concatenate([y, y])),
    "fewer labels": lambda x, y, _: (x, y[:9]),
    "nothing": lambda x, y, _: (x[:0], y[:0]),
    "objects": lambda x, y, path: (x, np.array([Bomb(path)] * len(y), object)),
}


@pytest.mark.parametrize("how", SPOILT)
@pytest.mark.parametrize("write_files", ["challenge", "webdataset"])
def test_files_that_cannot_be_encodings_are_refused(
    how: str, write_files: str, folder: EncodedFolder, tmp_path: Path
) -> None:
    form: Name = "challenge" if write_files == "challenge" else "webdataset"
    source, bomb = tmp_path / "out", tmp_path / "bomb"
    export_encodings(folder, source, form)
    images, labels = SPOILT[how](*mixes(), bomb)
    if form == "challenge":
        np.save(
            source / "encryption.npy", np.moveaxis(images, 1, -1) if images.ndim > 1 else images
        )
        np.save(source / "label.npy", labels, allow_pickle=True)
    else:
        pack(source / "encodings-000000.tar", images, labels)
    refusal(lambda: ExternalEncodings.open(source, form).convert(tmp_path / "back"))
    assert nothing_but(tmp_path / "encoded", source), "nor was the bomb set off"


def pack(path: Path, images: Any, labels: Any) -> None:
    """A tar of whatever arrays, as other programs might write it."""
    with tarfile.open(path, "w") as tar:
        for part, arrays in (("image", images), ("label", labels)):
            for number, array in enumerate(arrays):
                content = io.BytesIO()
                np.save(content, np.asarray(array), allow_pickle=True)
                add(tar, f"{number}.{part}.npy", content.getvalue())
    # WebDataset wants the parts of a sample side by side.
    with tarfile.open(path) as tar:
        parts = sorted((int(m.name.split(".")[0]), m.name, tar.extractfile(m).read()) for m in tar)
    with tarfile.open(path, "w") as tar:
        for _, name, content in parts:
            add(tar, name, content)


def add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(content)
    tar.addfile(member, io.BytesIO(content))


def npy_promising(shape: tuple[int, ...]) -> bytes:
    """A NumPy file of a header alone."""
    content = io.BytesIO()
    header = {"descr": "<f4", "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(content, header)
    return content.getvalue()


@pytest.mark.parametrize("form", ["challenge", "webdataset"])
def test_a_header_that_promises_too_much_costs_no_memory(
    form: Name, folder: EncodedFolder, tmp_path: Path
) -> None:
    source = tmp_path / "out"
    export_encodings(folder, source, form)
    promise = npy_promising((1 << 33, *SHAPE) if form == "challenge" else (1 << 33,))
    if form == "challenge":
        (source / "encryption.npy").write_bytes(promise)
    else:
        with tarfile.open(source / "encodings-000000.tar", "w") as tar:
            add(tar, "0.image.npy", promise)
            add(tar, "0.label.npy", promise)
    tracemalloc.start()
    refusal(lambda: ExternalEncodings.open(source, form).convert(tmp_path / "back"))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1 << 24


def test_a_sample_that_is_not_complete_is_refused(folder: EncodedFolder, tmp_path: Path) -> None:
    source = tmp_path / "out"
    export_encodings(folder, source, "webdataset")
    with tarfile.open(source / "encodings-000000.tar", "w") as tar:
        add(tar, "0.image.npy", npy_promising((0,)))
        add(tar, "1.label.npy", npy_promising((0,)))
    assert "'0'" in refusal(
        lambda: ExternalEncodings.open(source, "webdataset").convert(tmp_path / "back")
    )


def test_samples_may_hold_more_and_lie_in_folders(folder: EncodedFolder, tmp_path: Path) -> None:
    source = tmp_path / "out"
    export_encodings(folder, source, "webdataset")
    images, labels = mixes()
    with tarfile.open(source / "encodings-000000.tar", "w") as tar:
        for number in range(len(images)):
            for name, array in (("image", images[number]), ("label", labels[number])):
                content = io.BytesIO()
                np.save(content, array)
                add(tar, f"./v1.2/{number}.{name}.npy", content.getvalue())
            add(tar, f"./v1.2/{number}.json", b"{}")
            add(tar, f"./v1.2/{number}.pickle", pickle.dumps(Bomb(tmp_path / "bomb")))
    back = ExternalEncodings.open(source, "webdataset").convert(tmp_path / "back")
    assert np.array_equal(decoded(back), decoded(folder))
    assert not (tmp_path / "bomb").exists()


@pytest.mark.parametrize("form", ["huggingface", "parquet"])
def test_columns_of_other_names_or_types_are_refused(
    form: Name, folder: EncodedFolder, tmp_path: Path
) -> None:
    from datasets import Dataset

    images, labels = mixes()
    wrong = {
        "names": {"pixels": images, "label": labels},
        "types": {"image": [str(i) for i in range(len(images))], "label": labels},
        "gaps": {"image": images, "label": [None, *labels[1:].tolist()]},
        "ragged": {"image": images, "label": [[0.5], *labels[1:].tolist()]},
    }
    for name, columns in wrong.items():
        source = tmp_path / name
        export_encodings(folder, source, form)
        file, *others = source.glob("*.arrow" if form == "huggingface" else "*.parquet")
        for other in others:
            other.unlink()
        dataset = Dataset.from_dict(columns)
        if form == "parquet":
            dataset.to_parquet(file)
        else:
            file.unlink()
            dataset.save_to_disk(source)
        refusal(
            lambda source=source: ExternalEncodings.open(source, form).convert(tmp_path / "back")
        )
        assert not (tmp_path / "back").exists()


@pytest.mark.parametrize("form", ["huggingface", "parquet"])
def test_columns_of_plain_lists_are_read_too(form: Name, tmp_path: Path) -> None:
    from datasets import Dataset

    source, (images, labels) = tmp_path / "out", mixes()
    source.mkdir()
    dataset = Dataset.from_dict({"image": images, "label": labels, "note": [""] * len(images)})
    if form == "parquet":
        dataset.to_parquet(source / "any.parquet")
    else:
        dataset.save_to_disk(source)
    back = ExternalEncodings.open(source, form, ORIGIN).convert(tmp_path / "back")
    assert np.array_equal(decoded(back), images)
    assert np.array_equal(contents(back)[1], labels)


def test_a_feature_that_names_a_file_opens_none(folder: EncodedFolder, tmp_path: Path) -> None:
    from datasets import Dataset, Features, Image, List, Value

    source = tmp_path / "out"
    export_encodings(folder, source, "parquet")
    file, *_ = sorted(source.glob("*.parquet"))
    os.mkfifo(tmp_path / "pipe")  # Whoever opened it would wait for ever.
    rows = {"image": [{"path": str(tmp_path / "pipe"), "bytes": None}], "label": [[0.5] * 3]}
    features = Features(image=Image(), label=List(Value("float32"), length=3))
    Dataset.from_dict(rows, features).to_parquet(file)
    refusal(lambda: ExternalEncodings.open(source, "parquet").convert(tmp_path / "back"))


@pytest.mark.slow
@pytest.mark.parametrize("form", FORMS)
def test_damaged_files_are_refused_or_still_encodings(
    form: Name, tmp_path_factory: pytest.TempPathFactory
) -> None:
    source = tmp_path_factory.mktemp("exchange") / "out"
    export_encodings(write(source.parent / "encoded"), source, form)
    files = [
        p for p in sorted(source.iterdir()) if p.suffix in {".npy", ".tar", ".arrow", ".parquet"}
    ]

    @settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
    @given(st.data())
    def damage(data: st.DataObject) -> None:
        file = data.draw(st.sampled_from(files))
        whole = file.read_bytes()
        place = data.draw(st.integers(0, len(whole) - 1))
        flipped = bytes([whole[place] ^ 1 << data.draw(st.integers(0, 7))])
        cut = data.draw(st.booleans())
        file.write_bytes(whole[:place] + (b"" if cut else flipped + whole[place + 1 :]))
        try:
            back = ExternalEncodings.open(source, form).convert(source.parent / "back")
            assert back.verify() == []
            for path in (source.parent / "back").iterdir():
                path.unlink()
        except InstaHideError:
            assert not any((source.parent / "back").glob("*"))
        finally:
            file.write_bytes(whole)

    damage()


@pytest.mark.parametrize("form", FORMS)
def test_an_export_of_damaged_shards_leaves_nothing(
    form: Name, folder: EncodedFolder, tmp_path: Path
) -> None:
    shard = tmp_path / "encoded" / folder.manifest.shards[-1].name
    shard.write_bytes(b"\0" * shard.stat().st_size)
    assert "damaged" in refusal(lambda: export_encodings(folder, tmp_path / "out", form))
    assert nothing_but(tmp_path / "encoded")


def test_what_is_there_is_never_replaced(folder: EncodedFolder, tmp_path: Path) -> None:
    export_encodings(folder, tmp_path / "out", "challenge")
    foreign = ExternalEncodings.open(tmp_path / "out", "challenge")
    (tmp_path / "file").write_text("mine")
    (tmp_path / "full").mkdir()
    (tmp_path / "full/file").write_text("mine")
    (tmp_path / "empty").mkdir()
    for taken in (tmp_path / "file", tmp_path / "full"):
        assert "there already" in refusal(lambda: export_encodings(folder, taken, "challenge"))  # noqa: B023
        assert "there already" in refusal(lambda: foreign.convert(taken))  # noqa: B023
    assert (tmp_path / "file").read_text() == (tmp_path / "full/file").read_text() == "mine"
    assert len(foreign.convert(tmp_path / "empty")) == len(folder)


@pytest.mark.parametrize("form", ["challenge", "webdataset"])
def test_memory_holds_blocks_not_folders(
    form: Name, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(publish, "SHARD_BYTES", 1 << 20)
    folder = write(tmp_path / "encoded", "float32", count=120, shape=(3, 128, 128))
    whole = sum(shard.bytes for shard in folder.manifest.shards)
    tracemalloc.start()
    export_encodings(folder, tmp_path / "out", form)
    ExternalEncodings.open(tmp_path / "out", form).convert(tmp_path / "back")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < whole / 2


def test_a_missing_package_is_named(
    folder: EncodedFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    for form in ("huggingface", "parquet"):
        with pytest.raises(InstaHideError, match=r"pip install 'instahide\[huggingface\]'"):
            export_encodings(folder, tmp_path / "out", form)
    assert nothing_but(tmp_path / "encoded")


def run(*arguments: object, code: int = 0) -> str:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exit_code == code, result.output
    return result.stdout if "--json" in arguments else result.output


def test_commands(folder: EncodedFolder, tmp_path: Path) -> None:
    out, back = tmp_path / "out", tmp_path / "back"
    assert "21 encodings" in run(
        "export", tmp_path / "encoded", "--format", "challenge", "--out", out
    )
    assert "21 encodings" in run("import", out, "--format", "challenge", "--out", back)
    assert "as it was written" in run("verify", back)
    again = ["import", out, "--format", "challenge", "--out", tmp_path / "again"]
    assert "Omit all options" in run(*again, "--k", 4, "--scheme", "cross", "--mean", "0.5",
        "--std", "0.25", "--private-images", 7, "--copies", 3, code=2)  # fmt: skip
    (out / NAME).unlink()
    assert "it is unknown how" in run(*again, code=2)
    text = run(*again, "--scheme", "cross", "--mean", "0.5,0.5,0.5", code=2)
    assert "without --private-images, --copies, --std, --k" in " ".join(text.split())
    run(*again, "--k", 4, "--scheme", "cross", "--mean", "0.5,0.5,0.5", "--std", "0.25,0.25,0.25",
        "--private-images", 7, "--copies", 3, "--participant", "ben")  # fmt: skip
    facts = json.loads(run("info", tmp_path / "again", "--json"))
    assert (facts["participant"], facts["scheme"]["k"], facts["copies"]) == ("ben", 4, 3)
    assert "is not a folder" in run("import", tmp_path / "no", "--format", "parquet", "--out", out,
        code=2)  # fmt: skip

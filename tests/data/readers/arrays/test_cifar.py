"""CIFAR archives in the bytes that Python 2 wrote, honest and hostile."""

from __future__ import annotations

import io
import pickle
import struct
import tarfile
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from instahide.data import open_images, open_split
from instahide.errors import InstaHideError

PIXELS = np.random.default_rng(2).integers(0, 256, (24, 3072), np.uint8)
LABELS = (np.arange(24) % 10).tolist()
NAMES = [b"airplane", b"automobile", b"bird", b"cat", b"deer"]
NAMES += [b"dog", b"frog", b"horse", b"ship", b"truck"]


class Python2Pickler(pickle._Pickler):
    """Writes `bytes` as Python 2 wrote its strings, so that the files are those of the archive."""

    dispatch = dict(pickle._Pickler.dispatch)  # noqa: RUF012

    def save_string(self, value: bytes) -> None:
        self.write(b"T" + struct.pack("<i", len(value)) + value)
        self.memoize(value)

    dispatch[bytes] = save_string


def python2(value: object) -> bytes:
    out = io.BytesIO()
    Python2Pickler(out, protocol=2).dump(value)
    return out.getvalue().replace(b"cnumpy._core.", b"cnumpy.core.")


def ten() -> dict[str, bytes]:
    parts = {f"data_batch_{i + 1}": slice(4 * i, 4 * i + 4) for i in range(5)}
    parts["test_batch"] = slice(20, 24)
    files = {
        name: python2({b"data": PIXELS[rows], b"labels": LABELS[rows], b"batch_label": b"1 of 5"})
        for name, rows in parts.items()
    }
    return files | {"batches.meta": python2({b"label_names": NAMES, b"num_vis": 3072})}


def hundred() -> dict[str, bytes]:
    names = [f"fine {i}".encode() for i in range(100)]
    files = {
        name: python2({b"data": PIXELS[rows], b"fine_labels": LABELS[rows], b"coarse_labels": []})
        for name, rows in (("train", slice(0, 20)), ("test", slice(20, 24)))
    }
    return files | {"meta": python2({b"fine_label_names": names})}


def lay(folder: Path, files: dict[str, bytes]) -> Path:
    folder.mkdir()
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return folder


def pack(path: Path, files: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w:gz") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(f"cifar/{name}")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


@pytest.mark.parametrize(("files", "classes"), [(ten, 10), (hundred, 100)])
@pytest.mark.parametrize("packed", [False, True])
def test_both_sets_from_folder_and_archive(tmp_path, files, classes, packed):
    source = pack(tmp_path / "c.tar.gz", files()) if packed else lay(tmp_path / "c", files())
    split = open_split(source)
    np.testing.assert_array_equal(split.train.pixels, PIXELS[:20].reshape(-1, 3, 32, 32))
    np.testing.assert_array_equal(split.test.pixels, PIXELS[20:].reshape(-1, 3, 32, 32))
    assert split.train.labels.tolist() == LABELS[:20]
    assert split.test.labels.tolist() == LABELS[20:]
    assert len(split.train.classes) == classes
    assert split.test.mean == split.train.mean
    assert len(open_images(source)) == 20


def test_the_files_are_read_as_pickle_itself_reads_them():
    content = ten()["test_batch"]
    trusted = pickle.loads(content, encoding="bytes")  # noqa: S301 - written above
    np.testing.assert_array_equal(trusted[b"data"], PIXELS[20:])
    assert b"cnumpy.core.multiarray\n_reconstruct" in content


class Hostile:
    def __init__(self, function: Any, *arguments: object) -> None:
        self.call = function, arguments

    def __reduce__(self) -> Any:
        return self.call


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("where", ["data_batch_3", "test_batch", "batches.meta"])
def test_a_hostile_pickle_is_refused_and_never_run(tmp_path, packed, where):
    target = tmp_path / "executed"
    files = ten()
    for function in (Path.touch, eval, getattr, np.load):
        argument = f"open({str(target)!r}, 'w')" if function is eval else target
        files[where] = pickle.dumps({b"data": Hostile(function, argument)}, protocol=2)
        name = f"{function.__name__}{packed}"
        source = pack(tmp_path / f"{name}.tgz", files) if packed else lay(tmp_path / name, files)
        with pytest.raises(InstaHideError, match=r"trusted \(it asks to run "):
            open_split(source)
        assert not target.exists()


def nested_key(depth: int) -> bytes:
    """A dict whose key is a tuple of tuples: its hash takes 2 ** depth steps."""
    return b"\x80\x02}" + b")" + b"2\x86" * depth + b"Ns."


def doubled_key(depth: int) -> bytes:
    """The same without DUP, by the memo."""
    steps = b"".join(
        b"q" + bytes([n]) + b"h" + bytes([n]) + b"h" + bytes([n]) + b"\x86" for n in range(depth)
    )
    return b"\x80\x02})" + steps + b"Ns."


@pytest.mark.slow
@pytest.mark.parametrize(
    "content",
    [
        nested_key(40),
        doubled_key(40),
        b"\x80\x02Nr\xff\xff\xff\x7f.",  # A memo entry far beyond all others.
        b"\x80\x02" + b"(" * 100_000 + b".",
        b"\x80\x02" + b"]" * 100_000 + b"a" * 99_999 + b".",
        b"\x80\x02" + b"N" * 1_000_000 + b".",
        b"\x80\x02\x8b\xff\xff\xff\x7f.",  # A number of two billion bytes.
        b"\x80\x02B\xff\xff\xff\x7f.",
        b"\x80\x05\x8e" + b"\xff" * 7 + b"\x7f.",
        b"\x80\x02]q\x00h\x00a.",  # A list that holds itself.
        b"\x80\x02cnumpy.core.multiarray\n_reconstruct\n]R.",
        b"\x80\x02cbuiltins\neval\n.",
        b"P42\n.",
    ],
)
def test_no_pickle_takes_more_than_its_size(tmp_path, content):
    tracemalloc.start()
    try:
        with pytest.raises(InstaHideError, match="can be trusted"):
            open_split(lay(tmp_path / "c", ten() | {"batches.meta": content}))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 1 << 24


def test_text_pickles_and_later_protocols_are_read_too(tmp_path):
    meta = {b"label_names": NAMES, b"num_vis": 3072}
    text = b"(dp0\nS'label_names'\np1\n(lp2\n" + b"".join(b"S'%s'\na" % n for n in NAMES) + b"s."
    for number, content in enumerate([text, *(pickle.dumps(meta, n) for n in (3, 4, 5))]):
        split = open_split(lay(tmp_path / str(number), ten() | {"batches.meta": content}))
        assert split.train.classes[2] == "bird"


def test_an_archive_that_unpacks_to_far_more_than_its_size_is_refused(tmp_path):
    path = pack(tmp_path / "bomb.tar.gz", ten() | {"data_batch_5": bytes(1 << 26)})
    with pytest.raises(InstaHideError, match="bomb"):
        open_images(path)


def test_an_array_that_lies_about_its_type_or_shape_is_refused(tmp_path):
    for number, data in enumerate(
        [PIXELS[:4].astype(np.int64), PIXELS[:4, :100], np.asarray([None] * 3072, object)]
    ):
        files = ten() | {"test_batch": python2({b"data": data, b"labels": LABELS[:4]})}
        with pytest.raises(InstaHideError, match="can be trusted"):
            open_split(lay(tmp_path / str(number), files))


@pytest.mark.parametrize(
    "content", [b"", b"\x80\x02", b"garbage", pickle.dumps([1]), pickle.dumps({})]
)
def test_damaged_files_are_refused(tmp_path, content):
    with pytest.raises(InstaHideError, match="can be trusted"):
        open_split(lay(tmp_path / "c", ten() | {"data_batch_2": content}))


def test_labels_out_of_range_and_too_few_labels_are_refused(tmp_path):
    for number, labels in enumerate(([0, 1, 2, 10], [0, 1])):
        files = ten() | {"test_batch": python2({b"data": PIXELS[:4], b"labels": labels})}
        with pytest.raises(InstaHideError):
            open_split(lay(tmp_path / str(number), files))


def test_an_archive_of_something_else_or_cut_short_is_refused(tmp_path):
    with pytest.raises(InstaHideError, match=r"it lacks batches\.meta"):
        open_images(pack(tmp_path / "other.tar.gz", {"readme": b"hello"}))
    path = pack(tmp_path / "cut.tar.gz", ten())
    path.write_bytes(path.read_bytes()[:3000])
    with pytest.raises(InstaHideError, match=r"cut\.tar\.gz"):
        open_images(path)

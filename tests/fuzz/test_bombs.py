"""Small files that ask for much: time, memory, or a wait that never ends."""

from __future__ import annotations

import gzip
import io
import os
import shutil
import signal
import struct
import subprocess
import sys
import tracemalloc
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from instahide import open_images
from instahide.data import Split
from instahide.data.readers.arrays.numpy import read_npz
from instahide.errors import InstaHideError
from instahide.training.settings import TrainSettings
from tests.fuzz.readers import READERS

#: Seconds after which a read waits for something that does not come. No read here takes one.
WAITS = 120


@pytest.fixture
def never_waiting() -> Iterator[None]:
    def ring(*_: object) -> None:
        raise AssertionError("it waits")

    before = signal.signal(signal.SIGALRM, ring)
    signal.alarm(WAITS)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


#: Here the test itself reads the file.
OURS = {"folder", "remote folder", "manifest", "scheme", "shard"}


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(set(READERS) - OURS))
def test_no_reader_waits_for_a_pipe(name, tmp_path, never_waiting):
    reader = READERS[name]
    for other, content in reader.seeds()[0].beside.items():
        (tmp_path / other).write_bytes(content)
    os.mkfifo(tmp_path / reader.file)
    with pytest.raises(InstaHideError) as refused:
        reader.read(tmp_path)
    assert str(refused.value).isprintable()


def header(shape: str, kind: str = "|u1") -> bytes:
    text = f"{{'descr': {kind!r}, 'fortran_order': False, 'shape': {shape}, }}".encode()
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text) + 1) + text + b"\n"


def zipped(members: dict[str, bytes], compression: int = zipfile.ZIP_DEFLATED) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", compression) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return out.getvalue()


def npy(values: np.ndarray) -> bytes:
    out = io.BytesIO()
    np.save(out, values)
    return out.getvalue()


LABELS = npy(np.arange(4) % 2)
BOMBS = {
    "a shape beyond its bytes.npz": zipped(
        {"images.npy": header("(1099511627776, 8, 8)"), "labels.npy": LABELS}
    ),
    "zeros.npz": zipped(
        {"images.npy": npy(np.zeros((1 << 16, 32, 32), np.uint8)), "labels.npy": LABELS}
    ),
    "another compression.npz": zipped(
        {"images.npy": npy(np.zeros((4, 8, 8), np.uint8)), "labels.npy": LABELS}, zipfile.ZIP_BZIP2
    ),
    "texts of no bytes.npz": zipped(
        {
            "images.npy": npy(np.zeros((4, 8, 8), np.uint8)),
            "labels.npy": header("(4611686018427387904,)", "<U0"),
        }
    ),
    "brackets.npz": zipped({"images.npy": header("(" * 5000), "labels.npy": LABELS}),
    "a shape.idx3": b"\0\0\x08\x03" + b"\xff" * 12,
    "zeros.idx3.gz": gzip.compress(
        b"\0\0\x08\x03" + struct.pack(">3I", 1 << 16, 32, 32) + bytes(1 << 26)
    ),
}


@pytest.mark.parametrize("name", BOMBS)
def test_memory_is_not_taken_before_sizes_are_checked(name, tmp_path):
    path = tmp_path / name
    path.write_bytes(BOMBS[name])
    if "idx3" in name:
        path = path.rename(tmp_path / f"images-{name}")
        beside = tmp_path / path.name.replace("images", "labels").replace("idx3", "idx1")
        beside.write_bytes(b"\0\0\x08\x01\0\0\0\x01\0")
    tracemalloc.start()
    try:
        with pytest.raises(InstaHideError):
            open_images(path)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 1 << 23


@pytest.mark.slow
@pytest.mark.parametrize(
    "text",
    [
        "a: &a [x, x]\nb: &b [*a, *a]\nc: &c [*b, *b]\n",
        "a: &a {k: 4}\nb:\n  <<: [*a, *a]\n",
        "a: &a [*a]\n",
        "data: !!binary x\n", "k: !!bool maybe\n", "k: !!timestamp never\n", "k: !!int ''\n",
        "lr: " + "1:" * 20_000 + "1.5\n", "? {a: b}\n: 1\n", "k: " + "[" * 30_000,
        "k: " + "9" * 9000, "a: b\n" * 20_000, "!!python/object/apply:os.system ['true']\n",
        "\x1b[2J: 4\n", "k: \ud800",
        '{"\\ud800": 4}', '{"": 4}', "[]", "4", '{"a": 1, "a": 2}',
    ],
)  # fmt: skip
@pytest.mark.parametrize("suffix", [".yaml", ".toml", ".json"])
def test_settings_of_a_stranger_are_refused_at_once(tmp_path, text, suffix):
    path = tmp_path / f"settings{suffix}"
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    with pytest.raises(InstaHideError) as refused:
        TrainSettings.load(path)
    assert str(refused.value).isprintable()


def saved(folder: Path, labels: np.ndarray, images: np.ndarray | None = None) -> Path:
    path = folder / "a.npz"
    pixels = np.zeros((len(labels), 8, 8), np.uint8) if images is None else images
    np.savez(path, images=pixels, labels=labels)
    return path


@pytest.mark.parametrize("kind", ["U", "S"])
def test_labels_may_be_names_in_sorted_order(tmp_path, kind):
    labels = np.asarray(["dog", "cat", "bär", "dog"])
    labels = np.char.encode(labels, "utf-8") if kind == "S" else labels
    table = open_images(saved(tmp_path, labels))
    assert table.classes == ("bär", "cat", "dog")
    assert table.labels.tolist() == [2, 1, 0, 2]
    named = open_images(tmp_path / "a.npz", classes=["dog", "cat", "cow", "bär"])
    assert named.labels.tolist() == [0, 1, 3, 0]


def test_names_are_numbered_alike_in_both_parts(tmp_path):
    images = np.zeros((2, 8, 8), np.uint8)
    np.savez(tmp_path / "a.npz", x_train=images, y_train=np.asarray(["dog", "ant"]),
             x_test=images, y_test=np.asarray(["dog", "cat"]))  # fmt: skip
    split = read_npz(tmp_path / "a.npz")
    assert isinstance(split, Split)
    assert split.train.classes == split.test.classes == ("ant", "cat", "dog")
    assert (split.train.labels.tolist(), split.test.labels.tolist()) == ([2, 0], [2, 1])


@pytest.mark.parametrize(
    "labels",
    [
        np.asarray([0.0, 1.0]), np.asarray([True, False]), np.asarray([-1, 0]), np.eye(2),
        np.asarray([0, 1], object), np.asarray([1 << 63, 0], np.uint64), np.asarray([1j, 0]),
        np.asarray([(0, 1)] * 2, [("a", "i4"), ("b", "i4")]), np.asarray(["a", ""]),
        np.asarray(["a", "b\x1b[2J"]), np.asarray([b"a", b"\xff"]), np.asarray(["a", " b "]),
        np.asarray(["NaT", "NaT"], "M8[s]"),
    ],
)  # fmt: skip
def test_labels_of_other_kinds_are_refused(tmp_path, labels):
    with pytest.raises(InstaHideError):
        open_images(saved(tmp_path, labels))


def test_a_wrong_number_of_labels_is_refused(tmp_path):
    for labels in (np.asarray([0, 1, 0]), np.asarray(["a", "b", "a"]), np.asarray(0)):
        with pytest.raises(InstaHideError):
            open_images(saved(tmp_path, labels, np.zeros((2, 8, 8), np.uint8)))


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("kind", ["<i8", ">i8", ">u2", "i1"])
@pytest.mark.parametrize("suffix", ["npz", "npy"])
def test_orders_of_bytes_and_axes_are_read_right(tmp_path, order, kind, suffix):
    images = np.asarray(np.arange(4 * 8 * 6).reshape(4, 8, 6) % 251, np.uint8, order=order)
    labels = (np.arange(4) % 3).astype(kind)
    path = saved(tmp_path, labels, images)
    if suffix == "npy":
        path = tmp_path / "images.npy"
        np.save(path, images)
        np.save(tmp_path / "labels.npy", labels)
    table = open_images(path)
    np.testing.assert_array_equal(table.pixels[:, 0], images)
    assert table.labels.tolist() == [0, 1, 2, 0]


ENCODES = """
import numpy as np
from instahide import Encoder, ImageTable, Scheme
import instahide
pixels = np.arange(512, dtype=np.uint8).reshape(8, 8, 8)
encoder = Encoder(Scheme.inside(2), ImageTable.from_arrays(pixels, [0, 1] * 4))
print(instahide.__file__, tuple(encoder.encode(np.arange(4)).images.shape))
"""


@pytest.mark.slow
def test_numba_needs_no_folder_for_its_cache(tmp_path, read_only):
    root = tmp_path / "read-only"
    package = Path(open_images.__code__.co_filename).parents[1]
    shutil.copytree(package, root / "instahide", ignore=shutil.ignore_patterns("__pycache__"))
    environment = {
        **os.environ,
        "HOME": str(root),
        "XDG_CACHE_HOME": str(root / "cache"),
        "NUMBA_CACHE_DIR": str(root / "numba"),
        "PYTHONPATH": str(root),
    }
    with read_only(root):
        done = subprocess.run(
            [sys.executable, "-c", ENCODES],
            env=environment, cwd=root, capture_output=True, text=True, check=False,
        )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.split(maxsplit=1) == [f"{root}/instahide/__init__.py", "(4, 1, 8, 8)\n"]

"""Sources and pools at URLs: the same images as from a local path, and never a stale copy."""

from __future__ import annotations

import gzip
import secrets
import shutil
import struct
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import fsspec
import numpy as np
import pytest

from instahide.data import ImageTable, PhotoCrops, make_pool, open_images, open_pool
from instahide.data.remote import downloads
from instahide.data.remote.downloads import local_copy
from instahide.data.remote.urls import Remote
from instahide.errors import InstaHideError

PIXELS = np.random.default_rng(1).integers(0, 256, (20, 6, 5), np.uint8)
LABELS = np.arange(20) % 4


@pytest.fixture(params=["memory", "s3"])
def url(request: pytest.FixtureRequest) -> str:
    """A folder that does not exist yet."""
    if request.param == "s3":
        return f"{request.getfixturevalue('bucket')}/sets"
    return f"memory://{secrets.token_hex(8)}/sets"


def upload(local: Path, url: str) -> str:
    """Copy a file or folder to ``url``."""
    filesystem, path = fsspec.url_to_fs(url)
    files = [local] if local.is_file() else [p for p in local.rglob("*") if p.is_file()]
    for file in files:
        below = "" if file == local else f"/{file.relative_to(local).as_posix()}"
        filesystem.put_file(str(file), path + below)
    return url


def remove(url: str) -> None:
    filesystem, path = fsspec.url_to_fs(url)
    filesystem.rm(path, recursive=True)


def same(one: ImageTable, other: ImageTable) -> None:
    np.testing.assert_array_equal(one.pixels, other.pixels)
    np.testing.assert_array_equal(one.labels, other.labels)
    assert one.classes == other.classes


def write_set(path: Path, pixels: np.ndarray = PIXELS) -> Path:
    np.savez(path, images=pixels, labels=LABELS)
    return path


def test_a_file(url, tmp_path):
    path = write_set(tmp_path / "my set.npz")
    same(open_images(upload(path, f"{url}/my set.npz")), open_images(path))
    same(open_images(path.as_uri()), open_images(path))


def test_a_folder_of_class_folders(url, class_folders):
    there = upload(class_folders, f"{url}/animals")
    same(open_images(there, size=16), open_images(class_folders, size=16))
    same(open_images(f"{there}/", size=16), open_images(class_folders, size=16))


def test_an_array_brings_its_labels_along(url, tmp_path):
    for name, array in (("images.npy", PIXELS), ("labels.npy", LABELS), ("other.npy", LABELS)):
        np.save(tmp_path / name, array)
        upload(tmp_path / name, f"{url}/{name}")
    same(open_images(f"{url}/images.npy"), open_images(tmp_path / "images.npy"))
    copy = Path(local_copy(f"{url}/other.npy"))
    assert {path.name for path in copy.parent.iterdir()} == {"other.npy", ".fetched.json"}
    remove(f"{url}/labels.npy")
    with pytest.raises(InstaHideError, match="no file of labels"):
        open_images(f"{url}/images.npy")


def test_an_idx_file_brings_its_labels_along(url, tmp_path):
    for name, array in (("x-images-idx3-ubyte", PIXELS), ("x-labels-idx1-ubyte", LABELS)):
        head = struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape)
        path = tmp_path / f"{name}.gz"
        path.write_bytes(gzip.compress(head + array.astype(np.uint8).tobytes()))
        upload(path, f"{url}/{path.name}")
    table = open_images(f"{url}/x-images-idx3-ubyte.gz")
    np.testing.assert_array_equal(table.labels, LABELS)


def test_a_replaced_file_is_fetched_anew(url, tmp_path):
    there = upload(write_set(tmp_path / "a.npz"), f"{url}/a.npz")
    np.testing.assert_array_equal(open_images(there).pixels[:, 0], PIXELS)
    upload(write_set(tmp_path / "a.npz", 255 - PIXELS), there)
    np.testing.assert_array_equal(open_images(there).pixels[:, 0], 255 - PIXELS)


def test_only_what_changed_is_fetched_again(url, class_folders):
    there = upload(class_folders, f"{url}/animals")
    copy = Path(local_copy(there))
    before = {path: path.stat().st_ino for path in copy.rglob("*.*")}
    assert local_copy(there) == copy
    assert {path: path.stat().st_ino for path in copy.rglob("*.*")} == before
    changed, kept = copy / "cat" / "02.png", copy / "cat" / "04.png"
    upload(class_folders / "cat" / "04.png", f"{there}/cat/02.png")
    local_copy(there)
    assert changed.read_bytes() == kept.read_bytes()
    assert kept.stat().st_ino == before[kept]
    kept.unlink()
    local_copy(there)
    assert kept.read_bytes() == changed.read_bytes()


def test_what_was_taken_out_of_the_set_does_not_stay_behind(url, class_folders, cache):
    shutil.copytree(class_folders / "cat", class_folders / "horse")
    there = upload(class_folders, f"{url}/animals")
    assert open_images(there, size=16).classes == ("cat", "dog", "horse")
    remove(f"{there}/horse")
    remove(f"{there}/dog/01.png")
    same_but_one = open_images(there, size=16)
    assert same_but_one.classes == ("cat", "dog")
    assert len(same_but_one) == 11
    assert not [path for path in cache.rglob("*") if path.name in ("horse", "01.png")]
    # Nor in the decoded images.
    assert len(list(cache.rglob("pixels.npy"))) == 1


def test_an_interrupted_copy_is_gone_on_with(url, class_folders, monkeypatch):
    there = upload(class_folders, f"{url}/animals")
    download, done = Remote.download, []

    def fail_at_the_sixth(self, entry, target, callback=None):
        if len(done) >= 5:
            raise InstaHideError("The line is down.", "Wait.")
        download(self, entry, target, callback)
        done.append(target)

    monkeypatch.setattr(Remote, "download", fail_at_the_sixth)
    monkeypatch.setattr(downloads, "CONNECTIONS", 1)
    with pytest.raises(InstaHideError, match="line is down"):
        local_copy(there)
    before = {path: path.stat().st_ino for path in done}
    assert len(before) == 5
    monkeypatch.setattr(Remote, "download", download)
    same(open_images(there, size=16), open_images(class_folders, size=16))
    assert {path: path.stat().st_ino for path in done} == before


def test_a_file_of_another_length_than_was_said_is_refused(url, tmp_path, monkeypatch):
    there = upload(write_set(tmp_path / "a.npz"), f"{url}/a.npz")
    entry = Remote.entry

    def shorter(self, name=""):
        found = entry(self, name)
        return found and found._replace(size=found.size - 1)

    monkeypatch.setattr(Remote, "entry", shorter)
    with pytest.raises(InstaHideError, match="changed while it was read"):
        open_images(there)


def test_a_pool(url, tmp_path):
    ImageTable.from_arrays(PIXELS).save(tmp_path / "pool")
    there = upload(tmp_path / "pool", f"{url}/pool")
    pool = open_pool(there, (1, 6, 5))
    np.testing.assert_array_equal(pool.pixels[:, 0], PIXELS)
    assert isinstance(pool.pixels, np.memmap)


def test_photographs_for_a_pool(url, class_folders, tmp_path):
    there = upload(class_folders / "cat", f"{url}/photos")
    crops = PhotoCrops.open(there, (3, 16, 16))
    assert len(crops.photos) == 6
    pool = make_pool(there, tmp_path / "pool", patch=16, per_image=2, min_keypoints=0)
    assert pool.shape == (3, 16, 16)


@pytest.mark.parametrize(
    "name", ["cat/../../../evil.png", "../evil.png", "cat//evil.png", "cat/a\\evil.png"]
)
def test_names_that_lead_out_are_refused(name, class_folders, cache, monkeypatch):
    url = f"memory://{secrets.token_hex(8)}/animals"
    upload(class_folders, url)
    filesystem, path = fsspec.url_to_fs(url)
    honest = filesystem.find(path, detail=True)
    hostile = {**honest[f"{path}/cat/02.png"], "name": f"{path}/{name}"}
    listing = {**honest, hostile["name"]: hostile}
    monkeypatch.setattr(type(filesystem), "find", lambda *_, **__: listing)
    with pytest.raises(InstaHideError, match="not a plain file name"):
        open_images(url)
    assert not [file for file in cache.rglob("*") if file.is_file()]


def test_hidden_files_and_folder_markers_are_left_out(bucket, class_folders):
    there = upload(class_folders, f"{bucket}/animals")
    for name in ("cat/", ".cache/x.png", "dog/.x.png"):
        fsspec.filesystem("s3").call_s3(
            "put_object", Bucket=bucket.removeprefix("s3://"), Key=f"animals/{name}", Body=b"x"
        )
    assert len(open_images(there, size=16)) == 12


def test_a_disk_without_room_is_named_beforehand(url, tmp_path, monkeypatch, cache):
    there = upload(write_set(tmp_path / "a.npz"), f"{url}/a.npz")
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=100))
    with pytest.raises(InstaHideError, match=r"room for 100 bytes.*INSTAHIDE_CACHE"):
        open_images(there)
    assert list(cache.rglob("*.npz")) == []


def test_nothing_there_is_named(url):
    with pytest.raises(InstaHideError, match=f"There is no {url}/gone.npz"):
        open_images(f"{url}/gone.npz")


@pytest.fixture
def web_server(tmp_path: Path) -> Iterator[str]:
    """The address of a server of ``tmp_path``, which lists folders as web pages."""
    handler = partial(SimpleHTTPRequestHandler, directory=str(tmp_path))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_a_web_server_gives_files_and_no_folders(web_server, tmp_path, class_folders):
    write_set(tmp_path / "a.npz")
    assert len(open_images(f"{web_server}/a.npz")) == len(PIXELS)
    for name in (class_folders.name, f"{class_folders.name}/", "gone"):
        with pytest.raises(InstaHideError, match=r"There is no file at .* web page.*name one file"):
            open_images(f"{web_server}/{name}")


def test_a_bar_is_shown_where_much_is_fetched(url, tmp_path, monkeypatch, capsys):
    there = upload(write_set(tmp_path / "a.npz"), f"{url}/a.npz")
    open_images(there)
    assert capsys.readouterr().err == ""
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setattr(downloads, "LARGE", 1)
    upload(write_set(tmp_path / "a.npz", 255 - PIXELS), there)
    open_images(there)
    shown = capsys.readouterr()
    assert "Fetching" in shown.err
    assert shown.out == ""

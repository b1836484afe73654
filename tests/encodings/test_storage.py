"""What every store promises, wherever it lies; and what only local folders or only URLs need."""

from __future__ import annotations

import os
import pickle
import secrets
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from threading import Barrier

import fsspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from instahide.encodings.storage import LocalStore, Store, open_store
from instahide.errors import InstaHideError
from tests.conftest import UNCONDITIONAL
from tests.waiting import LIMIT

HOSTILE = [
    "",
    ".",
    "..",
    "../x",
    "a/b",
    "/x",
    "a\\b",
    "a\0b",
    ".lock",
    ".hidden",
    "\ud800",
    "x" * 999,
]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("INSTAHIDE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture(params=["path", "file", "memory", "s3"])
def location(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A folder that does not exist yet."""
    folder = tmp_path / "a folder"
    if request.param == "s3":
        return f"{request.getfixturevalue('bucket')}/encodings/mine"
    return {
        "path": str(folder),
        "file": folder.as_uri(),
        "memory": f"memory://{secrets.token_hex(8)}/mine",
    }[request.param]


@pytest.fixture
def store(location: str) -> Store:
    return open_store(location)


def put(store: Store, name: str, content: bytes) -> None:
    with store.writing(name) as path:
        path.write_bytes(content)


def test_a_folder_that_does_not_exist_is_empty(store, location):
    assert store.location == location
    assert store.names() == set()


@pytest.mark.parametrize("content", [b"", b"\0" * 10, secrets.token_bytes(100_000)])
def test_what_was_written_is_read(store, content):
    put(store, "a.bin", content)
    put(store, "b.bin", b"other")
    assert store.names() == {"a.bin", "b.bin"}
    assert store.size("a.bin") == len(content)
    assert store.read("a.bin", len(content)) == content
    assert store.local("a.bin").read_bytes() == content
    store.remove("b.bin")
    assert store.names() == {"a.bin"}


def test_a_file_appears_whole_or_not_at_all(store):
    put(store, "a", b"old")
    for name in ("a", "b"):
        with suppress(KeyboardInterrupt), store.writing(name) as path:
            path.write_bytes(b"half")
            raise KeyboardInterrupt
    with store.writing("c") as path:
        path.write_bytes(b"whole")
        assert store.names() == {"a"}
    assert store.names() == {"a", "c"}
    assert store.read("a", 10) == b"old"


def test_a_replaced_file_is_seen_replaced(store):
    put(store, "a", b"one")
    assert store.local("a").read_bytes() == b"one"
    put(store, "a", b"two")
    assert store.names() == {"a"}
    assert store.read("a", 3) == b"two"
    assert store.local("a").read_bytes() == b"two"


def test_another_writers_files_are_seen(store, location):
    assert store.names() == set()
    put(open_store(location), "a", b"x")
    assert store.names() == {"a"}


def test_only_visible_files_of_the_folder_itself_are_seen(store, location):
    put(store, "a", b"x")
    put(open_store(f"{location}/below"), "b", b"x")
    put(open_store(f"{location}-beside"), "c", b"x")
    with fsspec.open(f"{location.replace('%20', ' ')}/.hidden", "wb") as file:
        file.write(b"x")
    assert store.names() == {"a"}


def test_a_missing_file_is_named(store, location):
    put(store, "a", b"x")
    for use in (store.size, store.local, store.remove, lambda name: store.read(name, 1)):
        with pytest.raises(InstaHideError, match="no gone in") as caught:
            use("gone")
        assert location in caught.value.problem


def test_a_file_that_is_too_large_is_not_read(store):
    put(store, "a", b"12345")
    assert store.read("a", 5) == b"12345"
    with pytest.raises(InstaHideError, match="too large"):
        store.read("a", 4)


def test_names_that_are_not_plain_are_refused(store):
    reads = (store.size, store.local, store.remove, lambda name: store.read(name, 1))
    for use in (*reads, lambda name: put(store, name, b"x")):
        for name in HOSTILE:
            with pytest.raises(InstaHideError, match="not a plain file name"):
                use(name)
    assert store.names() == set()


@settings(deadline=None)
@given(st.text() | st.sampled_from(HOSTILE) | st.text(alphabet="./\\a\0", max_size=6))
def test_any_name_means_a_file_of_the_folder_or_none(tmp_path_factory, name):
    root = tmp_path_factory.mktemp("root")
    with suppress(InstaHideError):
        put(open_store(root / "out"), name, b"x")
    files = [path for path in root.rglob("*") if path.is_file()]
    assert files in ([], [root / "out" / name])


def test_the_second_writer_is_refused(store, location):
    with store.exclusive():
        assert store.names() == set()
        put(store, "a", b"x")
        other = open_store(location)
        with pytest.raises(InstaHideError, match="is being written") as caught, other.exclusive():
            pytest.fail("two writers")
        assert location in caught.value.problem
    with open_store(location).exclusive():
        assert store.names() == {"a"}


def test_the_lock_is_given_back_when_work_fails(store):
    with pytest.raises(RuntimeError), store.exclusive():
        raise RuntimeError
    with store.exclusive():
        pass


# Only threads of one process see "memory://", and fsspec lets two of them create the same file.
@pytest.mark.parametrize("location", ["path", "file", "s3"], indirect=True)
def test_of_many_writers_at_once_one_gets_in(location):
    together, done = Barrier(8, timeout=LIMIT), Barrier(8, timeout=LIMIT)

    def attempt(_: int) -> bool:
        store = open_store(location)
        together.wait()
        try:
            with store.exclusive():
                done.wait()
                return True
        except InstaHideError:
            done.wait()
            return False

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(attempt, range(8))) == 1


def test_a_server_that_ignores_conditions_is_refused(s3_server):
    from s3fs import S3FileSystem

    bucket = f"{UNCONDITIONAL}-{secrets.token_hex(8)}"
    S3FileSystem().mkdir(bucket)
    store = open_store(f"s3://{bucket}/mine")
    for _ in range(2):
        with pytest.raises(InstaHideError, match="cannot be locked"), store.exclusive():
            pytest.fail("a writer without a lock")
    assert S3FileSystem().find(bucket) == []


def test_a_store_travels_to_another_process(store):
    put(store, "a", b"x")
    assert pickle.loads(pickle.dumps(store)).read("a", 1) == b"x"  # noqa: S301


# Folders of this machine.


def test_links_that_lead_out_are_refused(tmp_path):
    outside, folder = tmp_path / "outside", tmp_path / "folder"
    folder.mkdir()
    outside.write_bytes(b"secret")
    (folder / "out").symlink_to(outside)
    (folder / "loop").symlink_to("loop")
    (folder / "real").write_bytes(b"mine")
    (folder / "inside").symlink_to("real")
    store = open_store(folder)
    uses = (store.size, store.local, store.remove, lambda name: store.read(name, 9))
    for use in (*uses, lambda name: put(store, name, b"x")):
        with pytest.raises(InstaHideError, match="leads out"):
            use("out")
    with pytest.raises(InstaHideError, match="no loop in"):
        store.local("loop")
    assert store.read("inside", 9) == b"mine"
    assert outside.read_bytes() == b"secret"


def test_a_lock_that_is_a_link_is_not_followed(tmp_path):
    outside = tmp_path / "outside"
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / ".lock").symlink_to(outside)
    with (
        pytest.raises(InstaHideError, match="Cannot use"),
        open_store(tmp_path / "folder").exclusive(),
    ):
        pytest.fail("followed")
    assert not outside.exists()


def test_a_file_in_place_of_the_folder_is_refused(tmp_path):
    (tmp_path / "file").write_bytes(b"x")
    store = open_store(tmp_path / "file")
    assert store.names() == set()
    with pytest.raises(InstaHideError, match="Cannot use"), store.exclusive():
        pytest.fail("no folder")


HOLD = """
import sys, time
from instahide.encodings.storage import open_store
store = open_store(sys.argv[1])
with store.exclusive(), store.writing("0123456789abcdef.safetensors") as path:
    path.write_bytes(b"half")
    print("held", flush=True)
    time.sleep(600)
"""


def test_a_killed_writer_leaves_neither_lock_nor_partial_file(tmp_path):
    folder = tmp_path / "out"
    own = folder / ".of-settings.json"
    # The code of this checkout, installed or not.
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2] / "src")}
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(folder)],
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
    ) as writer:
        assert writer.stdout is not None
        assert writer.stdout.readline() == "held\n"
        own.write_bytes(b"{}")
        store = LocalStore(str(folder), folder)
        with pytest.raises(InstaHideError, match="is being written"), store.exclusive():
            pytest.fail("two writers")
        assert len(list(folder.iterdir())) == 3
        os.kill(writer.pid, signal.SIGKILL)
    with store.exclusive():
        assert store.names() == set()
    assert {path.name for path in folder.iterdir()} == {".lock", own.name}


# URLs.


def test_a_lock_left_behind_is_explained(bucket):
    store = open_store(f"{bucket}/mine/")
    fsspec.open(f"{bucket}/mine/.lock", "wb").open().close()
    with pytest.raises(InstaHideError, match=f"remove {bucket}/mine/.lock"), store.exclusive():
        pytest.fail("locked")


def test_what_other_machines_write_is_seen(bucket):
    store = open_store(f"{bucket}/mine")
    put(store, "a", b"x")
    assert store.names() == {"a"}
    # Past the client, whose memory of the folder it would correct.
    fsspec.filesystem("s3").call_s3(
        "put_object", Bucket=bucket.removeprefix("s3://"), Key="mine/b", Body=b"there"
    )
    assert store.names() == {"a", "b"}
    assert store.read("b", 9) == b"there"


def test_a_copy_is_made_once_and_the_old_one_goes(bucket, cache):
    store = open_store(f"{bucket}/mine")
    put(store, "a", b"one")
    first = store.local("a")
    written = first.stat().st_ino
    assert first.is_relative_to(cache)
    assert store.local("a").stat().st_ino == written
    put(store, "a", b"two")
    assert store.local("a").read_bytes() == b"two"
    assert not first.exists()


def test_a_missing_bucket_is_named(bucket):
    store = open_store("s3://no-such-bucket/mine")
    assert store.names() == set()
    with pytest.raises(InstaHideError, match="no s3://no-such-bucket/mine"):
        put(store, "a", b"x")
    with pytest.raises(InstaHideError, match="no s3://no-such-bucket/mine"), store.exclusive():
        pytest.fail("no bucket")


@pytest.fixture
def changed(bucket: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    """An environment to change; clients keep what they were made with, so that these are new."""
    from s3fs import S3FileSystem

    S3FileSystem.clear_instance_cache()
    yield monkeypatch
    S3FileSystem.clear_instance_cache()


def test_missing_credentials_are_named(bucket, changed):
    changed.delenv("AWS_ACCESS_KEY_ID")
    changed.delenv("AWS_SECRET_ACCESS_KEY")
    with pytest.raises(InstaHideError, match=r"credentials.*AWS_ACCESS_KEY_ID"):
        open_store(f"{bucket}/mine").names()


def test_a_server_that_is_not_there_is_named(bucket, changed):
    changed.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    changed.setenv("AWS_MAX_ATTEMPTS", "1")
    changed.setattr("s3fs.core.S3FileSystem.retries", 1)
    with pytest.raises(InstaHideError, match=rf"Cannot use {bucket}/mine .*127\.0\.0\.1:9"):
        open_store(f"{bucket}/mine").names()


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("nosuch://x/y", "nosuch"),
        ("s3://user:password@bucket/x", "password"),
        ("file://elsewhere/x", "machine 'elsewhere'.*three slashes"),
    ],
)
def test_urls_that_cannot_be_used_are_explained(url, message):
    with pytest.raises(InstaHideError, match=message) as caught:
        open_store(url)
    assert ":password@" not in str(caught.value)


def test_a_missing_package_is_named(monkeypatch):
    # fsspec remembers the classes that it has imported.
    monkeypatch.delitem(import_module("fsspec.registry")._registry, "s3", raising=False)
    monkeypatch.setitem(sys.modules, "s3fs", None)
    with pytest.raises(InstaHideError, match=r"pip install 'instahide\[s3\]'"):
        open_store("s3://bucket/x")

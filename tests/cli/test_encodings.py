"""`encrypt`, `verify` and `info` as people use and misuse them."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner, Result

from instahide.cli import encrypt as command
from instahide.cli.main import app
from instahide.data import open_images, table
from instahide.encodings import publish
from instahide.encodings.folder import EncodedFolder
from instahide.encodings.ledger import ledger
from instahide.encodings.ledger.ledger import Ledger
from instahide.encryption.encoder import BLOCKS_AHEAD, Encoder
from tests.encodings.encrypter import Encrypter, encrypter
from tests.waiting import wait_until

#: Mixes of two private images: nothing else is needed to make them.
INSIDE = ["--scheme", "inside", "--k", "2"]
IMAGES, SIDE = 60, 8
#: Encodings of a shard, where it matters.
SIZE = 20
#: Shards that are drawn, made or written while the one before them is awaited.
IN_FLIGHT = BLOCKS_AHEAD + 1 + publish.WRITERS + 1


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder of one's own with `images.npz`, a ledger of one's own, and small shards."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("INSTAHIDE_LEDGER", str(tmp_path / "ledger.sqlite"))
    monkeypatch.setattr(publish, "SHARD_BYTES", SIZE * (2 * SIDE * SIDE + 4 * 3))
    write_images("images.npz", IMAGES)


def write_images(name: str, count: int, first: int = 0) -> None:
    """The same images by every call, ``count`` of them from number ``first`` on."""
    pixels = np.random.default_rng(0).integers(0, 256, (200, SIDE, SIDE), np.uint8)
    numbers = np.arange(first, first + count)
    np.savez(name, x=pixels[numbers], y=numbers % 3)


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments))


@pytest.mark.parametrize("options", [[], ["--noise", "30"], ["--dry-run"]])
def test_images_are_opened_and_hashed_once(
    options: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: Counter[str] = Counter()

    def count(place: object, name: str) -> None:
        function = getattr(place, name)

        def counted(*args: object, **kwargs: object) -> object:
            calls[name] += 1
            return function(*args, **kwargs)

        monkeypatch.setattr(place, name, counted)

    count(command, "open_images")
    count(table, "content_hashes")
    count(ledger, "salted_keys")
    count(Encoder, "__init__")
    if options == ["--dry-run"]:
        Ledger.open().close()
    ok("encrypt", "images.npz", *INSIDE, "--out", "enc", "--copies", "3", *options)
    assert set(calls.values()) == {1}
    assert set(calls) == {"open_images", "content_hashes", "salted_keys", "__init__"}


def ok(*arguments: str) -> str:
    result = run(*arguments)
    assert result.exit_code == 0, result.output
    return " ".join(result.output.split())


def refused(*arguments: str) -> str:
    result = run(*arguments)
    assert result.exit_code == 2, result.output
    assert "Traceback" not in result.output
    return " ".join(result.output.split())


def encrypt(*options: str, source: str = "images.npz", out: str = "enc") -> str:
    return ok("encrypt", source, *INSIDE, "--out", out, *options)


def counts(source: str = "images.npz") -> np.ndarray:
    with Ledger.open() as ledger:
        return ledger.account(open_images(source)).counts


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name[0] != "."}


def test_digits_with_photographs_from_end_to_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(publish, "SHARD_BYTES", 1 << 20)
    text = ok("encrypt", "digits", "--copies", "2", "--participant", "Anna", "--out", "enc",
              "--ledger", "other.sqlite")  # fmt: skip
    images = len(open_images("digits"))
    assert f"{2 * images:,} encodings in enc" in text
    assert "no guarantee" in text
    assert f"{2 * images:,} encodings, complete" in ok("verify", "enc")
    assert "Anna" in ok("info", "enc")
    facts = json.loads(run("info", "enc", "--json").stdout)
    assert (facts["copies"], facts["participant"], facts["ended"]) == (2, "Anna", "all")
    with Ledger.open(Path("other.sqlite")) as ledger:
        account = ledger.account(open_images("digits"))
        # Two private images in every mix; each image is the encrypted one twice.
        assert account.counts.sum() == 4 * images
        assert account.counts.min() >= 2


@pytest.mark.parametrize("options", [[], ["--dry-run"], ["--resume"]])
def test_more_copies_than_can_be_made_are_refused_before_anything_is_written(
    options: list[str],
) -> None:
    huge = run(
        *("encrypt", "images.npz", *INSIDE, "--copies", "100000000", "--out", "enc"), *options
    )
    assert huge.exit_code == 2
    told = " ".join(huge.output.split())
    assert "at most 268,435,456" in told
    assert "Use at most `--copies 4473924`" in told
    assert not Path("enc").exists()
    assert not Path("ledger.sqlite").exists()


def test_a_dry_run_writes_and_counts_nothing(tmp_path: Path) -> None:
    before = sorted(tmp_path.rglob("*"))
    text = ok("encrypt", "images.npz", *INSIDE, "--copies", "7", "--out", "enc", "--dry-run",
              "--max-exposure", "9")  # fmt: skip
    assert "420" in text
    assert "14.0 on average" in text
    assert "end early" in text
    assert sorted(tmp_path.rglob("*")) == before
    # What went out already is added to it.
    encrypt("--copies", "3")
    known, before = counts(), sorted(tmp_path.rglob("*"))
    text = ok("encrypt", "images.npz", *INSIDE, "--copies", "7", "--out", "more", "--dry-run")
    assert f"at most {known.max()} encodings" in text
    assert "20.0 on average" in text
    assert (counts() == known).all()
    assert sorted(tmp_path.rglob("*")) == before


def test_a_dry_run_foretells_the_size() -> None:
    encrypt("--copies", "30")
    plan = ok("encrypt", "images.npz", *INSIDE, "--copies", "30", "--out", "x", "--dry-run")
    size = sum(shard.bytes for shard in EncodedFolder.open("enc").manifest.shards)
    said = float(plan.split("on disk, about │ ")[1].split(" kB")[0])
    # All but a header of some 200 bytes a shard.
    assert said == pytest.approx(size / 1000, rel=0.1)


def test_a_finished_folder_stays_as_it_is_when_resumed(tmp_path: Path) -> None:
    encrypt("--copies", "2")
    known, before = counts(), files(tmp_path / "enc")
    assert "120 encodings" in encrypt("--copies", "2", "--resume")
    assert files(tmp_path / "enc") == before
    assert (counts() == known).all()


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        (["--copies", "3"], "copies: 2 there, 3 asked for"),
        (["--copies", "2", "--k", "3"], "'k': 3"),
        (["--copies", "2", "--values", "uint8"], "values: float16 there, uint8 asked for"),
        (["--copies", "2", "--participant", "Ben"], "participant:"),
        (["--copies", "2", "--mean", "0.5", "--std", "0.3"], "mean:"),
    ],
)
def test_other_settings_do_not_resume(changed: list[str], told: str, tmp_path: Path) -> None:
    encrypt("--copies", "2")
    before, known = files(tmp_path / "enc"), counts()
    text = refused("encrypt", "images.npz", *INSIDE, "--out", "enc", "--resume", *changed)
    assert told in text
    assert "--resume" not in text.partition("Remedy:")[0]
    assert files(tmp_path / "enc") == before
    assert (counts() == known).all()


def test_other_images_do_not_resume(tmp_path: Path) -> None:
    options = ["--mean", "0.5", "--std", "0.3"]
    encrypt("--copies", "2", *options)
    write_images("others.npz", IMAGES, first=IMAGES)
    before = files(tmp_path / "enc")
    command = ["encrypt", "others.npz", *INSIDE, "--copies", "2", *options, "--out", "enc"]
    assert "begun with these images" in refused(*command, "--resume")
    assert files(tmp_path / "enc") == before


def test_a_folder_that_holds_anything_is_not_written_to(tmp_path: Path) -> None:
    encrypt()
    before = files(tmp_path / "enc")
    assert "not empty" in refused("encrypt", "images.npz", *INSIDE, "--out", "enc")
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken/precious.txt").write_text("mine")
    for options in ([], ["--resume"]):
        refused("encrypt", "images.npz", *INSIDE, "--out", "taken", *options)
    assert files(tmp_path / "enc") == before
    assert files(tmp_path / "taken") == {"precious.txt": b"mine"}


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["missing.npz"], "no missing.npz"),
        (["images.npz", "--scheme", "cross", "--k", "4", "--public", "nowhere"], "nowhere"),
        (["images.npz", "--copies", "0"], "--copies"),
        (["images.npz", "--k", "1000"], "k = 1000"),
        (["images.npz", "--k", "61"], "61 private images"),
        (["images.npz", "--c1", "0.1"], "c1"),
        (["images.npz", "--values", "float8"], "float8"),
        (["images.npz", "--noise", "1", "--delta", "0"], "delta = 0"),
        (["images.npz", "--noise", "1", "--delta", "nan"], "delta = nan"),
        (["images.npz", "--size", "1" + "0" * 30], "--size"),
        (["images.npz", "--max-exposure", "0"], "limit of encodings per image"),
        (["images.npz", "--mean", "0.5"], "--std"),
        (["images.npz", "--mean", "half", "--std", "0.3"], "half"),
        (["images.npz", "--mean", "0.5", "--std", "0"], "deviation"),
        (["images.npz", "--mean", "0.5,0.5", "--std", "0.3,0.3"], "deviation"),
        (["images.npz", "--mean", "0.5", "--std", "0.000001"], "float32"),
        (["images.npz", "--mean", "123.7", "--std", "58.4"], "by 255"),
        (["images.npz", "--mean", "0.002", "--std", "0.3"], "mask would hide nothing"),
        (["images.npz", "--mean", "0.998", "--std", "0.3"], "mask would hide nothing"),
        (["images.npz", "--mean", "0.5", "--std", "50"], "must be between"),
        (["images.npz", "--participant", "x" * 201], "participant"),
        (["images.npz", "--ledger", "images.npz"], "not a ledger"),
        (["images.npz", "--out", "images.npz/enc"], "images.npz"),
        (["images.npz", "--out", "/proc/enc"], "/proc/enc"),
        (["images.npz", "--out", "ftpx://host/enc"], "ftpx"),
    ],
)
def test_what_cannot_be_encrypted_is_explained(
    arguments: list[str], told: str, tmp_path: Path
) -> None:
    text = refused("encrypt", "--scheme", "inside", "--k", "2", "--out", "enc", *arguments)
    assert told in text
    assert not list(tmp_path.glob("enc/*"))
    assert not (tmp_path / "ledger.sqlite").exists() or not counts().any()


@pytest.mark.parametrize("command", ["verify", "info"])
def test_what_is_no_encoded_folder_is_explained(command: str, tmp_path: Path) -> None:
    for location in ("nowhere", str(tmp_path), "images.npz"):
        assert location in refused(command, location)


def test_verify_says_which_shard_is_damaged(tmp_path: Path) -> None:
    encrypt()
    shard = next((tmp_path / "enc").glob("[!.]*.safetensors"))
    content = bytearray(shard.read_bytes())
    content[-1] ^= 1
    shard.write_bytes(content)
    assert shard.name in refused("verify", "enc")


def test_no_image_passes_its_limit_and_the_end_is_explained() -> None:
    text = encrypt("--copies", "20", "--max-exposure", "12")
    assert "ended before an image passed a limit (--max-exposure 12)" in text
    opened = EncodedFolder.open("enc")
    assert opened.manifest.ended == "limit"
    assert 0 < len(opened) < 20 * IMAGES
    assert opened.verify() == []
    assert "exposure limit" in ok("info", "enc")
    assert "exposure limit" in ok("verify", "enc")
    assert counts().max() == 12
    # Above what is there by no more than a few shards that were under way.
    assert 2 * len(opened) <= counts().sum() <= 2 * (len(opened) + IN_FLIGHT * SIZE)
    # The limit holds for all that comes later, in this folder or another.
    encrypt("--copies", "20", "--max-exposure", "12", "--resume")
    run("encrypt", "images.npz", *INSIDE, "--max-exposure", "12", "--out", "other")
    assert counts().max() == 12


def test_a_folder_at_its_limit_is_completed_under_a_higher_one() -> None:
    write_images("images.npz", 30)
    encrypt("--copies", "6", "--max-exposure", "9")
    part = len(EncodedFolder.open("enc"))
    encrypt("--copies", "6", "--resume")
    opened = EncodedFolder.open("enc")
    assert part < len(opened) == 180
    assert opened.manifest.ended == "all"
    assert opened.verify() == []


def test_nothing_is_written_where_all_images_are_at_the_limit(tmp_path: Path) -> None:
    plain = ["--scheme", "plain", "--max-exposure", "2"]
    encrypt("--copies", "2", *plain)
    text = refused("encrypt", "images.npz", *plain, "--out", "other")
    assert "above 2 encodings" in text
    assert not list(tmp_path.glob("other/*.safetensors"))
    assert (counts() == 2).all()


def test_data_sets_that_share_images_share_their_counts() -> None:
    plain = ["--scheme", "plain"]
    write_images("others.npz", 40, first=IMAGES - 10)
    encrypt("--copies", "2", *plain)
    encrypt("--copies", "3", *plain, source="others.npz", out="enc-2")
    assert counts().tolist() == [2] * 50 + [5] * 10
    assert counts("others.npz").tolist() == [5] * 10 + [3] * 30
    encrypt("--copies", "1", *plain, out="enc-3")
    assert counts("others.npz").tolist() == [6] * 10 + [3] * 30
    assert "90" in ok("ledger")


@pytest.fixture(scope="module")
def processes() -> Iterator[Encrypter]:
    with encrypter() as started:
        yield started


def begin(processes: Encrypter, tmp_path: Path, *options: str) -> int:
    """An encryption in another process that has finished a shard or two."""
    child = processes.start(
        *("encrypt", str(tmp_path / "images.npz"), *INSIDE, "--out", str(tmp_path / "enc")),
        *("--ledger", str(tmp_path / "ledger.sqlite"), *options),
        shard_bytes=publish.SHARD_BYTES,
    )
    wait_until(lambda: len(list(tmp_path.glob("enc/[!.]*.safetensors"))) >= IN_FLIGHT + 2)
    return child


@contextmanager
def stopped(child: int, ledger: Path) -> Iterator[None]:
    """Hold the process ``child``, at a moment when it does not hold the ``ledger``."""
    free = False
    while not free:
        os.kill(child, signal.SIGSTOP)
        with closing(sqlite3.connect(ledger, timeout=0, isolation_level=None)) as connection:
            try:
                connection.execute("BEGIN IMMEDIATE")
                free = True
            except sqlite3.OperationalError:
                os.kill(child, signal.SIGCONT)
    try:
        yield
    finally:
        os.kill(child, signal.SIGCONT)


@pytest.mark.slow
def test_a_second_writer_is_refused_and_the_first_goes_on(
    processes: Encrypter, tmp_path: Path
) -> None:
    child = begin(processes, tmp_path, "--copies", "200")
    with stopped(child, tmp_path / "ledger.sqlite"):
        for options in ([], ["--resume"]):
            text = refused(
                "encrypt", "images.npz", *INSIDE, "--copies", "200", "--out", "enc", *options
            )
            assert "being written" in text
    assert processes.status() == 0
    assert "12,000 encodings, complete" in ok("verify", "enc")


@pytest.mark.slow
def test_ctrl_c_leaves_a_folder_that_resumes(processes: Encrypter, tmp_path: Path) -> None:
    child = begin(processes, tmp_path, "--copies", "300")
    os.kill(child, signal.SIGINT)
    assert processes.status() == 130
    assert "not finished" in ok("verify", "enc")
    part = EncodedFolder.open("enc", partial=True).manifest
    encrypt("--copies", "300", "--resume")
    whole = EncodedFolder.open("enc").manifest
    assert 0 < len(part) < len(whole) == 18_000
    assert whole.shards[: len(part.shards)] == part.shards


@contextmanager
def disk(folder: Path, size: str) -> Iterator[None]:
    """A disk of its own at ``folder``; needs root."""
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
    if subprocess.run(command, capture_output=True, check=False).returncode:
        # tests/encodings/test_publish.py fails writes in the product's own code, for everybody.
        pytest.skip("This user may not mount a disk.")
    try:
        yield
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def remount(folder: Path, options: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{options}", str(folder)], check=True)


def test_a_full_disk_is_explained_and_the_folder_resumes(tmp_path: Path) -> None:
    with disk(tmp_path / "disk", "200k"):
        command = ["encrypt", "images.npz", *INSIDE, "--copies", "50", "--out", "disk/enc"]
        text = refused(*command)
        assert "No space left" in text
        assert "Remedy:" in text
        part = EncodedFolder.open("disk/enc", partial=True)
        assert 0 < len(part) < 3_000
        remount(tmp_path / "disk", "size=20m")
        ok(*command, "--resume")
        assert "3,000 encodings, complete" in ok("verify", "disk/enc")
        assert EncodedFolder.open("disk/enc").manifest.shards[: len(part.manifest.shards)] == (
            part.manifest.shards
        )


def test_a_folder_that_cannot_be_written_is_explained(
    tmp_path: Path, read_only: Callable[[Path], AbstractContextManager[None]]
) -> None:
    (tmp_path / "out").mkdir()
    encrypt(out="out/enc")
    with read_only(tmp_path / "out"):
        for name in ("enc", "new"):
            text = refused("encrypt", "images.npz", *INSIDE, "--out", f"out/{name}", "--resume")
            assert "Read-only" in text or "Permission denied" in text
        # To read it nothing needs to be written.
        assert "complete" in ok("verify", "out/enc")

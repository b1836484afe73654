"""Files that appear whole or not at all."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from instahide.errors import InstaHideError
from instahide.utils.atomic_write import atomic_directory, atomic_write


@pytest.mark.parametrize("name", [".", "..", "folder", "/"])
def test_a_folder_is_no_file_to_write(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "folder").mkdir()
    monkeypatch.chdir(tmp_path)
    with (
        pytest.raises(InstaHideError, match=r"Cannot write.*Is a directory"),
        atomic_write(Path(name)),
    ):
        pytest.fail("a file was made")
    assert [path.name for path in tmp_path.rglob("*")] == ["folder"]


@pytest.mark.parametrize("target", ["old.csv", "missing.csv", "folder", "link.csv"])
def test_a_link_is_neither_replaced_nor_followed(target: str, tmp_path: Path) -> None:
    (tmp_path / "old.csv").write_text("old")
    (tmp_path / "folder").mkdir()
    link = tmp_path / "link.csv"
    link.symlink_to(target)
    before = sorted(tmp_path.rglob("*"))
    for write in (atomic_write, atomic_directory):
        with pytest.raises(InstaHideError, match="symbolic link") as caught, write(link):
            pytest.fail("something was made")
        assert "itself" in caught.value.remedy
    assert link.readlink() == Path(target)
    assert (tmp_path / "old.csv").read_text() == "old"
    assert sorted(tmp_path.rglob("*")) == before


def test_a_pipe_or_device_is_not_replaced(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    for write in (atomic_write, atomic_directory):
        for path in (pipe, Path("/dev/null")):
            with pytest.raises(InstaHideError, match="it exists and is not a"), write(path):
                pytest.fail("something was made")
    assert stat.S_ISFIFO(pipe.stat().st_mode)
    assert [path.name for path in tmp_path.iterdir()] == ["pipe"]


def test_regular_files_and_empty_folders_are_replaced(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "linked").symlink_to("real")
    file = tmp_path / "linked" / "file.csv"
    for text in ("old", "new"):
        with atomic_write(file) as partial:
            partial.write_text(text)
    assert (tmp_path / "real" / "file.csv").read_text() == "new"
    with pytest.raises(InstaHideError, match="not a folder"), atomic_directory(file):
        pytest.fail("a folder was made")
    (tmp_path / "folder").mkdir()
    with atomic_directory(tmp_path / "folder") as made:
        (made / "a.txt").write_text("a")
    assert (tmp_path / "folder" / "a.txt").read_text() == "a"

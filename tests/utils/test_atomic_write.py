"""Files that appear whole or not at all."""

from __future__ import annotations

from pathlib import Path

import pytest

from instahide.errors import InstaHideError
from instahide.utils.atomic_write import atomic_write


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

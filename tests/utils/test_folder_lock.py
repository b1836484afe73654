"""Two processes never write to one folder."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from instahide.cli.main import app
from instahide.errors import InstaHideError
from instahide.utils.folder_lock import only_process
from tests.waiting import LIMIT

HOLDS = """
import sys, time
from pathlib import Path
from instahide.utils.folder_lock import only_process
with only_process(Path(sys.argv[1])):
    print("locked", flush=True)
    time.sleep(600)
"""


def test_a_folder_is_refused_until_the_process_that_uses_it_is_killed(tmp_path: Path) -> None:
    command = [sys.executable, "-c", HOLDS, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as other:
        try:
            assert other.stdout is not None
            assert other.stdout.readline() == "locked\n"
            with pytest.raises(InstaHideError, match="being written by another process"):
                only_process(tmp_path).__enter__()
            with only_process(tmp_path.parent):
                pass
        finally:
            other.kill()
            other.wait(LIMIT)
    with only_process(tmp_path):
        assert not list(tmp_path.iterdir())


def test_file_systems_without_locks_are_used_without_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unsupported(*words: object) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr("fcntl.flock", unsupported)
    with only_process(tmp_path), only_process(tmp_path):
        pass


@pytest.mark.slow
@pytest.mark.parametrize(
    "command",
    [
        "train digits --epochs 1 --scheme inside --k 2 --queries 0 --resume --out",
        "audit encoded --images digits --only averaging --budget 5s --out",
        "advise digits --scheme inside --max-recovered 1 --max-drop 90 --budget 1s --steps 1 --out",
    ],
)
def test_a_command_is_refused_where_another_one_runs(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two runs that were started by mistake would count their encodings as one."""
    monkeypatch.chdir(tmp_path)
    run = CliRunner()
    words = [*command.split(), "out"]
    if "audit" in words:
        made = run.invoke(app, ["encrypt", "digits", "--scheme", "inside", "--out", "encoded"])
        assert made.exit_code == 0, made.output
    assert run.invoke(app, words).exit_code in {0, 3}
    before = sorted(tmp_path.rglob("out/**/*"))
    with only_process(tmp_path / "out"):
        refused = run.invoke(app, words)
    assert refused.exit_code == 2
    assert "another process" in refused.output
    assert sorted(tmp_path.rglob("out/**/*")) == before
    assert run.invoke(app, words).exit_code in {0, 3}

"""The quick start works as it is written: from a folder of photographs to a report."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from PIL import Image

from experiments.photographs import crops
from instahide.data.public.crops import PHOTOS, photo_files
from instahide.data.readers.image_file import decode
from tests.waiting import LIMIT

ROOT = Path(__file__).resolve().parents[1]
#: The page, with long commands in one line.
PAGE = (ROOT / "docs" / "quickstart.md").read_text(encoding="utf-8").replace("\\\n", "")


def commands() -> list[list[str]]:
    """What the page says to type, of ours, in its order."""
    return [shlex.split(line)[1:] for line in re.findall(r"^instahide .*$", PAGE, re.M)]


def test_the_steps_are_there() -> None:
    assert [words[0] for words in commands()] == ["show", "encrypt", "audit"]
    (extras,) = re.findall(r"'\.\[([\w,]+)\]'", PAGE)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert set(extras.split(",")) <= set(project["optional-dependencies"])


@pytest.mark.slow
def test_a_folder_of_photographs_ends_in_a_report(tmp_path: Path) -> None:
    photos = tuple(decode(path)[:, :, :3] for path in photo_files(PHOTOS, 3))
    for number, pixels in enumerate(crops(photos, 24, 0, side=96)):
        folder = tmp_path / "photographs" / ("garden", "street")[number % 2]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels.transpose(1, 2, 0)).save(folder / f"img_{number:04}.jpg")
    for words in commands():
        # The page's three minutes would be three minutes here, too.
        shorter = [re.sub(r"^\d+m$", "15s", word) for word in words]
        result = subprocess.run(
            [sys.executable, "-m", "instahide", *shorter],
            cwd=tmp_path,
            env={
                **os.environ,
                "PYTHONPATH": str(ROOT / "src"),
                "INSTAHIDE_LEDGER": str(tmp_path / "ledger.sqlite"),
                "INSTAHIDE_CACHE": str(tmp_path / "cache"),
            },
            capture_output=True,
            text=True,
            check=False,
            timeout=LIMIT,
        )
        assert result.returncode == 0, result.stdout + result.stderr
    assert (tmp_path / "steps.png").stat().st_size > 0
    report = (tmp_path / "audit" / "report.html").read_text(encoding="utf-8")
    assert "recovered recognizably" in report

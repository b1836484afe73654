"""What is released: the wheel has all that the package needs, and works where nothing else is."""

from __future__ import annotations

import os
import subprocess
import sys
import venv
from pathlib import Path
from zipfile import ZipFile

import pytest

import instahide

ROOT = Path(__file__).resolve().parents[1]
#: Of the process that installs: neither sources nor settings of this checkout.
ALONE = {
    name: value
    for name, value in os.environ.items()
    if not name.startswith(("PYTHON", "INSTAHIDE", "COVERAGE"))
}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "-w", folder, ROOT]
    subprocess.run(command, check=True, env=ALONE)
    (made,) = folder.iterdir()
    return made


def test_the_wheel_has_every_file_of_the_package_and_nothing_else(wheel: Path) -> None:
    listed = subprocess.run(
        ["git", "ls-files", "src/instahide", "experiments/settings"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    ).stdout.split()  # fmt: skip
    wanted = {
        name.removeprefix("src/").replace("experiments/settings/", "instahide/cli/claims/")
        for name in listed
    }
    with ZipFile(wheel) as file:
        found = {name for name in file.namelist() if ".dist-info/" not in name}
        facts = {name.split("/")[-1]: name for name in file.namelist() if ".dist-info/" in name}
        metadata = file.read(facts["METADATA"]).decode()
    assert found == wanted
    assert "LICENSE" in facts
    assert f"\nVersion: {instahide.__version__}\n" in metadata
    assert "\nLicense-Expression: Apache-2.0\n" in metadata


@pytest.mark.slow
def test_the_wheel_runs_in_an_environment_of_its_own(wheel: Path, tmp_path: Path) -> None:
    venv.create(tmp_path / "env", with_pip=True)
    python, run = tmp_path / "env" / "bin" / "python", {"cwd": tmp_path, "check": True}
    environment = ALONE | {"INSTAHIDE_LEDGER": str(tmp_path / "ledger.sqlite")}
    install = ["-m", "pip", "install", "--quiet", "-c", ROOT / "constraints.txt", f"{wheel}[data]"]
    subprocess.run([python, *install], env=environment, **run)
    for words in (
        "--version",
        "train digits --scheme inside --k 2 --epochs 1 --out run",
        "predict run digits",
        "encrypt digits --scheme inside --k 2 --copies 1 --out encoded",
        "verify encoded",
        "train encoded --test digits --epochs 1 --out pooled",
        "reproduce",
    ):
        command = [python, "-m", "instahide", *words.split()]
        subprocess.run(command, env=environment, **run)
    where = [python, "-c", "import instahide; print(instahide.__file__)"]
    found = subprocess.run(where, env=environment, capture_output=True, text=True, **run).stdout
    assert Path(found).is_relative_to(tmp_path)

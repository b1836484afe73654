"""The rules of the house: who may import whom, and how files read."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from instahide._version import __version__
from tests.waiting import LIMIT

ROOT = Path(__file__).resolve().parents[1]
MODULES = sorted((ROOT / "src" / "instahide").rglob("*.py"))
MOST_LINES = 400

FOLDERS = ("src", "tests", "docs", "benchmarks", "experiments", "examples", ".ci", ".github")
TEXTS = sorted(
    path
    for path in [*ROOT.iterdir(), *(file for name in FOLDERS for file in (ROOT / name).rglob("*"))]
    if path.suffix
    in {".py", ".md", ".toml", ".yml", ".yaml", ".txt", ".csv", ".json", ".cff", ".lock"}
    or path.name in {"Makefile", "run"}
)
#: A folder that exists on the author's machine and on nobody else's.
MACHINE_PATH = re.compile(r"(?<![\w.$}~*/-])/(?:home|Users|root|work|mnt|opt|tmp)/")


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


def test_imports_keep_to_the_contracts() -> None:
    # In a process of its own: it holds on to the output that it found when it was imported.
    command = [str(Path(sys.executable).with_name("lint-imports")), "--no-cache", "--no-logo"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_keys_are_not_re_exported() -> None:
    # The contract sees imports of `keys` itself: a re-export would be a way round it.
    for module in ("instahide", "instahide.encryption"):
        path = ROOT / "src" / Path(*module.split(".")) / "__init__.py"
        tree = ast.parse(path.read_text(encoding="utf-8"))
        imported = [node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
        assert not any("keys" in (source or "").split(".") for source in imported)


@pytest.mark.parametrize("module", ["instahide", "instahide.cli"])
def test_importing_neither_loads_torch_nor_configures_logging(module: str) -> None:
    program = (
        f"import sys, {module}, logging; "
        "print('torch' in sys.modules, 'numba' in sys.modules, logging.getLogger().handlers)"
    )
    result = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        check=True,
        timeout=LIMIT,
        cwd=ROOT / "src",
    )
    assert result.stdout.strip() == "False False []"


def test_help_loads_nothing_heavy() -> None:
    # What a command needs comes when it is called: this is what keeps the start short.
    program = (
        "import sys, atexit; from instahide.cli import main; sys.argv = ['instahide', '--help']; "
        "heavy = {'torch', 'numba', 'numpy', 'pydantic', 'yaml', 'PIL'}; "
        "atexit.register(lambda: print('loaded:', sorted(heavy & set(sys.modules)))); main()"
    )
    result = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=LIMIT
    )
    assert "train" in result.stdout
    assert result.stdout.strip().endswith("loaded: []")


@pytest.mark.parametrize("path", MODULES, ids=name)
def test_a_module_says_what_it_is_and_is_short(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert ast.get_docstring(ast.parse(text)), "the first thing in a file is what it is"
    assert len(text.splitlines()) <= MOST_LINES


@pytest.mark.parametrize("path", TEXTS, ids=name)
def test_no_path_of_one_machine(path: Path) -> None:
    lines = path.read_text(encoding="utf-8").splitlines()
    assert [line for line in lines if MACHINE_PATH.search(line)] == []


def test_the_citation_names_this_version() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["version"] == __version__

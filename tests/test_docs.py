"""What the README and the pages show is true: their blocks run.

A fenced ``python`` block is executed, in one namespace a file. In a ``bash`` or ``console`` block
``instahide`` lines are run, ``make`` targets must exist, ``pip`` lines must name real extras; other
lines are not looked at. After the language, ``slow`` marks what takes long and ``notest`` what
cannot run. Blocks of one file share a folder and a ledger, so that one may use what an earlier one
made.

The quick test of a page runs its commands in this process and gives attacks one second. The slow
test of a page that has slow blocks or budgets runs every command as it is written, in a process of
its own.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import textwrap
import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from instahide.cli.main import app
from tests.waiting import LIMIT

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
FENCE = re.compile(
    r"^(?P<indent> *)```(?P<head>[^\n`]*)\n(?P<body>.*?)^(?P=indent)```[ ]*$", re.M | re.S
)
SHELLS = {"bash", "console"}
BUDGET = re.compile(r"--budget \w+")

#: Runs a command of `instahide` with these arguments for a page whose files are in this folder.
Run = Callable[[list[str], Path], None]


@dataclass(frozen=True)
class Block:
    """A fenced block: where it stands, its language, the words after that, its text."""

    page: Path
    line: int
    language: str
    words: frozenset[str]
    text: str

    @property
    def commands(self) -> list[str]:
        """The shell lines, continued ones joined, without prompts and what was printed."""
        lines = self.text.replace("\\\n", " ").splitlines()
        if self.language == "console":
            lines = [line.removeprefix("$ ") for line in lines if line.startswith("$ ")]
        return [line.strip() for line in lines]


def blocks(page: Path) -> list[Block]:
    text = page.read_text(encoding="utf-8") if page.exists() else ""
    found = []
    for match in FENCE.finditer(text):
        language, *words = match["head"].split() or [""]
        line = text.count("\n", 0, match.start()) + 1
        body = textwrap.dedent(match["body"])
        found.append(Block(page, line, language, frozenset(words), body))
    return found


def run_here(arguments: list[str], folder: Path) -> None:
    """Run a command of `instahide` in this process, because a new one would import PyTorch again.

    What a page encrypts is counted in a ledger of its own. Each attack gets one second.
    """
    shorter = shlex.split(BUDGET.sub("--budget 1s", shlex.join(arguments)))
    environment = {"INSTAHIDE_LEDGER": str(folder / "ledger.sqlite")}
    result = CliRunner().invoke(app, shorter, env=environment)
    assert result.exit_code == 0, f"{shorter}: {result.output}\n{result.exception!r}"


def run_process(arguments: list[str], folder: Path) -> None:
    """Run a command of `instahide` as it is written, in a process of its own."""
    # The code of this checkout, installed or not.
    path = os.pathsep.join(filter(None, [str(ROOT / "src"), os.environ.get("PYTHONPATH")]))
    ledger = str(folder / "ledger.sqlite")
    result = subprocess.run(
        [sys.executable, "-c", "from instahide.cli import main; main()", *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": path, "INSTAHIDE_LEDGER": ledger},
        capture_output=True,
        text=True,
        check=False,
        timeout=LIMIT,
    )
    assert result.returncode == 0, result.stdout + result.stderr


def pages() -> list[Any]:
    """Blocks to run and how to run commands, as pytest parameters: Python first, then shell lines.

    A page with slow blocks or budgets is there twice, the second time as it is written.
    """
    found = []
    for page in PAGES:
        kinds = [{"python"}, SHELLS]
        tested = [block for block in blocks(page) if "notest" not in block.words]
        all_of_it = [block for kind in kinds for block in tested if block.language in kind]
        quick = [block for block in all_of_it if "slow" not in block.words]
        name = page.relative_to(ROOT).as_posix()
        if quick:
            found.append(pytest.param(quick, run_here, id=name))
        if len(quick) < len(all_of_it) or any(BUDGET.search(block.text) for block in quick):
            marks = [pytest.mark.slow]
            found.append(pytest.param(all_of_it, run_process, id=f"{name}-whole", marks=marks))
    return found


@pytest.mark.parametrize(("page", "run"), pages())
def test_the_blocks_of_a_page_run(
    page: list[Block], run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    namespace: dict[str, Any] = {"__name__": "__main__"}
    monkeypatch.chdir(tmp_path)
    for block in page:
        if block.language == "python":
            # Blank lines above, so that a traceback names the line of the page.
            code = compile("\n" * block.line + block.text, str(block.page), "exec")
            exec(code, namespace)  # noqa: S102
        else:
            run_shell(block, tmp_path, run)


def run_shell(block: Block, folder: Path, run: Run) -> None:
    for command in block.commands:
        words = shlex.split(command, comments=True)
        if words[:1] == ["instahide"]:
            run(words[1:], folder)
        elif words[:1] == ["make"]:
            require_target(words[1:])
        elif words[:1] == ["pip"]:
            require_extras(command)


def require_target(arguments: list[str]) -> None:
    result = subprocess.run(
        ["make", "-n", *arguments], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr


def require_extras(command: str) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    for extras in re.findall(r"(?:instahide|\.)\[([\w,-]+)\]", command):
        assert set(extras.split(",")) <= set(project["optional-dependencies"])


def test_blocks_are_found_where_they_stand(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "text\n\n```python\nx = 1\n```\n\n"
        "- item\n\n  ```bash slow\n  instahide a \\\n    --b\n  ```\n\n"
        "```console\n$ instahide c\nprinted\n```\n"
    )
    python, bash, console = blocks(page)
    assert (python.line, python.language, python.text) == (3, "python", "x = 1\n")
    assert bash.words == {"slow"}
    assert [shlex.split(command) for command in bash.commands] == [["instahide", "a", "--b"]]
    assert console.commands == ["instahide c"]


def test_a_made_up_target_or_extra_is_noticed() -> None:
    with pytest.raises(AssertionError):
        require_target(["no-such-target"])
    with pytest.raises(AssertionError):
        require_extras("pip install 'instahide[no-such-extra]'")

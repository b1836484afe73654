"""The figures of `benchmarks.size`, against a package small enough to count by hand."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from benchmarks import size

ROOT = Path(__file__).resolve().parents[1]
LONG = '''
def long(self, a, /, b, *, c):
    """Two lines

    of docstring are not counted."""
    x = cast(int, a)

    return x
'''


def test_size_counts_what_is_there(tmp_path: Path) -> None:
    (tmp_path / "cli").mkdir()
    (tmp_path / "__init__.py").write_text("from typing import Any\n")
    (tmp_path / "one.py").write_text(LONG)
    many = ", ".join(f"p{number}: Any" for number in range(11))
    (tmp_path / "two.py").write_text(f"def many({many}):\n    pass\n")
    (tmp_path / "cli" / "train.py").write_text(f"def train({many}):\n    pass\n")
    assert size.figures(tmp_path) == {
        "files": 4,
        "lines": 1 + len(LONG.splitlines()) + 2 + 2,
        "longest_function": 4,
        "longest_function_is": "one.py:long",
        "functions_over_40_lines": 0,
        "many_parameters": 2,
        "lines_with_any": 3,
        "casts": 1,
        "most_modules_in_a_folder": 2,
        "most_modules_are_in": ".",
    }


def test_size_prints_one_line_of_json() -> None:
    command = [sys.executable, "-m", "benchmarks.size"]
    printed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert json.loads(printed)["lines"] > 0

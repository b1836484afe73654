"""Size of the package: lines, long functions, many parameters, `Any`, `cast`, files in a folder."""

from __future__ import annotations

import ast
import json
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from benchmarks.measure import quick

SRC = Path(__file__).resolve().parents[1] / "src" / "instahide"
#: Above this a function has too many parameters to be called from memory.
MANY_PARAMETERS = 10
Function = ast.FunctionDef | ast.AsyncFunctionDef


def functions(tree: ast.AST) -> Iterator[Function]:
    return (node for node in ast.walk(tree) if isinstance(node, Function))


def length(function: Function) -> int:
    """Lines from ``def`` to the end, without the docstring."""
    assert function.end_lineno is not None
    lines = function.end_lineno - function.lineno + 1
    first = function.body[0]
    if ast.get_docstring(function, clean=False) is not None:
        assert first.end_lineno is not None
        lines -= first.end_lineno - first.lineno + 1
    return lines


def parameters(function: Function) -> int:
    arguments = function.args
    named = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]
    return sum(argument.arg not in {"self", "cls"} for argument in named)


def figures(root: Path) -> dict[str, object]:
    """What there is to count in the Python files under ``root``."""
    files = {path.relative_to(root): path.read_text() for path in sorted(root.rglob("*.py"))}
    lines = [line for text in files.values() for line in text.splitlines()]
    found = [
        (function, path) for path, text in files.items() for function in functions(ast.parse(text))
    ]
    longest, where = max(found, key=lambda pair: length(pair[0]))
    crowded = Counter(path.parent for path in files if path.name != "__init__.py")
    folder, modules = crowded.most_common(1)[0]
    return {
        "files": len(files),
        "lines": len(lines),
        "longest_function": length(longest),
        "longest_function_is": f"{where}:{longest.name}",
        "functions_over_40_lines": sum(length(function) > 40 for function, _ in found),
        "many_parameters": sum(parameters(function) > MANY_PARAMETERS for function, _ in found),
        "lines_with_any": sum(bool(re.search(r"\bAny\b", line)) for line in lines),
        "casts": sum(len(re.findall(r"(?<![\w.])cast\(", line)) for line in lines),
        "most_modules_in_a_folder": modules,
        "most_modules_are_in": str(folder),
    }


def main() -> None:
    quick(__doc__)
    print(json.dumps(figures(SRC)))


if __name__ == "__main__":
    main()

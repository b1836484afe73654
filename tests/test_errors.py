"""Messages cannot rewrite the terminal or the log that they are printed on."""

from __future__ import annotations

import ast
import doctest
import pickle
import re
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from instahide import errors
from instahide.errors import InstaHideError, printable


def test_the_tree_names_every_class_and_its_example_runs():
    assert doctest.testmod(errors).failed == 0
    for kind in InstaHideError.__subclasses__():
        if kind.__module__ == errors.__name__:
            assert f"── {kind.__name__} " in (errors.__doc__ or "")


#: Options of other programs.
FOREIGN = {"--head", "--object-store-memory", "--upgrade"}


@pytest.mark.slow
def test_only_the_command_line_names_its_options():
    root = Path(errors.__file__).parent
    for path in root.rglob("*.py"):
        if path.is_relative_to(root / "cli"):
            continue
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                options = set(re.findall(r"(?<![\w-])--[a-z][a-z-]*", node.value)) - FOREIGN
                assert not options, f"{path}:{node.lineno} names {options}"


@given(st.text(alphabet=st.characters()))
def test_every_message_is_one_line_of_printable_characters(text):
    error = InstaHideError(f"{text} is no file.", f"Remove {text}.")
    for part in (str(error), error.problem, error.remedy):
        assert not {unicodedata.category(char) for char in part} & {"Cc", "Cf", "Cs", "Zl", "Zp"}
    again = pickle.loads(pickle.dumps(error))  # noqa: S301
    assert (again.problem, again.remedy) == (error.problem, error.remedy)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("Müller, 日本, naïve", "Müller, 日本, naïve"),
        ("a\x1b[31mb", r"a\x1b[31mb"),
        ("a\nRemedy: none", r"a\nRemedy: none"),
        ("cat\u202egnp", r"cat\u202egnp"),
        ("\udcff", r"\udcff"),
        ("\U000e0041", r"\U000e0041"),
    ],
)
def test_what_is_not_printable_is_escaped_and_the_rest_stays(text, shown):
    assert printable(text) == shown

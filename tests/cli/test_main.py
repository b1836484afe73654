"""What people expect of every command: help, defaults, --quiet, --json, completion, suggestions."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import click
import numpy as np
import pytest
import typer
from pydantic import BaseModel, Field
from typer.main import get_command
from typer.testing import CliRunner, Result

from instahide.cli.audit import VIOLATED
from instahide.cli.main import COMMANDS, app
from instahide.cli.options import command

LINES = {name: line for panel in COMMANDS.values() for name, line in panel.items()}
ROOT = get_command(app)


def loaded() -> dict[str, click.Command]:
    """Every command, and those of groups as ``group command``, without the groups."""
    found = {}
    for name in LINES:
        context = click.Context(ROOT, help_option_names=["-h", "--help"])
        made = ROOT.commands[name].make_context(name, [], context, resilient_parsing=True).command
        parts = getattr(made, "commands", {"": made})
        found |= {f"{name} {part}".strip(): each for part, each in parts.items()}
    return found


ALL = loaded()


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments))


@pytest.mark.parametrize("name", ALL)
def test_help_says_what_every_argument_is(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    short, long = run(*name.split(), "-h"), run(*name.split(), "--help")
    assert short.exit_code == 0
    assert short.output == long.output
    for parameter in ALL[name].params:
        assert re.match(r"[A-Z$].*[.!]$", parameter.help or ""), parameter.name
        assert "default" not in parameter.help.lower(), parameter.name


@pytest.mark.parametrize("name", ALL)
def test_every_command_has_quiet_and_json(name: str) -> None:
    options = {option for parameter in ALL[name].params for option in parameter.opts}
    assert {"--quiet", "--json"} <= options


@pytest.mark.parametrize("name", ALL)
def test_a_description_begins_with_a_verb_and_stands_on_one_line(name: str) -> None:
    first = ALL[name].help.partition("\n\n")[0]
    assert "\n" not in first
    assert re.fullmatch(r"[A-Z][a-z]+ .*\.", first)
    assert not first.startswith(("Say ", "Does ", "This "))
    assert LINES.get(name, first) == first


@pytest.mark.parametrize("name", ["train", "encrypt"])
def test_options_are_grouped(name: str) -> None:
    settings = [
        parameter
        for parameter in ALL[name].params
        if isinstance(parameter, click.Option) and parameter.rich_help_panel
    ]
    assert len(settings) >= len(ALL[name].params) - 7
    assert len({parameter.rich_help_panel for parameter in settings}) >= 5


def test_the_root_has_both_help_options_and_completion() -> None:
    assert run("-h").output == run("--help").output
    assert "--install-completion" in run("-h").output
    assert all(name in run("-h").output for name in LINES)


@pytest.mark.parametrize(
    ("typed", "completed"), [("tr", "train"), ("train --ep", "--epochs"), ("challenge m", "make")]
)
def test_the_shell_completes_commands_and_options(typed: str, completed: str) -> None:
    words = f"instahide {typed}"
    result = subprocess.run(
        [sys.executable, "-c", "from instahide.cli.main import app; app(prog_name='instahide')"],
        env={
            **os.environ,
            "_INSTAHIDE_COMPLETE": "complete_bash",
            "COMP_WORDS": words,
            "COMP_CWORD": str(len(words.split()) - 1),
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert completed in result.stdout.split(), result.stderr


@pytest.mark.parametrize(("typed", "meant"), [(["trian"], "train"), (["challenge", "mke"], "make")])
def test_a_typing_error_is_answered_with_one_suggestion(typed: list[str], meant: str) -> None:
    result = run(*typed)
    assert result.exit_code == 2
    assert result.output.count("Did you mean") == 1
    assert result.output.count(f"'{meant}'") == 1


@pytest.mark.slow
def test_help_of_a_command_loads_no_torch() -> None:
    program = (
        "import sys; from typer.testing import CliRunner; from instahide.cli.main import app; "
        f"[CliRunner().invoke(app, [*name.split(), '-h']) for name in {list(ALL)}]; "
        "print(sorted({'torch', 'numba', 'matplotlib'} & set(sys.modules)))"
    )
    result = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == "[]"


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of one's own with `images.npz`."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("INSTAHIDE_LEDGER", str(tmp_path / "ledger.sqlite"))
    pixels = np.random.default_rng(0).integers(0, 256, (24, 8, 8), np.uint8)
    np.savez("images.npz", x=pixels, y=np.arange(24) % 2)
    return tmp_path


INSIDE = ("--scheme", "inside", "--k", "2")
#: Commands that run in a moment, in an order in which each finds what it needs.
QUICK = [
    ("encrypt", "images.npz", *INSIDE, "--out", "planned", "--dry-run"),
    ("encrypt", "images.npz", *INSIDE, "--out", "enc"),
    ("verify", "enc"),
    ("info", "enc"),
    ("ledger",),
    ("export", "enc", "--format", "webdataset", "--out", "tars"),
    ("import", "tars", "--format", "webdataset", "--out", "back"),
    ("train", "images.npz", *INSIDE, "--epochs", "1", "--batch-size", "8", "--out", "run"),
    ("predict", "run", "images.npz", "--queries", "0"),
    ("audit", "enc", "--images", "images.npz", "--only", "labels"),
    ("show", "images.npz", *INSIDE),
    ("bench", "--images", "100", "--side", "8"),
    ("public", "photos", "--out", "pool", "--patch", "64", "--per-image", "1"),
    ("challenge", "make", "images.npz", "--out", "ch", "--truth", "truth", "--k", "2"),
    ("challenge", "info", "ch"),
    ("challenge", "official"),
    ("hardness", "--images", "10000"),
    ("reproduce",),
]


@pytest.mark.slow
def test_json_is_one_object_of_the_results(here: Path) -> None:
    for arguments in QUICK:
        result = run(*arguments, "--json")
        assert result.exit_code == 0, (arguments, result.output, result.exception)
        assert isinstance(json.loads(result.stdout), dict), arguments


@pytest.mark.slow
def test_quiet_prints_results_alone(here: Path) -> None:
    for arguments in QUICK:
        result = run(*arguments, "--quiet")
        assert result.exit_code == 0, (arguments, result.output, result.exception)
        assert result.stdout, arguments
        assert not result.stderr, arguments
    refused = run("verify", "nowhere", "--quiet")
    assert refused.exit_code == 2
    assert "Remedy:" in refused.stderr


@pytest.mark.slow
def test_a_violated_bound_is_told_by_the_exit_code_under_json(here: Path) -> None:
    run("encrypt", "images.npz", *INSIDE, "--out", "enc")
    result = run(*QUICK[9], "--fail-if", "labels.class_sets_right>=0", "--json")
    assert result.exit_code == VIOLATED, result.output
    assert json.loads(result.stdout)["thresholds"][0]["violated"]


class Options(BaseModel):
    count: int = 1
    share: float = Field(0.5, gt=0, le=1, description="a share")


example = typer.Typer()


@example.command()
@command
def given(options: Options) -> None:
    """Print the options that were given."""
    print(sorted(options.model_fields_set))


def test_an_options_object_knows_what_was_given() -> None:
    assert CliRunner().invoke(example, ["--count", "3"]).output.strip() == "['count']"


@pytest.mark.parametrize("share", ["0", "2", "much"])
def test_the_bounds_of_a_field_are_the_options(share: str) -> None:
    result = CliRunner().invoke(example, ["--share", share])
    assert result.exit_code == 2
    assert "share" in result.output

"""`instahide reproduce`: every claim has runs that can be started, and what goes wrong is said."""

from __future__ import annotations

import json
import re
import shlex
import tomllib
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from instahide.cli.main import app
from instahide.cli.reproduce import SETTINGS, claims

ROOT = Path(__file__).resolve().parents[2]
CLAIMS = claims(ROOT)


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["reproduce", *arguments])


def claim(root: Path, name: str, *runs: str) -> None:
    (root / SETTINGS).mkdir(parents=True, exist_ok=True)
    lines = ["claim: It works.", "results: found.txt", "runs:", *(f"  - {line}" for line in runs)]
    (root / SETTINGS / f"{name}.yaml").write_text("\n".join(lines))


def test_all_claims_are_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    result = run()
    assert result.exit_code == 0
    assert all(f" {name} " in result.output for name in CLAIMS)
    assert {"accuracy", "attacks", "frontier", "reconstruction", "speed"} <= set(CLAIMS)


@pytest.mark.parametrize("line", [line for claim in CLAIMS.values() for line in claim.runs])
def test_a_run_names_a_script_and_options_that_exist(line: str) -> None:
    program, *words = shlex.split(line)
    if program == "make":
        assert re.search(rf"^{words[0]}:", (ROOT / "Makefile").read_text(), re.M)
        return
    assert program == "python"
    module = words[0] == "-m"
    path = ROOT / (words[1].replace(".", "/") + ".py" if module else words[0])
    source = path.read_text(encoding="utf-8")
    for option in (word for word in words if word.startswith("--")):
        assert f'"{option}"' in source


def test_results_are_where_the_claim_says() -> None:
    for name in set(CLAIMS) - {"speed", "pooled"}:
        for line in CLAIMS[name].runs:
            source = (ROOT / (shlex.split(line)[2].replace(".", "/") + ".py")).read_text("utf-8")
            # What stands in braces names another network, and is nothing for the usual one.
            assert CLAIMS[name].results in re.sub(r"\{\w+\}", "", source)


def test_runs_are_made_one_after_the_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write = "python -c \"open('found.txt', 'a').write('{}')\""
    claim(tmp_path, "good", write.format(1), write.format(2))
    result = run("good")
    assert result.exit_code == 0
    assert "found.txt" in result.output
    assert (tmp_path / "found.txt").read_text() == "12"


def test_a_run_that_fails_ends_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    claim(tmp_path, "bad", 'python -c "raise SystemExit(7)"', "python -c \"open('no', 'w')\"")
    result = run("bad")
    assert result.exit_code == 2
    assert "ended with 7" in result.output
    assert not (tmp_path / "no").exists()


def test_a_claim_that_nobody_knows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    result = run("acuracy")
    assert result.exit_code == 2
    assert "Did you mean `accuracy`?" in result.output


def test_outside_a_checkout_claims_are_listed_but_not_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert set(json.loads(run("--json").stdout)) == set(CLAIMS)
    result = run("accuracy")
    assert result.exit_code == 2
    assert "not in the installed package" in result.output
    assert "root of a checkout" in result.output


def test_the_claims_are_in_the_installed_package() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    included = project["tool"]["hatch"]["build"]["targets"]["wheel"]["force-include"]
    assert included == {str(SETTINGS): "instahide/cli/claims"}

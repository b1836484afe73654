"""Releases of dependencies: pins, hashes, lowest versions, and the page that argues for them."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).resolve().parents[1]
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
EXTRAS: dict[str, list[str]] = PROJECT["optional-dependencies"]
#: Extras of contributors. `docs` are tools for the site, and `integrations` are what it plugs into.
DEVELOPMENT = {"dev", "docs", "integrations", "test"}
#: Extras whose lower bounds are the releases of constraints.txt, so that `make test` tests them.
AS_TESTED = ["export", "flower"]
#: Extras whose lower bounds `make test-lowest` tests.
TESTED_LOWEST = sorted(EXTRAS.keys() - {"all", "dev", "docs", *AS_TESTED})
#: Pinned, but not installed on Python 3.11 by any extra: see the head of constraints.txt.
NOT_LOCKED = {"audioop-lts", "foolbox"}
#: The only pin of a local build.
CPU = "+cpu"


def requirements(*extras: str) -> list[Requirement]:
    """What the package and ``extras`` name themselves, without the extras that they include."""
    listed = [*PROJECT["dependencies"], *(item for extra in extras for item in EXTRAS[extra])]
    found = map(Requirement, listed)
    return [requirement for requirement in found if requirement.name != PROJECT["name"]]


def included(*extras: str) -> set[str]:
    """``extras`` and those that they include."""
    items = [Requirement(item) for extra in extras for item in EXTRAS[extra]]
    inner = {name for item in items if item.name == PROJECT["name"] for name in item.extras}
    return {*extras} | (included(*inner) if inner else set())


def names(listed: list[str]) -> set[str]:
    return {canonicalize_name(Requirement(item).name) for item in listed} - {PROJECT["name"]}


def pins(file: str) -> dict[str, str]:
    """Releases by normalized name; every line of ``file`` must be a comment, a pin or a hash."""
    found: dict[str, str] = {}
    for line in (ROOT / file).read_text("utf-8").splitlines():
        if line.startswith(("#", "    --hash=sha256:")):
            continue
        match = re.fullmatch(r"([A-Za-z0-9._-]+)(\[.+\])?==([^\s;*]+)( \\)?", line)
        assert match, line
        # With and without extras, the same.
        assert found.setdefault(canonicalize_name(match[1]), match[3]) == match[3], line
    return found


def tables() -> dict[str, list[list[str]]]:
    """Rows of the tables of the dependencies page, by heading; the package is in the first cell."""
    page = (ROOT / "docs" / "dependencies.md").read_text("utf-8")
    found: dict[str, list[list[str]]] = {}
    for section in page.split("\n## ")[1:]:
        lines = [line for line in section.splitlines() if line.startswith("| ")]
        found[section.splitlines()[0]] = [
            [cell.strip() for cell in line.strip("|").split(" | ")] for line in lines[2:]
        ]
    return found


def packages(row: list[str]) -> list[str]:
    return [canonicalize_name(name) for name in re.findall(r"`([\w-]+)`", row[0])]


def test_the_lock_file_has_the_tested_releases() -> None:
    locked, tested = pins("requirements.lock"), pins("constraints.txt")
    assert locked.pop("torch") == tested.pop("torch") + CPU
    assert locked == {name: found for name, found in tested.items() if name not in NOT_LOCKED}
    assert tested.keys() >= NOT_LOCKED


def test_every_locked_release_has_a_hash() -> None:
    text = (ROOT / "requirements.lock").read_text("utf-8")
    text = "".join(line for line in text.splitlines(keepends=True) if not line.startswith("#"))
    block = r"[^\s=][^=\n]*==\S+( \\\n    --hash=sha256:[0-9a-f]{64})+\n"
    assert re.fullmatch(f"({block})+", text)
    # For older releases of pip, such as 23.2: a pin of package[extra] is none of the package there.
    for bare, extras in re.findall(r"^(\S+)(\[.+\])==", text, re.M):
        assert f"\n{bare}==" in text, extras


@pytest.mark.parametrize("file", ["requirements.lock", "constraints.txt"])
def test_pins_are_within_the_declared_bounds(file: str) -> None:
    pinned = pins(file)
    for requirement in requirements(*EXTRAS):
        release = pinned[canonicalize_name(requirement.name)]
        assert requirement.specifier.contains(release), requirement


@pytest.mark.parametrize("requirement", requirements(*TESTED_LOWEST), ids=str)
def test_the_lowest_declared_release_is_the_one_that_is_tested(requirement: Requirement) -> None:
    (bound,) = (item for item in requirement.specifier if item.operator == ">=")
    release = pins("constraints-lowest.txt")[canonicalize_name(requirement.name)]
    assert Version(release) == Version(bound.version)


@pytest.mark.parametrize("listed", [item for extra in AS_TESTED for item in EXTRAS[extra]])
def test_a_bound_that_is_not_tested_apart_is_the_tested_release(listed: str) -> None:
    requirement = Requirement(listed)
    (bound,) = (Version(item.version) for item in requirement.specifier)
    tested = Version(pins("constraints.txt")[canonicalize_name(requirement.name)])
    assert tested.release[: len(bound.release)] == bound.release


def test_make_tests_the_lowest_releases_of_all_other_extras() -> None:
    line = re.search(r"^LOWEST_EXTRAS := (.*)$", (ROOT / "Makefile").read_text("utf-8"), re.M)
    assert line
    assert included(*line[1].split()) == set(TESTED_LOWEST)


def test_the_extra_all_has_every_extra_of_users() -> None:
    assert included("all") == EXTRAS.keys() - {"dev", "docs", "test"}


def test_every_dependency_is_argued_for_once() -> None:
    found = tables()
    listed = {
        heading: [name for row in rows for name in packages(row)] for heading, rows in found.items()
    }
    every = [name for group in listed.values() for name in group]
    assert len(every) == len(set(every))
    core = names(PROJECT["dependencies"])
    optional = {e: names(items) - core for e, items in EXTRAS.items() if e not in DEVELOPMENT}
    tools = {"hatchling"}.union(*(names(EXTRAS[extra]) for extra in DEVELOPMENT))
    assert set(listed["Core"]) == core
    assert set(listed["Development"]) == tools - core - set().union(*optional.values()) - {"triton"}
    for row in found["Extras"]:
        for name in packages(row):
            declared = {extra for extra, items in optional.items() if name in items}
            assert {word.strip() for word in row[1].split(",")} & EXTRAS.keys() == declared, name
    assert set(listed["Extras"]) == set().union(*optional.values()) | {"triton"}
    assert all(row[-2].strip() for rows in found.values() for row in rows), "a reason is missing"


def test_the_workflow_does_what_ci_run_does_on_every_declared_python() -> None:
    prefix = "Programming Language :: Python :: 3."
    declared = [f"3.{c.removeprefix(prefix)}" for c in PROJECT["classifiers"] if prefix in c]
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text("utf-8"))
    check = workflow["jobs"]["check"]
    assert check["strategy"]["matrix"]["python"] == declared
    assert ".ci/run" in [step.get("run") for step in check["steps"]]
    makefile = (ROOT / "Makefile").read_text("utf-8")
    assert f"\nPYTHONS := {' '.join(declared)}\n" in makefile
    targets = set(re.findall(r"^([a-z-]+):", makefile, re.M))
    runs = [step.get("run", "") for job in workflow["jobs"].values() for step in job["steps"]]
    called = {name for run in runs if run.startswith("make ") for name in run.split()[1:]}
    assert {"test-lowest", "test-hashes", "slow", "docs", "demo"} <= called <= targets


@pytest.mark.slow
@pytest.mark.skipif(
    sys.version_info[:2] != (3, 11) or not version("torch").endswith(CPU),
    reason="requirements.lock is for Python 3.11 and for the CPU build of torch",
)
def test_the_locked_releases_install_by_hash_and_train(tmp_path: Path) -> None:
    environment = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("PYTHON", "COVERAGE", "MAKE"))
    } | {"INSTAHIDE_LEDGER": str(tmp_path / "ledger.sqlite")}
    command = ["make", "test-hashes", f"PYTHON={sys.executable}", f"HASHED={tmp_path / 'env'}"]
    subprocess.run(command, cwd=ROOT, env=environment, check=True)
    assert (tmp_path / "env" / "run").is_dir()

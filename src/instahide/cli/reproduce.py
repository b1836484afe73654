"""`instahide reproduce`: the paper's claims, each by the experiments that measure it.

What belongs to a claim stands in ``experiments/settings/CLAIM.yaml`` of a checkout: the ``claim``
in a sentence, the file of its ``results``, and its ``runs``, each as one would type it.
"""

from __future__ import annotations

import difflib
import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import yaml
from rich.table import Table

from instahide.cli.console import err, out
from instahide.errors import InstaHideError

#: From the root of a checkout.
SETTINGS = Path("experiments/settings")


@dataclass(frozen=True)
class Claim:
    """One claim.

    Attributes:
        claim: what is claimed, in a sentence.
        results: the file that the runs write to.
        runs: command lines, to be run in the root of a checkout one after the other.
    """

    claim: str
    results: str
    runs: list[str]


def claims(root: Path) -> dict[str, Claim]:
    """All claims of the checkout at ``root``, by name.

    Raises:
        InstaHideError: there are none, as in an installed package.
    """
    files = sorted((root / SETTINGS).glob("*.yaml"))
    if not files:
        raise InstaHideError(
            f"There is no {SETTINGS} here: experiments are not in the installed package.",
            "Run this in the root of a checkout of the project.",
        )
    return {file.stem: Claim(**yaml.safe_load(file.read_text(encoding="utf-8"))) for file in files}


def show_claims(root: Path) -> None:
    """Print a line for each claim."""
    table = Table("name", "claim", "results")
    for name, claim in claims(root).items():
        table.add_row(name, claim.claim, Path(claim.results).name)
    out.print(table)


def reproduce(name: str, root: Path) -> None:
    """Run all that measures the claim ``name``; most runs leave out what their results hold.

    Raises:
        InstaHideError: there is no such claim, or a run failed.
    """
    known = claims(root)
    if name not in known:
        close = difflib.get_close_matches(name, known, n=1)
        remedy = f"Did you mean `{close[0]}`?" if close else f"Choose one of: {', '.join(known)}."
        raise InstaHideError(f"There is no claim `{name}`.", remedy)
    for line in known[name].runs:
        err.print(f"Running: {line}")
        code = subprocess.run(command(line), cwd=root, check=False).returncode  # noqa: S603
        if code:
            raise InstaHideError(
                f"`{line}` ended with {code}.",
                "Put right what it says above; the same command then goes on.",
            )
    out.print(f"Results: {known[name].results}")


def command(line: str) -> list[str]:
    """The words of ``line``; ``python`` is the one that runs this."""
    program, *words = shlex.split(line)
    return [sys.executable if program == "python" else program, *words]

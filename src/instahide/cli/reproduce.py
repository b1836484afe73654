"""`instahide reproduce`: runs the experiments that measure the paper's claims.

``experiments/settings/CLAIM.yaml`` in a checkout describes a claim: the ``claim`` in a sentence,
the file of its ``results``, and its ``runs`` as command lines.
"""

from __future__ import annotations

import difflib
import shlex
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import typer
import yaml
from rich.table import Table

from instahide.cli.console import notes, out
from instahide.cli.options import command
from instahide.errors import InstaHideError

#: From the root of a checkout.
SETTINGS = Path("experiments/settings")
#: Where an installed package has them, and the checkout that this module is in.
_COPIES = (Path(__file__).with_name("claims"), Path(__file__).parents[3] / SETTINGS)


@dataclass(frozen=True)
class Claim:
    """One claim.

    Attributes:
        claim: the claim in a sentence.
        results: the file to which the runs write.
        runs: command lines, to run in the root of a checkout one after another.
    """

    claim: str
    results: str
    runs: list[str]


@command
def reproduce(
    claim: Annotated[
        str | None, typer.Argument(help="Name of a claim; if omitted, the claims are listed.")
    ] = None,
) -> None:
    """Measure one of the paper's claims again, or list the claims.

    Run this in the root of a checkout; only the list is available elsewhere. Results
    are added to the files in experiments/results. Some claims take hours.
    """
    if claim is None:
        _list_claims(Path.cwd())
    else:
        _measure(claim, Path.cwd())


def claims(root: Path) -> dict[str, Claim]:
    """All claims of the checkout at ``root``, by name.

    Raises:
        InstaHideError: ``root`` is not a checkout.
    """
    found = _read(root / SETTINGS)
    if not found:
        raise InstaHideError(
            f"There is no {SETTINGS} here: experiments are not in the installed package.",
            "Run this in the root of a checkout of the project.",
        )
    return found


def _read(folder: Path) -> dict[str, Claim]:
    return {
        file.stem: Claim(**yaml.safe_load(file.read_text(encoding="utf-8")))
        for file in sorted(folder.glob("*.yaml"))
    }


def _list_claims(root: Path) -> None:
    table = Table("name", "claim", "results")
    found = next(filter(None, map(_read, (root / SETTINGS, *_COPIES))), {})
    for name, claim in found.items():
        table.add_row(name, claim.claim, Path(claim.results).name)
    out.results({name: asdict(claim) for name, claim in found.items()}, table)


def _measure(name: str, root: Path) -> None:
    """Run all measurements of the claim ``name``; most runs skip existing results.

    Raises:
        InstaHideError: there is no such claim, or a run failed.
    """
    known = claims(root)
    if name not in known:
        close = difflib.get_close_matches(name, known, n=1)
        remedy = f"Did you mean `{close[0]}`?" if close else f"Choose one of: {', '.join(known)}."
        raise InstaHideError(f"There is no claim `{name}`.", remedy)
    for line in known[name].runs:
        notes.print(f"Running: {line}")
        # The output of a run is not a result, so it must not be mixed with JSON results.
        output = subprocess.DEVNULL if notes.quiet else 2 if out.as_json else None
        code = subprocess.run(_words(line), cwd=root, stdout=output, check=False).returncode  # noqa: S603
        if code:
            raise InstaHideError(
                f"`{line}` ended with {code}.",
                "Correct what it prints above; the same command then continues.",
            )
    out.results({"claim": name, "results": known[name].results}, f"Results: {known[name].results}")


def _words(line: str) -> list[str]:
    """The words of ``line``, with ``python`` replaced by the current interpreter."""
    program, *words = shlex.split(line)
    return [sys.executable if program == "python" else program, *words]

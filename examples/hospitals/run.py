"""Three clinics with different scanners train one network on each other's encodings.

    python examples/hospitals/run.py --folder clinics

Each clinic encrypts its scans in its own folder, with its own ledger; a fourth party trains on the
pooled encodings, and each clinic asks the network about its own test patients by encrypted queries.
For comparison each clinic also trains on its own plain scans alone. At the end one clinic audits
what it gave away. The last line of output is a JSON object with the results. `federation.py` does
the same without a pool.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from clinics import CLINICS, Clinic, write_clinics
from rich.console import Console
from rich.table import Table

#: Side of the images that networks see, and the normalization that the clinics agreed on, of
#: pixels from 0 to 1.
SIDE, MEAN, STD = 32, 0.32, 0.1


def instahide(folder: Path, *words: object) -> dict[str, Any]:
    """Run a command of `instahide` in the folder of a clinic; returns its results."""
    done = subprocess.run(
        [sys.executable, "-m", "instahide", *map(str, words), "--json"],
        cwd=folder,
        env={**os.environ, "INSTAHIDE_LEDGER": str(folder / "ledger.sqlite")},
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    if done.returncode:
        sys.exit(f"`instahide {words[0]}` failed in {folder}; see above.")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def reading(clinic: Clinic) -> list[object]:
    """How the scans of a clinic are read: labels, patients, and values from 0 to 1."""
    return [
        "--labels", "labels.csv", "--label-columns", ",".join(clinic.findings),
        "--group-column", "patient", "--split-column", "part",
        "--window", clinic.window, "--rescale", "--size", SIDE,
    ]  # fmt: skip


def encrypt(folder: Path, clinic: Clinic, copies: int, scheme: list[str]) -> None:
    """Encrypt a clinic's training scans into its folder ``encoded``."""
    instahide(
        folder / clinic.name, "encrypt", "scans", *reading(clinic), *scheme, "--copies", copies,
        "--mean", MEAN, "--std", STD, "--participant", clinic.name, "--out", "encoded",
    )  # fmt: skip


def alone(folder: Path, clinic: Clinic, epochs: int) -> float:
    """Macro AUROC of a network that was trained on the plain scans of one clinic."""
    results = instahide(
        folder / clinic.name, "train", "scans", *reading(clinic), "--scheme", "plain",
        "--epochs", epochs, "--out", "alone",
    )  # fmt: skip
    return float(results["metrics"]["macro_auroc"])


def ask(folder: Path, clinic: Clinic, run: Path) -> float:
    """Macro AUROC of the network in ``run`` on encrypted queries of a clinic's test patients."""
    found = instahide(folder / clinic.name, "predict", run, "scans", *reading(clinic))
    return float(found["macro_auroc"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, help="working folder (default: a temporary one)")
    parser.add_argument("--scheme", default="inside", help="how scans are mixed: inside or cross")
    parser.add_argument("--k", type=int, default=2, help="scans in a mix")
    parser.add_argument("--copies", type=int, default=5, help="encodings of each scan")
    parser.add_argument("--epochs", type=int, default=6, help="passes over all encodings")
    parser.add_argument("--budget", default="1m", help="time of the audit")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = (options.folder or Path(temporary)).absolute()
        write_clinics(folder)
        for clinic in CLINICS:
            scheme = ["--scheme", options.scheme, "--k", str(options.k)]
            encrypt(folder, clinic, options.copies, scheme)
        pools = [folder / clinic.name / "encoded" for clinic in CLINICS]
        instahide(folder, "train", *pools, "--epochs", options.epochs, "--out", "pooled")
        table = Table("clinic", "plain, its own scans", "pooled encodings", title="macro AUROC")
        results = {}
        for clinic in CLINICS:
            own = alone(folder, clinic, options.copies * options.epochs)
            pooled = ask(folder, clinic, folder / "pooled")
            results[clinic.name] = {"alone": round(own, 3), "pooled": round(pooled, 3)}
            table.add_row(clinic.name, f"{own:.1%}", f"{pooled:.1%}")
        first = CLINICS[0]
        audit = instahide(
            folder / first.name, "audit", "encoded", "--images", "scans", *reading(first),
            "--budget", options.budget, "--out", "audit",
        )  # fmt: skip
    console = Console()
    console.print(table)
    console.print(f"Audit of {first.name}:", *audit["verdict"])
    print(json.dumps({**results, "verdict": audit["verdict"]}))


if __name__ == "__main__":
    main()

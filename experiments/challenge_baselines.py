"""Run the baselines on the official practice sets, and write the table of docs/challenge.md.

    python -m experiments.challenge_baselines --work runs/challenges
    python -m experiments.challenge_baselines --table

Each set has a leaderboard in ``experiments/results/challenges``. Attacks that it contains already
are skipped, and an interrupted run continues from ``--work``.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

from experiments import markdown
from experiments.records import rows_of, with_measured
from instahide.audit.challenge.practice import OFFICIAL

ROOT = Path(__file__).resolve().parents[1]
BOARDS, PAGE = ROOT / "experiments" / "results" / "challenges", ROOT / "docs" / "challenge.md"
#: Attacks in the order of the table.
ATTACKS = (
    "blank", "reconstruction", "averaging", "averaging-absolute", "carlini", "fusion-denoising",
)  # fmt: skip
#: Images that the attacker has, by the name of the private ones; there are none like photographs.
SHADOW = {"digits": "digits", "mnist-5k": "mnist-5k"}
#: Time for the attacks on one set, more than they need.
BUDGET = "30m"


def instahide(*words: object) -> None:
    subprocess.run([sys.executable, "-m", "instahide", *map(str, words)], check=True)


def measure(work: Path) -> None:
    for name, official in OFFICIAL.items():
        given, truth = work / name, work / f"{name}-truth"
        if not given.exists():
            instahide("challenge", "official", name, "--out", given, "--truth", truth)
        shadow = SHADOW.get(official.practice.recipe.data)
        instahide(
            "challenge", "baselines", given, "--truth", truth, "--budget", BUDGET, "--leaderboard",
            BOARDS / f"{name}.csv", "--out", work / f"{name}-submissions",
            *(["--shadow", shadow] if shadow else []),
        )  # fmt: skip


def table(boards: Path = BOARDS) -> list[str]:
    """Return a table with a row for each set: Max_SSIM, and the images recovered."""
    shown = []
    for name, official in OFFICIAL.items():
        entries = {
            row["attack"]: row
            for row in rows_of(boards / f"{name}.csv")
            if row["challenge"] == official.sha256
        }
        shown.append([f"`{name}`", *(cell(entries.get(attack, {})) for attack in ATTACKS)])
    heads = ["Max_SSIM / images recovered of 100", *(f"`{name}`" for name in ATTACKS)]
    return markdown.table(heads, shown)


def cell(entry: dict[str, str]) -> str:
    """Return the figures of an entry, or a dash of an attack that did not run."""
    if not entry.get("max_ssim"):
        return "–"
    return f"{float(entry['max_ssim']):.2f} / {entry['images_recovered']}"


def rewritten(text: str) -> str:
    """Return the page with its measured region updated."""
    return with_measured(text, table())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, default=Path("runs/challenges"))
    parser.add_argument("--table", action="store_true", help="only write the page")
    options = parser.parse_args()
    if not options.table:
        measure(options.work)
    PAGE.write_text(rewritten(PAGE.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()

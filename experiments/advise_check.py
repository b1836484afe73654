"""Check what `instahide advise` recommends, by full trainings and full audits.

    python -m experiments.advise_check --advice runs/advice --budget 30m

Searches first, in the folder `--advice`, for each of the targets: the first search takes the
budget, and each further one some more, in which it checks the setting that it recommends. Then, for
each target and seed, it trains with the recommended ``settings.yaml`` as it is, with the default
number of epochs and the same number of plain ones, and audits the run with all attacks on its own
draw of keys. A recommendation holds if, on average over the seeds, the audit recovers at most
``max_recovered`` and the drop is at most ``max_drop``. The ceiling stands beside it.

Each step adds a row to the CSV file; rows that the file already contains are skipped. A training or
an audit that was killed continues. The last line printed is a JSON object.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean, stdev
from typing import NamedTuple

import yaml

from experiments.records import add, keys_in, rows_of, surroundings
from instahide.audit.schedule import parse_duration

OUT = Path("experiments/results/advise_check.csv")
#: Largest share recovered, and largest drop in points.
TARGETS = "0.6:8,0.3:20,0.8:4,0.05:40"
#: What a row is told apart by, and what it holds.
KEYS = ("data", "max_recovered", "max_drop", "epochs", "seed")
FIELDS = (
    *KEYS, "verdict", "settings", "front", "plain_accuracy", "accuracy", "drop", "recovered",
    "recovered_by", "ceiling", "advised_exposure", "advised_drop",
)  # fmt: skip


class Target(NamedTuple):
    """A pair of targets, as they were typed."""

    max_recovered: str
    max_drop: str


class Options(NamedTuple):
    """The options of the check."""

    data: str
    advice: Path
    runs: Path
    budget: str
    epochs: int
    audit_budget: str


def instahide(*words: object, codes: Sequence[int] = (0,)) -> int:
    """Run a command; other exit codes than ``codes`` end the check."""
    command = [sys.executable, "-m", "instahide", *map(str, words)]
    code = subprocess.run(command, check=False).returncode
    if code not in codes:
        raise SystemExit(f"{' '.join(command)} ended with exit code {code}.")
    return code


def advised(target: Target, number: int, options: Options) -> dict[str, object]:
    """The advice for a target; each target adds a tenth of the budget to the search."""
    seconds = parse_duration(options.budget) * (1 + number / 10)
    instahide(
        "advise", options.data, "--max-recovered", target.max_recovered, "--max-drop",
        target.max_drop, "--budget", f"{seconds:.0f}s", "--out", options.advice, codes=(0, 3),
    )  # fmt: skip
    found: dict[str, object] = json.loads((options.advice / "advise.json").read_text("utf-8"))
    return found


def trained(name: str, seed: int, options: Options, *words: object) -> float:
    """The accuracy of a full training, in percent; a finished or killed one is continued."""
    folder = options.runs / name
    if not (folder / "results.json").exists():
        instahide(
            "train", *words, "--epochs", options.epochs, "--seed", seed, "--queries", 0, "--ledger",
            options.runs / "ledger.sqlite", "--out", folder, "--resume",
        )  # fmt: skip
    results = json.loads((folder / "results.json").read_text("utf-8"))
    return 100 * float(results["metrics"]["accuracy"])


def plain(seed: int, options: Options) -> float:
    return trained(f"plain-{seed}", seed, options, options.data, "--scheme", "plain")


def audited(name: str, options: Options) -> dict[str, object]:
    """What a full audit recovers from the run: all attacks on new keys."""
    out = options.runs / f"{name}-audit"
    instahide(
        "audit", options.runs / name, "--images", options.data, "--budget", options.audit_budget,
        "--out", out,
    )  # fmt: skip
    report = json.loads((out / "report.json").read_text("utf-8"))
    shares = {
        result["attack"]: result["figures"].get("images_recognizable", 0)
        for result in report["results"]
        if result["state"] == "done" and not result["point"] and result["on"] == "rehearsal"
    }
    figures = {name: report["summary"][name] for name in ("recovered", "ceiling")}
    return figures | {"recovered_by": max(shares, key=lambda attack: shares[attack] or 0)}


def measure(
    target: Target, seed: int, advice: dict[str, object], file: Path, options: Options
) -> dict[str, object]:
    """One row, without its key: a full training with the settings, and an audit of it."""
    recommended = advice["recommended"]
    assert isinstance(recommended, dict)
    name = f"{target.max_recovered}-{target.max_drop}-{seed}"
    reference = plain(seed, options)
    accuracy = trained(name, seed, options, "--config", file)
    return {
        "settings": json.dumps(yaml.safe_load(file.read_text("utf-8"))),
        "plain_accuracy": round(reference, 2),
        "accuracy": round(accuracy, 2),
        "drop": round(reference - accuracy, 2),
        "advised_exposure": round(recommended["exposure_worst"], 4),
        "advised_drop": round(recommended["drop_worst"], 2),
        **audited(name, options),
    }


def check(target: Target, number: int, seeds: Sequence[int], out: Path, options: Options) -> None:
    """Add the missing rows of a target."""
    have = keys_in(out, KEYS)
    keys = {seed: (options.data, *target, str(options.epochs), str(seed)) for seed in seeds}
    if all(key in have for key in keys.values()):
        return
    file = options.runs / f"settings-{target.max_recovered}-{target.max_drop}.yaml"
    answer = file.with_suffix(".json")
    if not answer.exists():
        advice = advised(target, number, options)
        if advice["verdict"] == "recommended":
            shutil.copy(options.advice / "settings.yaml", file)
        answer.write_text(json.dumps(advice), "utf-8")
    advice = json.loads(answer.read_text("utf-8"))
    front = sum(setting["on_front"] for setting in advice["settings"])
    for seed, key in keys.items():
        if key in have:
            continue
        row = dict(zip(KEYS, key, strict=True)) | {"verdict": advice["verdict"], "front": front}
        if advice["verdict"] == "recommended":
            row |= measure(target, seed, advice, file, options)
        add(out, [*FIELDS, *surroundings()],
            {name: row.get(name, "") for name in FIELDS} | surroundings())  # fmt: skip


def summary(rows: Sequence[dict[str, str]]) -> dict[str, object]:
    """For each target, what was advised and what full trainings and audits found."""
    figures: dict[str, object] = {}
    for target in dict.fromkeys(Target(row["max_recovered"], row["max_drop"]) for row in rows):
        mine = [row for row in rows if (row["max_recovered"], row["max_drop"]) == target]
        name = f"recovered <= {target.max_recovered}, drop <= {target.max_drop}"
        if mine[0]["verdict"] != "recommended":
            figures[name] = mine[0]["verdict"]
            continue
        drops, shares = ([float(row[field]) for row in mine] for field in ("drop", "recovered"))
        figures[name] = {
            "seeds": len(mine),
            "drop": round(fmean(drops), 2),
            "drop_deviation": round(stdev(drops), 2) if len(drops) > 1 else None,
            "recovered": round(fmean(shares), 4),
            "recovered_worst": max(shares),
            "ceiling_worst": max(float(row["ceiling"] or 0) for row in mine),
            "holds": fmean(drops) <= float(target.max_drop)
            and fmean(shares) <= float(target.max_recovered),
        }
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", default="mnist-5k")
    parser.add_argument("--advice", type=Path, default=Path("runs/advice"))
    parser.add_argument("--runs", type=Path, default=Path("runs/advise-check"))
    parser.add_argument("--budget", default="30m", help="of the search")
    parser.add_argument("--targets", default=TARGETS, help="largest share : largest drop, ...")
    parser.add_argument("--seeds", default="100,101,102", help="of the full trainings")
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--audit-budget", default="5m")
    parser.add_argument("--out", type=Path, default=OUT)
    given = parser.parse_args()
    given.runs.mkdir(parents=True, exist_ok=True)
    options = Options(
        given.data, given.advice, given.runs, given.budget, given.epochs, given.audit_budget
    )
    seeds = [int(seed) for seed in given.seeds.split(",")]
    for number, text in enumerate(given.targets.split(",")):
        check(Target(*text.split(":")), number, seeds, given.out, options)
    print(json.dumps(summary(rows_of(given.out))))


if __name__ == "__main__":
    main()

"""Write the README's table of results from the files of measurements, so that no figure is typed.

    python -m experiments.tables

Reads ``accuracy.csv`` and ``pooled.csv`` in ``experiments/results``, and the last lines of the
benchmarks, which `make bench` keeps beside them.
"""

from __future__ import annotations

import csv
import json
from pathlib import Path
from statistics import mean

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "experiments" / "results"
START, END = "<!-- results -->", "<!-- end of results -->"
TITLES = {
    "plain": "plain training",
    "inside-4": "inside-dataset, k = 4",
    "cross-4": "cross-dataset, k = 4",
    "cross-6": "cross-dataset, k = 6",
    "cross-4-signed": "cross-dataset, k = 4, the network sees signs",
}


def accuracy_table(data: str, title: str) -> list[str]:
    """One row a scheme: mean accuracy over seeds at the largest number of epochs that plain has."""
    with (RESULTS / "accuracy.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["data"] == data]
    epochs = {int(row["epochs"]) for row in rows}
    lines = [
        f"| {title} | epochs | seeds | plain test images | 10 encrypted queries each | drop |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for number in sorted(epochs):
        mine = [row for row in rows if int(row["epochs"]) == number]
        plain = mean_of(mine, "plain", "plain_accuracy")
        for scheme, name in TITLES.items():
            value = mean_of(mine, scheme, "plain_accuracy")
            if value is None:
                continue
            asked = mean_of(mine, scheme, "encrypted_accuracy")
            seeds = sum(row["scheme"] == scheme for row in mine)
            drop = "" if plain is None or scheme == "plain" else f"{plain - value:.1f}"
            shown = "" if asked is None else f"{asked:.1f}"
            lines.append(f"| {name} | {number} | {seeds} | {value:.1f} | {shown} | {drop} |")
    return lines


def mean_of(rows: list[dict[str, str]], scheme: str, column: str) -> float | None:
    values = [float(row[column]) for row in rows if row["scheme"] == scheme and row[column]]
    return mean(values) if values else None


def pooled_table() -> list[str]:
    """One row a way to split Fashion-MNIST between three participants."""
    with (RESULTS / "pooled.csv").open() as file:
        rows = list(csv.DictReader(file))
    columns = ["pooled", "one_holder", "plain", "plain_third"]
    lines = [
        "| Fashion-MNIST in three parts, accuracy in % | copies | epochs "
        "| their encodings pooled | one holder's encodings | plain, all | plain, one third |",
        "| --- " * (3 + len(columns)) + "|",
    ]
    for row in rows:
        how = "by class" if row["by_class"] == "True" else "at random"
        accuracies = " | ".join(f"{float(row[column]):.1f}" for column in columns)
        lines.append(f"| {how} | {row['copies']} | {row['epochs']} | {accuracies} |")
    return lines


def speed_table() -> list[str]:
    figures = {path.stem: json.loads(path.read_text()) for path in RESULTS.glob("*.json")}
    encode, memory = figures["encode"], figures["memory"]
    rows = {
        "encoding 3 x 32 x 32 images, k = 4, keys included": (
            f"{encode['images_per_s']:,.0f} images/s"
        ),
        "against the authors' method, k = 4 / k = 6": (
            f"{encode['vs_authors_k4']:.0f} / {encode['vs_authors_k6']:.0f} times as fast"
        ),
        "the same with random crops and flips": (
            f"{encode['vs_authors_augmented']:.0f} times as fast"
        ),
        "against a plain conversion to float32": f"{encode['vs_floor_k4']:.2f} times its time",
        "share of the key stream": f"{encode['keys_share']:.1%}",
        "training ResNet-18 from `EncodedLoader`": (
            f"{figures['loader']['overhead']:.3f} times a plain loader's time"
        ),
        "publishing 50,000 images: speed over the slower of disk and encoder": (
            f"{figures['publish']['share_of_floor']:.2f}"
        ),
        "training from an encoded folder: speed over that from memory": (
            f"{figures['reading']['reading_vs_memory']:.2f}"
        ),
        "counting a million images in the ledger": (
            f"{figures['ledger']['overhead_percent']:.1f}% of encrypting them"
        ),
        "two Ray nodes of one core against one": (
            f"{figures['ray_nodes']['two_nodes_against_one']:.2f} times as fast"
        ),
        "memory above a mapped table of a million images": f"{memory['over_table_mib']:.0f} MiB",
        "`instahide --help`": f"{figures['startup']['help_seconds']:.2f} s",
    }
    return ["| speed, 2 cores | |", "| --- | --- |", *(f"| {k} | {v} |" for k, v in rows.items())]


def section() -> str:
    parts = [
        accuracy_table("fashion-mnist", "Fashion-MNIST, 60,000 images, accuracy in %"),
        accuracy_table("mnist-5k", "MNIST, 4,000 images, accuracy in %"),
        pooled_table(),
        speed_table(),
    ]
    return "\n\n".join("\n".join(lines) for lines in parts)


def rewritten(text: str) -> str:
    """``text`` with the section between the marks as it should be."""
    before, _, rest = text.partition(START)
    after = rest.partition(END)[2]
    return f"{before}{START}\n\n{section()}\n\n{END}{after}"


if __name__ == "__main__":
    readme = ROOT / "README.md"
    readme.write_text(rewritten(readme.read_text(encoding="utf-8")), encoding="utf-8")

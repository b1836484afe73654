"""Write the tables of docs/settings.md from the CSV files.

python -m experiments.settings_tables
"""

from __future__ import annotations

from pathlib import Path
from statistics import mean

from experiments import markdown
from experiments.reconstruction_tables import cell
from experiments.records import rows_of, with_measured
from experiments.tables import RESULTS, ROOT, accuracy_table

PAGE = ROOT / "docs" / "settings.md"
SCHEMES = {
    "mixup-inside-4": "Mixup, k = 4",
    "inside-4": "InstaHide, inside-dataset, k = 4",
    "cross-4": "InstaHide, cross-dataset, k = 4",
}

Rows = list[dict[str, str]]


def averaging_table(rows: Rows) -> list[str]:
    """Return a table of the share of images that averaging identifies, by scheme and encodings."""
    mine = [
        row
        for row in rows
        if row["attack"] == "averaging-absolute" and row["measure"] == "identified_mean"
    ]
    copies = sorted({int(row["encodings_per_image"]) for row in mine})
    heads = [f"{number} encodings of each image" for number in copies]
    shown = []
    for scheme, title in SCHEMES.items():
        shares = [
            mean(
                100 * float(row["value"])
                for row in mine
                if (row["scheme"], row["encodings_per_image"]) == (scheme, str(number))
            )
            for number in copies
        ]
        shown.append([title, *(f"{share:.0f}" for share in shares)])
    return markdown.table(["identified by averaging absolute values, in %", *heads], shown)


def reconstruction_table(rows: Rows) -> list[str]:
    """Return a table with the best result of reconstruction in any run of each setting."""
    heads = [
        "reconstruction", "k", "private images in a mix", "labels", "images",
        "encodings per image", "SSIM above 0.5", "ceiling", "mean SSIM", "ceiling",
    ]  # fmt: skip
    names = ("images", "kind", "k", "private_k", "labels", "count", "copies")
    settings = sorted({tuple(row[name] for name in names) for row in rows}, key=_in_order)
    figures = ("{above_half:.0f}", "{ceiling_above_half:.0f}", "{ssim:.2f}", "{ceiling_ssim:.2f}")
    shown = []
    for setting in settings:
        best = max(
            (row for row in rows if tuple(row[name] for name in names) == setting),
            key=lambda row: float(row["ssim"] or 0),
        )
        if best["ssim"]:
            data, kind, *rest = setting
            shown.append([f"{data}, {kind}", *rest, *(cell(text, best) for text in figures)])
    return markdown.table(heads, shown, texts=(0, 3))


def photographs(rows: Rows) -> Rows:
    """Return the runs of `experiments.reconstruction_kinds` on photographs, as settings."""
    fixed = {"kind": "cross", "k": "6", "private_k": "2", "images": "photographs"}
    modes = {"none": "hidden"}
    return [
        row | fixed | {"labels": modes.get(row["labels"], row["labels"]), "count": row["images"]}
        for row in rows
        if row["kind"] == "photographs"
    ]


def _in_order(setting: tuple[str, ...]) -> tuple[str, str, int, int, str, int, int]:
    data, kind, k, private_k, labels, count, copies = setting
    return data, kind, int(k), int(private_k), labels, int(count), int(copies)


def rewritten(text: str, results: Path = RESULTS) -> str:
    """Return ``text`` with its measured region updated."""
    tables = [
        accuracy_table("fashion-mnist", "Fashion-MNIST, 60,000 images, accuracy in %"),
        averaging_table(rows_of(results / "attacks.csv")),
        reconstruction_table(
            rows_of(results / "exposure.csv")
            + photographs(rows_of(results / "reconstruction_kinds.csv"))
        ),
    ]
    return with_measured(text, markdown.blocks(tables))


if __name__ == "__main__":
    PAGE.write_text(rewritten(PAGE.read_text(encoding="utf-8")), encoding="utf-8")

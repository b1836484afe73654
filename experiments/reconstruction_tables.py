"""Write the tables of the reconstruction and of the provable algorithm from the CSV files.

python -m experiments.reconstruction_tables
"""

from __future__ import annotations

from itertools import product
from pathlib import Path
from statistics import fmean

from experiments import kinds_tables, markdown
from experiments.exposure import difference, in_order
from experiments.kinds_tables import spread
from experiments.records import rows_of, with_measured

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "experiments" / "results"
PAGES = ROOT / "docs" / "attacks"
PAGE, FIGURES_PAGE = PAGES / "reconstruction.md", PAGES / "reconstruction-figures.md"
PROVABLE = PAGES / "provable.md"
#: For each run: the attack in words.
RECOVERIES = {
    "ours": "ours",
    "carlini": "after Carlini et al., our version",
    "carlini-uncorrected": "same, colors not corrected",
    "published": "ours, recovery after Carlini et al.",
    "published-uncorrected": "same, colors not corrected",
    "fusion": "ours, recovery by fusion and denoising",
}
LABELS = {"none": "none", "soft": "soft"}
#: For each row: the title, and the format of the figures of a run.
FIGURES = [
    ("AUC over all pairs of encodings: trained features", "{auc:.3f}"),
    ("same, untrained features", "{auc_untrained:.3f}"),
    ("precision of the 100,000 most similar pairs", "{precision_top:.3f}"),
    ("private coefficients assigned to the right image", "{mass:.3f}"),
    ("mean SSIM of the 100 images", "{ssim:.3f}"),
    ("same, with a uniform window of 7 (scikit-image's default)", "{ssim_7x7:.3f}"),
    ("images with an SSIM above 0.5", "{above_half:.0f}"),
    ("ceiling: mean SSIM", "{ceiling_ssim:.3f}"),
    ("ceiling: images with an SSIM above 0.5", "{ceiling_above_half:.0f}"),
    ("images called recovered / of these, recovered", "{claimed:.0f} / {right:.0f}"),
    ("challenge: Max_SSIM", "{challenge_max_ssim:.2f}"),
    (
        "95% interval of Max_SSIM",
        "{challenge_max_ssim_low:.2f} to {challenge_max_ssim_high:.2f}",
    ),
    ("challenge: Mean_SSIM", "{challenge_mean_ssim:.2f}"),
    ("challenge: Min_L2", "{challenge_min_l2:.3f}"),
    ("challenge: Mean_L2", "{challenge_mean_l2:.3f}"),
    ("CPU seconds for the attack, features included", "{cpu_seconds:.0f}"),
    ("CPU seconds for features and all pairs", "{features_cpu_seconds:.0f}"),
]

#: In place of a figure that was not measured.
UNKNOWN = "–"

Row = dict[str, str]


def numbers(row: Row) -> dict[str, float]:
    """Return the figures of a run, and how many of the images it calls recovered are."""
    found = {}
    for name, text in row.items():
        try:
            found[name] = float(text)
        except ValueError:
            continue
    if {"claimed", "claimed_rightly"} <= found.keys():
        found["right"] = found["claimed"] * found["claimed_rightly"]
    return found


def cell(text: str, row: Row) -> str:
    """Return ``text`` with the figures of ``row`` in it, or `UNKNOWN` if one was not measured."""
    try:
        return text.format(**{**row, **numbers(row)})
    except (KeyError, ValueError):
        return UNKNOWN


def victims(rows: list[Row]) -> list[Row]:
    """Return the runs on photographs on which nothing was tuned."""
    return [row for row in rows if row["victim"] != "0" and float(row["train"]) == 0]


def photographs(rows: list[Row]) -> list[str]:
    """Return a table with a column for each run of our attack; figures of none are left out."""
    runs = [row for row in victims(rows) if row["recovery"] == "ours"]
    runs.sort(key=lambda row: (row["labels"], row["victim"]))
    shown = ([title, *(cell(text, row) for row in runs)] for title, text in FIGURES)
    return markdown.table(
        ["figure", *map(encodings, runs)],
        (cells for cells in shown if set(cells[1:]) != {UNKNOWN}),
    )


def encodings(row: Row) -> str:
    """Return which set of photographs a run attacks, and the labels that it knows."""
    return f"set {row['victim']}, labels: {LABELS[row['labels']]}"


def recoveries(rows: list[Row]) -> list[str]:
    """Return a table with a row for each attack: means over the sets of photographs."""
    heads = [
        "attack", "labels", "above 0.5, of 100", "ceiling", "mean SSIM", "Max_SSIM",
        "Mean_SSIM", "coefficients assigned correctly", "CPU seconds",
    ]  # fmt: skip
    columns = {
        "ceiling_above_half": 0, "ssim": 2, "challenge_max_ssim": 2, "challenge_mean_ssim": 2,
        "mass": 2, "cpu_seconds": 0,
    }  # fmt: skip
    shown = []
    for (recovery, title), labels in product(RECOVERIES.items(), LABELS):
        mine = [r for r in victims(rows) if (r["recovery"], r["labels"]) == (recovery, labels)]
        if mine:
            above = spread([float(row["above_half"]) for row in mine])
            means = (mean_of(mine, name, digits) for name, digits in columns.items())
            shown.append((title, LABELS[labels], above, *means))
    return markdown.table(heads, shown, texts=(0, 1))


def mean_of(rows: list[Row], name: str, digits: int) -> str:
    """Return the mean of a column, or `UNKNOWN` if it was not measured."""
    values = [float(row[name]) for row in rows if row.get(name)]
    return f"{fmean(values):.{digits}f}" if values else UNKNOWN


def proven(rows: list[Row]) -> list[str]:
    """Return a table with one row for each setting of the provable algorithm."""
    heads = [
        "Gaussian images", "encodings", "pixels", "public images, per encoding", "draws",
        "all recovered", "refused", "seconds",
    ]  # fmt: skip
    texts = (
        "{images}", "{encodings}", "{pixels}", "{public}, {public_k}", "{draws}", "{recovered}",
        "{refused}", "{seconds}",
    )  # fmt: skip
    return markdown.table(heads, ([text.format(**row) for text in texts] for row in rows), texts=())


def pictured(rows: list[Row]) -> list[str]:
    """Return a sentence on the run in the picture."""
    text = (
        "The picture below shows every third of {images:.0f} medical images, recovered from "
        "{copies:.0f} encodings of each without labels, from the best to the worst. "
        "{recovered:.0f} of them were recovered."
    )
    return [text.format(**numbers(row)) for row in rows]


def exposed(rows: list[Row]) -> list[str]:
    """Return a table with one row for each setting of `experiments.exposure`, in its order."""
    heads = [
        "setting", "AUC", "coefficients assigned correctly", "mean SSIM", "ceiling", "above 0.5",
        "ceiling", "called recovered / of these, recovered", "CPU seconds",
    ]  # fmt: skip
    texts = (
        "{auc:.3f}", "{mass:.3f}", "{ssim:.3f}", "{ceiling_ssim:.3f}",
        "{above_half:.0f} of {count:.0f}", "{ceiling_above_half:.0f} of {count:.0f}",
        "{claimed:.0f} / {right:.0f}", "{cpu_seconds:,.0f}",
    )  # fmt: skip
    shown = ([difference(row), *(cell(text, row) for text in texts)] for row in in_order(rows))
    return markdown.table(heads, shown)


def sections(page: Path) -> dict[str, list[str]]:
    """Return what was measured for a page: its parts by title."""
    if page == PROVABLE:
        return {"Gaussian images": proven(rows_of(RESULTS / "provable.csv"))}
    runs = rows_of(RESULTS / "reconstruction.csv")
    kinds = rows_of(RESULTS / "reconstruction_kinds.csv")
    confident = rows_of(RESULTS / "reconstruction_confidence.csv")
    if page == FIGURES_PAGE:
        return {
            "Kinds of images": kinds_tables.details(kinds),
            "What the attack says of its results": kinds_tables.confidence(confident),
            "Sets of photographs": photographs(runs),
            "Other settings": exposed(rows_of(RESULTS / "exposure.csv")),
        }
    return {
        "Kinds of images and numbers of encodings": kinds_tables.recovered(kinds),
        "Other attacks": recoveries(runs),
        "What the attack says of its results": kinds_tables.confidence_by_copies(confident),
        "Many images": kinds_tables.many(kinds),
        "A picture": pictured(rows_of(RESULTS / "reconstruction_picture.csv")),
    }


def rewritten(page: Path) -> str:
    """Return the text of ``page`` with its measured region updated."""
    parts = ([f"### {title}", "", *part] for title, part in sections(page).items() if part)
    return with_measured(page.read_text(encoding="utf-8"), markdown.blocks(parts))


if __name__ == "__main__":
    for page in (PAGE, FIGURES_PAGE, PROVABLE):
        page.write_text(rewritten(page), encoding="utf-8")

"""Write the tables of docs/attacks/reconstruction.md from the CSV files.

python -m experiments.reconstruction_tables
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from experiments.exposure import difference, in_order
from experiments.records import rows_of, with_measured

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "experiments" / "results"
PAGE = ROOT / "docs" / "attacks" / "reconstruction.md"
#: For each run: whose assignment and whose recovery it uses.
RECOVERIES = {
    "ours": "ours | ours",
    "published": "ours | Carlini et al.",
    "carlini": "Carlini et al. | Carlini et al.",
    "fusion": "ours | fusion and denoising",
}
LABELS = {"none": "no labels", "soft": "soft labels"}
#: For each row: the title, and the format of the figures of a run.
FIGURES = [
    ("AUC over all pairs of encodings: trained features", "{auc:.3f}"),
    ("same, untrained features", "{auc_untrained:.3f}"),
    ("precision of the 100,000 most similar pairs", "{precision_top:.3f}"),
    ("private coefficients assigned to the right image", "{mass:.3f}"),
    ("mean SSIM of the 100 images", "{ssim:.3f}"),
    ("same, with a uniform window of 7 (scikit-image's default)", "{ssim_7x7:.3f}"),
    ("images with an SSIM above 0.5", "{above_half:.0f}"),
    ("images called recovered / of these, recovered", "{claimed:.0f} / {right:.0f}"),
    ("challenge: Max_SSIM / Mean_SSIM", "{challenge_max_ssim:.2f} / {challenge_mean_ssim:.2f}"),
    (
        "95% interval of Mean_SSIM",
        "{challenge_mean_ssim_low:.2f} to {challenge_mean_ssim_high:.2f}",
    ),
    ("challenge: Min_L2 / Mean_L2", "{challenge_min_l2:.3f} / {challenge_mean_l2:.3f}"),
    ("CPU seconds for the attack, features included", "{cpu_seconds:.0f}"),
    ("CPU seconds for features and all pairs", "{features_cpu_seconds:.0f}"),
]

Row = dict[str, str]


def numbers(row: Row) -> dict[str, float]:
    """Return the figures of a run, and how many images that it calls recovered are recovered."""
    found = {}
    for name, text in row.items():
        try:
            found[name] = float(text)
        except ValueError:
            continue
    if {"claimed", "claimed_rightly"} <= found.keys():
        found["right"] = found["claimed"] * found["claimed_rightly"]
    return found


def photographs(rows: list[Row]) -> list[str]:
    """Return a table with a column for each run of our recovery, without the tuning victim 0."""
    runs = [row for row in rows if row["recovery"] == "ours" and float(row["train"]) == 0]
    runs = [row for row in runs if row["victim"] != "0"]
    runs.sort(key=lambda row: (row["labels"], row["victim"]))
    titles = [f"victim {row['victim']}, {LABELS[row['labels']]}" for row in runs]
    lines = [f"| figure | {' | '.join(titles)} |", "| --- |" + " ---: |" * len(runs)]
    for title, text in FIGURES:
        cells = [text.format(**numbers(row)) for row in runs]
        lines.append(f"| {title} | {' | '.join(cells)} |")
    return lines


def recoveries(rows: list[Row]) -> list[str]:
    """Return a table with a row for each recovery, where several ran on the same encodings."""
    lines = [
        "| encodings | assignment | recovery | coefficients assigned correctly | mean SSIM "
        "| above 0.5 | challenge: Mean_SSIM | CPU seconds |",
        "| --- | --- | --- |" + " ---: |" * 5,
    ]
    known = Counter((row["victim"], row["labels"], row["train"]) for row in rows)
    for row in sorted(rows, key=lambda row: (row["victim"], row["labels"], row["recovery"])):
        if known[row["victim"], row["labels"], row["train"]] > 1:
            text = (
                "| victim {victim}, {shown} | {recovery} | {mass:.3f} | {ssim:.3f} "
                "| {above_half:.0f} | {challenge_mean_ssim:.2f} | {cpu_seconds:.0f} |"
            )
            names = {"victim": row["victim"], "shown": LABELS[row["labels"]]}
            names["recovery"] = RECOVERIES[row["recovery"]]
            lines.append(text.format(**{**row, **numbers(row), **names}))
    return lines


def proven(rows: list[Row]) -> list[str]:
    """Return a table with one row for each setting of the provable algorithm."""
    lines = [
        "| Gaussian images | encodings | pixels | public images, per encoding | draws "
        "| all recovered | refused | seconds |",
        "|" + " ---: |" * 8,
    ]
    text = (
        "| {images} | {encodings} | {pixels} | {public}, {public_k} | {draws} | {recovered} "
        "| {refused} | {seconds} |"
    )
    return lines + [text.format(**row) for row in rows]


def pictured(rows: list[Row]) -> list[str]:
    """Return a sentence on the run in the picture."""
    text = (
        "The picture below shows a run with a mean SSIM of {ssim:.2f}, {above_half:.0f} images "
        "above 0.5 and {mass:.0%} of the coefficients assigned correctly."
    )
    return [text.format(**numbers(row)) for row in rows]


def exposed(rows: list[Row]) -> list[str]:
    """Return a table with one row for each setting of `experiments.exposure`, in its order."""
    lines = [
        "| setting | AUC | coefficients assigned correctly | mean SSIM | above 0.5 "
        "| called recovered / of these, recovered | CPU seconds |",
        "| --- |" + " ---: |" * 6,
    ]
    for row in in_order(rows):
        cells = "no attack | | | | | |"
        if row["applies"] == "1":
            cells = (
                "{auc:.3f} | {mass:.3f} | {ssim:.3f} | {above_half:.0f} of {count:.0f} "
                "| {claimed:.0f} / {right:.0f} | {cpu_seconds:,.0f} |"
            ).format(**numbers(row))
        lines.append(f"| {difference(row)} | {cells}")
    return lines


def rewritten(text: str) -> str:
    """Return ``text`` with its measured region updated."""
    runs = rows_of(RESULTS / "reconstruction.csv")
    parts = (
        photographs(runs),
        recoveries(runs),
        exposed(rows_of(RESULTS / "exposure.csv")),
        proven(rows_of(RESULTS / "provable.csv")),
        pictured(rows_of(RESULTS / "reconstruction_picture.csv")),
    )
    return with_measured(text, "\n\n".join("\n".join(part) for part in parts if part).split("\n"))


if __name__ == "__main__":
    PAGE.write_text(rewritten(PAGE.read_text(encoding="utf-8")), encoding="utf-8")

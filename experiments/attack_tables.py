"""Write docs/attacks/results.md from what was measured.

python -m experiments.attack_tables
"""

from __future__ import annotations

from pathlib import Path
from statistics import mean

from experiments.records import rows_of

ROOT = Path(__file__).resolve().parents[1]
MEASURED = ROOT / "experiments" / "results" / "attacks.csv"
PAGE = ROOT / "docs" / "attacks" / "results.md"

Rows = list[dict[str, str]]

HEAD = """# Results

Written by `python -m experiments.attack_tables` from `experiments/results/attacks.csv`, which
`python -m experiments.attacks` measures: patches of 3 x 32 x 32, cut from photographs, none of
which is in two of private set, public pool and what the attacker has of its own. Means over seeds.

A low figure says that this attack, as it stands here, recovered little. It does not say that
nothing can be recovered: see [how reconstructions are
scored](index.md#how-a-reconstruction-is-scored).

[Gradient inversion](gradient-inversion.md), [demixing](demixing.md), [membership](membership.md)
and [reconstruction](reconstruction.md) have their figures on pages of their own.
"""

#: Why a table lacks a scheme.
MISSING = {
    "Public images": "Plain images and inside encodings have no public image in them.",
    "Weak randomness": (
        "*Weak* is the authors' routine, cross-dataset with k = 4, on seeded general-purpose "
        "generators; cross-4 has its keys from the key stream. A plain image has no key, and Mixup "
        "no mask for `mersenne-twister` to read. Inside encodings have their keys from the same "
        "stream, and were not measured."
    ),
}

#: Title, attacks, and the measures that a table shows, as they are named in the CSV and to people.
TABLES: tuple[tuple[str, tuple[str, ...], dict[str, str]], ...] = (
    (
        "Public images",
        ("public-search", "public-search-absolute"),
        {
            "public_found": "found, coefficient 0.15 or more",
            "public_found_of_all": "found of all",
            "seconds": "seconds",
        },
    ),
    (
        "Averaging",
        ("averaging", "averaging-absolute"),
        {
            "ssim_mean": "SSIM, mean",
            "ssim_of_nothing": "SSIM of nothing",
            "ssim_best": "SSIM, best",
            "psnr_mean": "PSNR, mean",
            "identified_mean": "identified",
            "identified_by_chance": "by chance",
        },
    ),
    (
        "Labels",
        ("labels",),
        {
            "class_sets_right": "classes right",
            "mixes_with_all_classes_apart": "all coefficients apart",
            "coefficient_error": "error of a coefficient",
        },
    ),
    (
        "Weak randomness",
        ("seed-search", "mersenne-twister"),
        {
            "found": "found",
            "seeds_per_second": "seeds a second",
            "hours_for_all": "hours for 2^32",
            "seconds": "seconds",
        },
    ),
    (
        "Statistical tests",
        ("statistics",),
        {
            f"{test}_{values}{figure}": f"{test}, {values}: {title}"
            for test in ("values", "distances", "classifier")
            for values in ("signed", "absolute")
            for figure, title in (("_p", "p"), ("_effect", "effect"))
        },
    ),
)


def page(rows: Rows) -> str:
    """The page as it should be."""
    parts = [HEAD]
    for title, attacks, measures in TABLES:
        lines = table([row for row in rows if row["attack"] in attacks], measures)
        lines = lines or ["Not measured yet."]
        if title in MISSING:
            lines += ["", MISSING[title]]
        parts.append(f"## {title}\n\n" + "\n".join(lines) + "\n")
    return "\n".join(parts)


def table(rows: Rows, measures: dict[str, str]) -> list[str]:
    """One line for each attack, scheme and number of encodings."""
    if not rows:
        return []
    shown = {name: title for name, title in measures.items() if any_of(rows, name)}
    lines = [
        "| " + " | ".join(["attack", "scheme", "encodings an image", *shown.values()]) + " |",
        "| --- | --- |" + " ---: |" * (1 + len(shown)),
    ]
    keys = dict.fromkeys((row["attack"], row["scheme"], row["encodings_per_image"]) for row in rows)
    for key in keys:
        mine = [
            row for row in rows if (row["attack"], row["scheme"], row["encodings_per_image"]) == key
        ]
        cells = [f"`{key[0]}`", key[1], key[2], *(cell(mine, name) for name in shown)]
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def any_of(rows: Rows, name: str) -> bool:
    return any(row["measure"] == name for row in rows)


def cell(rows: Rows, name: str) -> str:
    """The mean over seeds, or nothing where it was not measured."""
    values = [float(row["value"]) for row in rows if row["measure"] == name]
    if not values:
        return ""
    value = mean(values)
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


if __name__ == "__main__":
    PAGE.write_text(page(rows_of(MEASURED)), encoding="utf-8")

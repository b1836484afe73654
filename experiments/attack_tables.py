"""Write docs/attacks/results.md from experiments/results/attacks.csv.

python -m experiments.attack_tables
"""

from __future__ import annotations

from pathlib import Path
from statistics import mean

from experiments import markdown
from experiments.records import rows_of

ROOT = Path(__file__).resolve().parents[1]
MEASURED = ROOT / "experiments" / "results" / "attacks.csv"
PAGE = ROOT / "docs" / "attacks" / "results.md"

Rows = list[dict[str, str]]

HEAD = """# Results

This page shows what the attacks recovered from patches of photographs of 3 x 32 x 32. Under the
mask of InstaHide, averaging and public-image search fail on signed values and succeed on absolute
values. The figures are means over seeds. The private images, the public pool and the attacker's own
images come from different photographs.

A low figure means that this attack recovered little in this experiment. It does not mean that
nothing can be recovered: see [how reconstructions are
scored](index.md#how-a-reconstruction-is-scored), which also explains the figures.

The results of [gradient inversion](gradient-inversion.md), [demixing](demixing.md),
[membership inference](membership.md) and [reconstruction](reconstruction.md) are on their own
pages.

`python -m experiments.attacks` measures these figures and saves them in
`experiments/results/attacks.csv`. `python -m experiments.attack_tables` writes this page from that
file.
"""

#: Why a table lacks a scheme.
MISSING = {
    "Public images": "Plain images and inside-dataset encodings contain no public images.",
    "Weak randomness": (
        "*Weak* is the authors' routine, cross-dataset with k = 4, on seeded general-purpose "
        "generators; the keys of cross-4 come from the key stream. Plain images have no key, and "
        "Mixup has no mask for `mersenne-twister` to read. Inside-dataset encodings take their "
        "keys from the same key stream and were not measured."
    ),
}

#: For each table: its title, its attacks, and its measures by their name in the CSV, with headings.
TABLES: tuple[tuple[str, tuple[str, ...], dict[str, str]], ...] = (
    (
        "Public images",
        ("public-search", "public-search-absolute"),
        {
            "public_found": "found, of those with a coefficient of at least 0.15",
            "public_found_of_all": "found of all",
            "seconds": "seconds",
        },
    ),
    (
        "Averaging",
        ("averaging", "averaging-absolute"),
        {
            "ssim_mean": "SSIM, mean",
            "ssim_of_nothing": "SSIM of the mean color",
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
            "class_sets_right": "class sets correct",
            "mixes_with_all_classes_apart": "mixes with distinct classes",
            "coefficient_error": "coefficient error",
        },
    ),
    (
        "Weak randomness",
        ("seed-search", "mersenne-twister"),
        {
            "found": "found",
            "seeds_per_second": "seeds per second",
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
    """Return the text of the page."""
    parts = []
    for title, attacks, measures in TABLES:
        lines = table([row for row in rows if row["attack"] in attacks], measures)
        note = [MISSING[title]] if title in MISSING else []
        parts += [[f"## {title}"], lines or ["Not measured yet."], note]
    return "\n".join([HEAD, *markdown.blocks(parts), ""])


def table(rows: Rows, measures: dict[str, str]) -> list[str]:
    """Return a table with one row for each attack, scheme and number of encodings."""
    found: dict[tuple[str, str, str], Rows] = {}
    for row in rows:
        key = row["attack"], row["scheme"], row["encodings_per_image"]
        found.setdefault(key, []).append(row)
    shown = {name: title for name, title in measures.items() if any_of(rows, name)}
    return markdown.table(
        ["attack", "scheme", "encodings per image", *shown.values()],
        (
            [f"`{attack}`", scheme, copies, *(cell(mine, name) for name in shown)]
            for (attack, scheme, copies), mine in found.items()
        ),
        texts=(0, 1),
    )


def any_of(rows: Rows, name: str) -> bool:
    return any(row["measure"] == name for row in rows)


def cell(rows: Rows, name: str) -> str:
    """Return the mean over seeds, or an empty cell if the measure is missing."""
    values = [float(row["value"]) for row in rows if row["measure"] == name]
    if not values:
        return ""
    value = mean(values)
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


if __name__ == "__main__":
    PAGE.write_text(page(rows_of(MEASURED)), encoding="utf-8")

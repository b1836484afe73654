"""Compare the cost of finding the k images of a mix exactly with N^(k/2), at toy sizes.

    python -m experiments.theory.ksum

The mixes are masked, of Gaussian images with known coefficients. A meet-in-the-middle search must
find the one right mix at every size. Each finished size adds a row to the CSV file; sizes that the
file already contains are skipped. The last line printed is a JSON object: for each k the exponent
of N for the steps and for the seconds.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from experiments.chart_style import INK, finish
from experiments.records import add, rows_of, surroundings
from experiments.theory.meet_in_the_middle import meet_in_the_middle

OUT = Path("experiments/results/ksum.csv")
#: N, for each k: up to where all half sums take seconds.
SIZES = {
    2: (1_000, 3_000, 10_000, 30_000, 100_000, 300_000),
    4: (50, 100, 200, 400, 800, 1_600),
    6: (10, 20, 40, 80, 120),
}
VALUES, TOLERANCE = 16, 1e-10
#: For each k its colour, its mark, and where its formula begins or ends, in points from the mark.
LOOKS = {2: ("#0072b2", "s", 9), 4: ("#d55e00", "o", 9), 6: ("#009e73", "^", -9)}
FORMULAS = {2: "2 N", 4: "2 N²", 6: "2 N³"}


def measure(k: int, images: int) -> dict[str, object]:
    """Return the steps and the seconds for one mix."""
    generator = np.random.default_rng(0)
    pool = generator.standard_normal((images, VALUES))
    coefficients = generator.dirichlet(np.ones(k))
    rows = generator.permutation(images)[:k]
    encoding = generator.choice([-1, 1], VALUES) * (coefficients @ pool[rows])
    began = time.perf_counter()
    found = meet_in_the_middle(encoding, pool, coefficients, tolerance=TOLERANCE)
    seconds = time.perf_counter() - began
    if found.mixes.tolist() != [rows.tolist()]:
        raise RuntimeError(f"k = {k}, N = {images}: the search did not find the one right mix.")
    return {
        "k": k, "images": images, "half_sums": found.half_sums, "compared": found.compared,
        "seconds": round(seconds, 5),
    }  # fmt: skip


def steps(row: dict[str, str]) -> int:
    return int(row["half_sums"]) + int(row["compared"])


def exponents(rows: list[dict[str, str]]) -> dict[str, dict[str, float]]:
    """Return the slope of the steps, and of the seconds, over N for each k, on log scales."""
    found = {}
    for k in SIZES:
        mine = [row for row in rows if row["k"] == str(k)]
        if len(mine) < 2:
            continue
        sizes = np.log([int(row["images"]) for row in mine])
        counts, seconds = [steps(row) for row in mine], [float(row["seconds"]) for row in mine]
        found[f"k={k}"] = {
            "steps": round(float(np.polyfit(sizes, np.log(counts), 1)[0]), 2),
            "seconds": round(float(np.polyfit(sizes, np.log(seconds), 1)[0]), 2),
        }
    return found


def growth(figure: Figure, rows: list[dict[str, str]]) -> None:
    """Draw the counted steps against N, with the formulas as lines."""
    axes = figure.subplots()
    for k, (colour, mark, beside) in LOOKS.items():
        mine = sorted((row for row in rows if row["k"] == str(k)), key=lambda r: int(r["images"]))
        if not mine:
            continue
        sizes = np.array([int(row["images"]) for row in mine])
        axes.loglog(sizes, [steps(row) for row in mine], mark, color=colour, markersize=7)
        axes.loglog(sizes, 2.0 * sizes ** (k / 2), "--", color=colour, linewidth=1.5)
        axes.annotate(
            f"k = {k}: {FORMULAS[k]}", (sizes[-1], steps(mine[-1])), (beside, 0),
            textcoords="offset points", ha="left" if beside > 0 else "right", va="center",
            color=INK, fontsize=12,
        )  # fmt: skip
    axes.set(xlabel="number of images, N", ylabel="counted steps")
    axes.margins(x=0.3, y=0.1)
    finish(axes)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=OUT)
    parser.add_argument("--most", type=int, default=1 << 30, help="no larger N than this")
    options = parser.parse_args()
    have = {(row["k"], row["images"]) for row in rows_of(options.out)}
    for k, sizes in SIZES.items():
        for images in sizes:
            if (str(k), str(images)) not in have and images <= options.most:
                row = measure(k, images) | surroundings()
                add(options.out, list(row), row)
                print(row, flush=True)
    print(json.dumps(exponents(rows_of(options.out))))


if __name__ == "__main__":
    main()

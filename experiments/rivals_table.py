"""The table of all rivals on the same images, which `experiments.evidence_tables` writes.

The figures are from the files of `experiments.encoders`, `experiments.rivals` and
`experiments.training_time`. A cell that nobody measured says so.
"""

from __future__ import annotations

from collections.abc import Mapping
from statistics import mean, stdev

from experiments import markdown
from experiments.encoders_table import SETS
from experiments.encoders_table import TITLES as ENCODERS
from experiments.records import rows_of
from experiments.tables import RESULTS, with_spread
from experiments.training_time import relative

#: Rows of the table, of `experiments.rivals` or `experiments.encoders`.
TITLES = {
    "plain": "plain training, images shared",
    "federated-plain": "federated learning, plain images",
    "dp-sgd": "DP-SGD, plain images",
    **{name: title for name, title in ENCODERS.items() if name != "plain"},
}
#: What others see of a rival, where it is not encodings.
SEEN = {"plain": "the images", "federated-plain": "gradients", "dp-sgd": "noisy gradients"}
UNMEASURED = "not measured"

Row = dict[str, str]


def table() -> list[str]:
    """Return a table for each set of images with runs of more than one rival."""
    names = ("encoders", "rivals", "training_time")
    encoders, others, times = (rows_of(RESULTS / f"{name}.csv") for name in names)
    rows = [row | {"rival": row["encoder"], "attacked": "100"} for row in encoders] + others
    return markdown.blocks(
        of_images([row for row in rows if row["data"] == data], title, relative(times, data))
        for data, title in SETS.items()
    )


def of_images(rows: list[Row], title: str, times: Mapping[str, float]) -> list[str]:
    """Return the table of one set of images, a row for each measured rival; nothing for one.

    Args:
        rows: the runs on these images.
        title: heading of the first column.
        times: training time of each rival, relative to plain training.
    """
    found = {name: [row for row in rows if row["rival"] == name] for name in TITLES}
    heads = [
        title, "runs", "accuracy in %", "others see", "recovered",
        "encodings linked, AUC", "ε at δ = 10⁻⁵", "training time, relative to plain",
    ]  # fmt: skip
    shown = [
        [TITLES[name], *_cells(name, runs), f"{times[name]:.1f}" if name in times else UNMEASURED]
        for name, runs in found.items()
        if runs
    ]
    return markdown.table(heads, shown, texts=(0, 3)) if len(shown) > 1 else []


def _cells(name: str, runs: list[Row]) -> list[str]:
    recovered = [float(row["recovered"]) for row in runs]
    spread = f" ± {stdev(recovered):.1f}" if len(recovered) > 1 else ""
    return [
        str(len(runs)),
        with_spread(runs, "accuracy"),
        SEEN.get(name, "encodings"),
        f"{mean(recovered):g}{spread} of {runs[0]['attacked']}",
        f"{_average(runs, 'linkage_auc'):.2f}" if "linkage_auc" in runs[0] else "no encodings",
        f"{_average(runs, 'epsilon'):,.0f}" if runs[0]["epsilon"] else "none",
    ]


def _average(runs: list[Row], column: str) -> float:
    return mean(float(row[column]) for row in runs)

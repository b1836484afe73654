"""Write the results in the README and on the first page of the site from the measured files.

    python -m experiments.tables

Reads the CSV files of the experiments and the JSON files of `make bench` in
``experiments/results``.
"""

from __future__ import annotations

import json
from pathlib import Path
from statistics import mean, stdev

from experiments import color_patches, markdown
from experiments.kinds_tables import extremes, extremes_of_demixing, recovered, seconds
from experiments.records import rows_of, with_measured

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "experiments" / "results"
#: Attacks on single encodings, under the scheme of the other attacks on the kinds of images.
DEMIXED, DEMIXED_SCHEME = RESULTS / "demixing_kinds.csv", "cross-6"
TITLES = {
    "plain": "plain training",
    "mixup-4": "Mixup, k = 4",
    "inside-4": "inside-dataset, k = 4",
    "cross-4": "cross-dataset, k = 4",
    "cross-6": "cross-dataset, k = 6",
    "cross-4-signed": "cross-dataset, k = 4, without the sign-invariant layer",
}
#: Schemes that the paper gives accuracies of.
COMPARED = ("inside-4", "cross-4", "cross-6")
#: Figures of the paper: accuracy of plain training, and the drops from it in points.
PAPER = {
    "CIFAR-10": ("94.8", "3.4", "4.1", "5.2"),
    "MNIST, 60,000 images": ("99.5", "1.3", "about 1.5", "about 1.5"),
}
#: Our data sets in the same table.
BESIDE = {
    "fashion-mnist": "Fashion-MNIST, 60,000 images",
    color_patches.NAME: "color patches of 22 photographs, 32,560 images",
    "mnist-5k": "MNIST, 4,000 images",
}
#: For each network the file of its runs, and its name in tables.
NETWORKS = {"small": "accuracy.csv", "resnet18": "accuracy-resnet18.csv"}
NETWORK_TITLES = {"small": "small network", "resnet18": "ResNet-18"}
#: For each row: its title, the attack, the number of encodings of an image, and the measure.
ATTACKS = [
    ("public images found (coefficient at least 0.15)", "public-search", 2, "public_found"),
    ("same, on absolute values", "public-search-absolute", 2, "public_found"),
    ("images identified by averaging 100 encodings", "averaging", 100, "identified_mean"),
    ("same, on absolute values", "averaging-absolute", 100, "identified_mean"),
]
ATTACKED = {"mixup-cross-4": "Mixup, k = 4", "cross-4": "InstaHide, cross-dataset, k = 4"}
#: For each row: the benchmark, the title, and the format of its figures.
SPEEDS = [
    (
        "encode",
        "encoding 3 x 32 x 32 images, k = 4, keys included",
        "{images_per_s:,.0f} images/s",
    ),
    (
        "encode",
        "speed relative to the authors' method, k = 4 / k = 6",
        "{vs_authors_k4:.0f} / {vs_authors_k6:.0f} times",
    ),
    (
        "encode",
        "same, with random crops and flips",
        "{vs_authors_augmented:.0f} times",
    ),
    ("encode", "time relative to a plain conversion to float32", "{vs_floor_k4:.2f} times"),
    ("encode", "share of the processor time for keys", "{keys_share:.1%}"),
    (
        "loader",
        "training time of ResNet-18 with `EncodedLoader`, relative to a plain loader",
        "{overhead:.3f} times",
    ),
    (
        "wrapping",
        "training time with `encode_loader`, relative to the plain `DataLoader`",
        "{overhead:.3f} times",
    ),
    (
        "lightning_callback",
        "training time with the Lightning callback, relative to Lightning without it",
        "{overhead:.3f} times",
    ),
    (
        "client_round",
        "time of a client's round in federated learning, relative to plain images",
        "{overhead:.3f} times",
    ),
    (
        "distributed",
        "training speed of two processes relative to one, one thread each",
        "{two_ranks_against_one:.2f} times",
    ),
    (
        "publish",
        "speed of publishing 50,000 images, relative to the slower of disk and encoder",
        "{share_of_floor:.2f} times",
    ),
    (
        "reading",
        "training speed from an encoded folder, relative to memory",
        "{reading_vs_memory:.2f} times",
    ),
    (
        "ledger",
        "time to count a million images in the ledger, relative to encrypting them to disk",
        "{overhead_percent:.1f}%",
    ),
    (
        "ray_nodes",
        "speed of two Ray nodes relative to one, one core each",
        "{two_nodes_against_one:.2f} times",
    ),
    (
        "memory",
        "memory in addition to a mapped table of a million images",
        "{over_table_mib:,.0f} MiB",
    ),
    ("startup", "`instahide --help`", "{help_seconds:.2f} s"),
]


def accuracy_rows(data: str) -> list[dict[str, str]]:
    """Return the runs on a data set with any network."""
    rows = [row for name in NETWORKS.values() for row in rows_of(RESULTS / name)]
    return [row for row in rows if row["data"] == data]


def trained_alike(rows: list[dict[str, str]]) -> list[list[dict[str, str]]]:
    """Return the runs of each network and number of epochs."""
    networks = list(NETWORKS)
    kinds = {(networks.index(row["model"]), int(row["epochs"])) for row in rows}
    return [
        [row for row in rows if (row["model"], row["epochs"]) == (networks[place], str(epochs))]
        for place, epochs in sorted(kinds)
    ]


def accuracy_table(data: str, title: str) -> list[str]:
    """Return a table of mean and deviation over seeds, by network, epochs and scheme."""
    heads = [
        title, "epochs", "seeds", "plain test images", "10 encrypted queries per image",
        "drop, points",
    ]  # fmt: skip
    rows = []
    for mine in trained_alike(accuracy_rows(data)):
        model, epochs = mine[0]["model"], mine[0]["epochs"]
        network = "" if model == "small" else f", {NETWORK_TITLES[model]}"
        plain = mean_of(mine, "plain", "plain_accuracy")
        for scheme, name in TITLES.items():
            value = mean_of(mine, scheme, "plain_accuracy")
            if value is not None:
                runs = [row for row in mine if row["scheme"] == scheme]
                drop = "" if scheme == "plain" else _points(plain, value)
                cells = [with_spread(runs, f"{kind}_accuracy") for kind in ("plain", "encrypted")]
                rows.append([name + network, epochs, len(runs), *cells, drop])
    return markdown.table(heads, rows)


def _points(plain: float | None, value: float | None) -> str:
    return "" if plain is None or value is None else f"{plain - value:z.1f}"


def with_spread(rows: list[dict[str, str]], column: str) -> str:
    """Return the mean, and the standard deviation if there are several runs."""
    values = [float(row[column]) for row in rows if row[column]]
    if not values:
        return ""
    spread = f" ± {stdev(values):.1f}" if len(values) > 1 else ""
    return f"{mean(values):.1f}{spread}"


def drops_table() -> list[str]:
    """Return a table of the drops in accuracy: those of the paper, then ours.

    Ours has a row for each data set, network and number of epochs for which plain training was
    measured.
    """
    titles = [TITLES[scheme] for scheme in COMPARED]
    rows = [[f"paper: {data}, ResNet-18", *figures] for data, figures in PAPER.items()]
    for data, title in BESIDE.items():
        for trained in trained_alike(accuracy_rows(data)):
            plain, *values = (
                mean_of(trained, scheme, "plain_accuracy") for scheme in ("plain", *COMPARED)
            )
            if plain is not None:
                network = NETWORK_TITLES[trained[0]["model"]]
                run = f"ours: {title}, {network}, {trained[0]['epochs']} epochs"
                rows.append([run, f"{plain:.1f}", *(_points(plain, value) for value in values)])
    return markdown.table(["drop in accuracy, points", "plain training, %", *titles], rows)


def drop_of(data: str, epochs: int, scheme: str) -> float:
    """The drop in accuracy from plain training, in points, means over seeds."""
    wanted = {"data": data, "epochs": str(epochs)}
    rows = rows_of(RESULTS / "accuracy.csv")
    mine = [row for row in rows if all(row[name] == value for name, value in wanted.items())]
    plain, mixed = (mean_of(mine, name, "plain_accuracy") for name in ("plain", scheme))
    assert plain is not None
    assert mixed is not None
    return plain - mixed


def mean_of(rows: list[dict[str, str]], scheme: str, column: str) -> float | None:
    values = [float(row[column]) for row in rows if row["scheme"] == scheme and row[column]]
    return mean(values) if values else None


def findings_table() -> list[str]:
    """Return a table of the means over seeds, and of the standard deviation of the macro AUROC."""
    heads = [
        "pairs of MNIST digits, 4,000 images, ten findings", "seeds", "macro AUROC in %",
        "encrypted queries", "macro F1 in %", "calibration error",
    ]  # fmt: skip
    found = rows_of(RESULTS / "multilabel.csv")
    rows = []
    for scheme, name in (("plain", "plain training"), ("cross-4", "cross-dataset, k = 4")):
        mine = [row for row in found if (row["data"], row["scheme"]) == ("digit-pairs", scheme)]
        aurocs = [100 * float(row["macro_auroc"]) for row in mine]
        queried = mean_of(mine, scheme, "encrypted_macro_auroc")
        f1, error = (mean_of(mine, scheme, each) for each in ("macro_f1", "calibration_error"))
        if len(mine) < 2 or f1 is None or error is None:
            continue
        spread = f"{mean(aurocs):.2f} ± {stdev(aurocs):.2f}"
        shown = "" if queried is None else f"{100 * queried:.2f}"
        rows.append([name, len(mine), spread, shown, f"{100 * f1:.1f}", f"{error:.3f}"])
    return markdown.table(heads, rows)


def pooled_table() -> list[str]:
    """Return a table with a row for each way to split Fashion-MNIST between participants."""
    heads = [
        "Fashion-MNIST in three parts, accuracy in %", "encodings per image", "epochs",
        "pooled encodings", "encodings of all images by one participant",
        "plain training, all images", "plain training, one third",
    ]  # fmt: skip
    rows = []
    for row in rows_of(RESULTS / "pooled.csv"):
        how = "by class" if row["by_class"] == "True" else "at random"
        names = ("pooled", "one_holder", "plain", "plain_third")
        accuracies = (f"{float(row[name]):.1f}" for name in names)
        rows.append([how, row["copies"], row["epochs"], *accuracies])
    return markdown.table(heads, rows)


def federated_table() -> list[str]:
    """Return a table of the means over seeds for each way to split Fashion-MNIST."""
    found = rows_of(RESULTS / "federated.csv")
    first = max(found, key=lambda row: int(row["rounds"]))
    what = (
        f"three Flower clients, {int(first['images']):,} images of Fashion-MNIST, "
        f"{first['rounds']} rounds, accuracy in %"
    )
    rows = []
    for partition, title in {"iid": "at random", "dirichlet": "by class, Dirichlet 0.3"}.items():
        mine = [row for row in found if row["partition"] == partition]
        plain, mixed = (mean_of(mine, scheme, "accuracy") for scheme in ("plain", "cross-4"))
        if plain is not None and mixed is not None:
            rows.append([title, f"{plain:.1f}", f"{mixed:.1f}", _points(plain, mixed)])
    return markdown.table([what, "plain training", "cross-dataset, k = 4", "drop, points"], rows)


def attacks_table() -> list[str]:
    """Return a table of the mean share that each of the paper's attacks finds."""
    rows = []
    for title, attack, copies, measure in ATTACKS:
        found = [share_found(attack, copies, measure, scheme) for scheme in ATTACKED]
        rows.append([title, *("" if share is None else f"{100 * share:.0f}" for share in found)])
    what = "attacks on photographs of 3 x 32 x 32, found in %"
    return markdown.table([what, *ATTACKED.values()], rows)


def share_found(attack: str, copies: int, measure: str, scheme: str = "cross-4") -> float | None:
    """The mean share that an attack finds with ``copies`` encodings of an image."""
    wanted = {"attack": attack, "encodings_per_image": str(copies), "measure": measure}
    rows = rows_of(RESULTS / "attacks.csv")
    mine = [row for row in rows if all(row[name] == value for name, value in wanted.items())]
    return mean_of(mine, scheme, "value")


def reconstruction_table() -> list[str]:
    """Return a table of kinds of images and numbers of encodings."""
    return recovered(rows_of(RESULTS / "reconstruction_kinds.csv"))


def speed_table() -> list[str]:
    """Return a table of the figures of those benchmarks that have been run."""
    found = {path.stem: json.loads(path.read_text()) for path in RESULTS.glob("*.json")}
    rows = [(title, text.format(**found[name])) for name, title, text in SPEEDS if name in found]
    return markdown.table(["speed, 2 cores", ""], rows, texts=(0, 1))


def slowest() -> float:
    """The most CPU seconds of a run on 100 images with 50 encodings of each, without labels."""
    ours = [
        float(row["cpu_seconds"])
        for row in rows_of(RESULTS / "reconstruction.csv")
        if (row["recovery"], row["labels"]) == ("ours", "none")
    ]
    return max(*ours, seconds(rows_of(RESULTS / "reconstruction_kinds.csv"), 50))


def headline_drops() -> list[list[float]]:
    """The drops in points of each of `COMPARED`, on Fashion-MNIST and on color patches."""
    return [
        [drop_of(data, epochs, scheme) for scheme in COMPARED]
        for data, epochs in (("fashion-mnist", 30), (color_patches.NAME, 20))
    ]


def headline_table() -> list[str]:
    """Return the README's table; docs/evidence.md has all figures."""
    gray, color = (" / ".join(f"{drop:.1f}" for drop in drops) for drops in headline_drops())
    averaged = [
        share_found(attack, 100, "identified_mean")
        for attack in ("averaging", "averaging-absolute")
    ]
    kinds = rows_of(RESULTS / "reconstruction_kinds.csv")
    speed, training = (
        json.loads((RESULTS / f"{name}.json").read_text()) for name in ("encode", "loader")
    )
    plain, *theirs = PAPER["CIFAR-10"]
    rows = {
        "accuracy lost on Fashion-MNIST, small network, inside k = 4 / cross k = 4 / cross k = 6":
            f"{gray} points",
        "same on color patches of 22 photographs; in the paper on CIFAR-10, ResNet-18 "
        f"({plain}% without)": f"{color} points; " + " / ".join(theirs) + " points",
        "images recovered from 50 encodings of each, worst and best of five kinds, labels hidden":
            " / ".join(extremes(kinds, 50)) + f", in {slowest():.0f} s on one core at most",
        "same, from 10 encodings of each":
            " / ".join(extremes(kinds, 10)) + f", in about {seconds(kinds, 10):.0f} s",
        "same, from a single encoding of each, by demixing":
            " / ".join(extremes_of_demixing(rows_of(DEMIXED), DEMIXED_SCHEME)),
        "photographs identified by averaging 100 encodings, and their absolute values":
            " / ".join(f"{100 * share:.0f}%" for share in averaged),
        "encoding 3 x 32 x 32 images on 2 cores, k = 4, new keys for each":
            f"{speed['images_per_s']:,.0f} images/s, "
            f"{speed['vs_authors_k4']:.0f} times as fast as the authors' method",
        "training time of ResNet-18, relative to plain images": f"{training['overhead']:.3f} times",
    }  # fmt: skip
    return markdown.table(["measured", ""], rows.items(), texts=(0, 1))


def headline_sentence() -> list[str]:
    """Return the result at the head of the first page: what is recovered, at which accuracy."""
    kinds = rows_of(RESULTS / "reconstruction_kinds.csv")
    worst, best = extremes(kinds, 50)
    few, many = extremes_of_demixing(rows_of(DEMIXED), DEMIXED_SCHEME)
    drops = sorted(drop for drops in headline_drops() for drop in drops)
    return [
        f"**An attack recovered {worst} and {best}** from 50 encodings of each, without labels, in "
        f"{slowest():.0f} seconds on one core at most: the worst and the best of five kinds of "
        f"images. From a single encoding of each, another attack recovered {few} and {many}. "
        f"Training on encodings of Fashion-MNIST and of color patches cost {drops[0]:.1f} to "
        f"{drops[-1]:.1f} points of accuracy. [Evidence](evidence.md)",
        "{ .headline }",
    ]


#: The function that returns the measured lines of each page.
PAGES = {ROOT / "README.md": headline_table, ROOT / "docs" / "index.md": headline_sentence}


def rewritten(page: Path) -> str:
    """Return the text of ``page`` with its measured region updated."""
    return with_measured(page.read_text(encoding="utf-8"), PAGES[page]())


if __name__ == "__main__":
    for path in PAGES:
        path.write_text(rewritten(path), encoding="utf-8")

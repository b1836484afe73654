"""Write the measured sections of docs/evidence.md.

    python -m experiments.evidence_tables

The claims and commands are those of `instahide reproduce`. For the frontier, the page shows the
points that its figures were drawn from (`experiments.plots`), because the CSV file may have more.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from experiments import color_patches, cost, frontier_chart, markdown, plots, rivals_table, tables
from experiments.chart_style import SCHEMES
from experiments.frontier import ENCODERS
from experiments.records import rows_of, with_measured
from experiments.tables import RESULTS, ROOT
from experiments.theory import ksum
from instahide.cli.reproduce import Claim, claims

PAGE = ROOT / "docs" / "evidence.md"
UNKNOWN = ["Not measured yet."]
#: The runs of `experiments.membership` that stand here: others are on its own page.
MEMBERS = {
    "data": "fashion-mnist", "images": "500", "networks": "8", "attack": "membership",
}  # fmt: skip

#: Below the table of patches in color.
COLOR_NOTE = [
    "The class of a color patch is the photograph that it is from. Each photograph is divided into "
    "square cells, a fifth of which is for testing, so no test patch has a pixel in common with a "
    "training patch. Patches of a cell overlap, so the 8,140 test patches vary less than as many "
    "images. The public pool has other photographs. The size of patches, their least contrast and "
    "the batch size were chosen in runs with another seed on the same photographs, so the figures "
    "may be slightly optimistic."
]

Row = dict[str, str]


def accuracy() -> list[str]:
    """Return a table for each data set, then that of the drops, with those of the paper."""
    parts = []
    for data, title in tables.BESIDE.items():
        parts.append(tables.accuracy_table(data, f"{title}, accuracy in %"))
        if parts[-1] and data == color_patches.NAME:
            parts.append(COLOR_NOTE)
    return markdown.blocks([*parts, tables.drops_table()])


def choices() -> list[str]:
    """Return a table with one row for each choice."""
    rows = rows_of(RESULTS / "choices.csv")
    titles = {
        "k": "inside-dataset, k = {}", "c1": "cross-dataset, k = 4, c1 = {}",
        "once": "{}, encoded once for all epochs",
        "dp": "DP-SGD on plain images, noise multiplier {}",
    }  # fmt: skip
    shown = []
    for row in sorted(rows, key=lambda row: (list(titles).index(row["what"]), row["value"])):
        title = titles[row["what"]].format(row["value"])
        promised = f"{float(row['epsilon']):.1f}" if row["epsilon"] else "none"
        shown.append([title, row["seed"], f"{float(row['accuracy']):.1f}", promised])
    heads = ["MNIST, 4,000 images", "seed", "accuracy in %", "ε at δ = 10⁻⁵"]
    return markdown.table(heads, shown) or UNKNOWN


def costs() -> list[str]:
    """Return a table with one row for each scheme."""
    rows = rows_of(RESULTS / "cost.csv")
    if not rows:
        return UNKNOWN
    heads = [
        "MNIST, 4,000 images, small network, one thread", "runs", "CPU seconds per epoch",
        "relative to plain", "peak memory, MiB",
    ]  # fmt: skip
    shown = []
    for scheme, figures in cost.summary(rows).items():
        turns = sum(row["scheme"] == scheme for row in rows)
        times = (f"{figures[name]:.2f}" for name in ("seconds_an_epoch", "against_plain"))
        shown.append([SCHEMES[scheme].name, turns, *times, f"{figures['peak_mib']:.0f}"])
    return markdown.table(heads, shown)


def frontier() -> list[str]:
    """Return a table with a row for each point, for each data set, and one for other encoders."""
    if not (plots.FIGURES / "frontier.svg").exists():
        return UNKNOWN
    rows = plots.drawn("frontier")
    schemes = [row for row in rows if row["scheme"] in SCHEMES]
    others = [row for row in rows if row["scheme"] in ENCODERS]
    return markdown.blocks(
        _frontier([row for row in found if row["data"] == data], title + suffix)
        for found, suffix in ((schemes, ""), (others, ", other encoders"))
        for data, title in frontier_chart.TITLES.items()
        if any(row["data"] == data for row in found)
    )


def _frontier(rows: list[Row], title: str) -> list[str]:
    heads = [title, "labels", "T", "accuracy in %", "identified (attack)", "mean SSIM (attack)"]
    names = {name: look.name for name, look in SCHEMES.items()}
    names |= {name: f"`{name}`" for name in ENCODERS}
    order = {name: place for place, name in enumerate(names)}
    shown = []
    for row in sorted(rows, key=lambda r: (order[r["scheme"]], r["labels"], int(r["copies"]))):
        attacks = (
            f"{float(row[name]):.2f}, `{row[f'{name}_by']}`" for name in ("identified", "ssim")
        )
        setting = names[row["scheme"]], row["labels"], row["copies"]
        shown.append([*setting, f"{float(row['accuracy']):.1f}", *attacks])
    return markdown.table(heads, shown, texts=(0, 1))


def demixed() -> list[str]:
    """Return a table with one row for each scheme."""
    heads = [
        "MNIST digits; the attacker has other digits", "encodings identified", "by chance",
        "mean SSIM",
    ]  # fmt: skip
    names = ("identified_mean", "identified_by_chance", "ssim_mean")
    shown = (
        [row["scheme"], *(f"{float(row[name]):.2f}" for name in names)]
        for row in rows_of(RESULTS / "demixing.csv")
        if row["data"] == "mnist-5k"
    )
    return markdown.table(heads, shown)


def members() -> list[str]:
    """Return a table with one row for each attacked network that matches `MEMBERS`."""
    shown = []
    rows = [row for row in rows_of(RESULTS / "membership.csv") if MEMBERS.items() <= row.items()]
    for scheme, seed in dict.fromkeys((row["scheme"], row["seed"]) for row in rows):
        found = {
            row["measure"]: float(row["value"])
            for row in rows
            if (row["scheme"], row["seed"]) == (scheme, seed)
        }
        value, low, high = (found[f"membership_auc{end}"] for end in ("", "_low", "_high"))
        shown.append([scheme, seed, f"{value:.2f} ({low:.2f} to {high:.2f})"])
    what = f"trained on {MEMBERS['images']} images of {MEMBERS['data']}"
    return markdown.table([what, "seed", "AUC (95% interval)"], shown)


def hardness() -> list[str]:
    """Return a table with one row for each k: the largest N and the measured exponents."""
    rows = rows_of(RESULTS / "ksum.csv")
    heads = [
        "k, coefficients known", "largest N", "steps at that N", "seconds at that N",
        "growth of steps", "growth of seconds",
    ]  # fmt: skip
    shown = []
    for name, grown in ksum.exponents(rows).items():
        last = [row for row in rows if f"k={row['k']}" == name][-1]
        sizes = f"{int(last['images']):,}", f"{ksum.steps(last):,}", f"{float(last['seconds']):.1f}"
        growths = (f"N^{grown[what]:.2f}" for what in ("steps", "seconds"))
        shown.append([name.replace("=", " = "), *sizes, *growths])
    return markdown.table(heads, shown)


class Section(NamedTuple):
    """A section of the page: the ``verdict`` in words; figures only in ``table``."""

    title: str
    verdict: str
    table: Callable[[], list[str]]


SECTIONS = {
    "accuracy": Section(
        "Accuracy",
        "**Supported on small gray images, with a small network.** On color patches, with one seed "
        "and 20 epochs, the drops are larger than the paper's on CIFAR-10; that of k = 6 was still "
        "shrinking at the end. The full data sets of the paper and its ResNet-18 have not been "
        "measured.",
        accuracy,
    ),
    "choices": Section(
        "Cost of settings",
        "**Supported on digits.** For k from 1 to 8, the accuracies differ by less than one "
        "point, which is about the uncertainty of one run on 1,000 test images. Drawing keys only "
        "once for all epochs costs more than any k. Only DP-SGD gives a guarantee, and a stronger "
        "guarantee costs more accuracy. DP-SGD uses the recipe of the other runs with group "
        "normalization, untuned; a tuned recipe may lose less. Each row changes one setting of "
        "the runs on MNIST [above](#accuracy).",
        choices,
    ),
    "rivals": Section(
        "Rivals",
        "**On digits, DP-SGD keeps most of the accuracy, and an attack on single gradients of the "
        "untrained network recovered none of 10 images**, at many times the training time. All "
        "updates together, and the trained network, were not attacked. Its ε of 27 is [almost "
        "meaningless](noise.md) as a guarantee, and a smaller one costs [more "
        "accuracy](#cost-of-settings). What else keeps accuracy, InstaHide included, lets "
        "attackers recover images, or tell which encodings are of the same image (an AUC of 0.5 "
        "is guessing, 1 is certainty). Each method was trained in as many passes over the same "
        "images, with the small network; NeuraCrypt and block scrambling need networks of their "
        "own, which explains their times. Encodings were attacked by [learned "
        "inversion](attacks/any-encoder.md), with 5 encodings of each of 100 images; updates by "
        "[gradient inversion](attacks/gradient-inversion.md), with the gradient of one image, "
        "which tells more of it than that of a batch. Low figures are no guarantee: attacks that "
        "use the structure of [InstaHide](attacks/results.md) or "
        "[NeuraCrypt](https://arxiv.org/abs/2108.07256) recover more. Only ε is a guarantee, and "
        "one above 20 promises next to nothing. DP-SGD has a noise multiplier of 1, and is "
        "untuned. A method without a row has not been measured on these images. Times are CPU "
        "times of one pass over the same images, as medians of three turns in one process (`python "
        "-m experiments.training_time`). `python -m experiments.encoders` measures the encoders.",
        rivals_table.table,
    ),
    "cost": Section(
        "Time and memory per epoch",
        "**Supported: no clear difference.** Plain training and training on encodings differ by "
        "less than 10%, no more than other load on the machine explains. Compare the ratios, not "
        "the seconds.",
        costs,
    ),
    "speed": Section(
        "Speed",
        "**Supported on CPUs.** No GPU was available: the GPU kernel is tested, but its speed is "
        "not known.",
        tables.speed_table,
    ),
    "attacks": Section(
        "The paper's attacks",
        "**Supported for the paper's attacks, refuted for their variants on absolute values.** "
        "Attacks on signed values fail under the mask. The same attacks on absolute values, which "
        "the mask does not change, succeed.",
        tables.attacks_table,
    ),
    "demixing": Section(
        "Demixing",
        "**Refuted on digits and on color images.** A network trained on the attacker's own digits "
        "identifies the image with the largest coefficient in most encodings. Of color images, a "
        "network that is part of the library recovers 20 to 46 of 100 from one encoding of each "
        "(k = 6), without any images of the attacker; of objects and animals, absolute values "
        "alone show as many. More: [demixing](attacks/demixing.md).",
        demixed,
    ),
    "reconstruction": Section(
        "Many encodings of an image",
        "**Refuted**, as by [Carlini et al.](https://arxiv.org/abs/2011.05315) before. T encodings "
        "of each image, cross-dataset, k = 6, labels hidden; means of three draws, of text one "
        "([ranges](attacks/reconstruction-figures.md#kinds-of-images)). More: [reconstruction]"
        "(attacks/reconstruction.md).",
        tables.reconstruction_table,
    ),
    "hardness": Section(
        "Hardness",
        "**Supported for one kind of attack only**, a search over sums of images, at toy sizes "
        "and with known coefficients. For k = 4 and 6 the seconds grow faster than the steps, "
        "because of sorting and memory. The attacks above do not work this way. "
        "More: [hardness](attacks/hardness.md).",
        hardness,
    ),
    "membership": Section(
        "Membership inference",
        "**Refuted** for a network that memorized its few images. The paper does not make this "
        "claim. More: [membership inference](attacks/membership.md).",
        members,
    ),
    "multilabel": Section(
        "Several findings",
        "**Supported** on pairs of digits. The paper has images of one class only. Probabilities "
        "are [calibrated](labels.md#calibration), for which a tenth of the private images was held "
        "out. More: [labels](labels.md).",
        tables.findings_table,
    ),
    "pooled": Section("Pooled training", "**Supported** on one data set.", tables.pooled_table),
    "federated": Section(
        "Federated learning",
        "**Supported** with one seed, in simulation.",
        tables.federated_table,
    ),
    "frontier": Section(
        "Privacy against accuracy: figures",
        "The points of the chart [above](#privacy-against-accuracy). Shares are of the private "
        "images (for demixing: of the encodings). An SSIM of 1 means an identical image.",
        frontier,
    ),
}  # fmt: skip


def shown(section: Section, claim: Claim) -> list[str]:
    """Return the heading, the claim, the verdict, the table and the commands."""
    runs = ["```bash notest", *claim.runs, "```"]
    quoted = f"> {claim.claim}"
    return [f"## {section.title}", "", quoted, "", section.verdict, "", *section.table(), "", *runs]


def rewritten(text: str) -> str:
    """Return ``text`` with its measured region updated."""
    known = claims(ROOT)
    parts = [shown(section, known[name]) for name, section in SECTIONS.items()]
    return with_measured(text, markdown.blocks(parts))


if __name__ == "__main__":
    PAGE.write_text(rewritten(PAGE.read_text(encoding="utf-8")), encoding="utf-8")

"""Write the measured sections of docs/evidence.md.

    python -m experiments.evidence_tables

The claims and commands are those of `instahide reproduce`. For the frontier, the page shows the
points that its figures were drawn from (`experiments.plots`), because the CSV file may have more.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from experiments import cost, ksum, plots, tables
from experiments.frontier_chart import SCHEMES
from experiments.records import rows_of, with_measured
from experiments.tables import RESULTS, ROOT
from instahide.cli.reproduce import Claim, claims

PAGE = ROOT / "docs" / "evidence.md"
UNKNOWN = ["Not measured yet."]
#: The runs of `experiments.membership` that stand here: others are on its own page.
MEMBERS = {
    "data": "fashion-mnist", "images": "500", "networks": "8", "attack": "membership",
}  # fmt: skip

Row = dict[str, str]


def accuracy() -> list[str]:
    """Return the tables of both data sets, then that of the drops, with those of the paper."""
    fashion = tables.accuracy_table("fashion-mnist", "Fashion-MNIST, 60,000 images, accuracy in %")
    digits = tables.accuracy_table("mnist-5k", "MNIST, 4,000 images, accuracy in %")
    return [*fashion, "", *digits, "", *tables.drops_table()]


def choices() -> list[str]:
    """Return a table with one row for each choice."""
    rows = rows_of(RESULTS / "choices.csv")
    titles = {
        "k": "inside-dataset, k = {}", "c1": "cross-dataset, k = 4, c1 = {}",
        "once": "{}, encoded once for all epochs", "dp": "DP-SGD on plain images, noise {}",
    }  # fmt: skip
    lines = [
        "| MNIST, 4,000 images | seed | accuracy in % | ε at δ = 10⁻⁵ |",
        "| --- |" + " ---: |" * 3,
    ]
    for row in sorted(rows, key=lambda row: (list(titles).index(row["what"]), row["value"])):
        title = titles[row["what"]].format(row["value"])
        promised = f"{float(row['epsilon']):.1f}" if row["epsilon"] else "none"
        lines.append(f"| {title} | {row['seed']} | {float(row['accuracy']):.1f} | {promised} |")
    return lines if rows else UNKNOWN


def costs() -> list[str]:
    """Return a table with one row for each scheme."""
    rows = rows_of(RESULTS / "cost.csv")
    if not rows:
        return UNKNOWN
    lines = [
        "| MNIST, 4,000 images, small network, one thread | processes "
        "| seconds of processor an epoch | against plain | most memory, MiB |",
        "| --- |" + " ---: |" * 4,
    ]
    for scheme, figures in cost.summary(rows).items():
        turns = sum(row["scheme"] == scheme for row in rows)
        lines.append(
            f"| {SCHEMES[scheme].name} | {turns} | {figures['seconds_an_epoch']:.2f} "
            f"| {figures['against_plain']:.2f} | {figures['peak_mib']:.0f} |"
        )
    return lines


def frontier() -> list[str]:
    """Return a table with one row for each point, in the order of the chart's legend."""
    if not (plots.FIGURES / "frontier.svg").exists():
        return UNKNOWN
    rows = plots.drawn("frontier")
    lines = [
        "| scheme | labels | T | accuracy in % | identified, by | mean SSIM, by |",
        "| --- | --- |" + " ---: |" * 4,
    ]
    order = {name: place for place, name in enumerate(SCHEMES)}
    for row in sorted(rows, key=lambda r: (order[r["scheme"]], r["labels"], int(r["copies"]))):
        lines.append(
            f"| {SCHEMES[row['scheme']].name} | {row['labels']} | {row['copies']} "
            f"| {float(row['accuracy']):.1f} | {float(row['identified']):.2f}, "
            f"`{row['identified_by']}` | {float(row['ssim']):.2f}, `{row['ssim_by']}` |"
        )
    return lines


def demixed() -> list[str]:
    """Return a table with one row for each scheme."""
    lines = [
        "| digits, an attacker with other digits | encodings named | by chance | mean SSIM |",
        "| --- | ---: | ---: | ---: |",
    ]
    for row in rows_of(RESULTS / "demixing.csv"):
        if row["data"] == "mnist-5k":
            names = ("identified_mean", "identified_by_chance", "ssim_mean")
            cells = [f"{float(row[name]):.2f}" for name in names]
            lines.append(f"| {row['scheme']} | {' | '.join(cells)} |")
    return lines


def members() -> list[str]:
    """Return a table with one row for each attacked network that matches `MEMBERS`."""
    lines = [
        f"| trained on {MEMBERS['images']} images of {MEMBERS['data']} | seed "
        "| area under the curve, 95 % interval |",
        "| --- | ---: | ---: |",
    ]
    rows = [row for row in rows_of(RESULTS / "membership.csv") if MEMBERS.items() <= row.items()]
    for scheme, seed in dict.fromkeys((row["scheme"], row["seed"]) for row in rows):
        found = {
            row["measure"]: float(row["value"])
            for row in rows
            if (row["scheme"], row["seed"]) == (scheme, seed)
        }
        value, low, high = (found[f"membership_auc{end}"] for end in ("", "_low", "_high"))
        lines.append(f"| {scheme} | {seed} | {value:.2f} ({low:.2f} to {high:.2f}) |")
    return lines


def hardness() -> list[str]:
    """Return a table with one row for each k: the largest N and the measured exponents."""
    rows = rows_of(RESULTS / "ksum.csv")
    lines = [
        "| images in a mix, all known | largest N | steps there | seconds there "
        "| steps grew with | seconds grew with |",
        "| --- |" + " ---: |" * 5,
    ]
    for name, grown in ksum.exponents(rows).items():
        last = [row for row in rows if f"k={row['k']}" == name][-1]
        lines.append(
            f"| {name.replace('=', ' = ')} | {int(last['images']):,} | {ksum.steps(last):,} "
            f"| {float(last['seconds']):.1f} | N^{grown['steps']:.2f} | N^{grown['seconds']:.2f} |"
        )
    return lines


class Section(NamedTuple):
    """A section of the page: the ``verdict`` in words; figures only in ``table``."""

    title: str
    verdict: str
    table: Callable[[], list[str]]


SECTIONS = {
    "accuracy": Section(
        "Accuracy",
        "**Shown on small grey images, with a small network.** The paper's own data sets and "
        "its ResNet-18 have not been measured.",
        accuracy,
    ),
    "choices": Section(
        "What settings cost",
        "**Shown on digits.** For k from 1 to 8, accuracies are within a point, which is about "
        "what one run on 1,000 test images is uncertain by; keys that are drawn once for all "
        "epochs cost more than any k. DP-SGD alone promises anything, and costs more the more it "
        "promises. It takes the recipe of the others, with group normalization, which nobody tuned "
        "for it: a better one would lose less. One choice at a time, all else as in the table "
        "above.",
        choices,
    ),
    "cost": Section(
        "Cost of an epoch",
        "**No difference was seen that stands out** from what other work on the same machine makes "
        "of it: plain training and encodings are within a tenth of each other. Read the ratio, not "
        "the seconds.",
        costs,
    ),
    "speed": Section(
        "Speed", "**Shown**, on processors; no GPU was at hand for these.", tables.speed_table
    ),
    "attacks": Section(
        "The paper's attacks",
        "**Shown as the paper has it, refuted by a square.** What uses signs fails under the mask; "
        "the same attack on absolute values, which no mask changes, does not.",
        tables.attacks_table,
    ),
    "demixing": Section(
        "Demixing",
        "**Refuted on digits**: a network that learned from the attacker's own digits names the "
        "strongest image of most encodings.",
        demixed,
    ),
    "reconstruction": Section(
        "Many encodings of an image",
        "**Refuted**, as [Carlini et al.](https://arxiv.org/abs/2011.05315) did before. "
        "More: [reconstruction](attacks/reconstruction.md).",
        tables.reconstruction_table,
    ),
    "hardness": Section(
        "The problem behind it",
        "**Shown for the one way of attacking that it is about**, at toy sizes and with known "
        "coefficients; seconds grow a little faster, as sorting and memory do. The attacks above "
        "do not go this way. More: [hardness](attacks/hardness.md).",
        hardness,
    ),
    "membership": Section(
        "Membership",
        "**Refuted**, for a network that has learned its few images by heart; the paper does not "
        "claim it. More: [membership](attacks/membership.md).",
        members,
    ),
    "pooled": Section("Pooled", "**Shown**, on one data set.", tables.pooled_table),
    "federated": Section(
        "Federated", "**Shown**, with one seed, in simulation.", tables.federated_table
    ),
    "frontier": Section(
        "The frontier, in numbers",
        "The points of the chart above. A share is of the private images, an SSIM of 1 is the "
        "image itself.",
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
    return with_measured(text, [line for part in parts for line in (*part, "")][:-1])


if __name__ == "__main__":
    PAGE.write_text(rewritten(PAGE.read_text(encoding="utf-8")), encoding="utf-8")

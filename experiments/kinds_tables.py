"""Tables and sentences of the results of `experiments.reconstruction_kinds`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from statistics import mean
from typing import NamedTuple

from experiments import markdown

#: Kinds of private images, as in `experiments.victims`.
TITLES = {
    "photographs": "photographs",
    "objects": "objects on white",
    "animals": "animals on light colors",
    "medical": "medical images",
    "text": "crops of text",
}
LABELS = {"none": "hidden", "coarse": "coarse", "soft": "soft"}

Row = dict[str, str]


class Cell(NamedTuple):
    """All draws of one setting."""

    kind: str
    images: int
    copies: int
    labels: str
    runs: list[Row]

    @property
    def name(self) -> str:
        """The kind in words, and the labels if the attacker has them."""
        known = "" if self.labels == "none" else f", {LABELS[self.labels]} labels"
        return TITLES[self.kind] + known

    def values(self, column: str) -> list[float]:
        """Those that are known; the times of a continued run are not."""
        return [float(run[column]) for run in self.runs if run[column]]

    def mean(self, column: str) -> float:
        return mean(self.values(column))

    def spread(self, column: str, digits: int = 0) -> str:
        """The mean, and the range of several draws."""
        return spread(self.values(column), digits)

    def shown(self, column: str, digits: int = 0, unit: float = 1) -> str:
        """The mean in units of ``unit``, or a dash if no run knows it."""
        return f"{self.mean(column) / unit:,.{digits}f}" if self.values(column) else "–"

    @property
    def named(self) -> tuple[str, int, int]:
        """The first columns of a table of settings with as many images."""
        return self.name, self.copies, len(self.runs)

    @property
    def claims(self) -> tuple[float, float, float]:
        """Images that are recovered, that the attack calls so, and of which both is true."""
        called, rightly = self.values("claimed"), self.values("claimed_rightly")
        both = sum(number * share for number, share in zip(called, rightly, strict=True))
        return sum(self.values("recovered")), sum(called), both


def spread(values: Sequence[float], digits: int = 0) -> str:
    """Return the mean, and the range if the values differ."""
    shown, low, high = (f"{of(values):.{digits}f}" for of in (mean, min, max))
    return shown if low == high else f"{shown} ({low} to {high})"


def cells(rows: list[Row]) -> Iterator[Cell]:
    """Yield the settings: by labels, images, kind and decreasing number of encodings."""
    found: dict[tuple[str, int, int, str], list[Row]] = {}
    for row in rows:
        key = row["kind"], int(row["images"]), int(row["copies"]), row["labels"]
        found.setdefault(key, []).append(row)
    kinds, modes = list(TITLES), list(LABELS)
    for key in sorted(
        found, key=lambda key: (modes.index(key[3]), key[1], kinds.index(key[0]), -key[2])
    ):
        yield Cell(*key, found[key])


def hidden(rows: list[Row]) -> list[Cell]:
    """Return the settings with 100 images and without labels."""
    return [cell for cell in cells(rows) if (cell.images, cell.labels) == (100, "none")]


def recovered(rows: list[Row]) -> list[str]:
    """Return a table of kinds and numbers of encodings: images recovered, and the ceiling."""
    found = {(cell.kind, cell.copies): cell for cell in hidden(rows)}
    copies = sorted({number for _, number in found}, reverse=True)

    def shown(kind: str, number: int) -> str:
        cell = found.get((kind, number))
        return f"{cell.shown('recovered')} / {cell.shown('ceiling_recovered')}" if cell else "–"

    return markdown.table(
        ["recovered / ceiling, of 100 images", *(f"T = {number}" for number in copies)],
        ([title, *(shown(kind, number) for number in copies)] for kind, title in TITLES.items()),
    )


def details(rows: list[Row]) -> list[str]:
    """Return a table with a row for each kind, number of encodings and label mode."""
    heads = [
        "100 images", "T", "draws", "recovered", "SSIM above 0.5", "mean SSIM", "ceiling",
        "coefficients assigned correctly", "CPU seconds", "memory, MiB",
    ]  # fmt: skip
    shown = (
        (
            *cell.named, cell.spread("recovered"), cell.shown("above_half"),
            cell.spread("ssim", 2), cell.shown("ceiling_ssim", 2), cell.shown("mass", 3),
            cell.shown("cpu_seconds"), cell.shown("peak_mib"),
        )
        for cell in cells(rows)
        if cell.images == 100
    )  # fmt: skip
    return markdown.table(heads, shown)


def confidence(rows: list[Row]) -> list[str]:
    """Return a table of what the attack says of its results, beside what is true of them."""
    named = ((cell.named, cell) for cell in cells(rows))
    return _confidence(["100 images", "T", "draws"], named, texts=(0,))


def confidence_by_copies(rows: list[Row]) -> list[str]:
    """Return the same over all kinds of images, with a row for each number of encodings."""
    found: dict[int, list[Row]] = {}
    for cell in hidden(rows):
        found.setdefault(cell.copies, []).extend(cell.runs)
    named = (
        ((copies, len(runs)), Cell("", 100, copies, "none", runs))
        for copies, runs in sorted(found.items(), reverse=True)
    )
    return _confidence(["encodings of each image, T", "runs on 100 images"], named, texts=())


def _confidence(
    heads: Sequence[str],
    named: Iterable[tuple[Sequence[object], Cell]],
    texts: tuple[int, ...],
) -> list[str]:
    heads = [
        *heads, "recovered", "expected by the attack", "called recovered", "of these, recovered",
        "of the recovered, called",
    ]  # fmt: skip
    shown = []
    for names, cell in named:
        right, called, both = cell.claims
        means = (cell.shown(column) for column in ("recovered", "expected", "claimed"))
        shown.append((*names, *means, share(both, called), share(both, right)))
    return markdown.table(heads, shown, texts)


def many(rows: list[Row]) -> list[str]:
    """Return a table of the runs with more than 100 images, if there are any."""
    heads = [
        "images", "T", "recovered", "ceiling", "mean SSIM", "coefficients assigned correctly",
        "called recovered", "of these, recovered", "CPU minutes", "memory, GiB",
    ]  # fmt: skip
    shown = []
    for cell in cells(rows):
        if cell.images > 100:
            _, called, both = cell.claims
            shown.append((
                f"{cell.images:,}", cell.copies, cell.shown("recovered"),
                cell.shown("ceiling_recovered"), cell.shown("ssim", 2), cell.shown("mass", 3),
                cell.shown("claimed"), share(both, called), cell.shown("cpu_seconds", unit=60),
                cell.shown("peak_mib", 1, unit=1024),
            ))  # fmt: skip
    return markdown.table(heads, shown, texts=())


def share(part: float, whole: float) -> str:
    """Return a share in percent, or a dash of nothing."""
    return f"{100 * part / whole:.0f}%" if whole else "–"


def extremes(rows: list[Row], copies: int) -> tuple[str, str]:
    """Return how many of 100 images were recovered, of the worst kind and of the best.

    Args:
        rows: the measured rows.
        copies: encodings of each image.
    """
    found = [cell for cell in hidden(rows) if cell.copies == copies]
    found.sort(key=lambda cell: cell.mean("recovered"))
    worst, best = (
        f"{cell.mean('recovered'):.0f} of 100 {cell.name}" for cell in (found[0], found[-1])
    )
    return worst, best


def extremes_of_demixing(rows: list[Row], scheme: str) -> tuple[str, str]:
    """The same for `experiments.demixing_kinds`: one encoding of each image, attacked alone."""
    found = {
        kind: mean(
            float(row["recovered_attack"])
            for row in rows
            if (row["kind"], row["scheme"]) == (kind, scheme)
        )
        for kind in TITLES
    }
    kinds = sorted(found, key=lambda kind: found[kind])
    worst, best = (f"{found[kind]:.0f} of 100 {TITLES[kind]}" for kind in (kinds[0], kinds[-1]))
    return worst, best


def seconds(rows: list[Row], copies: int) -> float:
    """Return the mean CPU seconds of the slowest kind."""
    return max(cell.mean("cpu_seconds") for cell in hidden(rows) if cell.copies == copies)

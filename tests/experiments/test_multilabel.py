"""The experiment with several findings: what it trains on, and how it sums up."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from experiments import multilabel
from experiments.records import add, by_scheme, rows_of
from instahide.data import open_split


def test_every_digit_is_in_as_many_pairs_and_its_finding_is_present() -> None:
    split, digits = multilabel.digit_pairs(), open_split("mnist-5k")
    assert len(split.train) == multilabel.PAIRS_EACH * len(digits.train) // 2 >= 2_000
    for pairs, of in zip(split, digits, strict=True):
        known = {image.tobytes(): label for image, label in zip(of.pixels, of.labels, strict=True)}
        for image, findings in zip(pairs.pixels[::50], pairs.labels[::50], strict=True):
            halves = {known[np.ascontiguousarray(h).tobytes()] for h in np.split(image, 2, axis=2)}
            assert set(np.flatnonzero(findings)) == halves


def test_the_summary_has_means_and_drops(tmp_path: Path) -> None:
    path = tmp_path / "multilabel.csv"
    for scheme, values in {"plain": (0.99, 0.97), "cross-4": (0.975, 0.975)}.items():
        for seed, value in enumerate(values):
            row = dict.fromkeys(multilabel.FIELDS, "") | {
                "data": "digit-pairs", "scheme": scheme, "seed": str(seed), "epochs": "60",
                "macro_auroc": str(value),
            }  # fmt: skip
            add(path, multilabel.FIELDS, row)
    found = by_scheme(rows_of(path), "digit-pairs", 60, "macro_auroc", 4)
    assert found["drop"] == {"cross-4": 0.005}
    assert found["plain"] == {"seeds": 2, "mean": 0.98, "deviation": 0.0141}

"""The page of evidence shows what was measured, and its verdicts are not at odds with it."""

from __future__ import annotations

from statistics import mean

from experiments import evidence_tables, tables
from experiments.records import END, START, rows_of
from experiments.training_time import relative
from instahide.cli.reproduce import claims

RESULTS = tables.RESULTS


def values(name: str, column: str, **wanted: str) -> list[float]:
    rows = rows_of(RESULTS / f"{name}.csv")
    mine = [row for row in rows if all(row[key] == value for key, value in wanted.items())]
    assert mine
    return [float(row[column]) for row in mine if row[column]]


def test_the_page_shows_what_was_measured() -> None:
    page = evidence_tables.PAGE.read_text(encoding="utf-8")
    assert evidence_tables.rewritten(page) == page


def test_every_section_is_of_a_claim_and_says_how_to_measure_it() -> None:
    known = claims(tables.ROOT)
    text = evidence_tables.rewritten(f"{START}{END}")
    for name in evidence_tables.SECTIONS:
        assert f"> {known[name].claim}" in text
        assert all(line in text for line in known[name].runs)


def test_the_paper_s_attacks_fail_and_their_squares_do_not() -> None:
    wanted = {
        "scheme": "cross-4", "encodings_per_image": "100", "measure": "identified_mean",
    }  # fmt: skip
    assert mean(values("attacks", "value", attack="averaging", **wanted)) < 0.1
    assert mean(values("attacks", "value", attack="averaging-absolute", **wanted)) > 0.9


def test_demixing_names_most_encodings_of_digits() -> None:
    for scheme in ("inside-4", "cross-4"):
        assert min(values("demixing", "identified_mean", data="mnist-5k", scheme=scheme)) > 0.5


def test_reconstruction_recovers_most_images() -> None:
    assert min(values("reconstruction", "above_half", recovery="ours")) > 50


def test_membership_is_told_better_than_by_chance() -> None:
    wanted = evidence_tables.MEMBERS | {"measure": "membership_auc_low", "scheme": "inside-4"}
    assert min(values("membership", "value", **wanted)) > 0.5


def test_on_digits_only_dp_sgd_is_accurate_and_gives_attackers_nothing() -> None:
    wanted = {"data": "digits", "rival": "dp-sgd"}
    assert min(values("rivals", "accuracy", **wanted)) > 95
    assert max(values("rivals", "recovered", **wanted)) == 0
    assert relative(rows_of(RESULTS / "training_time.csv"), "digits")["dp-sgd"] > 5
    for row in rows_of(RESULTS / "encoders.csv"):
        if row["data"] == "digits" and float(row["accuracy"]) > 95:
            assert float(row["recovered"]) > 50 or float(row["linkage_auc"]) > 0.9


def test_accuracy_falls_by_little() -> None:
    plain = mean(values("accuracy", "plain_accuracy", data="fashion-mnist", scheme="plain"))
    for scheme in ("inside-4", "cross-4", "cross-6"):
        found = values("accuracy", "plain_accuracy", data="fashion-mnist", scheme=scheme)
        assert plain - mean(found) < 3


def test_an_epoch_of_encodings_takes_about_as_long_as_one_of_plain_images() -> None:
    plain = mean(values("cost", "seconds_an_epoch", scheme="plain"))
    for scheme in ("inside-4", "cross-4", "cross-6"):
        assert 0.9 < mean(values("cost", "seconds_an_epoch", scheme=scheme)) / plain < 1.1

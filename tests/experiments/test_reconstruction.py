"""The experiment on reconstruction: what runs on which victims, and what its tables show."""

from __future__ import annotations

from argparse import Namespace
from dataclasses import fields
from pathlib import Path
from typing import cast

import numpy as np
import pytest
import torch

from experiments import reconstruction, reconstruction_tables
from experiments.records import rows_of
from instahide.attacks.base import AssignedImages, EncodingObservation, ThreatModel
from instahide.audit.challenge.score import ChallengeScore
from instahide.audit.ground_truth import observe
from instahide.data import ImageTable
from instahide.encryption.scheme import Scheme
from tests.attacks.conftest import natural

Row = dict[str, str]


def test_the_published_attack_gets_every_victim_that_ours_gets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "reconstruction.csv"
    monkeypatch.setattr(reconstruction, "OUT", out)
    monkeypatch.setattr(reconstruction.Victim, "numbered", lambda number, work: number)
    monkeypatch.setattr(reconstruction, "run", lambda *_: {"ssim": 0.5})
    options = Namespace(
        victims="1,2", labels="none,soft", recoveries=",".join(reconstruction.ATTACKS),
        train=0, work=tmp_path,
    )  # fmt: skip
    reconstruction.measure(options)
    reconstruction.measure(options)
    runs = [(row["victim"], row["labels"], row["recovery"]) for row in rows_of(out)]
    assert len(runs) == len(set(runs))
    for victim in ("1", "2"):
        for name in ("ours", "published", "published-uncorrected"):
            assert {(victim, "none", name), (victim, "soft", name)} <= set(runs)
        # The whole attack reads coefficients from soft labels.
        for name in reconstruction.LABELLED:
            assert (victim, "soft", name) in runs
            assert (victim, "none", name) not in runs


@pytest.mark.slow
def test_colors_are_corrected_or_left_out_of_one_and_the_same_recovery(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = ImageTable.from_arrays(natural(6, 1, 32), np.arange(6) % 2)
    threat = ThreatModel(public="none", encodings_per_image=8)
    observation, truth = observe(images, None, Scheme.inside(2), threat)
    began: list[str] = []

    class Planted:
        folder = tmp_path

        def observation(self, labels: str) -> EncodingObservation:
            began.append(labels)
            return observation

    found = AssignedImages(truth.images, truth.partners, truth.coefficients)
    monkeypatch.setattr(reconstruction, "ours", lambda *_: (found, {}))
    monkeypatch.setattr(reconstruction, "colours", lambda: None)
    monkeypatch.setattr(reconstruction, "recoloured", lambda images, _: -images)
    key = cast(reconstruction.Victim, Planted()), "soft", 0.0
    plain, times = reconstruction.ATTACKS["published-uncorrected"](*key)
    colored, same = reconstruction.ATTACKS["published"](*key)
    assert torch.equal(colored.images, -plain.images)
    assert times == same
    assert set(times) == set(reconstruction.TIMES)
    assert began == ["soft"]


def test_every_figure_of_the_challenge_has_a_column() -> None:
    names = {f"challenge_{field.name}" for field in fields(ChallengeScore)}
    assert names == {name for name in reconstruction.FIELDS if name.startswith("challenge_")}


def test_the_ceiling_is_at_least_what_the_attack_found() -> None:
    images = ImageTable.from_arrays(natural(10, 1, 16), np.arange(10) % 2)
    threat = ThreatModel(labels="none", public="none", encodings_per_image=3)
    observation, truth = observe(images, None, Scheme.inside(2), threat)
    alone = reconstruction.ceiling_figures(None, observation, truth)
    exact = AssignedImages(truth.images, truth.partners, truth.coefficients)
    together = reconstruction.ceiling_figures(exact, observation, truth)
    assert set(alone) == set(reconstruction.CEILING)
    assert alone["ceiling_ssim"] < together["ceiling_ssim"] == pytest.approx(1, abs=0.01)
    assert together["ceiling_above_half"] == 10


def run(recovery: str, labels: str = "soft", victim: str = "2", **figures: str) -> Row:
    key = {"victim": victim, "labels": labels, "recovery": recovery, "train": "0"}
    return key | {"above_half": "8.0", "challenge_max_ssim": "0.43"} | figures


def test_tables_of_photographs_leave_out_the_set_for_tuning_and_mark_what_is_unknown() -> None:
    rows = [
        run("ours", challenge_mean_ssim="0.2149"), run("carlini", ceiling_above_half="99.0"),
        run("ours", "none", "0"), run("fusion", "none", "0"), run("ours", "none", "3"),
    ]  # fmt: skip
    shown = reconstruction_tables.photographs(rows)
    assert shown[0] == "| figure | set 3, labels: none | set 2, labels: soft |"
    assert "| challenge: Max_SSIM | 0.43 | 0.43 |" in shown
    assert "| challenge: Mean_SSIM | – | 0.21 |" in shown


def test_the_table_of_attacks_has_means_over_sets_of_photographs() -> None:
    rows = [
        run("ours", challenge_mean_ssim="0.2149"), run("carlini", ceiling_above_half="99.0"),
        run("ours", "none", "0"), run("fusion", "none", "0"), run("ours", "none", "3"),
        run("ours", victim="3", above_half="10.0", challenge_mean_ssim="0.2549"),
    ]  # fmt: skip
    assert reconstruction_tables.recoveries(rows)[2:] == [
        "| ours | none | 8 | – | – | 0.43 | – | – | – |",
        "| ours | soft | 9 (8 to 10) | – | – | 0.43 | 0.23 | – | – |",
        "| after Carlini et al., our version | soft | 8 | 99 | – | 0.43 | – | – | – |",
    ]
    assert reconstruction_tables.recoveries(rows[2:4]) == []

"""The frontier: every point is measured once, on as many steps, and scored as it should be."""

from __future__ import annotations

import json
import sys
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch

from experiments import color_patches, frontier
from experiments.frontier import FixedEncodings, Point, points
from experiments.records import rows_of
from instahide import Scheme, open_split
from instahide.attacks.base import (
    AssignedImages,
    RecoveredImages,
)
from instahide.audit.scoring import metrics

DIGITS = open_split("digits").train.subset(slice(0, 100))


def test_points_differ_and_begin_with_all_schemes_at_one_number() -> None:
    found = list(points())
    assert len(found) == len(set(found)) >= 30
    first = found[1 : len(frontier.SCHEMES)]
    assert {point.scheme for point in first} == set(frontier.SCHEMES) - {"plain"}
    assert len({point.copies for point in first}) == 1


def test_points_in_color_are_at_least_twelve() -> None:
    found = list(points(color_patches.NAME))
    assert len(found) == len(set(found)) >= 12
    assert {(point.scheme, point.copies) for point in found} >= {("plain", 1), ("cross-6", 50)}


def test_in_color_the_attacker_has_none_of_the_training_images(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    generator = np.random.default_rng(0)
    pixels = generator.integers(0, 256, (60, 32, 32, 3), np.uint8)
    labels = np.arange(60) % 3
    np.savez(
        tmp_path / "patches.npz",
        x_train=pixels[:40], y_train=labels[:40], x_test=pixels[40:], y_test=labels[40:],
    )  # fmt: skip
    monkeypatch.setattr(color_patches, "source", lambda: str(tmp_path / "patches.npz"))
    monkeypatch.setattr(frontier, "COLOR_IMAGES", 30)
    frontier.split_of.cache_clear()
    train, test = frontier.split_of(color_patches.NAME)
    observation, truth = frontier.observed(Point("inside-2", 2), color_patches.NAME, 5, 0)
    frontier.split_of.cache_clear()
    assert (len(train), len(test), len(truth.images)) == (30, 20, 5)
    assert observation.shadow is not None
    assert np.array_equal(observation.shadow.pixels, test.pixels)
    assert observation.shadow.mean == train.mean


def test_labels_change_the_scheme_only_where_they_are_published_otherwise() -> None:
    schemes = [Point("cross-6", 5, labels).method for labels in ("soft", "hidden")]
    assert schemes[0] == schemes[1] == Scheme.cross(6)
    assert Point("cross-6", 5, "renormalised").method == Scheme.cross(6, label_mode="renormalised")


@pytest.mark.parametrize("copies", [1, 3])
def test_encodings_stay_and_are_learned_from_equally_often(copies: int) -> None:
    batches = FixedEncodings(Scheme.inside(2), DIGITS, copies, 32)
    assert len(batches) == 4
    assert len(list(batches)) == 4
    # In as many steps each is seen as often as any other.
    batches = FixedEncodings(Scheme.inside(2), DIGITS, copies, 32)
    seen = torch.cat([images for _ in range(7) for images, _ in batches])[:600]
    known = batches.encodings.float().flatten(1)
    distances = (seen.flatten(1)[:, None] - known).norm(dim=2)
    counts = distances.argmin(dim=1).bincount(minlength=len(known))
    assert float(distances.amin(dim=1).max()) == 0
    assert counts.tolist() == [6 // copies] * len(known)


def test_an_image_that_did_not_come_back_counts_as_not_found() -> None:
    observation, truth = frontier.observed(Point("inside-2", 20), "digits", 10, 0)
    # Five images came back; whatever else is in an encoding is taken for one of them.
    others = torch.arange(len(observation))[:, None] % 5
    members = torch.where(truth.partners < 5, truth.partners, others)
    found = AssignedImages(truth.images[:5], members, torch.ones(members.shape), torch.ones(5))
    figures = frontier.worth(found, observation, truth)
    assert figures["identified"] == figures["above_half"] == figures["claimed"] == 0.5
    assert figures["ssim"] == pytest.approx(0.5, abs=1e-4)
    assert figures["claimed_rightly"] == 1


def test_absolute_values_are_compared_with_the_images_themselves() -> None:
    observation, truth = frontier.observed(Point("inside-2", 2), "digits", 10, 0)
    names = torch.arange(10)
    shown = truth.images[truth.group_targets[names]]
    signed = frontier.worth(RecoveredImages(images=-shown, target_ids=names), observation, truth)
    assert signed["identified"] == 1
    assert signed["ssim"] == pytest.approx(1, abs=1e-4)
    absolute = RecoveredImages(images=shown.abs(), target_ids=names, absolute=True)
    figures = frontier.worth(absolute, observation, truth)
    assert figures["identified"] == 1
    assert figures["ssim"] < 0.99


def test_points_are_measured_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(frontier, "DEMIXING", 2)
    out = tmp_path / "frontier.csv"
    size = ["--data", "digits", "--private", "10", "--epochs", "1", "--out", str(out)]
    for only in ("1", "1", "0"):
        monkeypatch.setattr(sys, "argv", ["frontier", *size, "--only", only])
        frontier.main()
    rows = rows_of(out)
    assert [(row["scheme"], row["copies"]) for row in rows] == [
        (point.scheme, str(point.copies)) for point in islice(points(), 2)
    ]
    assert all(row["commit"] for row in rows)
    assert rows[0]["attacks"] == "encoding=1.000/1.000"
    shares = [part.split("=")[1] for part in rows[1]["attacks"].split()]
    best = max(float(share.split("/")[0]) for share in shares)
    assert float(rows[1]["identified"]) == pytest.approx(best, abs=1e-3)
    figures = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert figures["points"] == 2


def test_points_of_any_encoder_are_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of those of the table, and of one that is named with its settings."""
    monkeypatch.setattr(frontier, "INVERSION", 2)
    monkeypatch.setattr(frontier, "ENCODER_COPIES", (1, 2))
    out = tmp_path / "frontier.csv"
    names = ["neuracrypt", "dp-instahide-4", "block-scrambling block=2"]
    monkeypatch.setattr(sys, "argv", ["frontier", "--data", "digits", "--private", "10", "--epochs",
        "1", "--encoders", ", ".join(names), "--out", str(out)])  # fmt: skip
    frontier.main()
    rows = rows_of(out)
    assert [row["scheme"] for row in rows] == names * 2
    assert [row["copies"] for row in rows] == ["1"] * 3 + ["2"] * 3
    ran = [{part.split("=")[0] for part in row["attacks"].split()} for row in rows[:3]]
    # NeuraCrypt's encodings are no images, so that nothing is seen in the encoding itself.
    inversion = {"inversion", "inversion-mean"}
    assert ran == [inversion, {"encoding"} | inversion, {"encoding"} | inversion]
    assert "averaging" in rows[4]["attacks"]


def test_what_is_found_in_each_encoding_of_an_image_is_averaged() -> None:
    observation, truth = frontier.observed(Point("dp-instahide-4", 50), "digits", 10, 0)
    assert observation.groups is not None
    shown = truth.images[truth.group_targets[observation.groups]]
    noisy = shown + 3 * torch.randn(shown.shape, generator=torch.manual_seed(0))
    means = frontier.averaged(RecoveredImages(noisy, torch.arange(len(noisy))), observation)
    rows = truth.group_targets[means.target_ids]
    assert sorted(rows.tolist()) == list(range(10))
    # The mean of 50 has a deviation of 0.4, which takes no digit for another.
    assert metrics.nearest(means.images, truth.images).tolist() == rows.tolist()


def test_there_are_points_of_encoders_that_are_no_schemes() -> None:
    found = [point for point in points() if point.scheme in frontier.ENCODERS]
    assert len(found) == len(frontier.ENCODERS) * len(frontier.ENCODER_COPIES)
    others = {point.scheme for point in found if not isinstance(point.method, Scheme)}
    assert others == {"dp-instahide-4", "neuracrypt", "block-scrambling"}

"""Audits of images in groups: what is identified is a group, by any of its images."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from instahide.attacks.base import RecoveredImages, ThreatModel
from instahide.attacks.registry import registered
from instahide.audit.ground_truth import observe
from instahide.audit.report.html import make_report, render
from instahide.audit.report.summary import summarize
from instahide.audit.report.thresholds import check_thresholds, parse_threshold, summary
from instahide.audit.schedule import tasks
from instahide.audit.scoring.matching import match_to_nearest, match_to_truth
from instahide.audit.session import PICTURES, Session, facts, pending
from instahide.audit.target import MOST_IMAGES, AuditTarget
from instahide.cli.audit import _line
from instahide.data import ImageTable
from instahide.encryption.scheme import Scheme
from instahide.errors import InstaHideError
from tests.attacks.conftest import natural
from tests.audit.examples import recovered
from tests.audit.test_session import Silent

COUNT, EACH = 12, 3
GROUPS = np.arange(COUNT) // EACH


def images(count: int = COUNT) -> ImageTable:
    table = ImageTable.from_arrays(natural(count, 5), np.arange(count) % 3)
    return table.grouped([f"Miller, Anna {row // EACH}" for row in range(count)])


def target(table: ImageTable) -> AuditTarget:
    return AuditTarget("here", "encodings", "somewhere", table, None, Scheme.inside(2), 6)


def test_a_group_counts_once_however_many_of_its_images_came_back() -> None:
    threat = ThreatModel(public="none", encodings_per_image=1)
    observation, truth = observe(images(), None, Scheme.inside(2), threat)
    rows = truth.partners[:, 0]
    # Groups 0 and 1 whole, one image of group 2, nothing of group 3.
    known = torch.isin(rows, torch.tensor([0, 1, 2, 3, 4, 5, 7]))
    noise = torch.randn(truth.images.shape, generator=torch.Generator().manual_seed(0))
    shown = torch.where(known[:, None, None, None], truth.images[rows], noise)
    found = RecoveredImages(images=shown, target_ids=torch.arange(COUNT))
    matches = match_to_truth(found, observation, truth)
    assert matches is not None
    assert matches.recognizable == 7
    figures = matches.summary()
    assert (figures["groups_identified"], figures["groups_sought"]) == (3, 4)


def test_an_image_mistaken_for_another_of_its_group_identifies_the_group() -> None:
    """Two views of a patient, hardly to be told apart, still are the patient."""
    table = images(6)
    pixels = table.pixels.astype(np.int64)
    for first in (0, 3):
        for view in (1, 2):
            wobble = np.random.default_rng(view).integers(-6, 7, pixels[0].shape)
            pixels[first + view] = np.clip(pixels[first] + wobble, 0, 255)
    table = replace(table, pixels=pixels.astype(np.uint8))
    threat = ThreatModel(public="none", encodings_per_image=1)
    observation, truth = observe(table, None, Scheme.inside(2), threat)
    rows = truth.partners[:, 0]
    swapped = rows // 3 * 3 + (rows + 1) % 3
    found = RecoveredImages(images=truth.images[swapped], target_ids=torch.arange(6))
    matches = match_to_truth(found, observation, truth)
    assert matches is not None
    assert matches.recognizable == 0
    assert matches.groups_identified == 2
    private = torch.from_numpy(table.normalized())
    groups = torch.from_numpy(np.arange(6) // 3)
    blurred = torch.nn.functional.avg_pool2d(private, 3, 1, 1, count_include_pad=False)
    published = match_to_nearest(
        RecoveredImages(blurred, torch.arange(6)), private, torch.from_numpy(pixels / 255).float(),
        groups,
    )  # fmt: skip
    assert published is not None
    assert published.recognizable < 6
    assert published.groups_identified == 2


def test_images_without_groups_have_no_figures_of_groups() -> None:
    threat = ThreatModel(public="none", encodings_per_image=1)
    plain = replace(images(), groups=None)
    observation, truth = observe(plain, None, Scheme.inside(2), threat)
    found = RecoveredImages(truth.images[truth.partners[:, 0]], torch.arange(COUNT))
    matches = match_to_truth(found, observation, truth)
    assert matches is not None
    assert not [name for name in matches.summary() if "group" in name]
    assert facts(target(plain)).groups == 0


@pytest.mark.parametrize(("count", "each"), [(12, 3), (360, 3), (400, 80), (300, 1)])
def test_a_rehearsal_takes_whole_groups_where_it_can(count: int, each: int) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (count, 1, 4, 4), np.uint8)
    groups = np.arange(count) // each
    table = ImageTable.from_arrays(pixels, np.arange(count) % 2).grouped(groups)
    chosen, _ = target(table).known_key_target()
    assert len(chosen) <= MOST_IMAGES
    assert chosen.group_ids is not None
    sizes = np.bincount(chosen.group_ids)
    if count <= MOST_IMAGES:
        assert len(chosen) == count
    assert len(sizes) >= 2
    assert sizes.min() == each or len(chosen) == MOST_IMAGES
    assert np.ptp(sizes) <= 1


@pytest.mark.slow
def test_the_report_says_how_many_groups_were_identified(tmp_path: Path) -> None:
    subject = target(images())
    session = Session.open(tmp_path / "audit", subject)
    wanted = tasks(["averaging-absolute"], 6)
    results = list(session.run(wanted, registered().attacks, 3600.0, Silent()))
    assert results[0].figures["groups_sought"] == COUNT / EACH
    report = make_report(
        session, wanted, results, broken={}, bounds=[], seconds=3600.0, command="instahide audit"
    )
    assert report.subject.groups == COUNT // EACH
    assert not pending(wanted, results)
    page = render(report, session.folder / PICTURES)
    assert "groups identified" in page
    assert "12 images of 4 groups" in page
    assert "Of 4 groups of images, " in page
    for file in session.folder.rglob("*"):
        assert not file.is_file() or b"Miller" not in file.read_bytes()


def test_an_audit_is_not_taken_up_under_other_groups(tmp_path: Path) -> None:
    Session.open(tmp_path / "audit", target(images()))
    other = replace(images(), groups=None).grouped([str(row % 4) for row in range(COUNT)])
    with pytest.raises(InstaHideError, match="holds something else"):
        Session.open(tmp_path / "audit", target(other))


def test_bounds_and_the_verdict_name_groups() -> None:
    figures = {"groups_identified": 3.0, "groups_sought": 4.0}
    seen = recovered(3)
    some = seen.model_copy(update={"figures": seen.figures | figures})
    assert summary([some])["groups"] == 0.75
    bounds = [parse_threshold(text, set()) for text in ("groups>0.5", "groups>0.8")]
    assert [bound.violated for bound in check_thresholds(bounds, [some])] == [True, False]
    # Nothing was measured.
    assert check_thresholds(bounds, [seen])[1].violated
    about = facts(target(images()))
    assert any("Of 4 groups of images, 3 were" in text for text in summarize([some], about))
    assert not any("group" in text for text in summarize([seen], about))
    none = seen.model_copy(update={"figures": seen.figures | figures | {"groups_identified": 0.0}})
    assert any("none was identified" in text for text in summarize([none], about))


def test_the_line_of_an_attack_names_groups() -> None:
    figures = {"groups_identified": 3.0, "groups_sought": 4.0}
    seen = recovered(3)
    some = seen.model_copy(update={"figures": seen.figures | figures})
    assert "3 of 100 recognizable, 3 of 4 groups identified, mean" in _line(some)
    assert "group" not in _line(seen)

"""The published attacks to compare with: an audit runs them when they are named, and only then."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from instahide.attacks.registry import registered
from instahide.audit.report.html import UNNAMED, make_report
from instahide.audit.report.schema import AttackResult
from instahide.audit.schedule import BASELINES, Task, tasks
from instahide.audit.session import Session
from instahide.audit.target import AuditTarget
from instahide.data import ImageTable
from instahide.encryption.scheme import Scheme
from tests.attacks.conftest import natural

IMAGES, COPIES = 12, 20


def target() -> AuditTarget:
    images = ImageTable.from_arrays(natural(IMAGES, 3, 8), np.arange(IMAGES))
    others = ImageTable.from_arrays(natural(60, 4, 8)).normalized_like(images)
    scheme = Scheme.inside(2)
    return AuditTarget("here", "encodings", "somewhere", images, None, scheme, COPIES, others)


class Silent:
    def begins(self, number: int, task: Task, seconds: float) -> None: ...

    def goes_on(self, what: str, share: float) -> None: ...


def audited(folder: Path, of: AuditTarget, names: Sequence[str]) -> list[AttackResult]:
    wanted = tasks(names, of.copies)
    return list(Session.open(folder, of).run(wanted, registered().attacks, 4.0, Silent()))


@pytest.mark.slow
@pytest.mark.parametrize("name", BASELINES)
def test_each_recovers_images_although_its_budget_ends_early(name: str, tmp_path: Path) -> None:
    (result,) = audited(tmp_path / "audit", target(), [name])
    assert result.state == "done", result.reason
    assert result.cut_short
    assert result.figures["images_sought"] == IMAGES
    assert (result.figures["images_recovered"] or 0) > 0
    assert (result.figures["ssim_mean"] or 0) > 0
    assert result.pictures


@pytest.mark.slow
@pytest.mark.parametrize("name", BASELINES)
@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"copies": 2}, "must be known to have at least 3 encodings"),
        ({"encoder": replace(Scheme.inside(2), mask=False)}, "masked"),
    ],
)
def test_each_refuses_what_it_cannot_attack(
    name: str, changes: dict[str, object], reason: str, tmp_path: Path
) -> None:
    (result,) = audited(tmp_path / "audit", replace(target(), **changes), [name])  # type: ignore[arg-type]
    assert result.state == "not tried"
    assert reason in result.reason


@pytest.mark.slow
def test_they_refuse_what_they_alone_need(tmp_path: Path) -> None:
    three = replace(target(), encoder=Scheme.inside(3))
    (carlini,) = audited(tmp_path / "three", three, ["carlini"])
    (fusion,) = audited(tmp_path / "alone", replace(target(), others=None), ["fusion-denoising"])
    assert carlini.reason == "The attack is for masked mixes of two private images."
    assert "no shadow images" in fusion.reason


def test_the_report_says_that_they_were_not_named(tmp_path: Path) -> None:
    session = Session.open(tmp_path / "audit", target())
    wanted = tasks(["carlini"], COPIES)
    report = make_report(
        session, wanted, [], broken={}, bounds=[], seconds=1.0, command="instahide audit"
    )
    assert report.untried["fusion-denoising"] == UNNAMED
    assert report.untried["carlini"] != UNNAMED

"""Bounds: read strictly, and violated wherever they were not checked."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from instahide.audit.report.schema import AttackResult
from instahide.audit.report.thresholds import (
    MEANINGS,
    check_thresholds,
    parse_threshold,
    summary,
)
from instahide.audit.schedule import Task
from instahide.errors import InstaHideError
from tests.audit.examples import recovered, result

ATTACKS = {"labels", "averaging"}


def violated(expression: str, *results: AttackResult) -> bool:
    return check_thresholds([parse_threshold(expression, ATTACKS)], results)[0].violated


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("ssim>0.2", True), ("ssim>0.3", False), ("ssim >= 0.3", True), (" ssim<0.4 ", True),
        ("ssim<=0.29", False), ("recovered>0.5", True), ("recovered>6e-1", False),
        ("ssim_best>0.8", True), ("averaging.identified>0.3", True),
        ("averaging.identified>0.5", False),
    ],
)  # fmt: skip
def test_bounds_compare_what_was_measured(expression: str, expected: bool) -> None:
    assert violated(expression, recovered(60), result("labels")) is expected


@pytest.mark.parametrize("expression", ["public_found>0.9", "labels.no_such>1", "averaging.x<0"])
def test_a_bound_that_cannot_be_checked_is_violated(expression: str) -> None:
    assert violated(expression, recovered(60))


def test_an_attack_without_a_result_might_have_found_more() -> None:
    """A figure is the greatest of all attacks': what is missing can only have raised it."""
    ended = recovered(1)
    failed = recovered(0, attack="labels", state="failed")
    assert not violated("recovered>0.5", ended)
    assert violated("recovered>0.5", ended, failed)
    assert violated("ssim >= 0.5", ended, failed)
    assert violated("labels.class_sets_right>0.5", ended, failed)
    # What is measured of another attack stands, and so do lower bounds.
    assert not violated("averaging.identified>0.5", ended, failed)
    assert not violated("ssim<0.1", ended, failed)
    # Neither curves nor updates are counted, and so they are not missing.
    for other in ({"point": True}, {"on": "update"}):
        assert not violated("recovered>0.5", ended, failed.model_copy(update=other))
    bound = parse_threshold("recovered>0.5", ATTACKS)
    (threshold,) = check_thresholds(
        [bound], [ended], [Task("labels", 30), Task("averaging", 2, point=True)]
    )
    assert (threshold.violated, threshold.unchecked) == (True, ["labels"])


def test_an_attack_whose_time_was_over_might_have_found_more() -> None:
    late = recovered(40, attack="reconstruction", seconds=5.0, out_of_time=True)
    (threshold,) = check_thresholds([parse_threshold("recovered>0.5", ATTACKS)], [late])
    assert (threshold.violated, threshold.unchecked) == (True, ["reconstruction"])
    assert violated("recovered>0.1", late)
    assert not violated("ssim<0.1", late)
    # More time than the largest useful one, or for a search without an end, finds no more.
    for name, seconds in (("inversion", 301.0), ("seed-search", 5.0)):
        spent = late.model_copy(update={"attack": name, "seconds": seconds})
        assert not violated("recovered>0.5", spent)
    # It counts what it was given, of which a training uses a part.
    for given, gains in ((200.0, True), (300.0, False)):
        update = {"attack": "inversion", "seconds": 180.0, "seconds_given": given}
        assert violated("recovered>0.5", late.model_copy(update=update)) == gains


def checked(
    expression: str,
    *results: AttackResult,
    waiting: Sequence[Task] = (),
    broken: Sequence[str] = (),
) -> tuple[float | None, bool, list[str]]:
    bound = parse_threshold(expression, {*ATTACKS, "federated", "reconstruction", "statistics"})
    (found,) = check_thresholds([bound], results, waiting, broken)
    return found.value, found.violated, found.unchecked


def test_an_attack_that_could_not_be_loaded_might_have_found_more() -> None:
    theirs, ours = "strong (no_such_package:Attack)", "dlg (instahide.attacks:DLG)"
    for expression in ("recovered>0.5", "ssim>=0.5", "linked>0.9"):
        value, violated, unchecked = checked(
            expression, recovered(1), result(figures={"linkage_auc": 0.5}), broken=[theirs, ours]
        )
        # Updates do not count, and so attacks on them are not missing.
        assert (value is not None, violated, unchecked) == (True, True, [theirs])
    # It can only raise a figure, and no figure of another attack.
    assert not checked("ssim<0.1", recovered(1), broken=[theirs])[1]
    assert not checked("averaging.identified>0.5", recovered(1), broken=[theirs])[1]
    broken = ["averaging (another:Attack)"]
    assert checked("averaging.identified>0.5", recovered(1), broken=broken)[1:] == (True, broken)
    limits = {"images_recognizable": 9, "images_sought": 100, "ssim_mean": 0.8}
    limits |= {"not_found": 0, "not_enough_information": 91}
    low = recovered(9, ceiling=limits)
    assert not checked("ceiling>0.5", low, broken=[theirs])[1]
    broken = ["reconstruction (another:Attack)"]
    assert checked("ceiling>0.5", low, broken=broken)[1:] == (True, broken)


def error(value: float, **changes: Any) -> AttackResult:
    figures = {**recovered(0).figures, "mse_mean": value, "values_p": value}
    return recovered(0, **{"attack": "federated", "on": "fedavg", "figures": figures} | changes)


@pytest.mark.parametrize("compared", ["<", "<="])
@pytest.mark.parametrize("figure", ["mse_mean", "values_p"])
def test_a_lower_bound_on_an_error_is_on_the_smallest(figure: str, compared: str) -> None:
    expression, exact = f"federated.{figure}{compared}0.01", error(0.0001, on="fedsgd")
    assert checked(expression, exact, error(0.2)) == (0.0001, True, [])
    assert checked(expression, error(0.02), error(0.2)) == (0.02, False, [])
    # What compares, and points of curves, do not count.
    others = [error(0.0, on="plain update"), error(0.0, point=True)]
    assert checked(expression, error(0.2), *others) == (0.2, False, [])
    # A missing attack might have come nearer.
    failed = result("federated", on="fedsgd", state="failed")
    assert checked(expression, error(0.2), failed) == (0.2, True, ["federated"])
    late = error(0.2, attack="reconstruction", on="rehearsal", seconds=5.0, out_of_time=True)
    named = expression.replace("federated", "reconstruction")
    assert checked(named, late) == (0.2, True, ["reconstruction"])
    waiting = [Task("federated", 5, "fedsgd")]
    assert checked(expression, error(0.2), waiting=waiting) == (0.2, True, ["federated"])
    assert checked(expression, error(0.2), result("labels", state="failed"))[1:] == (False, [])
    assert checked(expression) == (None, True, [])


def test_a_lower_bound_on_any_other_figure_is_on_the_largest() -> None:
    both = [error(0.2, figures={"ssim_mean": ssim}) for ssim in (0.1, 0.3)]
    failed = result("federated", on="fedsgd", state="failed")
    assert checked("federated.ssim_mean<0.2", *both, failed) == (0.3, False, [])
    assert checked("federated.ssim_mean<0.4", *both)[1]


def test_failed_attacks_and_points_of_curves_do_not_count() -> None:
    others = [recovered(90, point=True), recovered(90, state="failed")]
    assert summary([*others, recovered(10)])["recovered"] == 0.1
    assert summary(others) == dict.fromkeys(summary(others))


@pytest.mark.parametrize(
    "expression",
    ["", "ssim", "ssim=0.4", "ssim>", ">0.4", "ssim>0.4>0.2", "ssim>nan", "ssim>1e", "psnr>20",
     "magic.ssim_mean>1", "ssim>0.4; rm", "__import__('os')>1"],
)  # fmt: skip
def test_anything_else_is_refused(expression: str) -> None:
    with pytest.raises(InstaHideError):
        parse_threshold(expression, ATTACKS)


@pytest.mark.parametrize("name", MEANINGS)
def test_a_bound_that_no_figure_can_violate_is_refused(name: str) -> None:
    """Such as a percentage: `recovered>5` would let all images be recovered."""
    least = -1 if name.startswith("ssim") else 0
    for beyond in (">5", ">1", ">=1.01", f"<{least}", f"<={least - 0.01}", "<-3"):
        with pytest.raises(InstaHideError, match=r"never be violated.*below 1"):
            parse_threshold(f"{name}{beyond}", ATTACKS)
    for within in (">=1", ">0.99", f"<={least}", f"<{least + 0.01}", "<2", ">-2"):
        parse_threshold(f"{name}{within}", ATTACKS)
    # Figures of an attack may have any range, but are finite.
    parse_threshold("labels.psnr>25", ATTACKS)
    with pytest.raises(InstaHideError, match="is not a bound"):
        parse_threshold("labels.psnr>1e999", ATTACKS)


def test_updates_count_under_their_own_name_alone() -> None:
    figures = recovered(1, total=1).figures | {"encoding_psnr_mean": 50.0}
    update = recovered(1, total=1, attack="labels", on="update", figures=figures)
    plain = update.model_copy(update={"on": "plain update"})
    assert summary([update, plain, recovered(10)])["recovered"] == 0.1
    assert violated("labels.encoding_psnr_mean>25", update)
    # What is there to compare with never counts.
    weak = update.model_copy(update={"figures": figures | {"encoding_psnr_mean": 9.0}})
    assert not violated("labels.encoding_psnr_mean>25", weak, plain)


def test_a_bound_may_be_on_the_ceiling() -> None:
    limits = {"images_recognizable": 90, "images_sought": 100, "ssim_mean": 0.8}
    limits |= {"not_found": 80, "not_enough_information": 10}
    low = recovered(10, ceiling=limits)
    assert summary([low, recovered(95)])["ceiling"] == 0.9
    assert violated("ceiling>0.5", low)
    assert not violated("ceiling>0.95", low)
    # An attack that could not be started has a ceiling; another that failed has none to raise it.
    refused = result("reconstruction", state="not tried", ceiling=limits)
    failed = recovered(0, attack="labels", state="failed")
    assert summary([refused])["ceiling"] == 0.9
    assert not violated("ceiling>0.95", refused, failed)
    # Where none was computed, the bound could not be checked.
    assert violated("ceiling>0.5", recovered(10))
    bound = parse_threshold("ceiling>0.95", ATTACKS)
    waiting = [
        Task("reconstruction", 30),
        Task("labels", 30),
        Task("reconstruction", 2, point=True),
    ]
    (threshold,) = check_thresholds([bound], [low], waiting)
    assert threshold.unchecked == ["reconstruction"]
    (threshold,) = check_thresholds([bound], [low], waiting[1:])
    assert threshold.unchecked == []

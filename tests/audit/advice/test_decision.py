"""What is recommended, what is only near, and what is never called safe."""

from __future__ import annotations

from typing import Any

import pytest

from instahide.audit.advice.decision import (
    NO_CEILING,
    answer,
    decide,
    meeting,
    percent,
    share_of_targets,
)
from instahide.audit.advice.encoder_candidate import UNKNOWN_CEILING
from instahide.audit.advice.schema import Setting, Targets
from instahide.audit.report.summary import LIMITS
from tests.audit.advice.examples import candidate, measurement, other, setting

TARGETS = Targets(max_recovered=0.25, max_drop=3.0)


def decided(*settings: Setting) -> Any:
    return decide(settings, TARGETS)


def test_a_setting_that_meets_both_in_every_seed_is_recommended() -> None:
    good = setting()
    decision = decided(setting(of=candidate(copies=5), recovered=0.9), good)
    assert decision.verdict == "recommended"
    assert decision.recommended == good
    said = answer(decision, TARGETS, 100)
    assert "scheme cross, k = 4, noise 0.5, 2 encodings of each image" in said[0]
    assert said[-1] == LIMITS


def test_a_high_ceiling_counts_although_the_attacks_failed() -> None:
    decision = decided(setting(recovered=0.0, ceiling=0.3))
    assert decision.verdict == "none"
    assert decision.nearest_private is None
    assert decision.nearest_accurate is not None


def test_an_attack_counts_although_the_ceiling_is_low() -> None:
    assert decided(setting(recovered=0.3, ceiling=0.0)).verdict == "none"


def test_the_worst_seed_decides() -> None:
    worst = measurement(seed=1, thorough=True, accuracy=0.91)
    assert decided(setting(measurement(accuracy=0.95), worst)).verdict == "none"
    exposed = measurement(seed=1, thorough=True, recovered=0.26)
    assert decided(setting(measurement(recovered=0.0), exposed)).verdict == "none"


@pytest.mark.parametrize("change", [{"missing": ["reconstruction"]}, {"state": "not attacked"}])
def test_what_was_not_attacked_to_the_end_is_not_recommended(change: dict[str, Any]) -> None:
    decision = decided(setting(recovered=0.0, ceiling=0.0, **change))
    assert decision == ("none", None, None, None)
    assert "No setting that was tried is private enough." in answer(decision, TARGETS, 100)


def test_a_measurement_without_a_result_counts_only_against_the_setting() -> None:
    found = setting(
        measurement(), measurement(seed=1, missing=["demixing"], recovered=0.22, accuracy=0.94),
        measurement(seed=2, thorough=True),
    )  # fmt: skip
    assert (found.seeds, found.thorough, found.missing) == (2, 1, [])
    assert (found.exposure, found.exposure_worst) == pytest.approx((0.2, 0.22))
    assert decided(found).verdict == "recommended"
    exposed = measurement(seed=1, missing=["demixing"], recovered=0.9)
    assert decided(setting(measurement(), exposed, measurement(seed=2, thorough=True))).verdict == (
        "none"
    )


@pytest.mark.parametrize(
    "measured",
    [(measurement(),), (measurement(thorough=True),), (measurement(), measurement(seed=1))],
)
def test_one_seed_or_no_thorough_attack_is_no_confirmation(measured: Any) -> None:
    decision = decided(setting(*measured))
    assert decision.verdict == "unconfirmed"
    assert answer(decision, TARGETS, 100)[0].startswith("Not confirmed:")


def test_of_several_the_one_furthest_below_both_targets_is_taken() -> None:
    edge = setting(of=candidate(copies=1), recovered=0.0, ceiling=0.0, accuracy=0.921)
    middle = setting(recovered=0.1, ceiling=0.1, accuracy=0.935)
    assert decided(edge, middle).recommended == middle
    shares = [share_of_targets(setting, TARGETS) for setting in meeting([edge, middle], TARGETS)]
    assert shares == pytest.approx([0.5, 29 / 30])


def test_an_encoder_with_a_shared_key_is_not_recommended_however_little_came_back() -> None:
    found = setting(of=other("neuracrypt"), recovered=0.0, ceiling=None, accuracy=0.95)
    assert found.never_recommended is not None
    assert decided(found) == ("none", None, None, None)
    assert decided(found, setting()).recommended == setting()


def test_a_scheme_without_a_ceiling_is_not_recommended_however_little_came_back() -> None:
    for of in (candidate(), other("mixup")):
        unknown = setting(
            measurement(of, recovered=0.0, ceiling=0.0),
            measurement(of, recovered=0.0, ceiling=None, seed=1, thorough=True),
        )
        assert unknown.never_recommended == UNKNOWN_CEILING
        assert decided(unknown) == ("none", None, None, None)
    assert setting(recovered=0.0, ceiling=0.0).never_recommended is None


def test_without_a_ceiling_the_answer_says_what_is_unknown() -> None:
    found = setting(of=other("dp-instahide", "noise=2.0"), recovered=0.1, ceiling=None)
    decision = decided(found)
    assert decision.recommended == found
    said = answer(decision, TARGETS, 100)
    assert "encoder dp-instahide, noise=2.0, 1 encoding of each image" in said[0]
    assert NO_CEILING in said
    assert NO_CEILING not in answer(decided(setting()), TARGETS, 100)
    # A scheme that meets both targets is preferred, although its known exposure is larger.
    assert decided(found, setting(accuracy=0.921)).recommended == setting(accuracy=0.921)


def test_the_nearest_on_each_side_are_named() -> None:
    private = setting(of=candidate(noise=2.0), recovered=0.0, ceiling=0.0, accuracy=0.8)
    worse = setting(of=candidate(noise=3.0), recovered=0.0, ceiling=0.0, accuracy=0.5)
    accurate = setting(of=candidate(noise=0.0), recovered=0.7, ceiling=0.9, accuracy=0.95)
    decision = decided(worse, accurate, private)
    assert decision == ("none", None, private, accurate)
    said = answer(decision, TARGETS, 100)
    assert said[0].startswith("No setting that was tried meets both targets: at most 25% of the")
    assert "noise 2," in said[1]
    assert "training lost 15.0 points" in said[1]
    assert "no noise," in said[2]
    assert "90% of the attacked images are exposed" in said[2]


def test_a_target_below_one_image_says_so() -> None:
    said = answer(decided(), Targets(max_recovered=0.001, max_drop=1.0), 100)
    assert any("allows none of them" in sentence for sentence in said)


def test_a_share_that_is_not_zero_is_never_shown_as_zero() -> None:
    assert [percent(share) for share in (0.0, 0.0004, 0.01, 0.9996, 1.0)] == [
        "0%", "less than 0.1%", "1%", "more than 99.9%", "100%",
    ]  # fmt: skip


@pytest.mark.parametrize(("exposure", "drop", "met"), [(0.0, -1.0, True), (0.01, 0.0, False)])
def test_targets_of_zero_can_be_met(exposure: float, drop: float, met: bool) -> None:
    assert (Targets(max_recovered=0, max_drop=0).share_used(exposure, drop) <= 1) == met

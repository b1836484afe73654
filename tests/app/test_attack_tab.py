"""The quick attacks do what the page says that they do: with a mask, and without.

The bounds lie 7 deviations and more from the mean, as 12 and 25 runs on new crops measured both:
below one failure in a million runs.
"""

from __future__ import annotations

import re

import pytest

from instahide.app.attack_tab import ATTACKS, GRANTED, run_attack
from instahide.app.demo_images import DemoImages
from instahide.audit.report.summary import LIMITS

AVERAGING, SEARCH = ATTACKS
WAYS = [f"{scheme}, values {values}" for scheme in ("Mixup", "InstaHide")
        for values in ("as they are", "absolute")]  # fmt: skip


def said(html: str, pattern: str) -> dict[str, float]:
    """The number that ``pattern`` finds in the sentence under every heading."""
    parts = re.findall(r"<h3>(.*?)</h3><p>(.*?)</p>", html)
    found = {name: re.search(pattern, sentence) for name, sentence in parts}
    return {name: float(match[1]) for name, match in found.items() if match is not None}


@pytest.mark.slow
def test_averaging_opens_mixup_and_the_mask_only_hides_signs(stage: DemoImages) -> None:
    html = run_attack(stage, next(iter(stage.choices.values())), AVERAGING, 50)
    alike, nothing = said(html, r"mean SSIM of ([\d.]+)"), said(html, r"colour has ([\d.]+)")
    assert list(alike) == WAYS
    mixup, _, signed, absolute = (alike[way] - nothing[way] for way in WAYS)
    assert mixup > 0.4
    # Coins averaged are noise, and noise under the best affine map is a plain colour.
    assert abs(signed) < 0.05
    assert absolute > 0.15
    assert GRANTED in html
    assert LIMITS in html
    # Three images beside what came back, four times.
    assert html.count("<img") == 24


@pytest.mark.slow
def test_public_images_are_found_by_absolute_values_under_the_mask(stage: DemoImages) -> None:
    html = run_attack(stage, next(iter(stage.choices.values())), SEARCH, 20)
    found, chance = said(html, r"([\d.]+)% were found"), said(html, r"chance ([\d.]+)%")
    mixup, _, signed, absolute = (found[way] for way in WAYS)
    assert set(chance.values()) == {0.1}
    assert mixup > 50
    assert signed < 5
    assert absolute > 10

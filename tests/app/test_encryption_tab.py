"""The pictures of the first tab, against what the scheme says that they are."""

from __future__ import annotations

import re
from collections import Counter

import numpy as np
import pytest

from instahide.app.demo_images import DemoImages, Pixels
from instahide.app.encryption_tab import Wanted, encryption_panels
from instahide.encryption.known_keys import illustrate
from instahide.encryption.scheme import Scheme
from instahide.errors import InstaHideError


@pytest.fixture
def chosen(stage: DemoImages) -> Pixels:
    return next(iter(stage.choices.values()))


def kinds(html: str) -> Counter[str]:
    return Counter(alt.split(" ×")[0] for alt in re.findall(r'alt="([^"]*)"', html))


@pytest.mark.parametrize(
    ("wanted", "private", "public", "mask"),
    [
        (Wanted("cross", 6), 1, 4, 1),
        (Wanted("inside", 5), 4, 0, 1),
        (Wanted("mixup", 3), 2, 0, 0),
        (Wanted("plain"), 0, 0, 0),
    ],
)
def test_every_scheme_shows_its_own_steps(
    stage: DemoImages, chosen: Pixels, wanted: Wanted, private: int, public: int, mask: int
) -> None:
    html = encryption_panels(stage, chosen, wanted)
    expected = {
        "the image": 1, "private partner": private, "public partner": public, "the mix": 1,
        "the mask": mask, "the encoding": 1, "|encoding|": 1,
    }  # fmt: skip
    assert kinds(html) == Counter({name: count for name, count in expected.items() if count})
    assert ("There is no mask" in html) == (not mask)


def test_coefficients_keep_to_the_bound_and_the_label_to_its_mode(
    stage: DemoImages, chosen: Pixels
) -> None:
    for labels in ("soft", "renormalised"):
        html = encryption_panels(stage, chosen, Wanted("cross", 4, 0.4, labels))
        coefficients = [float(value) for value in re.findall(r'alt="[^"]* × ([\d.]+)"', html)]
        assert len(coefficients) == 4
        assert max(coefficients) <= 0.4
        assert sum(coefficients) == pytest.approx(1, abs=0.03)
        label = [float(value) for value in re.findall(r"([\d.]+) of ", html)]
        whole = sum(coefficients[:2]) if labels == "soft" else 1
        assert sum(label) == pytest.approx(whole, abs=0.03)


def test_keys_are_new_every_time(stage: DemoImages, chosen: Pixels) -> None:
    assert encryption_panels(stage, chosen, Wanted()) != encryption_panels(stage, chosen, Wanted())


def test_a_bound_that_cannot_be_met_is_told(stage: DemoImages, chosen: Pixels) -> None:
    with pytest.raises(InstaHideError, match=r"c1 = 0\.2 cannot be met"):
        encryption_panels(stage, chosen, Wanted("cross", 4, 0.2))


def test_an_illustration_is_the_mix_of_its_parts_under_its_mask(stage: DemoImages) -> None:
    images = stage.private(next(iter(stage.choices.values())))
    rows = np.arange(3)
    steps = illustrate(Scheme.cross(4), images, stage.public, rows)
    mixes = np.einsum("nk,nkchw->nchw", steps.coefficients, steps.parts)
    np.testing.assert_allclose(steps.mixes, mixes, atol=1e-5)
    np.testing.assert_array_equal(
        np.where(steps.negated, -steps.mixes, steps.mixes), steps.encodings
    )
    # Of 451,584 fair coins: beyond 5 deviations once in 1.7 million.
    assert abs(steps.negated.mean() - 0.5) < 5 * 0.5 / np.sqrt(steps.negated.size)
    assert not illustrate(Scheme.mixup(4), images, None, rows).negated.any()

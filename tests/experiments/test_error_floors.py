"""No floor is beaten by attacks that know all keys and all other images, and a false one would be.

The error rate of each test is that of `error_floors.DEVIATIONS`, below 4e-6 for each setting.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from experiments import error_floors
from experiments.error_floors import DEVIATIONS, Setting
from experiments.records import rows_of

FEW = [
    Setting("digits", "plain", 1, 0.5, 1),
    Setting("digits", "inside", 4, 0.5, 10),
    Setting("digits", "cross", 4, 2.0, 1),
    Setting("patches", "inside", 2, 0.5, 10),
]


def test_there_are_20_settings_of_each_of_three_kinds_of_images() -> None:
    settings = error_floors.settings_of(error_floors.KINDS)
    assert len(set(settings)) == len(settings) == 60


@pytest.fixture(autouse=True)
def _fewer(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    """Fewer public images of patches, unless a test is slow: their covariance takes a minute."""
    if request.node.get_closest_marker("slow") is None:
        monkeypatch.setattr(error_floors, "PUBLIC", 300)
    for cached in (error_floors.tables, error_floors.prior_of, error_floors.estimators):
        cached.cache_clear()


@pytest.mark.slow
@pytest.mark.parametrize("setting", FEW, ids=str)
def test_a_few_settings_keep_their_floors(setting: Setting) -> None:
    found = error_floors.measure(setting, steps=0)
    assert float(found["deviations"]) > -DEVIATIONS
    assert float(found["prior_deviations"]) > -DEVIATIONS
    # Least squares comes as near as its errors allow: the unbiased floor is tight.
    assert 0.7 < float(found["ratio"]) < 1.5
    assert 0 < float(found["prior_floor"]) < float(found["floor"])
    # Biased estimators do what the statement says: they may be below the unbiased floor.
    assert float(found["best_error"]) < float(found["least_squares"])
    if setting.copies == 10:
        # An attacker who does not know the other private images is no better. From one encoding of
        # each image, some are hardly determined, and the attack's own recovery shrinks them.
        assert float(found["joint"]) > float(found["least_squares"])


def test_a_floor_that_is_too_high_would_be_noticed() -> None:
    """The test has the power to fail: least squares refutes a floor that is half too high."""
    setting = FEW[1]
    private, public = error_floors.tables(setting.kind)
    found = error_floors.attack(setting, private, public)
    right = error_floors.deviations(found, setting.noise, private.std)
    wrong = error_floors.deviations(found, setting.noise * 1.5**0.5, private.std)
    assert abs(right) < DEVIATIONS
    assert wrong < -DEVIATIONS


def test_the_ledger_s_sums_are_those_of_the_keys() -> None:
    setting = FEW[2]
    private, public = error_floors.tables(setting.kind)
    found = error_floors.attack(setting, private, public)
    assert found.losses * (setting.noise / 8) ** 2 * private.std[0] ** 2 == pytest.approx(
        found.squares, rel=1e-5
    )


def test_estimators_that_know_a_prior_are_better_than_the_estimate() -> None:
    private, public = error_floors.tables("digits")
    found = error_floors.attack(FEW[0], private, public)
    before = np.square(found.estimates - found.truth).mean()
    known = error_floors.estimators("digits", 0)
    for name in ("shrunk", "wiener", "mixture"):
        estimate = known[name]
        after = error_floors._errors(error_floors._clipped(estimate, found), found.truth).mean()
        assert after < before, name


@pytest.mark.slow
def test_a_network_learns_to_denoise() -> None:
    generator = np.random.default_rng(0)
    flat = np.repeat(generator.random((200, 1, 1, 1)), 64, axis=1).reshape(200, 1, 8, 8)
    network = error_floors.train_denoiser(flat, 150)
    noisy = flat[0] + 0.3 * generator.standard_normal((1, 8, 8))
    cleaned = error_floors._denoised(network, noisy, 0.09)
    assert np.square(cleaned - flat[0]).mean() < 0.5 * np.square(noisy - flat[0]).mean()


def test_rows_are_kept_and_no_setting_is_repeated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured: list[Setting] = []
    figures = {
        name: 1.0
        for name in error_floors.FIELDS
        if name
        not in (*Setting._fields, "steps", "images", "network", *error_floors.surroundings())
    }

    def measure(setting: Setting, steps: int) -> dict[str, float | str]:
        measured.append(setting)
        beaten = setting == FEW[2]
        return {**figures, "best": "wiener", "deviations": -9.0 if beaten else 0.1}

    monkeypatch.setattr(error_floors, "measure", measure)
    out = tmp_path / "floors.csv"
    for kinds in ("digits", "digits,patches"):
        command = ["error_floors", "--kinds", kinds, "--steps", "0", "--out", str(out)]
        monkeypatch.setattr(sys, "argv", command)
        error_floors.main()
    assert len(measured) == len(set(measured)) == 40
    found = error_floors.beaten(rows_of(out))
    assert found == {"unbiased": ["digits cross k=4 noise=2.0 x 1"], "prior": []}
    more = [row | {"steps": "9"} for row in rows_of(out)[:3]]
    best = error_floors.best_attacked([*more, *rows_of(out)])
    assert [row["steps"] for row in best].count("9") == 3
    assert len(best) == 40


@pytest.mark.slow
@pytest.mark.parametrize("kind", error_floors.KINDS)
def test_no_floor_is_beaten_in_20_settings(kind: str) -> None:
    for setting in error_floors.settings_of([kind]):
        found = error_floors.measure(setting, steps=300)
        assert float(found["deviations"]) > -DEVIATIONS, setting
        assert float(found["prior_deviations"]) > -DEVIATIONS, setting

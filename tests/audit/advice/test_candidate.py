"""Every candidate is a valid setting, with a name of its own."""

from __future__ import annotations

import re

import optuna
import pytest

from instahide.audit.advice.candidate import SEARCHED, Space, searched
from instahide.audit.advice.encoder_candidate import AnyCandidate, encoder_candidates
from instahide.audit.advice.front import Point
from instahide.audit.advice.proposals import Proposals
from instahide.errors import SchemeError
from instahide.training.settings import TrainSettings

SPACE = Space(SEARCHED, "single-label")
ALL = SPACE.candidates()


def test_every_candidate_is_a_valid_scheme_and_a_settings_file() -> None:
    schemes = {}
    for candidate in ALL:
        # The scheme of the same settings, without the number of encodings.
        key = candidate.model_copy(update={"copies": 1, "noise": min(candidate.noise, 1.0)})
        if key not in schemes and key.noise in (0.0, 1.0):
            schemes[key] = key.encryption("single-label")
            settings = TrainSettings.from_values(key.settings())
            assert settings.encryption() == schemes[key]
            assert settings.copies == 1
    assert len(schemes) > 50


def test_names_are_different_and_fit_a_file_name() -> None:
    names = {candidate.name for candidate in ALL}
    assert len(names) == len(ALL)
    assert all(re.fullmatch(r"[a-z0-9.T-]{1,60}", name) for name in names)


@pytest.mark.slow
def test_no_two_candidates_are_the_same_scheme() -> None:
    made = [
        (candidate.encryption("single-label"), candidate.copies)
        for candidate in ALL
        if candidate.noise == 0
    ]
    assert len(set(made)) == len(made)


def test_the_parameters_of_a_candidate_suggest_it_again() -> None:
    for candidate in ALL[::37] + SPACE.first():
        fixed = optuna.trial.FixedTrial(SPACE.parameters(candidate))
        assert SPACE.suggested(fixed) == candidate  # type: ignore[arg-type]


def test_findings_have_one_label_mode() -> None:
    space = Space(SEARCHED, "multi-label")
    assert {candidate.label_mode for candidate in space.candidates()} == {None}


def test_only_schemes_that_hide_something_are_searched() -> None:
    assert searched([]) == SEARCHED
    assert searched(["inside"]) == ("inside",)
    with pytest.raises(SchemeError, match="mixup"):
        searched(["mixup"])


@pytest.mark.slow
def test_proposals_never_repeat_and_end_with_the_grid(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Space, "NOISE", (0.0, 0.5, 1.0, 2.0))
    monkeypatch.setattr(Space, "COPIES", (1, 2, 5))
    monkeypatch.setattr(Space, "C1", (None,))
    monkeypatch.setattr(Space, "K", {"inside": (4,), "cross": (4,)})
    proposals = Proposals(Space(["inside"], "single-label"))
    tried: dict[AnyCandidate, Point] = {}
    while (candidate := proposals.propose(tried)) is not None:
        assert candidate not in tried
        tried[candidate] = Point(1 / (1 + candidate.noise), candidate.noise + 1 / candidate.copies)
    assert len(tried) == 12
    assert set(tried) == set(proposals.space.candidates())
    assert list(tried)[:2] == proposals.space.first()[:2]


def test_other_encoders_are_tried_in_turn_with_the_first_schemes() -> None:
    others = encoder_candidates(["dp-instahide", "neuracrypt"])
    proposals = Proposals(Space(["inside"], "single-label"), others)
    tried: dict[AnyCandidate, Point] = {}
    for _ in proposals.first:
        found = proposals.propose(tried)
        assert found is not None
        tried[found] = Point(0.5, float(len(tried)))
    assert set(others) <= set(tried)
    assert list(tried)[:4] == [
        proposals.space.first()[0], others[0], proposals.space.first()[1], others[1],
    ]  # fmt: skip
    assert len(proposals.candidates) == len(set(proposals.candidates))


def test_the_logging_of_optuna_is_left_as_it_was(capfd: pytest.CaptureFixture[str]) -> None:
    before = optuna.logging.get_verbosity()
    proposals = Proposals(Space(["inside"], "single-label"))
    proposals.propose(dict.fromkeys(proposals.space.first(), Point(0.5, 1.0)))
    assert optuna.logging.get_verbosity() == before
    assert capfd.readouterr().err == ""

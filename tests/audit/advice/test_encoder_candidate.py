"""Candidates of other encoders: valid settings, with names of their own."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from instahide.audit.advice.encoder_candidate import (
    AnyCandidate,
    EncoderCandidate,
    encoder_candidates,
    never_recommended,
)
from instahide.audit.advice.schema import Measurement
from instahide.encryption.encoders.registry import BUILTIN
from instahide.errors import InstaHideError
from instahide.training.settings import TrainSettings
from tests.audit.advice.examples import candidate, measurement, other
from tests.encryption.encoders.test_registry import MODULE

NAMES = [name for name in BUILTIN if name != "plain"]
ALL = encoder_candidates(NAMES)


def test_every_candidate_is_a_settings_file_of_its_encoder() -> None:
    for each in ALL:
        settings = TrainSettings.from_values(each.settings())
        assert settings.instance_encoder() == each.encryption("single-label")
        assert settings.copies == 1


def test_names_are_different_and_fit_a_file_name() -> None:
    strange = [other("a.b:C", "mode=x/y"), other("a.b-C", "mode=x-y"), other("a", "b" * 300)]
    names = {each.name for each in [*ALL, *strange]}
    assert len(names) == len(ALL) + 3
    assert all(re.fullmatch(r"[A-Za-z0-9=_-][A-Za-z0-9.=_-]{0,99}", name) for name in names)


def test_declared_values_are_searched_and_settings_that_are_given_stay() -> None:
    assert len({each for each in ALL if each.encoder == "neuracrypt"}) == 1
    free = encoder_candidates(["dp-instahide"])
    assert len(set(free)) == len(free) >= 6
    fixed = encoder_candidates(["dp-instahide"], ["k=3"])
    assert 1 < len(fixed) < len(free)
    assert {each.encryption("single-label").settings["k"] for each in fixed} == {3}
    (one,) = encoder_candidates(["dp-instahide"], ["k=3", "noise=0.7"])
    assert one.settings() == {
        "encoder": "dp-instahide", "encoder_settings": ["k=3", "noise=0.7"], "copies": 1,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("encoders", "settings", "problem"),
    [
        (["nothing"], [], "no encoder 'nothing'"),
        (["plain"], [], "hides nothing"),
        (["mixup", "mixup"], [], "named twice"),
        (["mixup", "neuracrypt"], ["k=4"], "2 encoders"),
        ([], ["k=4"], "0 encoders"),
        (["dp-instahide"], ["k=0"], "describe no mix"),
        (["dp-instahide"], ["color=red"], "cannot be made with"),
    ],
)
def test_what_cannot_be_tried_is_refused(
    encoders: list[str], settings: list[str], problem: str
) -> None:
    with pytest.raises(InstaHideError, match=problem):
        encoder_candidates(encoders, settings)


def test_measurements_of_both_kinds_are_read_again_as_what_they_were() -> None:
    each: AnyCandidate
    for each in (*ALL, candidate()):
        text = measurement(each).model_dump_json()
        assert Measurement.model_validate_json(text).candidate == each


def test_encoders_with_a_shared_key_are_never_recommended() -> None:
    keyed = {each.encoder for each in ALL if never_recommended(each, "single-label")}
    assert keyed == {"neuracrypt", "block-scrambling"}


def test_an_encoder_of_another_package_is_searched_by_the_values_it_declares(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    declared = "    search_values = {'strength': (0.5, 2.0)}\n"
    (tmp_path / "foreign_encoder.py").write_text(MODULE + declared)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "foreign_encoder", raising=False)
    found = encoder_candidates(["foreign_encoder:Negative"])
    assert [each.encoder_settings for each in found] == [("strength=0.5",), ("strength=2.0",)]
    many = "    search_values = {'strength': tuple(range(101))}\n"
    (tmp_path / "many_values.py").write_text(MODULE + many)
    with pytest.raises(InstaHideError, match="101 combinations"):
        encoder_candidates(["many_values:Negative"])
    assert encoder_candidates(["many_values:Negative"], ["strength=1.5"]) == [
        EncoderCandidate(encoder="many_values:Negative", encoder_settings=("strength=1.5",))
    ]

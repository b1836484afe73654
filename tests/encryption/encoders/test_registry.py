"""Which encoder a name stands for, and that no name in a file imports a package."""

from __future__ import annotations

import sys
import tomllib
from pathlib import Path

import pytest

from instahide import Scheme
from instahide.encryption.encoders.registry import (
    BUILTIN,
    GROUP,
    encoder_named,
    parse_settings,
    recorded_encoder,
    registered,
)
from instahide.errors import InstaHideError, IntegrationError

ROOT = Path(__file__).resolve().parents[3]
MODULE = """
from dataclasses import dataclass
from typing import ClassVar
from instahide.encryption.encoders.base import ImageEncoder


@dataclass(frozen=True)
class Negative(ImageEncoder):
    strength: float = 1.0
    name: ClassVar[str] = "negative"
    title: ClassVar[str] = "The negative"
    paper: ClassVar[str] = "none"

    def transform(self, images, key, random):
        return -self.strength * images
"""


@pytest.fixture
def foreign(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "foreign_encoder.py").write_text(MODULE)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "foreign_encoder", raising=False)
    return "foreign_encoder:Negative"


def test_built_in_encoders_are_the_declared_ones() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert project["entry-points"][GROUP] == dict(BUILTIN)
    assert set(BUILTIN) <= set(registered())


def test_a_name_of_a_package_is_imported_when_it_is_typed(foreign: str) -> None:
    encoder = encoder_named(foreign, {"strength": 2.0})
    assert (encoder.name, dict(encoder.settings)) == ("negative", {"strength": 2.0})


def test_a_name_in_a_file_imports_nothing(foreign: str) -> None:
    for name in (foreign, "negative"):
        with pytest.raises(InstaHideError, match="would be imported"):
            recorded_encoder(name, {})
        assert "foreign_encoder" not in sys.modules
    found = recorded_encoder("negative", {"strength": 3.0}, named=foreign)
    assert found.settings["strength"] == 3.0
    with pytest.raises(InstaHideError, match="not negative"):
        recorded_encoder("instahide", {"strength": 3.0}, named=foreign)


def test_presets_are_schemes() -> None:
    assert encoder_named("instahide") == Scheme.cross(4)
    assert encoder_named("noisy-mixup", {"k": 6, "noise": 2.0}) == Scheme.mixup(6, noise=2.0)


@pytest.mark.parametrize(
    ("name", "settings", "error", "said"),
    [
        ("nothing", {}, InstaHideError, "There is no encoder"),
        ("a b:C", {}, InstaHideError, "names no encoder"),
        ("no_such_module:Name", {}, IntegrationError, "cannot be imported"),
        ("pathlib:Nothing", {}, IntegrationError, "cannot be imported"),
        ("pathlib:Path", {}, InstaHideError, "not an instance encoder"),
        ("dp-instahide", {"kk": 3}, InstaHideError, "cannot be made"),
        ("dp-instahide", {"k": "x"}, InstaHideError, "cannot be made"),
        ("dp-instahide", {"k": 0}, InstaHideError, "describe no mix"),
        ("block-scrambling", {"block": 0}, InstaHideError, "below 1"),
        ("neuracrypt", {"depth": -1}, InstaHideError, "no network"),
    ],
)
def test_other_names_are_refused(
    name: str, settings: dict[str, int | str], error: type[InstaHideError], said: str
) -> None:
    with pytest.raises(error, match=said):
        encoder_named(name, settings)


@pytest.mark.parametrize("text", ["k", "k=", "=3", "k k=3", "k=3,k"])
def test_a_setting_is_a_name_and_a_value(text: str) -> None:
    texts = ["k=3", "k=4"] if text == "k=3,k" else [text]
    with pytest.raises(InstaHideError, match="not a setting"):
        parse_settings(texts)


def test_settings_have_the_types_that_they_look_like() -> None:
    found = parse_settings(["k=6", "noise=1e-1", "shuffle=False", "mode=soft"])
    assert found == {"k": 6, "noise": 0.1, "shuffle": False, "mode": "soft"}

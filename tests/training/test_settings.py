"""Settings: what a file may say, and what the refusal of the rest tells."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from instahide.encryption.scheme import Scheme
from instahide.errors import InstaHideError
from instahide.training.settings import TrainSettings
from tests.waiting import LIMIT

CHOICES: dict[str, st.SearchStrategy[Any]] = {
    "scheme": st.sampled_from(["inside", "cross", "mixup", "plain"]),
    "k": st.integers(1, 9),
    "lr": st.floats(1e-12, 1e9),
    "ema": st.floats(0, 0.999),
    "patience": st.none() | st.integers(1, 9),
    "c1": st.none() | st.floats(0.3, 1),
    "flip": st.booleans(),
    "epochs": st.integers(1, 1000),
    "optimizer": st.sampled_from(["sgd", "adamw"]),
}
SOME_SETTINGS = st.fixed_dictionaries({}, optional=CHOICES)


def _toml(values: dict[str, Any]) -> str:
    return "".join(f"{name} = {json.dumps(value)}\n" for name, value in values.items())


@pytest.mark.slow
@given(values=SOME_SETTINGS)
def test_any_file_format_gives_back_the_settings(
    values: dict[str, Any], tmp_path_factory: pytest.TempPathFactory
) -> None:
    """YAML, JSON and TOML (which has no null) all say the same."""
    folder = tmp_path_factory.mktemp("settings")
    settings = TrainSettings.from_values(values)
    whole = settings.model_dump()
    texts = {
        "a.yaml": yaml.safe_dump(whole),
        "a.yml": yaml.safe_dump(values),
        "a.json": json.dumps(whole),
        "a.toml": _toml({name: value for name, value in whole.items() if value is not None}),
    }
    for name, text in texts.items():
        (folder / name).write_text(text)
        assert TrainSettings.load(folder / name) == settings


def test_an_exponent_without_a_point_is_a_number(tmp_path: Path) -> None:
    """YAML 1.1 reads ``1e-3`` as text."""
    file = tmp_path / "run.yaml"
    file.write_text("lr: 1e-3\nema: 5e-1\n")
    settings = TrainSettings.load(file)
    assert (settings.lr, settings.ema) == (0.001, 0.5)


def test_an_empty_file_is_all_defaults(tmp_path: Path) -> None:
    """Comments only, too."""
    file = tmp_path / "run.yaml"
    file.write_text("# nothing yet\n")
    assert TrainSettings.load(file) == TrainSettings()


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"epoch": 3}, ["there is no setting `epoch`", "Did you mean `epochs`?"]),
        ({"zzz": 3}, ["there is no setting `zzz`", "Use one of: ", ", data, test, public, "]),
        ({"epochs": "many"}, ["`epochs` is 'many'", "valid integer", "passes over"]),
        ({"epochs": True}, ["`epochs` is True"]),
        ({"epochs": 3.0}, ["`epochs` is 3.0"]),
        ({"epochs": 0}, ["`epochs` is 0", "greater than or equal to 1"]),
        ({"epochs": 10**400}, ["`epochs` is 1000", "less than or equal to"]),
        ({"lr": "fast"}, ["`lr` is 'fast'", "highest learning rate"]),
        ({"lr": True}, ["`lr` is True"]),
        ({"lr": float("nan")}, ["`lr` is nan", "finite"]),
        ({"lr": 1e300}, ["`lr` is 1e+300", "less than or equal to"]),
        ({"lr": 10**400}, ["`lr` is 1000", "number"]),
        ({"lr": 0}, ["`lr` is 0", "greater than 0"]),
        ({"ema": 1.0}, ["`ema` is 1.0", "less than 1"]),
        ({"scheme": "outside"}, ["`scheme` is 'outside'", "'inside', 'cross'"]),
        ({"flip": "no"}, ["`flip` is 'no'", "boolean"]),
        ({1: 2}, ["1"]),
    ],
)
def test_what_does_not_fit_is_named(
    values: dict[Any, Any], told: list[str], tmp_path: Path
) -> None:
    """The file, the setting, the value and the reason."""
    file = tmp_path / "run.yaml"
    file.write_text(yaml.safe_dump(values))
    with pytest.raises(InstaHideError) as caught:
        TrainSettings.load(file)
    for part in [*told, str(file)]:
        assert part in str(caught.value)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("missing.yaml", None),
        ("torn.yaml", b"epochs: [1, 2"),
        ("deep.yaml", b"[" * 5000),
        ("torn.toml", b"epochs = "),
        ("torn.json", b"{"),
        ("bytes.yaml", b"\xff\xfe\x00"),
        ("list.yaml", b"- epochs"),
        ("zero.json", b"0"),
        ("run.ini", b"epochs = 3"),
    ],
)
def test_an_unreadable_file_is_named(name: str, content: bytes | None, tmp_path: Path) -> None:
    """Whatever is wrong with it."""
    file = tmp_path / name
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(InstaHideError, match=name):
        TrainSettings.load(file)


@pytest.mark.parametrize(
    ("name", "text", "told"),
    [
        ("a.yaml", "noise: 0.5\nepochs: 3\nnoise: 0\n", "the key noise 2 times: keep one"),
        ("b.yaml", "max_exposure: 5\n'max_exposure': null\n", "the key max_exposure 2 times"),
        ("c.yaml", "encoder_settings: [{k: 1, k: 2}]\n", "the key k 2 times"),
        ("d.yaml", "<<: {noise: 0.5}\nnoise: 0\n", "the key noise 2 times"),
        ("a.json", '{"noise": 5, "epochs": 1, "noise": 0}', "the key noise 2 times"),
        ("b.json", '{"a": [{"k": 1, "k": 2, "k": 2}]}', "the key k 3 times"),
        ("a.toml", "noise = 0.5\nnoise = 0\n", "a.toml cannot be read"),
        ("e.yaml", "epochs: 1:30\n", "1:30 would be a number in base 60: write it in base 10"),
        ("f.yaml", "lr: 1:30.5\n", "1:30.5 would be a number in base 60"),
        ("g.yaml", "lr: -1:30\n", "-1:30 would be a number in base 60"),
        ("h.yaml", "1:30: 2\n", "1:30 would be a number in base 60"),
    ],
)
def test_what_a_reader_would_take_for_something_else_is_refused(
    name: str, text: str, told: str, tmp_path: Path
) -> None:
    file = tmp_path / name
    file.write_text(text)
    with pytest.raises(InstaHideError) as caught:
        TrainSettings.load(file)
    assert told in str(caught.value)
    assert str(file) in str(caught.value)


def test_other_numbers_and_times_in_quotes_are_read(tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    file.write_text("epochs: 0x10\nlr: 2.5e-1\ndata: '1:30'\n")
    settings = TrainSettings.load(file)
    assert (settings.epochs, settings.lr, settings.data) == (16, 0.25, "1:30")


def test_a_value_that_grows_as_it_is_read_is_not_shown_whole(tmp_path: Path) -> None:
    """Nine lists of nine lists, and so on."""
    lines = ["a0: &a0 [1, 1, 1, 1, 1, 1, 1, 1, 1]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 9)]
    file = tmp_path / "bomb.yaml"
    file.write_text("\n".join([*lines, "epochs: *a8"]))
    with pytest.raises(InstaHideError) as caught:
        TrainSettings.load(file)
    assert len(str(caught.value)) < 1000


def test_yaml_cannot_make_objects(tmp_path: Path) -> None:
    """A tag that would run code in an unsafe loader is refused."""
    file = tmp_path / "run.yaml"
    file.write_text(f"data: !!python/object/apply:os.mkdir ['{tmp_path / 'made'}']\n")
    with pytest.raises(InstaHideError):
        TrainSettings.load(file)
    assert not (tmp_path / "made").exists()


@given(below=SOME_SETTINGS, above=SOME_SETTINGS)
def test_the_command_line_wins_over_the_file(below: dict[str, Any], above: dict[str, Any]) -> None:
    """Also for defaults that hang on another setting."""
    merged = TrainSettings.from_values(below).merged(above)
    assert merged == TrainSettings.from_values({**below, **above})


def test_only_masked_schemes_are_sign_invariant_by_default() -> None:
    """A plain image says more than |x|; an encoding does not."""
    default = {
        name: TrainSettings.from_values({"scheme": name}).sign_invariant
        for name in ("inside", "cross", "mixup", "plain")
    }
    assert default == {"inside": True, "cross": True, "mixup": False, "plain": False}
    assert TrainSettings(scheme="plain", sign_invariant=True).sign_invariant


def test_differences_are_spelt_out() -> None:
    """Name and both values."""
    here, there = TrainSettings(epochs=3, lr=0.1), TrainSettings(epochs=4, lr=0.1)
    assert here.differences(there) == ["epochs: 3 here, 4 there"]
    assert here.differences(here) == []


def test_settings_load_without_pytorch() -> None:
    """So that ``--help`` is quick."""
    code = "import sys, instahide.training.settings; sys.exit('torch' in sys.modules)"
    path = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    assert subprocess.run([sys.executable, "-c", code], timeout=LIMIT, env=path).returncode == 0


def test_the_scheme_follows_its_preset() -> None:
    """What is left out is the preset's, what is given wins, and bounds are still checked."""
    assert TrainSettings().encryption() == Scheme.cross(4)
    assert TrainSettings(scheme="inside", k=6).encryption() == Scheme.inside(6)
    assert TrainSettings(scheme="mixup").encryption() == Scheme.mixup(4)
    assert TrainSettings(scheme="plain").encryption() == Scheme.plain()
    given = TrainSettings(
        c1=0.5, private_k=3, coefficient_distribution="dirichlet", label_mode="renormalised"
    )
    assert given.encryption() == Scheme.cross(
        4, c1=0.5, private_k=3, coefficient_distribution="dirichlet", label_mode="renormalised"
    )
    with pytest.raises(InstaHideError, match="c1"):
        TrainSettings(c1=0.1).encryption()

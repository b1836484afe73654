"""What users, files and other people call things is printed as it is, by every command."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from instahide.app import html
from instahide.audit.report.html import HTML
from instahide.cli.console import SafeConsole, text_column
from instahide.cli.main import app
from instahide.errors import InstaHideError

#: Tags and emoji codes to Rich; a folder in a folder to the file system.
PLACE = "[red]x[/red] [ct] :dog:"
CLASSES = ("[bold]cat", ":dog: [ct]")
ANNA = "[blue]anna[/blue]"
#: Rewrites a line, turns the text around, breaks a line, and is no character at all.
TRICKS = "a\x1b[31mb\u202ec\nd\udcffe\x9bf\u2066g"
ESCAPED = r"a\x1b[31mb\u202ec\nd\udcffe\x9bf\u2066g"


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with images of two classes in ``data``."""
    generator = np.random.default_rng(0)
    base = tmp_path / PLACE
    for part, count in (("data", 12), ("test", 6)):
        for name in CLASSES:
            (base / part / name).mkdir(parents=True)
            for number in range(count):
                pixels = generator.integers(0, 256, (16, 16, 3), np.uint8)
                Image.fromarray(pixels).save(base / part / name / f"{number}.png")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "400")
    monkeypatch.setenv("INSTAHIDE_LEDGER", str(base / "ledger.sqlite"))
    return base


def said(*arguments: str, code: int = 0) -> str:
    result = CliRunner().invoke(app, list(arguments))
    assert result.exit_code == code, (arguments, result.output, result.exception)
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", result.output)
    return result.stdout if "--json" in arguments else result.output


def test_folders_of_encodings(place: Path) -> None:
    inside = ("--scheme", "inside", "--k", "2")
    data, folder = f"{PLACE}/data", f"{PLACE}/enc"
    said("encrypt", data, "--out", folder, *inside, "--dry-run")
    assert folder in said("encrypt", data, "--out", folder, *inside, "--participant", ANNA)
    assert folder in said("encrypt", data, "--out", folder, *inside, code=2)
    assert folder in said("verify", folder)
    facts = said("info", folder)
    assert ANNA in facts
    assert "2: :dog: [ct], [bold]cat" in facts
    assert json.loads(said("info", folder, "--json"))["participant"] == ANNA
    assert f"{PLACE}/ledger.sqlite" in said("ledger")
    assert f"{PLACE}/test" in said("ledger", "--data", f"{PLACE}/test")
    assert f"{PLACE}/none" in said("ledger", "--ledger", f"{PLACE}/none")
    assert json.loads(said("ledger", "--json"))["ledger"] == str(place / "ledger.sqlite")
    assert f"{PLACE}/tar" in said(
        "export", folder, "--format", "webdataset", "--out", f"{PLACE}/tar"
    )
    back = said("import", f"{PLACE}/tar", "--format", "webdataset", "--out", f"{PLACE}/back")
    assert f"{PLACE}/back" in back
    for shard in (place / "enc").glob("*.safetensors"):
        shard.write_bytes(bytes(len(shard.read_bytes())))
    assert folder in said("verify", folder, code=2)


def test_training_and_prediction(place: Path) -> None:
    out = said(
        "train", f"{PLACE}/data", "--test", f"{PLACE}/test", "--scheme", "inside", "--k", "2",
        "--epochs", "1", "--batch-size", "8", "--queries", "0", "--out", f"{PLACE}/run",
    )  # fmt: skip
    assert f"{PLACE}/run" in out
    assert f"{PLACE}/data, inside, k = 2" in out
    out = said(
        "predict", f"{PLACE}/run", f"{PLACE}/test", "--queries", "0", "--out", f"{PLACE}/p.csv"
    )
    assert f"{PLACE}/p.csv" in out
    wrong = said("train", f"{PLACE}/data", "--optimizer", "[red]a", "--out", f"{PLACE}/b", code=2)
    assert "--optimizer" in wrong
    assert f"{PLACE}/no" in said("predict", f"{PLACE}/no", f"{PLACE}/test", code=2)
    assert f"{PLACE}/no" in said("train", f"{PLACE}/no", "--out", f"{PLACE}/c", code=2)


@pytest.mark.slow
def test_pictures_pools_and_challenges(place: Path) -> None:
    inside = ("--scheme", "inside", "--k", "2")
    drawn = said("show", f"{PLACE}/data", *inside, "--images", "2", "--out", f"{PLACE}/s.png")
    assert f"{PLACE}/s.png" in drawn
    pool = said(
        "public", f"{PLACE}/data", "--patch", "8", "--min-keypoints", "0", "--out", f"{PLACE}/pool"
    )
    assert f"{PLACE}/pool" in pool
    made = said(
        "challenge", "make", f"{PLACE}/data", "--out", f"{PLACE}/ch", "--truth", f"{PLACE}/truth",
        "--images", "4", "--copies", "2", "--k", "2",
    )  # fmt: skip
    assert f"{PLACE}/ch" in made
    assert f"{PLACE}/truth" in made
    said("challenge", "info", f"{PLACE}/ch")
    wrong = said("challenge", "score", f"{PLACE}/no", "--truth", f"{PLACE}/truth", code=2)
    assert f"{PLACE}/no" in wrong
    wrong = said("challenge", "leaderboard", f"{PLACE}/no.csv", code=2)
    assert f"{PLACE}/no.csv" in wrong


@pytest.mark.slow
def test_audits(place: Path) -> None:
    said("encrypt", f"{PLACE}/data", "--out", f"{PLACE}/enc", "--scheme", "inside", "--k", "2")
    found = said(
        "audit", f"{PLACE}/enc", "--images", f"{PLACE}/data", "--only", "labels",
        "--out", f"{PLACE}/audit",
    )  # fmt: skip
    assert f"{PLACE}/audit/{HTML}" in found
    assert PLACE in (place / "audit" / HTML).read_text(encoding="utf-8")
    wrong = said("audit", f"{PLACE}/none", "--images", f"{PLACE}/data", code=2)
    assert f"{PLACE}/none" in wrong


@pytest.mark.parametrize(
    "command",
    [
        ("encrypt", TRICKS, "--out", "o"),
        ("encrypt", "digits", "--out", "o", "--public", TRICKS),
        ("encrypt", "digits", "--out", "o", "--mean", TRICKS, "--std", "1"),
        ("encrypt", "digits", "--out", "o", "--scheme", TRICKS),
        ("encrypt", "digits", "--out", "o", f"--{TRICKS}"),
        ("verify", TRICKS),
        ("info", TRICKS),
        ("train", TRICKS),
        ("train", "digits", "--model", TRICKS),
        ("predict", TRICKS, "digits"),
        ("audit", TRICKS, "--images", "digits"),
        ("audit", "x", "--images", "digits", "--only", TRICKS),
        ("audit", "x", "--images", "digits", "--fail-if", TRICKS),
        ("audit", "x", "--images", "digits", "--budget", TRICKS),
        ("show", TRICKS),
        ("public", TRICKS, "--out", "o"),
        ("challenge", TRICKS),
        ("challenge", "info", TRICKS),
        ("challenge", "official", TRICKS),
        ("challenge", "leaderboard", TRICKS),
        (
            "challenge",
            "make",
            TRICKS,
            "--kind",
            "practice",
            "--seed",
            "1",
            "--out",
            "o",
            "--truth",
            "t",
        ),
        ("challenge", "make", "digits", "--id", TRICKS, "--out", "o", "--truth", "t"),
        ("reproduce", TRICKS),
        ("export", TRICKS, "--format", "webdataset", "--out", "o"),
        ("import", TRICKS, "--format", TRICKS, "--out", "o"),
        (TRICKS,),
        (f"--{TRICKS}",),
    ],
    ids=lambda command: " ".join(command).replace(TRICKS, "?"),
)
def test_no_control_character_of_an_argument_reaches_the_terminal(
    command: tuple[str, ...],
) -> None:
    said(*command, code=2)


def test_a_ledger_with_such_a_name_is_named_as_it_is_on_the_disk() -> None:
    name = TRICKS.replace("\udcff", "")
    assert ESCAPED.replace(r"\udcff", "") in said("ledger", "--ledger", name)


def test_class_names_of_others_do_not_reorder_the_table(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (8, 1, 6, 6), np.uint8)
    for number, pixel in enumerate(pixels):
        folder = tmp_path / "turned" / ("a\u202eb" if number % 2 else "c")
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixel[0]).save(folder / f"{number}.png")
    said("encrypt", "turned", "--out", "enc", "--scheme", "inside", "--k", "2")
    assert r"2: a\u202eb, c" in said("info", "enc")
    assert json.loads(said("info", "enc", "--json"))["classes"] == ["a\u202eb", "c"]


def test_errors_and_progress_are_escaped(capsys: pytest.CaptureFixture[str]) -> None:
    SafeConsole().print(TRICKS + "[red]" + ":dog:")
    assert capsys.readouterr().out == ESCAPED + "[red]:dog:\n"
    assert text_column("{task.description}").markup is False


def test_html_is_escaped_for_browsers_too() -> None:
    page = html.refusal(InstaHideError(f"<b>{TRICKS}", TRICKS)) + html.paragraph(TRICKS)
    assert not re.search("[\x00-\x1f\x7f-\x9f\u202e\u2066\udcff]", page)
    assert "&lt;b&gt;a\\x1b[31mb\\u202ec" in page

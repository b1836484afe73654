"""What a command says of errors, and how it ends."""

from __future__ import annotations

import pytest
import typer

from instahide.cli.console import explained
from instahide.errors import InstaHideError


@pytest.mark.parametrize(
    ("error", "told", "code"),
    [
        (InstaHideError("It is broken.", "Mend it."), "It is broken.", 2),
        (OSError(28, "No space left on device"), "No space left", 2),
        (MemoryError(), "too little memory.", 2),
        (MemoryError("Unable to allocate 1 PiB"), "allocate 1 PiB", 2),
        (KeyboardInterrupt(), "", 130),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_a_user_can_put_right_is_explained(
    error: BaseException, told: str, code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    @explained
    def command() -> None:
        raise error

    with pytest.raises(typer.Exit) as caught:
        command()
    assert caught.value.exit_code == code
    said = capsys.readouterr().err
    assert told in said
    assert ("Remedy:" in said) == (code == 2)


def test_arguments_become_options(capsys: pytest.CaptureFixture[str]) -> None:
    @explained
    def command() -> None:
        raise InstaHideError(
            "`eta=1` is not read.",
            "Use `skip_bad=True`, `size=32`, `public='photos'` or another `out=`.",
        )

    with pytest.raises(typer.Exit):
        command()
    assert capsys.readouterr().err.splitlines() == [
        "Error: `eta=1` is not read.",
        "Remedy: Use `--skip-bad`, `--size 32`, `--public photos` or another `--out`.",
    ]


def test_what_nobody_foresaw_is_not_hidden() -> None:
    @explained
    def command() -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        command()

"""The history of DP-SGD next to a ledger: what is read, merged and locked."""

from __future__ import annotations

import fcntl
from pathlib import Path

import pytest

from instahide.encodings.ledger.dp_sgd_history import (
    added,
    history_file,
    locked_history,
    read_history,
    uncounted,
)
from instahide.encodings.ledger.ledger import Ledger
from instahide.errors import InstaHideError


@pytest.mark.parametrize("text", ["", "[[2.0, 0.5, -4]]", "[[0, 0.5, 4]]", "{}", "[[NaN, 0.5, 4]]"])
def test_a_damaged_history_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "history").write_text(text)
    with pytest.raises(InstaHideError, match="does not hold the history"):
        read_history(tmp_path / "history")


def test_equal_steps_are_merged_and_others_are_not() -> None:
    history = added(added([], (2.0, 0.5, 4)), (2.0, 0.5, 1))
    assert history == [(2.0, 0.5, 5)]
    assert added(history, (3.0, 0.5, 1)) == [(2.0, 0.5, 5), (3.0, 0.5, 1)]


def test_a_link_to_a_ledger_has_its_history(tmp_path: Path) -> None:
    ledger = tmp_path / "ledger.sqlite"
    Ledger.open(ledger).close()
    (tmp_path / "link").symlink_to(ledger)
    assert history_file(tmp_path / "link") == history_file(ledger)


@pytest.mark.parametrize("shared", [True, False])
def test_only_shared_blocks_run_at_the_same_time(shared: bool, tmp_path: Path) -> None:
    with (
        locked_history(tmp_path / "ledger.sqlite", shared=shared) as file,
        file.with_suffix(".lock").open() as lock,
    ):
        with pytest.raises(BlockingIOError):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if shared:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        else:
            with pytest.raises(BlockingIOError):
                fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)


def test_statements_on_losses_name_dp_sgd_if_there_was_any(tmp_path: Path) -> None:
    assert not uncounted(tmp_path / "ledger.sqlite")
    history_file(tmp_path / "ledger.sqlite").write_text("[[2.0, 0.5, 4]]")
    assert "DP-SGD also trained" in uncounted(tmp_path / "ledger.sqlite")

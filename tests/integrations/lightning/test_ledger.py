"""A Lightning run that counts in a ledger: over kills, other runs, and without its checkpoints."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from instahide import InstaHideError
from instahide.encodings.ledger.ledger import Ledger
from instahide.integrations.lightning.callback import InstaHideCallback
from tests.integrations.lightning.lightning_parts import (
    IMAGES,
    QUIET,
    Images,
    Net,
    checkpoint,
    hiding,
    saving,
    trainer_in,
)

pytestmark = [*QUIET, pytest.mark.filterwarnings("ignore:The dirpath has changed")]


def fit(
    folder: Path, epochs: int, ckpt_path: Path | None = None, **options: Any
) -> InstaHideCallback:
    callback = hiding(**options)
    trainer = trainer_in(
        folder, callback, saving(folder), enable_checkpointing=True, max_epochs=epochs
    )
    trainer.fit(Net(), Images(), ckpt_path=ckpt_path)
    return callback


def total(path: Path) -> int:
    with Ledger.open(path) as ledger:
        return int(ledger.totals().counts.sum())


def test_what_is_lost_with_a_checkpoint_is_in_the_ledger(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    callback = fit(tmp_path / "one", 1, ledger=path)
    assert total(path) == callback.exposures[0].counts.sum() == 2 * IMAGES
    # As after a kill: what went on after the checkpoint is not in it.
    fit(tmp_path / "two", 3, ckpt_path=tmp_path / "one" / "last.ckpt", ledger=path)
    fit(tmp_path / "two", 3, ckpt_path=tmp_path / "one" / "last.ckpt", ledger=path)
    assert total(path) == 2 * IMAGES * (1 + 2 + 2)
    assert checkpoint(tmp_path / "two" / "last.ckpt")["ledger"] is True


def test_the_limit_holds_over_runs(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    fit(tmp_path / "one", 2, ledger=path)
    with pytest.warns(UserWarning, match="ends early"):
        callback = fit(tmp_path / "two", 9, ledger=path, max_exposure=9)
    assert callback.exposures[0].counts.max() <= 9
    assert total(path) > 2 * 2 * IMAGES


@pytest.mark.parametrize("before", [True, False])
def test_a_run_is_not_resumed_without_its_ledger(tmp_path: Path, before: bool) -> None:
    path = tmp_path / "ledger.sqlite"
    first: dict[str, Any] = {"ledger": path} if before else {}
    then: dict[str, Any] = {} if before else {"ledger": path}
    fit(tmp_path / "one", 1, **first)
    with pytest.raises(InstaHideError, match="counted in a ledger"):
        fit(tmp_path / "two", 2, ckpt_path=tmp_path / "one" / "last.ckpt", **then)

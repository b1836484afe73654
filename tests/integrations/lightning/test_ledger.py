"""A Lightning run that counts in a ledger: over kills, other runs, and without its checkpoints."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from instahide import InstaHideError, Scheme
from instahide.encodings.ledger.ledger import Ledger
from instahide.errors import ExposureLimitError
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
        # So far above the mean of 4 that the first run does not reach it by chance of its keys.
        callback = fit(tmp_path / "two", 99, ledger=path, max_exposure=16)
    assert callback.exposures[0].counts.max() <= 16
    assert total(path) > 2 * 2 * IMAGES


def test_the_error_floor_holds_over_runs(tmp_path: Path) -> None:
    path, scheme = tmp_path / "ledger.sqlite", Scheme.inside(2, noise=3.0)
    limited: dict[str, Any] = {"mean": [0.5], "std": [0.25], "scheme": scheme, "min_mse": 0.05}
    with pytest.warns(UserWarning, match="privacy loss above its limit. Training ends early"):
        fit(tmp_path / "one", 99, ledger=path, **limited)
    # By chance of the keys, a first batch may be left; then a warning says that it was the last.
    with pytest.raises((ExposureLimitError, UserWarning), match="privacy loss"):
        fit(tmp_path / "two", 99, ledger=path, **limited)
    with Ledger.open(path) as ledger:
        assert 64 / ledger.totals().losses.max() >= 0.05


def test_an_error_floor_needs_noise_and_a_ledger(tmp_path: Path) -> None:
    with pytest.raises(InstaHideError, match="Without noise"):
        InstaHideCallback(Scheme.inside(2), min_mse=0.05, ledger=tmp_path / "ledger.sqlite")
    with pytest.raises(InstaHideError, match="Name a ledger="):
        InstaHideCallback(Scheme.inside(2, noise=3.0), min_mse=0.05)
    with pytest.raises(InstaHideError, match="cannot be a floor"):
        InstaHideCallback(Scheme.inside(2, noise=3.0), min_mse=0.0)


@pytest.mark.parametrize("before", [True, False])
def test_a_run_is_not_resumed_without_its_ledger(tmp_path: Path, before: bool) -> None:
    path = tmp_path / "ledger.sqlite"
    first: dict[str, Any] = {"ledger": path} if before else {}
    then: dict[str, Any] = {} if before else {"ledger": path}
    fit(tmp_path / "one", 1, **first)
    with pytest.raises(InstaHideError, match="counted in a ledger"):
        fit(tmp_path / "two", 2, ckpt_path=tmp_path / "one" / "last.ckpt", **then)

"""Counts and limits of a Lightning run, and what it leaves behind: counts, and nothing secret."""

from __future__ import annotations

import csv
import io
import secrets
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pytorch_lightning import Callback, Trainer, seed_everything
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.loggers import CSVLogger
from pytorch_lightning.tuner import Tuner
from torch.utils.data import DataLoader, TensorDataset

from instahide import InstaHideError, Scheme
from instahide.encryption.sampling import sampler
from instahide.errors import ExposureLimitError
from instahide.integrations.lightning.callback import InstaHideCallback
from tests.integrations.lightning.lightning_parts import (
    IMAGES,
    QUIET,
    Images,
    Mixes,
    Net,
    all_differ,
    checkpoint,
    counted,
    hiding,
    saving,
    trained,
    trainer_in,
)
from tests.test_secrets import forms, holds_any

pytestmark = QUIET
#: Batches of an epoch of `ImageSource`.
BATCHES = 6


def test_exposure_is_logged_every_epoch(tmp_path: Path) -> None:
    net, callback = Net(), hiding()
    logger = CSVLogger(tmp_path, version="run")
    trainer = trainer_in(tmp_path, callback, logger=logger, max_epochs=3)
    trainer.fit(net, Images())
    path = tmp_path / "lightning_logs" / "run" / "metrics.csv"
    rows = list(csv.DictReader(path.read_text().splitlines()))
    given = trained(net)
    for epoch, row in enumerate(rows, start=1):
        so_far = counted(Mixes(given.images[: epoch * IMAGES], given.masks))
        assert float(row["exposure/least"]) == so_far.min()
        assert float(row["exposure/mean"]) == 2 * epoch
        assert float(row["exposure/most"]) == so_far.max()
    assert len(rows) == 3
    # An early stop may watch it.
    assert trainer.callback_metrics["exposure/most"] == so_far.max()


class Stages(Callback):
    """Notes after how many steps it validated."""

    def __init__(self) -> None:
        self.validated: list[int] = []

    def on_validation_end(self, trainer: Trainer, pl_module: Any) -> None:
        if not trainer.sanity_checking:
            self.validated.append(trainer.global_step)


@pytest.mark.parametrize("workers", [0, 1])
def test_the_limit_ends_a_run_like_an_early_stop(workers: int, tmp_path: Path) -> None:
    net, callback, stages = Net(), hiding(max_exposure=12), Stages()
    saving = ModelCheckpoint(tmp_path, "at-{step}")
    trainer = trainer_in(
        tmp_path, callback, stages, saving, enable_checkpointing=True, max_epochs=13
    )
    with pytest.warns(UserWarning, match=r"above 12 encodings\. Training ends early"):
        trainer.fit(net, Images(num_workers=workers))
    steps = trainer.global_step
    assert BATCHES < steps < 8 * BATCHES
    assert trainer.state.finished
    # It was validated and saved after the last step, as at the end of any run.
    assert stages.validated[-1] == steps
    assert (tmp_path / f"at-step={steps}.ckpt").exists()
    counts = callback.exposures[0].counts
    assert counts.max() <= 12
    found = trained(net)
    assert len(net.given["train"]) == steps
    assert (counted(found) <= counts).all()
    # No batch was cut short; every batch of an epoch but the last has four images.
    assert {len(labels) for _, labels in net.given["train"]} <= {4, 1}


@pytest.mark.parametrize("options", [{"min_epochs": 50}, {"min_steps": 500}])
def test_a_run_that_must_not_end_at_the_limit_fails(
    options: dict[str, Any], tmp_path: Path
) -> None:
    callback = hiding(max_exposure=8)
    trainer = trainer_in(tmp_path, callback, max_epochs=99, **options)
    with pytest.raises(ExposureLimitError), pytest.warns(UserWarning, match="ends early"):
        trainer.fit(Net(), Images())
    assert callback.exposures[0].counts.max() <= 8


def test_a_run_that_has_learnt_nothing_at_the_limit_fails(tmp_path: Path) -> None:
    callback = hiding(max_exposure=1)
    with pytest.raises(ExposureLimitError):
        trainer_in(tmp_path, callback).fit(Net(), Images(batch_size=IMAGES))
    assert callback.exposures[0].counts.max() == 1


def fit(folder: Path, epochs: int, **options: Any) -> tuple[Net, InstaHideCallback]:
    """A run that saves after every epoch; with a ``ckpt_path`` it resumes."""
    path = options.pop("ckpt_path", None)
    net, callback = Net(), hiding(**options)
    trainer = trainer_in(
        folder, callback, saving(folder), enable_checkpointing=True, max_epochs=epochs
    )
    trainer.fit(net, Images(), ckpt_path=path)
    return net, callback


def test_a_resumed_run_goes_on_counting_under_new_keys(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("PL_GLOBAL_SEED", "PL_SEED_WORKERS"):
        monkeypatch.setenv(name, "0")
    seed_everything(7, verbose=False)
    first, before = fit(tmp_path, 2)
    seed_everything(7, verbose=False)
    second, after = fit(tmp_path, 4, ckpt_path=tmp_path / "last.ckpt")
    given = trained(first), trained(second)
    assert [len(found.images) for found in given] == [2 * IMAGES] * 2
    assert all_differ(np.concatenate([found.masks for found in given]))
    counts = after.exposures[0].counts
    assert counts.tolist() == (counted(given[0]) + counted(given[1])).tolist()
    assert checkpoint(tmp_path / "last.ckpt")["counts"][0].tolist() == counts.tolist()
    assert (before.exposures[0].counts < counts).all()


def test_a_run_saved_within_an_epoch_goes_on_counting(tmp_path: Path) -> None:
    steps = ModelCheckpoint(tmp_path, "{step}", every_n_train_steps=4, save_top_k=-1)
    net = Net()
    trainer = trainer_in(tmp_path, hiding(), steps, enable_checkpointing=True)
    trainer.fit(net, Images())
    net.given["train"] = net.given["train"][:4]
    before = checkpoint(tmp_path / "step=4.ckpt")["counts"][0].numpy()
    assert (before >= counted(trained(net))).all()
    resumed, callback = fit(tmp_path, 2, ckpt_path=tmp_path / "step=4.ckpt")
    # The two batches that the first epoch lacks, and the second.
    assert len(resumed.given["train"]) == 2 + 6
    assert all_differ(np.concatenate([trained(net).masks, trained(resumed).masks]))
    assert (callback.exposures[0].counts >= before + counted(trained(resumed))).all()


def test_a_checkpoint_of_this_run_changes_no_count(tmp_path: Path) -> None:
    """Not that of its own past either: the encodings are out."""
    net, data, callback = Net(), Images(), hiding()
    trainer = trainer_in(tmp_path, callback, saving(tmp_path), enable_checkpointing=True)
    trainer.fit(net, data)
    (tmp_path / "last.ckpt").rename(tmp_path / "two.ckpt")
    counts = callback.exposures[0].counts.tolist()
    trainer.test(net, data, ckpt_path=tmp_path / "two.ckpt", verbose=False)
    assert callback.exposures[0].counts.tolist() == counts
    for _ in range(2):
        trainer.fit_loop.max_epochs = 3
        trainer.fit(net, data, ckpt_path=tmp_path / "two.ckpt")
    assert len(net.given["train"]) == 6 * (2 + 1 + 1)
    assert callback.exposures[0].counts.tolist() == counted(trained(net)).tolist()


def test_a_checkpoint_of_another_run_is_counted_where_it_is_trained_on(tmp_path: Path) -> None:
    _, other = fit(tmp_path / "other", 1)
    path = tmp_path / "other" / "last.ckpt"
    net, data, callback = Net(), Images(), hiding()
    trainer = trainer_in(tmp_path, callback, max_epochs=1)
    trainer.fit(net, data)
    own = counted(trained(net))
    trainer.test(net, data, ckpt_path=path, verbose=False)
    assert callback.exposures[0].counts.tolist() == own.tolist()
    trainer.fit(net, data, ckpt_path=path)
    assert callback.exposures[0].counts.tolist() == (own + other.exposures[0].counts).tolist()


def test_the_limit_counts_what_a_resumed_run_gave_out(tmp_path: Path) -> None:
    fit(tmp_path, 2)
    with pytest.warns(UserWarning, match="ends early"):
        net, callback = fit(tmp_path, 99, ckpt_path=tmp_path / "last.ckpt", max_exposure=15)
    counts = callback.exposures[0].counts
    assert counts.max() <= 15
    assert (counts > counted(trained(net))).all()


def test_another_scheme_is_refused(tmp_path: Path) -> None:
    fit(tmp_path, 1)
    with pytest.raises(InstaHideError, match=r"k=2, .* this one would by .*k=3, .* new run"):
        fit(tmp_path, 2, ckpt_path=tmp_path / "last.ckpt", scheme=Scheme.inside(3))


def test_a_plain_runs_checkpoint_can_be_gone_on_from(tmp_path: Path) -> None:
    net = Net()
    trainer_in(tmp_path, saving(tmp_path), enable_checkpointing=True).fit(net, Images())
    net, callback = fit(tmp_path, 3, ckpt_path=tmp_path / "last.ckpt")
    assert counted(trained(net)).tolist() == callback.exposures[0].counts.tolist()


def test_finding_a_rate_counts_too(tmp_path: Path) -> None:
    net, callback = Net(), hiding()
    net.lr = 0.01
    trainer = trainer_in(tmp_path, callback, logger=False, enable_checkpointing=True)
    Tuner(trainer).lr_find(net, Images(), num_training=8, early_stop_threshold=None)
    found = counted(trained(net))
    assert found.sum() > 2 * IMAGES
    assert (callback.exposures[0].counts >= found).all()
    net.given["train"].clear()
    before = callback.exposures[0].counts.copy()
    trainer.fit(net, Images())
    assert callback.exposures[0].counts.tolist() == (before + counted(trained(net))).tolist()


def secrets_of(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """Whatever is drawn from now on: keys, coefficients, partners, masks."""
    found: list[bytes] = []
    token_bytes, mixes_of, masks_of = secrets.token_bytes, sampler.mixes, sampler.masks

    def root(count: int) -> bytes:
        found.append(token_bytes(count))
        return found[-1]

    def mixed(*args: Any, **more: Any) -> Any:
        partners, coefficients = mixes_of(*args, **more)
        rows = [partners[0], partners[0].astype(np.int32), coefficients[0]]
        texts = [str(row.tolist())[1:-1] for row in rows] + [str(coefficients[0, 0])]
        found.extend([row.tobytes() for row in rows] + [text.encode() for text in texts])
        return partners, coefficients

    def masked(*args: Any, **more: Any) -> Any:
        masks = masks_of(*args, **more)
        found.append(masks[0].tobytes())
        return masks

    monkeypatch.setattr("instahide.encryption.keys.secrets.token_bytes", root)
    monkeypatch.setattr(sampler, "mixes", mixed)
    monkeypatch.setattr(sampler, "masks", masked)
    return found


def test_nothing_that_a_run_leaves_is_secret(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    caplog.set_level("DEBUG")
    callback = hiding(scheme=Scheme.inside(4))
    drawn = secrets_of(monkeypatch)
    images = torch.randn(300, 1, 8, 8)
    loader = DataLoader(TensorDataset(images, torch.arange(300) % IMAGES), 50)
    trainer = trainer_in(
        tmp_path, callback, saving(tmp_path), enable_checkpointing=True,
        logger=CSVLogger(tmp_path), enable_model_summary=True,
    )  # fmt: skip
    trainer.fit(Net(), loader)
    state = checkpoint(tmp_path / "last.ckpt")
    assert {name: type(value) for name, value in state.items()} == {
        "scheme": str, "run": str, "counts": dict, "items": dict,
    }  # fmt: skip
    (counts,) = state["counts"].values()
    ((items,),) = state["items"].values()
    # One digest of all images: with one of each, a reader could test which images these are.
    assert {name: type(value) for name, value in items.items()} == {
        "known": torch.Tensor, "salt": str, "digest": str,
    }  # fmt: skip
    assert (items["known"].dtype, len(items["salt"]), len(items["digest"])) == (torch.bool, 32, 64)
    assert (counts.dtype, counts.shape) == (torch.int64, (300,))
    # What was noted of the six batches of both epochs; a root, and fresh bits for keys under it.
    assert len(drawn) > 2 * 6 * (7 + 1) + 2
    needles = {form for secret in drawn for form in forms(secret) if len(form) >= 7}
    said = "".join([caplog.text, *capfd.readouterr(), f"{callback!r} {trainer.train_dataloader!r}"])
    assert "exposure/most" in (tmp_path / "lightning_logs/version_0/metrics.csv").read_text()
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert {path.name for path in files} >= {"last.ckpt", "metrics.csv"}
    for content in [said.encode(), *(path.read_bytes() for path in files)]:
        assert not holds_any(content, needles)
    assert holds_any(
        torch_bytes({"hidden": torch.tensor(list(drawn[0]), dtype=torch.uint8)}), needles
    )


def torch_bytes(content: Any) -> bytes:
    """As `torch.save` puts it into a checkpoint."""
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()

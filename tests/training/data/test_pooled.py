"""Training on what several participants published: the union, or a refusal that says why."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from typer.testing import CliRunner

from instahide.cli.main import app
from instahide.data import ImageTable, open_split
from instahide.encodings.folder import EncodedFolder
from instahide.encryption.encoder import Encoder
from instahide.encryption.scheme import Scheme
from instahide.errors import InstaHideError
from instahide.training.data.compatibility import normalization
from instahide.training.data.pooled import PooledData, holds_encodings
from instahide.training.settings import ENCRYPTION, TrainSettings
from instahide.training.trainer import Trainer, start
from tests.waiting import wait_until

DIGITS = tuple("0123456789")
INSIDE = Scheme.inside(2)

Write = Callable[..., EncodedFolder]


def published(
    write: Write, path: Path, table: ImageTable, *, scheme: Scheme = INSIDE, copies: int = 2
) -> EncodedFolder:
    """``copies`` encodings of every image of ``table``."""
    encoder = Encoder(scheme, table)
    blocks = [encoder.encode(encoder.permutation()) for _ in range(copies)]
    return write(
        path,
        torch.cat([block.images for block in blocks]),
        torch.cat([block.labels for block in blocks]),
        table.classes,
        scheme=scheme,
        mean=table.mean,
        std=table.std,
        private_images=len(table),
        copies=copies,
        shard=1000,
        values="float16",
        participant=path.name,
    )


def made_up(write: Write, path: Path, **facts: Any) -> EncodedFolder:
    """Six encodings of noise."""
    shape = facts.pop("shape", (1, 8, 8))
    classes = facts.pop("classes", DIGITS)
    labels = torch.eye(len(classes))[torch.arange(6) % len(classes)]
    return write(path, torch.randn(6, *shape).clamp(-1, 1), labels, classes, **facts)


def settings_of(*sources: Path, **values: Any) -> TrainSettings:
    common = {"epochs": 1, "precision": "float32", "device": "cpu", "batch_size": 64}
    return TrainSettings.from_values({**common, "data": [str(s) for s in sources], **values})


@pytest.fixture(scope="module")
def thirds(write_folder: Write, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Three participants: the last two each lack some digits."""
    folder, train = tmp_path_factory.mktemp("thirds"), open_split("digits").train
    lacks: list[list[int]] = [[], [0, 1, 2], [7, 8, 9]]
    for number, missing in enumerate(lacks):
        rows = np.arange(number, len(train), 3)
        kept = rows[~np.isin(train.labels[rows], missing)]
        published(write_folder, folder / f"part-{number}", train.subset(kept))
    return [folder / f"part-{number}" for number in range(3)]


@pytest.fixture(scope="module")
def pooled_run(thirds: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run on all three."""
    folder = tmp_path_factory.mktemp("runs") / "pooled"
    start(settings_of(*thirds, test="digits", epochs=12), folder)
    return folder


@pytest.mark.slow
def test_the_union_teaches_what_no_part_knows(thirds: list[Path], pooled_run: Path) -> None:
    """Encodings in, a network that reads plain images out."""
    results = json.loads((pooled_run / "results.json").read_text())
    assert set(results["metrics"]) == {"accuracy", "macro_auroc", "macro_f1"}
    assert results["metrics"]["accuracy"] > 0.8
    assert [record["epoch"] for record in results["epochs"]] == list(range(1, 13))
    alone = Trainer.open(settings_of(thirds[1], test="digits", epochs=3))
    alone.run()
    # Three of ten digits were never there.
    assert alone.metrics["accuracy"] < 0.75


@pytest.mark.slow
def test_the_results_name_the_participants(thirds: list[Path], pooled_run: Path) -> None:
    """And say nothing on encryption, of which the run decided nothing."""
    results = json.loads((pooled_run / "results.json").read_text())
    assert results["folders"] == [
        {"participant": path.name, "encodings": len(EncodedFolder.open(path))} for path in thirds
    ]
    assert results["settings"]["data"] == [str(path) for path in thirds]
    assert not set(results["settings"]) & set(ENCRYPTION)


@pytest.mark.slow
def test_a_network_from_a_pool_answers_like_any_other(pooled_run: Path, tmp_path: Path) -> None:
    """Plain and encrypted queries."""
    arguments = ["predict", str(pooled_run), "digits", "--out", str(tmp_path / "p.csv")]
    for queries in ("0", "2"):
        result = CliRunner().invoke(app, [*arguments, "--queries", queries])
        assert result.exit_code == 0, result.output
        assert float(result.output.split("images: ")[1].split("%")[0]) > 70


def test_an_encrypted_test_set_is_scored_by_the_largest_label(
    thirds: list[Path], write_folder: Write, tmp_path: Path
) -> None:
    """In its own order of classes; a network that answers with a fixed class shows the count."""
    names = tuple(reversed(DIGITS))
    labels = torch.zeros(10, 10)
    labels[:, 2], labels[:, 5] = 0.4, 0.3
    labels[:4, 5] = 0.6
    like = EncodedFolder.open(thirds[0]).manifest
    moments = {"mean": like.mean, "std": like.std}
    noise = torch.randn(10, 1, 8, 8).clamp(-1, 1)
    write_folder(tmp_path / "test", noise, labels, names, scheme=INSIDE, **moments)
    job = Trainer.open(settings_of(*thirds, test=str(tmp_path / "test")))

    class Always(torch.nn.Module):
        def __init__(self, answer: str) -> None:
            super().__init__()
            self.bias = torch.nn.Parameter(torch.zeros(10))
            self.answer = DIGITS.index(answer)

        def forward(self, x: Tensor) -> Tensor:
            return torch.eye(10)[[self.answer] * len(x)] + self.bias

    # Column 2 of the reversed names is the digit 7, column 5 is the digit 4.
    assert job._evaluate(Always("7"))["accuracy"] == pytest.approx(0.6)
    assert job._evaluate(Always("4"))["accuracy"] == pytest.approx(0.4)
    assert job._evaluate(Always("2"))["accuracy"] == 0


def test_test_images_are_normalized_as_the_encodings_were(
    write_folder: Write, tmp_path: Path
) -> None:
    """By the mean over encodings where folders differ, which is said."""
    made_up(write_folder, tmp_path / "a", mean=(0.2,), std=(0.1,))
    labels = torch.eye(10)[[0, 1]]
    write_folder(tmp_path / "b", torch.zeros(2, 1, 8, 8), labels, DIGITS, mean=(0.6,), std=(0.5,))
    with pytest.warns(UserWarning, match=r"differ: mean \(0.2,\) and \(0.6,\); std"):
        pool = PooledData.open(settings_of(tmp_path / "a", tmp_path / "b", test="digits"))
    assert isinstance(pool.test, ImageTable)
    assert pool.test.mean == pytest.approx((0.3,))
    assert pool.test.std == pytest.approx((0.2,))
    card = pool.card
    assert (card.mean, card.std, card.value_range) == normalization(pool.folders)
    np.testing.assert_array_equal(pool.test.pixels, open_split("digits").test.pixels)


def test_other_parameters_of_the_scheme_are_said_and_pooled(
    write_folder: Write, tmp_path: Path
) -> None:
    made_up(write_folder, tmp_path / "a", scheme=Scheme.cross(4))
    made_up(write_folder, tmp_path / "b", scheme=Scheme.cross(6, c1=0.5))
    with pytest.warns(UserWarning, match="b differ: k 4 and 6; c1 0.65 and 0.5"):
        pool = PooledData.open(settings_of(tmp_path / "a", tmp_path / "b"))
    assert pool.scheme == Scheme.cross(4)


@pytest.mark.parametrize(
    ("first", "second", "told"),
    [
        ({}, {"shape": (3, 8, 8)}, ["shape (1, 8, 8) in the one, (3, 8, 8) in the other"]),
        ({}, {"shape": (1, 9, 8)}, ["(1, 8, 8)", "(1, 9, 8)"]),
        ({}, {"classes": ("cat", "dog")}, ["classes 0, 1, 2", "cat, dog"]),
        ({}, {"scheme": Scheme.mixup(4)}, ["mask True", "False", "sign_invariant=True"]),
        ({"publication": "1" * 32}, {"publication": "1" * 32}, ["same encodings"]),
    ],
)
def test_folders_that_cannot_be_pooled_are_refused_with_the_difference(
    first: dict[str, Any],
    second: dict[str, Any],
    told: list[str],
    write_folder: Write,
    tmp_path: Path,
) -> None:
    made_up(write_folder, tmp_path / "a", **first)
    made_up(write_folder, tmp_path / "b", **second)
    with pytest.raises(InstaHideError) as caught:
        PooledData.open(settings_of(tmp_path / "a", tmp_path / "b"))
    for part in [*told, str(tmp_path / "a"), str(tmp_path / "b")]:
        assert part in str(caught.value)


def test_masked_and_unmasked_encodings_are_pooled_by_their_absolute_values(
    write_folder: Write, tmp_path: Path
) -> None:
    made_up(write_folder, tmp_path / "a", scheme=Scheme.inside(4))
    made_up(write_folder, tmp_path / "b", scheme=Scheme.mixup(4))
    sources = tmp_path / "a", tmp_path / "b"
    with pytest.warns(UserWarning, match="mask True and False"):
        pool = PooledData.open(settings_of(*sources, sign_invariant=True))
    assert len(pool.folders) == 2
    with pytest.raises(InstaHideError, match="sign_invariant=True"):
        PooledData.open(settings_of(*sources, sign_invariant=False))


@pytest.mark.parametrize(("scheme", "seen"), [(Scheme.cross(4), True), (Scheme.mixup(4), False)])
def test_the_mask_of_the_folders_decides_what_the_network_sees(
    scheme: Scheme, seen: bool, write_folder: Write, tmp_path: Path
) -> None:
    made_up(write_folder, tmp_path / "a", scheme=scheme)
    assert PooledData.open(settings_of(tmp_path / "a")).card.sign_invariant is seen


def test_a_single_folder_needs_no_list(write_folder: Write, tmp_path: Path) -> None:
    """But a folder of images, or a built-in set beside a folder of its name, is no such folder."""
    made_up(write_folder, tmp_path / "a")
    assert Trainer.open(TrainSettings(data=str(tmp_path / "a"))).settings.data == [
        str(tmp_path / "a")
    ]
    (tmp_path / "file.npz").write_bytes(b"")
    sources = ("digits", str(tmp_path / "none"), str(tmp_path), str(tmp_path / "file.npz"))
    assert not any(map(holds_encodings, sources))


@pytest.mark.parametrize("name", ["scheme", "k", "public", "queries", "flip"])
def test_how_to_encrypt_is_no_question_any_more(name: str, tmp_path: Path) -> None:
    """Asked on the command line or in a file, of several folders or of one."""
    value = TrainSettings().model_dump()[name]
    with pytest.raises(InstaHideError, match=rf"`{name}` is for images.*Leave out `{name}`"):
        settings_of(tmp_path / "a", tmp_path / "b", **{name: value})


def test_sources_of_two_kinds_are_refused(write_folder: Write, tmp_path: Path) -> None:
    made_up(write_folder, tmp_path / "a")
    for other in ("digits", str(tmp_path / "none")):
        with pytest.raises(InstaHideError, match=rf"{other} holds no encodings"):
            Trainer.open(TrainSettings(data=[str(tmp_path / "a"), other]))


@pytest.mark.parametrize(
    ("facts", "told"),
    [
        ({"shape": (3, 8, 8)}, r"shape \(3, 8, 8\), but \(1, 8, 8\)"),
        ({"classes": ("0", "emu")}, "knows no class emu"),
    ],
)
def test_an_encrypted_test_set_must_fit(
    facts: dict[str, Any], told: str, write_folder: Write, tmp_path: Path
) -> None:
    made_up(write_folder, tmp_path / "a")
    made_up(write_folder, tmp_path / "test", **facts)
    with pytest.raises(InstaHideError, match=told):
        PooledData.open(settings_of(tmp_path / "a", test=str(tmp_path / "test")))


def test_the_encodings_that_are_trained_on_test_nothing(
    write_folder: Write, tmp_path: Path
) -> None:
    """Nor does a copy of their folder."""
    made_up(write_folder, tmp_path / "a")
    shutil.copytree(tmp_path / "a", tmp_path / "copy")
    for test in ("a", "copy"):
        with pytest.raises(InstaHideError, match="encodings that are trained on"):
            PooledData.open(settings_of(tmp_path / "a", test=str(tmp_path / test)))


def test_test_encodings_of_another_kind_are_refused_and_of_other_settings_named(
    write_folder: Write, tmp_path: Path
) -> None:
    made_up(write_folder, tmp_path / "a")
    changes: dict[str, dict[str, Any]] = {
        "range": {"value_range": (0.0, 4095.0)},
        "unmasked": {"scheme": replace(Scheme.cross(4), mask=False)},
        "moments": {"mean": (0.1,)},
    }
    for name, facts in changes.items():
        made_up(write_folder, tmp_path / name, **facts)
    with pytest.raises(InstaHideError, match="pixels from"):
        PooledData.open(settings_of(tmp_path / "a", test=str(tmp_path / "range")))
    # A network of masked encodings sees absolute values, one of others does not.
    with pytest.raises(InstaHideError, match="mask True in the one"):
        PooledData.open(settings_of(tmp_path / "unmasked", test=str(tmp_path / "a")))
    for name, told in (("unmasked", "mask True and False"), ("moments", "mean")):
        with pytest.warns(UserWarning, match=told):
            PooledData.open(settings_of(tmp_path / "a", test=str(tmp_path / name)))


def test_a_shard_that_was_changed_is_not_trained_on(write_folder: Write, tmp_path: Path) -> None:
    made_up(write_folder, tmp_path / "a")
    (shard,) = (tmp_path / "a").glob("*.safetensors")
    content = bytearray(shard.read_bytes())
    content[-1] ^= 1
    shard.write_bytes(content)
    with pytest.raises(InstaHideError, match="its checksum is wrong"):
        Trainer.open(settings_of(tmp_path / "a")).run()


def test_without_test_images_there_is_no_accuracy(write_folder: Write, tmp_path: Path) -> None:
    made_up(write_folder, tmp_path / "a")
    arguments = ["train", str(tmp_path / "a"), "--epochs", "1", "--out", str(tmp_path / "run")]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    assert "none: no --test" in result.output
    assert json.loads((tmp_path / "run/results.json").read_text())["metrics"] == {}
    with pytest.raises(InstaHideError, match="Patience"):
        Trainer.open(settings_of(tmp_path / "a", patience=1)).run()


def test_the_command_line_takes_several_folders(thirds: list[Path], tmp_path: Path) -> None:
    arguments = ["train", *map(str, thirds), "--test", "digits", "--epochs", "1"]
    result = CliRunner().invoke(app, [*arguments, "--out", str(tmp_path / "run")])
    assert result.exit_code == 0, result.output
    assert "encodings in 3 folders" in result.output
    assert "no guarantee" in result.output
    refused = CliRunner().invoke(app, [*arguments, "--k", "4", "--out", str(tmp_path / "other")])
    assert refused.exit_code == 2
    assert "Leave out `k`" in refused.output
    assert not (tmp_path / "other").exists()


@pytest.mark.slow
def test_a_killed_run_goes_on_to_its_end(thirds: list[Path], tmp_path: Path) -> None:
    """Nothing but its folder needs to be named again."""
    out = tmp_path / "run"
    arguments = ["train", *map(str, thirds), "--test", "digits", "--epochs", "6"]
    process = subprocess.Popen(
        [sys.executable, "-m", "instahide", *arguments, "--out", str(out)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    wait_until((out / "checkpoint.safetensors").exists, unless=process.poll)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert not (out / "results.json").exists()
    result = CliRunner().invoke(app, ["train", "--out", str(out), "--resume"])
    assert result.exit_code == 0, result.output
    results = json.loads((out / "results.json").read_text())
    assert [record["epoch"] for record in results["epochs"]] == list(range(1, 7))
    assert [folder["participant"] for folder in results["folders"]] == [p.name for p in thirds]


def test_own_images_are_tested_on_others_too(tmp_path: Path) -> None:
    """Under the normalization of the images that were trained on."""
    split = open_split("digits")
    for name, table in (("mine", split.train), ("theirs", split.test)):
        np.savez(tmp_path / f"{name}.npz", images=table.pixels, labels=table.labels)
    values = {"scheme": "plain", "device": "cpu", "epochs": 1, "precision": "float32"}
    mine, theirs = str(tmp_path / "mine.npz"), str(tmp_path / "theirs.npz")
    job = Trainer.open(TrainSettings.from_values({**values, "data": mine, "test": theirs}))
    batches = job.material.test_batches()
    assert batches is not None
    images = torch.cat([images for images, _ in batches])
    expected = split.test.normalized_like(split.train).normalized()
    torch.testing.assert_close(images, torch.from_numpy(expected))
    assert len(job.material.batches(pin_memory=False)) == -(-len(split.train) // 256)

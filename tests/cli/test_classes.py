"""A participant who holds images of one class can publish encodings that fit those of others."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from instahide.cli.main import app
from instahide.encodings.folder import EncodedFolder


@pytest.fixture
def ill(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("INSTAHIDE_CACHE", str(tmp_path / "cache"))
    root = tmp_path / "images"
    generator = np.random.default_rng(0)
    for number in range(9):
        path = root / "ill" / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(generator.integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(path)
    return root


def encrypt(source: Path, out: Path, *options: str) -> object:
    command = ["encrypt", str(source), "--scheme", "inside", "--k", "2", "--out", str(out)]
    return CliRunner().invoke(app, [*command, *options])


def test_one_class_alone_is_refused_with_the_way_in(ill, tmp_path):
    done = encrypt(ill, tmp_path / "out")
    assert done.exit_code == 2
    assert "--classes" in done.output
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("how", ["option", "file", "empty folder"])
def test_one_class_of_several_is_encrypted_under_the_agreed_numbers(ill, tmp_path, how):
    options: tuple[str, ...] = ("--classes", "ill,healthy")
    if how == "file":
        names = tmp_path / "classes.txt"
        names.write_text("ill\nhealthy\n", encoding="utf-8")
        options = ("--classes", str(names))
    if how == "empty folder":
        (ill / "healthy").mkdir()
        options = ()
    done = encrypt(ill, tmp_path / "out", *options)
    assert done.exit_code == 0, done.output
    folder = EncodedFolder.open(tmp_path / "out")
    order = ("healthy", "ill") if how == "empty folder" else ("ill", "healthy")
    assert folder.manifest.classes == order
    labels = np.asarray(folder.shard(0).labels)
    assert (labels[:, order.index("ill")] > 0.9).all()
    assert (labels[:, order.index("healthy")] == 0).all()


def test_a_folder_that_is_no_named_class_is_refused(ill, tmp_path):
    done = encrypt(ill, tmp_path / "out", "--classes", "healthy,unsure")
    assert done.exit_code == 2
    assert "ill" in done.output

"""Noise or a mask that a manifest claims and encodings lack is found; what they have is not."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from instahide import Encoder, ImageTable, Scheme, open_images
from instahide.cli.main import app
from instahide.encodings.shards import dequantize, quantize
from instahide.encodings.verification.claimed_protection import ClaimedProtection
from tests.encodings.conftest import manifest_of

DIGITS = open_images("digits", progress=False)
FLAT = np.zeros((1000, 8, 8), np.uint8)
FLAT[:, 4:] = 255
FLAT[:, 0, 0], FLAT[:, 0, 1] = np.divmod(np.arange(len(FLAT)), 256)
#: Images that differ in two pixels, so that nearly all values of mixes have one magnitude.
HALVES = ImageTable.from_arrays(FLAT, np.arange(len(FLAT)) % 2)
VALUES = ("float32", "float16", "uint8")


def found(
    made_by: Scheme, claimed: Scheme, values: str = "float32", images: ImageTable = DIGITS
) -> list[str]:
    """What is said of all digits, encoded under ``made_by`` and claimed to be under ``claimed``."""
    encoded = Encoder(made_by, images).encode(np.arange(len(images)))
    manifest = manifest_of(images, claimed, values=values)
    stored = quantize(encoded.images, manifest.values, manifest.max_abs)
    seen = ClaimedProtection(manifest)
    for part in torch.split(stored, 500):
        seen.see(dequantize(part, manifest.max_abs).numpy())
    return seen.problems()


@pytest.mark.parametrize("values", VALUES)
@pytest.mark.parametrize("noise", [0.0, 0.01, 1.0, 30.0])
@pytest.mark.parametrize("scheme", [Scheme.inside(2), Scheme.inside(4), Scheme.mixup(2)])
@pytest.mark.parametrize("images", [DIGITS, HALVES], ids=["digits", "halves"])
def test_what_is_there_is_not_missed(
    images: ImageTable, scheme: Scheme, noise: float, values: str
) -> None:
    scheme = replace(scheme, noise=noise)
    assert found(scheme, scheme, values, images) == []


@pytest.mark.parametrize("values", VALUES)
def test_a_missing_mask_is_found(values: str) -> None:
    scheme = Scheme.inside(2)
    (problem,) = found(replace(scheme, mask=False), scheme, values)
    assert "have no mask" in problem


@pytest.mark.parametrize("values", VALUES)
@pytest.mark.parametrize(("claimed", "there"), [(30.0, 0.0), (30.0, 25.0), (3.0, 0.0), (3.0, 2.0)])
def test_missing_noise_is_found(claimed: float, there: float, values: str) -> None:
    scheme = Scheme.inside(2)
    (problem,) = found(replace(scheme, noise=there), replace(scheme, noise=claimed), values)
    assert f"noise of standard deviation {claimed:g}" in problem


@given(count=st.integers(1, 40), noise=st.floats(1e-3, 100), width=st.integers(1, 5))
@settings(max_examples=100, deadline=None)
def test_few_values_are_no_evidence(count: int, noise: float, width: int) -> None:
    """Of any size: noise of the claimed deviation alone, and random signs, are never reported."""
    images = ImageTable.from_arrays(
        np.zeros((count, 2, width), np.uint8) + np.arange(2, dtype=np.uint8)[:, None],
        np.arange(count) % 2,
        ["a", "b"],
    )
    seen = ClaimedProtection(manifest_of(images, Scheme.inside(2, noise=noise), values="float32"))
    generator = np.random.default_rng(count)
    seen.see(generator.normal(0, noise, (count, *images.shape)).astype(np.float32))
    assert seen.problems() == []


def test_plain_images_that_are_imported_as_noisy_mixes_get_no_guarantee(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    images = DIGITS.subset(slice(0, 200))
    Path("plain").mkdir()
    np.save("plain/encryption.npy", images.normalized().transpose(0, 2, 3, 1))
    np.save("plain/label.npy", np.eye(10, dtype=np.float32)[images.labels])
    described = [
        "--scheme", "inside", "--k", "4", "--noise", "30", "--private-images", "200",
        "--copies", "1", "--mean", str(images.mean[0]), "--std", str(images.std[0]),
    ]  # fmt: skip
    runner = CliRunner()
    done = runner.invoke(
        app, ["import", "plain", "--format", "challenge", *described, "--out", "encoded"]
    )
    assert done.exit_code == 0, done.output
    info = " ".join(runner.invoke(app, ["info", "encoded"]).output.split())
    assert "epsilon =" not in info
    verified = runner.invoke(app, ["verify", "encoded"])
    assert verified.exit_code == 2
    said = " ".join(verified.output.split())
    assert "do not have noise of standard deviation 30" in said
    assert "have no mask" in said

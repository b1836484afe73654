"""Practice sets: the same bytes whoever makes them, and never of private images."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from instahide.audit.challenge import practice
from instahide.audit.challenge.challenge import Challenge, ChallengeTruth
from instahide.audit.challenge.facts import Recipe
from instahide.audit.challenge.making import Name
from instahide.audit.challenge.practice import (
    DATA,
    OFFICIAL,
    PracticeSet,
    make_official,
    make_practice,
)
from instahide.encryption.scheme import Scheme
from instahide.errors import InstaHideError
from tests.waiting import LIMIT

ROOT = Path(__file__).resolve().parents[3]
#: As on a processor of 2008, for NumPy and for Numba: without AVX, AVX-512 and fused operations.
OLD = {
    "NPY_DISABLE_CPU_FEATURES": "X86_V3 X86_V4 AVX512_ICL AVX512_SPR AVX2 FMA3 AVX512F AVX512_SKX",
    "NUMBA_CPU_NAME": "generic",
    "NUMBA_CPU_FEATURES": "",
}


def small(seed: int, data: str = "digits", k: int = 4) -> PracticeSet:
    return PracticeSet(Recipe(data=data, images=10, seed=seed), 6, Scheme.cross(k))


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.slow
@pytest.mark.parametrize("data", ["digits", "photographs"])
def test_two_processes_make_the_same_bytes(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, data: str
) -> None:
    """With other numbers of threads and other instructions of the processor."""
    environments = {"one": {"OMP_NUM_THREADS": "1"}, "two": {"OMP_NUM_THREADS": "2", **OLD}}
    for name, environment in environments.items():
        command = [
            "challenge", "make", data, "--kind", "practice", "--seed", "7", "--images", "10",
            "--copies", "6", "--k", "6", "--id", "x", "--out", f"{name}/given",
            "--truth", f"{name}/kept",
        ]  # fmt: skip
        path = os.pathsep.join(filter(None, [str(ROOT / "src"), os.environ.get("PYTHONPATH")]))
        # Compiled once for both sets of images.
        cache = str(tmp_path_factory.getbasetemp() / f"{name}-numba")
        subprocess.run(
            [sys.executable, "-c", "from instahide.cli import main; main()", *command],
            env={**os.environ, "PYTHONPATH": path, "NUMBA_CACHE_DIR": cache, **environment},
            cwd=tmp_path,
            check=True,
            timeout=LIMIT,
        )
    for part in ("given", "kept"):
        one, two = (contents(tmp_path / name / part) for name in environments)
        assert one == two
        assert len(one) == {"given": 4, "kept": 5}[part]


def test_another_seed_gives_other_keys(tmp_path: Path) -> None:
    for seed in (1, 2):
        make_practice(small(seed), tmp_path / f"g{seed}", tmp_path / f"k{seed}")
    one, two = (np.load(tmp_path / f"g{seed}" / "encryption.npy") for seed in (1, 2))
    # Where all digits are black, all mixes are alike.
    assert (np.abs(one) != np.abs(two)).mean() > 0.6
    partners = [np.load(tmp_path / f"k{seed}" / "partners.npy") for seed in (1, 2)]
    assert (partners[0][:, 0] != partners[1][:, 0]).any()
    originals = [np.load(tmp_path / f"k{seed}" / "private.npy") for seed in (1, 2)]
    assert (originals[0] == originals[1]).all()


def test_it_says_what_it_is(tmp_path: Path) -> None:
    made = make_practice(small(5), tmp_path / "g", tmp_path / "k", Name("tiny", 2))
    assert (made.facts.kind, made.facts.id, made.facts.version) == ("practice", "tiny", 2)
    readme = (tmp_path / "g" / "README.md").read_text()
    assert "public seed 5" in readme
    assert "no guarantee" in readme
    assert "public" in (tmp_path / "k" / "README.md").read_text()
    assert not (tmp_path / "k" / "SECRET.txt").exists()
    assert ChallengeTruth.open(tmp_path / "k").facts.challenge == made.sha256


def test_the_readme_has_the_command_that_makes_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from typer.testing import CliRunner

    from instahide.cli.main import app

    monkeypatch.chdir(tmp_path)
    made = make_practice(small(5), tmp_path / "g", tmp_path / "k", Name("tiny", 2))
    text = (tmp_path / "g" / "README.md").read_text()
    (line,) = re.findall(r"    instahide ([^`]*?)\n\n", text)
    result = CliRunner().invoke(app, line.replace("\\\n", "").split())
    assert result.exit_code == 0, result.output
    assert Challenge.open(tmp_path / "given").sha256 == made.sha256
    assert (tmp_path / "given" / "README.md").read_text() == text


@pytest.mark.parametrize("data", sorted(DATA))
def test_public_and_private_images_are_apart_and_not_flat(data: str) -> None:
    private, public = DATA[data]()
    assert private.shape == public.shape
    assert (private.mean, private.std) == (public.mean, public.std)
    shared = {row.tobytes() for row in private.pixels} & {row.tobytes() for row in public.pixels}
    assert not shared
    measured = private.measured()
    np.testing.assert_allclose(measured.mean, private.mean, atol=6e-4)
    np.testing.assert_allclose(measured.std, private.std, atol=6e-4)
    assert np.ptp(private.pixels.reshape(len(private), -1), axis=1).min() > 60


@pytest.mark.parametrize(
    "name",
    [
        name if name in ("digits-k4", "photographs-k6-few")
        else pytest.param(name, marks=pytest.mark.slow)
        for name in OFFICIAL
    ],
)  # fmt: skip
def test_an_official_set_is_the_same_here(tmp_path: Path, name: str) -> None:
    made = make_official(name, tmp_path / "g", tmp_path / "k")
    version, expected, sha256 = OFFICIAL[name]
    assert made.sha256 == sha256
    assert (made.facts.id, made.facts.version) == (name, version)
    assert made.facts.recipe == expected.recipe
    assert len(made.encodings) == expected.recipe.images * expected.copies


def test_a_set_that_differs_is_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = OFFICIAL["digits-k4"]._replace(sha256="0" * 64)
    monkeypatch.setattr(practice, "OFFICIAL", {"digits-k4": other})
    with pytest.raises(InstaHideError, match=r"SHA-256 of digits-k4 .* elsewhere"):
        make_official("digits-k4", tmp_path / "g", tmp_path / "k")
    assert list(tmp_path.iterdir()) == []


def test_private_images_never_get_public_keys(tmp_path: Path) -> None:
    for data in ("my-scans", "./digits", "fashion-mnist"):
        with pytest.raises(InstaHideError, match="would protect nothing of your images"):
            make_practice(small(1, data), tmp_path / "g", tmp_path / "k")
    assert list(tmp_path.iterdir()) == []


def test_too_many_images_are_refused(tmp_path: Path) -> None:
    many = PracticeSet(Recipe(data="photographs", images=10_000, seed=1), 2, Scheme.cross(4))
    with pytest.raises(InstaHideError, match="There are 232 photographs"):
        make_practice(many, tmp_path / "g", tmp_path / "k")


def test_an_unknown_official_set_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InstaHideError, match="digits-k4"):
        make_official("digits", tmp_path / "g", tmp_path / "k")

"""Challenges: read by plain NumPy, scored as scikit-image and a hand would, the truth apart."""

from __future__ import annotations

import csv
import json
import shutil
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from skimage.metrics import structural_similarity
from typer.testing import CliRunner

from instahide.audit.challenge.challenge import SCHEME, Challenge, ChallengeTruth, make_challenge
from instahide.audit.challenge.leaderboard import (
    ChallengeScore,
    enter,
    score_blank,
    score_submission,
)
from instahide.cli.main import app
from instahide.data import ImageTable
from instahide.encryption.scheme import Scheme
from instahide.errors import InstaHideError

IMAGES, COPIES, SIDE = 6, 4, 12
NAMES = [field.name for field in fields(ChallengeScore)]
FIGURES = len(NAMES)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    root = tmp_path_factory.mktemp("challenge")
    generator = np.random.default_rng(0)
    pixels = generator.integers(0, 256, (IMAGES + 50, 3, SIDE, SIDE), dtype=np.uint8)
    private = ImageTable.from_arrays(pixels[:IMAGES], np.arange(IMAGES) % 3)
    public = ImageTable.from_arrays(pixels[IMAGES:])
    make_challenge(private, public, root / "given", root / "kept", copies=COPIES)
    return root / "given", root / "kept"


def decryption(folders: tuple[Path, Path], tmp_path: Path, values: NDArray[np.floating]) -> Path:
    path = tmp_path / "decryption.npy"
    np.save(path, values)
    return path


def perfect(kept: Path) -> NDArray[np.float32]:
    partners = np.load(kept / "partners.npy")
    return np.asarray(np.load(kept / "private.npy")[partners[:, 0]])


def test_attackers_files_are_those_of_the_authors(folders: tuple[Path, Path]) -> None:
    given, kept = folders
    encodings, labels = np.load(given / "encryption.npy"), np.load(given / "label.npy")
    assert encodings.dtype == labels.dtype == np.float32
    assert encodings.shape == (IMAGES * COPIES, SIDE, SIDE, 3)
    assert labels.shape == (IMAGES * COPIES, 3)
    partners, coefficients = np.load(kept / "partners.npy"), np.load(kept / "coefficients.npy")
    np.testing.assert_allclose(labels.sum(axis=1), coefficients[:, :2].sum(axis=1), atol=1e-5)
    assert np.bincount(partners[:, 0]).tolist() == [COPIES] * IMAGES
    assert sorted(path.name for path in given.iterdir()) == [
        "challenge.json", "encryption.npy", "label.npy",
    ]  # fmt: skip


def test_the_truth_explains_the_encodings_but_for_public_images(
    folders: tuple[Path, Path],
) -> None:
    given, kept = folders
    partners, coefficients = np.load(kept / "partners.npy"), np.load(kept / "coefficients.npy")
    private = np.load(kept / "private.npy")
    assert "SECRET" in (kept / "SECRET.txt").read_text()
    mix = np.einsum("nk,nkhwc->nhwc", coefficients[:, :2], private[partners[:, :2]])
    encodings = np.load(given / "encryption.npy")
    correlation = np.corrcoef(np.abs(mix).ravel(), np.abs(encodings).ravel())[0, 1]
    # 10,368 values: chance gives less than 0.05 but once in a million.
    assert correlation > 0.2


def test_our_files_open_with_their_facts(folders: tuple[Path, Path]) -> None:
    challenge = Challenge.open(folders[0])
    assert challenge.encoder == SCHEME
    assert challenge.copies == COPIES
    observation = challenge.observation("coarse")
    assert observation.threat.encodings_per_image == COPIES
    assert observation.labels is not None
    assert set(observation.labels.unique().tolist()) <= {0.0, 1.0}
    expected = np.load(folders[0] / "encryption.npy").transpose(0, 3, 1, 2)
    assert (observation.encodings.numpy() == expected).all()
    assert challenge.observation("none").labels is None


def test_the_authors_two_files_open_as_theirs(folders: tuple[Path, Path], tmp_path: Path) -> None:
    for name in ("encryption.npy", "label.npy"):
        (tmp_path / name).write_bytes((folders[0] / name).read_bytes())
    challenge = Challenge.open(tmp_path)
    assert (challenge.encoder, challenge.copies) == (Scheme.cross(6), 50)
    assert challenge.mean == (0, 0, 0)


@pytest.mark.parametrize("kept", [".", "kept", "../c", "../c/d/.."])
def test_a_truth_that_would_be_handed_out_is_refused(tmp_path: Path, kept: str) -> None:
    table = ImageTable.from_arrays(np.zeros((4, 3, 8, 8), np.uint8), [0, 1, 0, 1])
    given = tmp_path / "c"
    with pytest.raises(InstaHideError, match="not apart"):
        make_challenge(table, None, given, given / kept, encoder=Scheme.inside(2))
    assert not given.exists()


def test_nothing_is_overwritten(folders: tuple[Path, Path], tmp_path: Path) -> None:
    table = ImageTable.from_arrays(np.zeros((4, 3, 8, 8), np.uint8), [0, 1, 0, 1])
    with pytest.raises(InstaHideError, match="something in"):
        make_challenge(table, None, folders[0], tmp_path / "kept", encoder=Scheme.inside(2))


@pytest.mark.parametrize("name", ["encryption.npy", "label.npy"])
def test_damaged_files_are_named(folders: tuple[Path, Path], tmp_path: Path, name: str) -> None:
    for file in folders[0].iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    (tmp_path / name).write_bytes((tmp_path / name).read_bytes()[:50])
    with pytest.raises(InstaHideError, match=name):
        Challenge.open(tmp_path)
    np.save(tmp_path / name, np.array([{}], dtype=object), allow_pickle=True)
    with pytest.raises(InstaHideError, match=name):
        Challenge.open(tmp_path)


def test_a_perfect_submission(folders: tuple[Path, Path], tmp_path: Path) -> None:
    path = decryption(folders, tmp_path, perfect(folders[1]))
    score = score_submission(path, ChallengeTruth.open(folders[1]))
    for value in (score.max_ssim, score.max_ssim_low, score.max_ssim_affine):
        assert value == pytest.approx(1, abs=1e-4)
    assert score.min_l2 == pytest.approx(0, abs=1e-9)
    # The other image of each mix is not shown: these images of noise have nothing in common.
    assert score.mean_ssim == pytest.approx(0.5, abs=0.05)
    assert score.mean_l2 == pytest.approx(score.max_l2 / 2)
    assert score.images_recovered == IMAGES


def flat_truth() -> ChallengeTruth:
    """Two grey images of 0.2 and of 0.6, in two encodings."""
    originals = np.stack([np.full((3, SIDE, SIDE), grey, np.float32) for grey in (0.2, 0.6)])
    private = np.array([[0, 1], [1, 0]])
    return ChallengeTruth(originals, private, (0.0,) * 3, (1.0,) * 3)


def likeness(one: float, other: float) -> float:
    """SSIM of two flat images, by hand: the luminance term. In single precision it has 3 digits."""
    return (2 * one * other + 1e-4) / (one**2 + other**2 + 1e-4)


def test_figures_are_the_formulas_of_the_challenge(tmp_path: Path) -> None:
    """The first decryption is one of its images, the second is between both of its images."""
    path = tmp_path / "decryption.npy"
    np.save(path, np.stack([np.full((SIDE, SIDE, 3), grey, np.float32) for grey in (0.2, 0.4)]))
    score = score_submission(path, flat_truth())
    first = [1.0, likeness(0.2, 0.6)]
    second = [likeness(0.4, 0.6), likeness(0.4, 0.2)]
    assert score.max_ssim == pytest.approx((max(first) + max(second)) / 2, abs=1e-3)
    assert score.mean_ssim == pytest.approx(np.mean([first, second]), abs=1e-3)
    # Squared differences: 0 and 0.16 of the first decryption, 0.04 and 0.04 of the second.
    assert score.min_l2 == pytest.approx((0 + 0.04) / 2, abs=1e-6)
    assert score.max_l2 == pytest.approx((0.16 + 0.04) / 2, abs=1e-6)
    assert score.mean_l2 == pytest.approx((0.08 + 0.04) / 2, abs=1e-6)
    # The most similar image of the first is 0, of the second 1.
    assert score.max_ssim_per_image == pytest.approx(score.max_ssim)
    assert score.images_recovered == 0


def test_the_smaller_and_the_larger_are_taken_for_each_encoding(tmp_path: Path) -> None:
    """Neither is the best nor the worst of all encodings."""
    path = tmp_path / "decryption.npy"
    np.save(path, np.stack([np.full((SIDE, SIDE, 3), grey, np.float32) for grey in (0.6, 0.6)]))
    score = score_submission(path, flat_truth())
    assert score.max_ssim == pytest.approx(1, abs=1e-3)
    assert score.mean_ssim == pytest.approx((1 + likeness(0.2, 0.6)) / 2, abs=1e-3)
    assert (score.min_l2, score.max_l2) == pytest.approx((0, 0.16), abs=1e-6)


def test_figures_are_scikit_images_and_a_hands(folders: tuple[Path, Path], tmp_path: Path) -> None:
    kept = folders[1]
    truth = ChallengeTruth.open(kept)
    noise = np.random.default_rng(1).standard_normal((IMAGES * COPIES, SIDE, SIDE, 3))
    values = perfect(kept) + noise.astype(np.float32) * np.linspace(0, 1, len(noise))[
        :, None, None, None
    ].astype(np.float32)
    score = score_submission(decryption(folders, tmp_path, values), truth)
    shown = np.clip(values * np.asarray(truth.std) + truth.mean, 0, 1).astype(np.float32)
    real = np.clip(np.load(kept / "private.npy") * np.asarray(truth.std) + truth.mean, 0, 1)
    both = np.array(
        [
            [
                structural_similarity(
                    image, real[row].astype(np.float32), channel_axis=2, data_range=1,
                    gaussian_weights=True, sigma=1.5, use_sample_covariance=False,
                )
                for row in rows
            ]
            for image, rows in zip(shown, truth.private, strict=True)
        ]
    )  # fmt: skip
    counted = truth.private[np.arange(len(both)), both.argmax(axis=1)]
    distance = np.square(shown[:, None] - real[truth.private]).mean(axis=(2, 3, 4))
    best = both.max(axis=1)
    assert score.max_ssim == pytest.approx(best.mean(), abs=1e-4)
    assert score.mean_ssim == pytest.approx(both.mean(), abs=1e-4)
    assert score.min_l2 == pytest.approx(distance.min(axis=1).mean(), rel=1e-4)
    assert score.mean_l2 == pytest.approx(distance.mean(), rel=1e-4)
    assert score.max_l2 == pytest.approx(distance.max(axis=1).mean(), rel=1e-4)
    per_image = [best[counted == row].mean() for row in np.unique(counted)]
    assert score.max_ssim_per_image == pytest.approx(np.mean(per_image), abs=1e-4)
    assert score.max_ssim_low < score.max_ssim < score.max_ssim_high


def test_only_the_affine_figure_forgives_brightness_and_sign(
    folders: tuple[Path, Path], tmp_path: Path
) -> None:
    values = 0.5 - 0.3 * perfect(folders[1])
    score = score_submission(decryption(folders, tmp_path, values), ChallengeTruth.open(folders[1]))
    assert score.max_ssim_affine > 0.99
    assert score.max_ssim < 0.5


@pytest.mark.parametrize("value", [-2.0, -0.5, 0.0, 0.4, 3.0])
def test_no_blank_submission_gets_more_than_the_blank_that_is_stated(
    folders: tuple[Path, Path], tmp_path: Path, value: float
) -> None:
    truth = ChallengeTruth.open(folders[1])
    stated = score_blank(truth)
    shape = (IMAGES * COPIES, SIDE, SIDE, 3)
    submitted = np.full(shape, value, np.float32)
    score = score_submission(decryption(folders, tmp_path, submitted), truth)
    assert score.images_recovered == stated.images_recovered == 0
    for name in ("max_ssim", "mean_ssim", "max_ssim_affine"):
        assert getattr(score, name) <= getattr(stated, name) + 1e-4
    for name in ("min_l2", "mean_l2", "max_l2"):
        assert getattr(score, name) >= getattr(stated, name) - 1e-6
    assert stated.mean_ssim > 0


def test_flat_images_are_not_recovered_by_flat_submissions(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    pixels = generator.integers(126, 131, (IMAGES, 3, SIDE, SIDE), dtype=np.uint8)
    flat = ImageTable.from_arrays(pixels, np.arange(IMAGES) % 3)
    kept = tmp_path / "kept"
    make_challenge(flat, None, tmp_path / "given", kept, encoder=Scheme.inside(2), copies=COPIES)
    truth = ChallengeTruth.open(kept)
    blank = np.zeros((IMAGES * COPIES, SIDE, SIDE, 3), np.float32)
    score = score_submission(decryption((kept, kept), tmp_path, blank), truth)
    # SSIM alone does not say so.
    assert score.max_ssim > 0.8
    assert score.images_recovered == 0
    exact = score_submission(decryption((kept, kept), tmp_path, perfect(kept)), truth)
    assert exact.images_recovered == IMAGES


@pytest.mark.parametrize(
    ("values", "said"),
    [
        (np.zeros((IMAGES * COPIES, 3, SIDE, SIDE), np.float32), "A submission to this challenge"),
        (np.zeros((1, SIDE, SIDE, 3), np.float32), "A submission to this challenge"),
        (np.zeros((SIDE, SIDE, 3), np.float32), "4 dimensions"),
        (np.full((IMAGES * COPIES, SIDE, SIDE, 3), np.nan, np.float32), "finite numbers"),
        (np.full((IMAGES * COPIES, SIDE, SIDE, 3), "7"), "finite numbers"),
    ],
    ids=["channels first", "too few", "flat", "not a number", "text"],
)
def test_what_is_no_submission_is_refused(
    folders: tuple[Path, Path], tmp_path: Path, values: NDArray[Any], said: str
) -> None:
    with pytest.raises(InstaHideError, match=said):
        score_submission(decryption(folders, tmp_path, values), ChallengeTruth.open(folders[1]))


FACTS = {
    "nothing": b"",
    "no text": b"\xff\xfe",
    "a list": b"[1, 2]",
    "too deep": b"[" * 100_000,
    "another field": {"seed": 7},
    "no moments": {"mean": None},
    "channels": {"mean": [0.5], "std": [0.5]},
    "no deviation": {"std": [0.0, 1.0, 1.0]},
    "infinite": b'{"mean": [1e999, 0, 0], "std": [1, 1, 1]}',
}


def spoilt(folder: Path, name: str, change: bytes | dict[str, Any]) -> None:
    """Put ``change`` into the JSON file, or in its place."""
    path = folder / name
    if isinstance(change, bytes):
        path.write_bytes(change)
    else:
        path.write_text(json.dumps(json.loads(path.read_text()) | change))


@pytest.mark.parametrize(
    "change",
    [
        *FACTS.values(),
        {"copies": 0},
        {"copies": "50"},
        {"scheme": [4]},
        {"scheme": {"k": "four"}},
        {"scheme": {"k": 10**400}},
        {"scheme": {"seed": 7}},
    ],
)
def test_facts_of_a_challenge_that_cannot_be_are_refused(
    folders: tuple[Path, Path], tmp_path: Path, change: bytes | dict[str, Any]
) -> None:
    given = shutil.copytree(folders[0], tmp_path / "given")
    spoilt(given, "challenge.json", change)
    with pytest.raises(InstaHideError):
        Challenge.open(given)


@pytest.mark.parametrize("change", [*FACTS.values(), {"private_k": 0}, {"private_k": 1.5}])
def test_facts_of_a_truth_that_cannot_be_are_refused(
    folders: tuple[Path, Path], tmp_path: Path, change: bytes | dict[str, Any]
) -> None:
    kept = shutil.copytree(folders[1], tmp_path / "kept")
    spoilt(kept, "truth.json", change)
    with pytest.raises(InstaHideError, match=r"truth\.json"):
        ChallengeTruth.open(kept)


@pytest.mark.parametrize("image", [-1, IMAGES, 0.5])
def test_a_truth_names_no_image_that_is_not_there(
    folders: tuple[Path, Path], tmp_path: Path, image: float
) -> None:
    kept = shutil.copytree(folders[1], tmp_path / "kept")
    partners = np.load(kept / "partners.npy").astype(type(image))
    partners[3, 1] = image
    np.save(kept / "partners.npy", partners)
    with pytest.raises(InstaHideError, match=r"partners\.npy"):
        ChallengeTruth.open(kept)


def test_the_challenge_is_no_truth(folders: tuple[Path, Path]) -> None:
    with pytest.raises(InstaHideError, match="does not hold the truth"):
        ChallengeTruth.open(folders[0])


def test_entries_are_appended(tmp_path: Path) -> None:
    board = tmp_path / "leaderboard.csv"
    score = ChallengeScore(*[0.5] * FIGURES)
    enter(board, "first", score)
    enter(board, "second, with a comma", score)
    rows = list(csv.DictReader(board.read_text().splitlines()))
    assert [row["name"] for row in rows] == ["first", "second, with a comma"]
    assert rows[1]["mean_ssim"] == "0.5"


@pytest.mark.parametrize("content", [b"name,at,score\n", b"\xff\xfe", b"nothing"])
def test_another_file_is_not_appended_to(tmp_path: Path, content: bytes) -> None:
    board = tmp_path / "other.csv"
    board.write_bytes(content)
    with pytest.raises(InstaHideError, match=r"other\.csv"):
        enter(board, "first", ChallengeScore(*[0.5] * FIGURES))
    assert board.read_bytes() == content


def test_the_commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str) -> str:
        result = CliRunner().invoke(app, ["challenge", *arguments])
        assert result.exit_code == 0, result.output
        return result.output

    run(
        "make", "digits", "--out", "given", "--truth", "kept", "--images", "5", "--copies", "3",
        "--k", "4", "--private-k", "4", "--c2", "0",
    )  # fmt: skip
    assert "15 encodings of 1 x 8 x 8, 3 of an image" in run("info", "given")
    np.save("decryption.npy", perfect(Path("kept")))
    scored = run(
        "score", "decryption.npy", "--truth", "kept", "--name", "us", "--leaderboard", "board.csv",
        "--json",
    )  # fmt: skip
    assert json.loads(scored)["max_ssim"] == pytest.approx(1, abs=1e-4)
    assert json.loads(scored)["images_recovered"] == 5
    blank = json.loads(scored)["blank"]
    assert 0 < blank["max_ssim"] < 0.5
    assert (blank["images_recovered"], set(blank)) == (0, set(NAMES))
    assert Path("board.csv").read_text().count("\n") == 2
    inside = ["make", "digits", "--out", "new", "--truth", "new/kept"]
    refused = CliRunner().invoke(app, ["challenge", *inside])
    assert refused.exit_code == 2
    assert not Path("new").exists()


def test_attackers_cannot_reach_the_truth() -> None:
    """No attack imports the room that knows it: the contract of layers, on this one file."""
    import instahide.attacks.reconstruction as stages

    sources = Path(str(stages.__file__)).parent.rglob("*.py")
    assert not [path.name for path in sources if "instahide.audit" in path.read_text()]

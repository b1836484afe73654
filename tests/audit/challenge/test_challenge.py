"""Challenges: read by plain NumPy, the truth apart, both known by the hash of the challenge."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from instahide.audit.challenge.challenge import Challenge, ChallengeTruth
from instahide.audit.challenge.facts import SCHEME
from instahide.audit.challenge.making import Name, make_challenge
from instahide.audit.challenge.submission import Submission
from instahide.data import ImageTable
from instahide.encryption.scheme import Scheme
from instahide.errors import InstaHideError
from tests.audit.challenge.examples import COPIES, IMAGES, SIDE, sealed_again, sha256_of
from tests.waiting import LIMIT


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
        "README.md", "challenge.json", "encryption.npy", "label.npy",
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
    facts = challenge.facts
    assert (facts.id, facts.version, facts.kind) == ("noise-6", 3, "competition")
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
    assert challenge.facts.mean == (0, 0, 0)
    assert challenge.facts.id == "instahide-2020"


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
        sealed_again(folder, name)


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
        {"format": 2},
        {"id": "Not a slug"},
        {"id": "-x"},
        {"version": 0},
        {"kind": "other"},
        {"recipe": {"data": "digits", "images": 0, "seed": 1}},
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
    sealed_again(kept, "truth.json")
    with pytest.raises(InstaHideError, match=r"partners\.npy"):
        ChallengeTruth.open(kept)


def test_the_challenge_is_no_truth(folders: tuple[Path, Path]) -> None:
    with pytest.raises(InstaHideError, match="does not hold the truth"):
        ChallengeTruth.open(folders[0])


def test_attackers_cannot_reach_the_truth() -> None:
    """No attack imports the room that knows it: the contract of layers, on this one file."""
    import instahide.attacks.reconstruction as stages

    sources = Path(str(stages.__file__)).parent.rglob("*.py")
    assert not [path.name for path in sources if "instahide.audit" in path.read_text()]


def copy_of(folders: tuple[Path, Path], tmp_path: Path) -> tuple[Path, Path]:
    given, kept = (shutil.copytree(path, tmp_path / path.name) for path in folders)
    return given, kept


@pytest.mark.parametrize("name", ["encryption.npy", "label.npy"])
def test_a_changed_value_is_noticed(folders: tuple[Path, Path], tmp_path: Path, name: str) -> None:
    given, _ = copy_of(folders, tmp_path)
    values = np.load(given / name)
    values.flat[5] = np.nextafter(values.flat[5], np.float32(9))
    np.save(given / name, values)
    with pytest.raises(InstaHideError, match=rf"{name}.*SHA-256.*[Aa]sk"):
        Challenge.open(given)


@pytest.mark.parametrize("name", ["private.npy", "partners.npy", "coefficients.npy"])
def test_a_changed_truth_is_noticed(folders: tuple[Path, Path], tmp_path: Path, name: str) -> None:
    _, kept = copy_of(folders, tmp_path)
    np.save(kept / name, np.load(kept / name)[::-1])
    with pytest.raises(InstaHideError, match=rf"{name}.*SHA-256"):
        ChallengeTruth.open(kept)


@pytest.mark.parametrize(
    ("name", "field", "value"),
    [
        ("challenge.json", "copies", 5),
        ("challenge.json", "mean", [0.1, 0.2, 0.3]),
        ("challenge.json", "version", 2),
        ("truth.json", "mean", [0.1, 0.2, 0.3]),
        ("truth.json", "private_k", 1),
        ("truth.json", "challenge", "0" * 64),
    ],
)
def test_a_changed_fact_is_noticed(
    folders: tuple[Path, Path], tmp_path: Path, name: str, field: str, value: object
) -> None:
    given, kept = copy_of(folders, tmp_path)
    public = name == "challenge.json"
    path = (given if public else kept) / name
    path.write_text(json.dumps(json.loads(path.read_text()) | {field: value}))
    with pytest.raises(InstaHideError, match="was changed"):
        Challenge.open(given) if public else ChallengeTruth.open(kept)


def test_a_hash_covers_every_array(folders: tuple[Path, Path], tmp_path: Path) -> None:
    """Who leaves an array out of the list, and hashes the rest, is refused."""
    given, _ = copy_of(folders, tmp_path)
    facts = json.loads((given / "challenge.json").read_text())
    del facts["files"]["label.npy"]
    (given / "challenge.json").write_text(json.dumps(facts))
    sealed_again(given, "challenge.json")
    with pytest.raises(InstaHideError, match="lists other files"):
        Challenge.open(given)


def test_the_truth_names_its_challenge(folders: tuple[Path, Path]) -> None:
    given, kept = folders
    assert ChallengeTruth.open(kept).facts.challenge == sha256_of(given)


def test_the_hash_is_what_the_docs_say(folders: tuple[Path, Path]) -> None:
    """By hand: SHA-256 of sorted JSON without spaces, with the SHA-256 of both arrays."""
    facts = json.loads((folders[0] / "challenge.json").read_text())
    for name in ("encryption.npy", "label.npy"):
        stated = facts["files"][name]
        assert stated == hashlib.sha256((folders[0] / name).read_bytes()).hexdigest()
    claimed = facts.pop("sha256")
    text = json.dumps(facts, sort_keys=True, separators=(",", ":"))
    assert claimed == hashlib.sha256(text.encode()).hexdigest()


def readme_blocks(given: Path) -> list[str]:
    text = (given / "README.md").read_text(encoding="utf-8")
    return [part.partition("```")[0] for part in text.split("```python\n")[1:]]


def test_the_readme_checks_the_files_and_writes_a_submission(
    folders: tuple[Path, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    given, _ = copy_of(folders, tmp_path)
    monkeypatch.chdir(given)
    check, submit = readme_blocks(given)
    exec(check, {})  # noqa: S102
    assert capsys.readouterr().out.strip() == sha256_of(given)
    exec(submit, {})  # noqa: S102
    written = Submission.open(given / "submission")
    assert written.facts.challenge == sha256_of(given)
    assert written.decryptions.shape == (IMAGES * COPIES, SIDE, SIDE, 3)
    np.save(given / "label.npy", np.load(given / "label.npy") + 1)
    with pytest.raises(AssertionError, match=r"label\.npy"):
        exec(check, {})  # noqa: S102


@pytest.mark.parametrize("name", ["A", "a b", "a--b", "-a", "a-", "../a", "a\n", "a" * 61, "é"])
def test_an_id_that_is_no_slug_is_refused(name: str) -> None:
    with pytest.raises(InstaHideError, match="no name of a challenge"):
        Name(name)


def test_a_challenge_without_an_id_is_named_by_its_hash(tmp_path: Path) -> None:
    table = ImageTable.from_arrays(
        np.random.default_rng(0).integers(0, 256, (4, 3, 8, 8), np.uint8), [0, 1, 0, 1]
    )
    made = [
        make_challenge(
            table, None, tmp_path / f"g{run}", tmp_path / f"k{run}", encoder=Scheme.inside(2)
        )
        for run in range(2)
    ]
    ids = [each.facts.id for each in made]
    hashes = [each.facts.files["encryption.npy"] for each in made]
    assert ids == [f"challenge-{each[:8]}" for each in hashes]
    # Two competitions of the same images have different keys.
    assert hashes[0] != hashes[1]


@pytest.mark.parametrize("wait", [0.0, 0.01])
def test_a_kill_leaves_whole_folders_or_none(tmp_path: Path, wait: float) -> None:
    """A challenge is there only with its truth."""
    program = """
        import sys, numpy as np
        from pathlib import Path
        from instahide.audit.challenge.making import make_challenge
        from instahide.data import ImageTable
        from instahide.encryption.scheme import Scheme
        pixels = np.random.default_rng(0).integers(0, 256, (40, 32, 32, 3), np.uint8)
        table = ImageTable.from_arrays(pixels, np.arange(40) % 2)
        print("ready", flush=True)
        for number in range(1000):
            make_challenge(
                table, None, Path(f"given{number}"), Path(f"kept{number}"),
                encoder=Scheme.inside(2), copies=20,
            )
    """
    with subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(program)],
        cwd=tmp_path, stdout=subprocess.PIPE, env=dict(os.environ),
    ) as process:  # fmt: skip
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        while not any(tmp_path.glob("given*")) and process.poll() is None:
            pass
        try:
            process.wait(wait)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
        process.wait(LIMIT)
    whole = [path for path in tmp_path.iterdir() if not path.name.startswith(".")]
    given = [path for path in whole if path.name.startswith("given")]
    assert given
    for path in given:
        hashed = Challenge.open(path).sha256
        kept = tmp_path / path.name.replace("given", "kept")
        assert ChallengeTruth.open(kept).facts.challenge == hashed

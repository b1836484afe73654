"""An attack that is interrupted goes on where it was, as if nothing had happened."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from shutil import copytree

import numpy as np
import pytest
import torch
from torch import Tensor

from instahide.attacks.base import AssignedImages, EncodingObservation, ThreatModel, no_progress
from instahide.attacks.budget import Budget
from instahide.attacks.reconstruction import state as kept
from instahide.attacks.reconstruction.attack import ReconstructionAttack
from instahide.attacks.reconstruction.pair_encoder import selection
from instahide.attacks.reconstruction.pair_encoder.features import edges_of_square
from instahide.audit.ground_truth import observe
from instahide.data import ImageTable
from instahide.encryption.scheme import Scheme
from instahide.errors import InstaHideError
from instahide.utils.tensor_file import read_tensors
from tests.attacks.conftest import natural
from tests.waiting import ticks


@pytest.fixture(scope="module")
def observation() -> EncodingObservation:
    private = ImageTable.from_arrays(natural(8, 1, 16), np.arange(8) % 3)
    public = ImageTable.from_arrays(natural(200, 2, 16))
    shadow = ImageTable.from_arrays(natural(60, 3, 16))
    threat = ThreatModel(public="none", encodings_per_image=12, shadow=True)
    return observe(private, public, Scheme.cross(4), threat, shadow=shadow)[0]


@pytest.fixture(scope="module")
def whole(observation: EncodingObservation) -> tuple[AssignedImages, list[str]]:
    return attacked(observation, None)


@pytest.fixture(scope="module")
def kept_once(
    observation: EncodingObservation, tmp_path_factory: pytest.TempPathFactory
) -> tuple[AssignedImages, Path]:
    folder = tmp_path_factory.mktemp("finished")
    return attacked(observation, folder)[0], folder


@pytest.fixture
def finished(kept_once: tuple[AssignedImages, Path], tmp_path: Path) -> Path:
    """A folder of a finished attack, to change."""
    copytree(kept_once[1], tmp_path, dirs_exist_ok=True)
    return tmp_path


class KilledError(Exception):
    """As if the process had been killed."""


def interrupting(after: str) -> object:
    def progress(what: str, share: float) -> None:
        if what == after:
            raise KilledError

    return progress


def attacked(
    observation: EncodingObservation, folder: Path | None
) -> tuple[AssignedImages, list[str]]:
    said: list[str] = []
    attack = ReconstructionAttack(folder=folder)
    return attack.run(observation, Budget(), lambda what, share: said.append(what)), said


def close(one: Tensor | None, other: Tensor | None) -> None:
    """But for rounding: tensors from a file lie otherwise in memory."""
    torch.testing.assert_close(one, other, atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize(
    "after",
    [
        "recovery and assignment, round 1",
        "recovery and assignment, round 2",
        "final recovery",
        "confidence",
    ],
)
def test_interrupted_anywhere_it_ends_with_the_same_images(
    observation: EncodingObservation,
    whole: tuple[AssignedImages, list[str]],
    tmp_path: Path,
    after: str,
) -> None:
    attack = ReconstructionAttack(folder=tmp_path)
    with pytest.raises(KilledError):
        attack.run(observation, Budget(), interrupting(after))  # type: ignore[arg-type]
    resumed, said = attacked(observation, tmp_path)
    uninterrupted, all_said = whole
    assert "groups" not in said
    assert [what for what in said if what != "features"] == all_said[all_said.index(after) :]
    assert torch.equal(resumed.assignment, uninterrupted.assignment)  # type: ignore[arg-type]
    for name in ("images", "coefficients", "confidence"):
        close(getattr(resumed, name), getattr(uninterrupted, name))


@pytest.mark.slow
def test_what_a_budget_cut_short_a_later_run_goes_on_with(
    observation: EncodingObservation, whole: tuple[AssignedImages, list[str]], tmp_path: Path
) -> None:
    attack = ReconstructionAttack(folder=tmp_path)
    for _ in range(2):
        cut = attack.run(observation, Budget(0), no_progress)
    assert cut.images is not None
    resumed, _ = attacked(observation, tmp_path)
    assert not torch.equal(cut.images, resumed.images)  # type: ignore[arg-type]
    close(resumed.images, whole[0].images)


def test_a_finished_attack_is_not_done_again(
    observation: EncodingObservation, kept_once: tuple[AssignedImages, Path]
) -> None:
    first, folder = kept_once
    again, said = attacked(observation, folder)
    assert said == ["features", "done"]
    close(first.images, again.images)


def test_the_file_holds_what_was_found_and_nothing_else(
    kept_once: tuple[AssignedImages, Path],
) -> None:
    folder = kept_once[1]
    assert [path.name for path in folder.iterdir()] == [kept.FILE]
    assert (folder / kept.FILE).stat().st_mode & 0o077 == 0
    tensors, facts = read_tensors(folder / kept.FILE)
    assert set(facts) == {"of", "step"}
    assert set(tensors) == {
        "centres", "assignment", "coefficients", "images", "confidence",
    }  # fmt: skip


def test_a_folder_of_another_attack_is_refused(
    observation: EncodingObservation, finished: Path
) -> None:
    others = replace(observation, encodings=observation.encodings.roll(1, dims=0))
    for attack, seen in (
        (ReconstructionAttack(folder=finished), others),
        (ReconstructionAttack(folder=finished), replace(observation, labels=None)),
        (ReconstructionAttack(folder=finished, rounds=1), observation),
        (ReconstructionAttack(folder=finished, seed=1), observation),
    ):
        with pytest.raises(InstaHideError, match="another attack"):
            attack.run(seen, Budget(), no_progress)


@pytest.mark.parametrize("damage", [b"", b"nonsense", None])
def test_a_damaged_file_is_refused(
    observation: EncodingObservation, finished: Path, damage: bytes | None
) -> None:
    path = finished / kept.FILE
    path.write_bytes(path.read_bytes()[:200] if damage is None else damage)
    with pytest.raises(InstaHideError, match=r"state\.safetensors is damaged"):
        attacked(observation, finished)


@pytest.mark.slow
def test_an_encoder_is_trained_on_shadow_images_within_its_seconds_and_kept(
    observation: EncodingObservation, tmp_path: Path
) -> None:
    attack = ReconstructionAttack(rounds=1, training=5.0, folder=tmp_path)
    assert attack.applies(observation) is None
    said: list[str] = []
    attack.run(observation, Budget(clock=ticks()), lambda what, share: said.append(what))
    # The clock is looked at before every step, and the last look finds the time over.
    assert len([what for what in said if what.startswith("step")]) == 4
    assert (tmp_path / selection.FILE).exists()
    said.clear()
    attack.run(observation, Budget(), lambda what, share: said.append(what))
    assert said == ["features", "done"]


@pytest.mark.slow
def test_training_takes_at_most_half_the_budget(observation: EncodingObservation) -> None:
    said: list[str] = []
    attack = ReconstructionAttack(rounds=1, training=60.0)
    budget = Budget(20, clock=ticks())
    attack.run(observation, budget, lambda what, share: said.append(what))
    assert 5 <= len([what for what in said if what.startswith("step")]) <= 10


def test_without_training_or_a_shipped_encoder_features_are_untrained(
    observation: EncodingObservation,
) -> None:
    tiny = replace(observation, encodings=observation.encodings[:, :, :12, :12].contiguous())
    found = selection.default_features(tiny, None, no_progress)
    whole = edges_of_square(tiny.encodings)
    # Their principal components, which are fewer than the encodings.
    assert found.shape[1] < whole.shape[1]
    torch.testing.assert_close(found @ found.T, whole @ whole.T, atol=0.1, rtol=0)


def test_training_without_shadow_images_does_not_apply(observation: EncodingObservation) -> None:
    bare = replace(observation, shadow=None)
    assert "grants none" in str(ReconstructionAttack(training=5.0).applies(bare))

"""Rivals that are not encoders, and the table of all rivals."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from experiments import rivals, rivals_table, training_time
from experiments.encoders import PRIVATE, SHADOW, Rival, chosen
from experiments.records import rows_of
from experiments.rivals import RIVALS
from instahide import open_split


def test_private_images_are_not_among_the_attacker_s_own() -> None:
    split = open_split("digits")
    private, shadow = chosen(split, 0)
    assert len(private) == PRIVATE
    assert len(shadow) == min(SHADOW, len(split.train) - PRIVATE)
    hashes = {row.tobytes() for row in private.pixels}
    assert not hashes & {row.tobytes() for row in shadow.pixels}
    assert not np.array_equal(chosen(split, 1)[0].pixels, private.pixels)


def test_the_gradient_of_dp_sgd_is_clipped_and_has_noise(monkeypatch: pytest.MonkeyPatch) -> None:
    gradients = {"a": torch.full((200, 100), 3.0), "b": torch.full((400,), -2.0)}
    noisy = rivals.private(gradients)
    values = torch.cat([each.flatten() for each in noisy.values()])
    assert float(values.std()) == pytest.approx(rivals.NOISE * rivals.NORM, rel=0.05)
    monkeypatch.setattr(rivals, "NOISE", 0.0)
    clipped = rivals.private(gradients)
    norm = torch.cat([each.flatten() for each in clipped.values()]).norm()
    assert float(norm) == pytest.approx(rivals.NORM, rel=1e-4)
    small = {"a": torch.full((4,), 0.1)}
    torch.testing.assert_close(rivals.private(small), small)


@pytest.mark.slow
def test_a_plain_gradient_shows_its_image_and_a_noisy_one_does_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(rivals, "ATTACKED", 2)
    monkeypatch.setattr(rivals, "ITERATIONS", 300)
    split = open_split("digits")
    found = {name: rivals.inverted(split, rival, 0) for name, rival in RIVALS.items()}
    assert found["federated-plain"]["attacked"] == 2
    assert int(str(found["federated-plain"]["recovered"])) >= 1
    assert found["dp-sgd"]["recovered"] == 0


def test_rows_are_kept_and_no_cell_is_repeated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[tuple[str, str, int]] = []

    def measure(*cell: object) -> dict[str, object]:
        done.append(cell)  # type: ignore[arg-type]
        return {"accuracy": 90.0}

    monkeypatch.setattr(rivals, "measure", measure)
    out = tmp_path / "rivals.csv"
    for seeds in ("0", "0,1"):
        command = ["rivals", "--data", "digits", "--seeds", seeds, "--out", str(out)]
        monkeypatch.setattr(sys, "argv", command)
        rivals.main()
    assert len(done) == len(set(done)) == len(rows_of(out)) == 2 * len(RIVALS)


def row(rival: str, **changes: str) -> dict[str, str]:
    found = {
        "rival": rival, "accuracy": "95", "recovered": "94", "attacked": "100", "epsilon": "",
    }  # fmt: skip
    return found | changes


def test_the_table_has_spreads_and_says_what_was_not_measured() -> None:
    rows = [
        row("plain"),
        row("instahide-4", linkage_auc="0.7"),
        row("instahide-4", linkage_auc="0.8", accuracy="97", recovered="90"),
        row("dp-sgd", epsilon="1234.5", attacked="10", recovered="0"),
        row("federated-plain"),
    ]
    lines = rivals_table.of_images(
        rows, "Digits", {"plain": 1.0, "instahide-4": 1.96, "dp-sgd": 20.0}
    )
    found = {line.split(" | ")[0].removeprefix("| "): line.split(" | ")[1:] for line in lines}
    titles = rivals_table.TITLES
    assert found[titles["instahide-4"]] == [
        "2", "96.0 ± 1.4", "encodings", "92 ± 2.8 of 100", "0.75", "none", "2.0 |",
    ]  # fmt: skip
    assert found[titles["dp-sgd"]][2:] == [
        "noisy gradients", "0 of 10", "no encodings", "1,234", "20.0 |",
    ]  # fmt: skip
    assert found[titles["federated-plain"]][-1] == "not measured |"
    assert titles["mixup-4"] not in found
    assert len(lines) == 2 + 4
    assert rivals_table.of_images(rows[:1], "Digits", {}) == []


def test_times_are_compared_within_a_turn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A slower machine, on which the last turn ran, changes no ratio."""
    spent = iter([9.0, 9.0, 1.0, 3.0, 2.0, 6.4, 50.0, 9.0, 10.0, 31.0])
    monkeypatch.setattr(training_time, "rivals", lambda data: {"plain": Rival("plain", {})})
    monkeypatch.setattr(training_time, "seconds", lambda *words: next(spent))
    out = tmp_path / "times.csv"
    for turns in ("2", "3", "3"):
        command = ["training_time", "--data", "digits", "--turns", turns, "--out", str(out)]
        monkeypatch.setattr(sys, "argv", command)
        training_time.main()
    rows = rows_of(out)
    assert [row["turn"] for row in rows] == ["0", "0", "1", "1", "2", "2"]
    assert training_time.relative(rows, "digits") == {"plain": 1.0, "dp-sgd": pytest.approx(3.1)}
    assert training_time.relative(rows, "photographs") == {}


# PyTorch's, of hooks that Opacus puts on the first layer.
@pytest.mark.filterwarnings("ignore:Full backward hook is firing")
def test_a_pass_over_few_images_is_timed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training_time, "IMAGES", 60)
    source = training_time.subset("digits", tmp_path)
    assert len(open_split(source).train) == 48
    for rival in (Rival("mixup", {"k": 2}), None):
        assert training_time.seconds(source, rival, tmp_path) > 0

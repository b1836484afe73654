"""Experiments run, keep what they have measured, and are what the README shows."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure

from experiments import (
    accuracy,
    attack_tables,
    attacks,
    curves,
    reconstruction_tables,
    records,
    tables,
)
from experiments.budgets import ProcessorTime
from instahide.data import ImageTable

ROOT = Path(__file__).resolve().parents[1]


def started(*options: str, out: Path) -> subprocess.Popen[str]:
    """`experiments.accuracy` on digits."""
    return subprocess.Popen(
        [sys.executable, "-m", "experiments.accuracy", "--data", "digits", *options,
         "--out", str(out)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
        stdout=subprocess.PIPE,
        text=True,
    )  # fmt: skip


def finished(process: subprocess.Popen[str]) -> list[str]:
    """The lines that it prints, at its good end."""
    printed, _ = process.communicate()
    assert process.returncode == 0
    return printed.splitlines()


@pytest.mark.slow
def test_accuracy_writes_every_run_once_and_sums_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "accuracy.csv"
    options = ["--data=digits", "--epochs=1", "--schemes=plain,inside-2,inside-2-signed"]
    monkeypatch.setattr(sys, "argv", ["accuracy", *options, f"--out={out}"])
    accuracy.main()
    figures = json.loads(capsys.readouterr().out.splitlines()[-1])
    rows = list(csv.DictReader(out.read_text().splitlines()))
    assert [row["scheme"] for row in rows] == ["plain", "inside-2", "inside-2-signed"]
    assert all(len(row["curve"].split()) == 1 for row in rows)
    by_scheme = {row["scheme"]: float(row["plain_accuracy"]) for row in rows}
    drop = figures["drop"]
    assert isinstance(drop, dict)
    assert drop["inside-2"] == pytest.approx(by_scheme["plain"] - by_scheme["inside-2"], abs=0.01)
    before = out.read_bytes()
    accuracy.main()
    assert json.loads(capsys.readouterr().out.splitlines()[-1]) == figures
    assert out.read_bytes() == before


@pytest.mark.slow
def test_a_killed_run_goes_on_from_its_last_epoch(tmp_path: Path) -> None:
    out, options = tmp_path / "accuracy.csv", ("--epochs=4", "--schemes=plain")
    process = started(*options, out=out)
    assert process.stdout is not None
    assert process.stdout.readline().startswith("epoch 1/4 ")
    process.kill()
    process.communicate()
    assert not out.exists()
    first, *_ = finished(started(*options, out=out))
    assert first.startswith("epoch ")
    assert not first.startswith("epoch 1/4 ")
    (row,) = records.rows_of(out)
    assert len(row["curve"].split()) == 4
    assert not any((tmp_path / "runs").iterdir())


def test_a_signed_scheme_differs_in_the_stem_alone() -> None:
    seen, signed = (
        accuracy.settings_of("digits", name, 0, 1) for name in ("cross-4", "cross-4-signed")
    )
    assert seen.differences(signed) == ["sign_invariant: True here, False there"]


def test_the_first_pages_show_what_was_measured() -> None:
    for page in tables.PAGES:
        assert tables.rewritten(page) == page.read_text(encoding="utf-8")
    assert "| accuracy lost on Fashion-MNIST" in (ROOT / "README.md").read_text(encoding="utf-8")
    assert "worst and the best of five kinds" in (ROOT / "docs" / "index.md").read_text("utf-8")


def test_curves_are_those_of_the_longest_runs() -> None:
    def row(epochs: int, curve: str) -> dict[str, str]:
        return {"data": "mnist-5k", "scheme": "plain", "epochs": str(epochs), "curve": curve}

    rows = [row(1, "50.0"), row(2, "60.0 80.0"), row(2, "70.0 90.0")]
    found = curves.courses(rows, "mnist-5k")
    assert list(found) == ["plain"]
    assert found["plain"].tolist() == [[60.0, 80.0], [70.0, 90.0]]


def test_the_page_of_attacks_shows_what_was_measured() -> None:
    rows = records.rows_of(attack_tables.MEASURED)
    assert attack_tables.PAGE.read_text(encoding="utf-8") == attack_tables.page(rows)


def test_a_table_of_attacks_has_means_over_seeds() -> None:
    def row(seed: int, value: str) -> dict[str, str]:
        return {
            "attack": "averaging", "scheme": "plain", "encodings_per_image": "10",
            "seed": str(seed), "measure": "ssim_mean", "value": value,
        }  # fmt: skip

    lines = attack_tables.page([row(0, "0.25"), row(1, "0.75")]).splitlines()
    assert "| attack | scheme | encodings per image | SSIM, mean |" in lines
    assert "| `averaging` | plain | 10 | 0.5 |" in lines
    assert lines.count("Not measured yet.") == len(attack_tables.TABLES) - 1


def test_attacks_are_measured_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    generator = np.random.default_rng(0)
    private, public = (
        ImageTable.from_arrays(generator.integers(0, 256, (count, 3, 8, 8), np.uint8), labels)
        for count, labels in ((12, np.arange(12) % 3), (20, None))
    )
    monkeypatch.setattr(attacks, "photographs", lambda *sizes: attacks.Images(private, public))
    out = tmp_path / "attacks.csv"
    command = ["attacks", "--attacks", "labels,public-search", "--out", str(out)]
    monkeypatch.setattr(sys, "argv", command)
    attacks.main()
    rows = records.rows_of(out)
    assert {(row["attack"], row["scheme"]) for row in rows} == {
        *(("labels", scheme) for scheme in attacks.SCHEMES),
        *(("public-search", scheme) for scheme in ("mixup-cross-4", "cross-4")),
    }
    assert all(row["commit"] and row["seconds"] for row in rows)
    before = out.read_bytes()
    attacks.main()
    assert out.read_bytes() == before


def test_a_wait_takes_no_processor_time() -> None:
    budget = ProcessorTime(0.2)
    time.sleep(0.3)
    assert budget.left > 0.1
    while budget.left:
        sum(range(1000))
    assert time.process_time() > 0.2


def federated_row(partition: str, scheme: str, accuracy: float, speed: float) -> dict[str, str]:
    row = {"data": "digits", "images": 600, "rounds": 1, "local_epochs": 1, "seed": 0}
    row |= {"partition": partition, "scheme": scheme, "accuracy": accuracy}
    return {name: str(value) for name, value in (row | {"rounds_per_second": speed}).items()}


def test_a_federation_is_compared_with_the_same_one_on_plain_images() -> None:
    from experiments import federated

    rows = [
        federated_row("iid", "plain", 90.0, 0.5), federated_row("iid", "cross-4", 88.5, 0.48),
        federated_row("dirichlet", "plain", 80.0, 0.5), federated_row("iid", "plain", 92.0, 0.5),
        {**federated_row("iid", "cross-4", 10.0, 0.1), "rounds": "7"},
    ]  # fmt: skip
    size = {"data": "digits", "images": 600, "rounds": 1, "local_epochs": 1}
    assert federated.summary(rows, size) == size | {
        "iid_plain": 91.0, "iid_cross-4": 88.5, "iid_cross-4_drop": 2.5,
        "iid_cross-4_slower_percent": 4.0, "dirichlet_plain": 80.0,
    }  # fmt: skip


@pytest.mark.slow
def test_federated_writes_every_run_once_and_sums_up(tmp_path: Path) -> None:
    out = tmp_path / "federated.csv"
    options = ["--data", "digits", "--images", "600", "--rounds", "1", "--local-epochs", "1"]
    command = [sys.executable, "-m", "experiments.federated", *options, "--out", str(out)]
    # Whatever cluster is said to run here, a simulation begins one of its own.
    cluster = "127.0.0.1:1"
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "RAY_ADDRESS": cluster}
    for more in (["--partitions", "iid"], []):
        done = subprocess.run(
            [*command, "--schemes", "plain,inside-2", *more],
            cwd=ROOT, env=environment, capture_output=True, text=True, check=True,
        )  # fmt: skip
    figures = json.loads(done.stdout.splitlines()[-1])
    rows = list(csv.DictReader(out.read_text().splitlines()))
    assert [(row["partition"], row["scheme"]) for row in rows] == [
        ("iid", "plain"), ("iid", "inside-2"), ("dirichlet", "plain"), ("dirichlet", "inside-2"),
    ]  # fmt: skip
    assert [row["exposure_mean"] for row in rows] == ["0.0", "2.0", "0.0", "2.0"]
    assert "dirichlet_inside-2_drop" in figures


def test_two_processes_are_compared_with_one() -> None:
    from experiments import distributed

    size = {"data": "digits", "scheme": "inside", "epochs": "3"}
    found = {"1": ("90.0", "92.0"), "2": ("91.0", "95.0")}
    rows = [
        {**size, "seed": str(seed), "processes": processes, "accuracy": value}
        for processes, values in found.items()
        for seed, value in enumerate(values)
    ]
    rows.append({**rows[0], "epochs": "7", "accuracy": "10.0"})
    # Variances 2 and 8 of two runs each: (2 / 2 + 8 / 2) ** 0.5.
    assert distributed.summary(rows, size) == size | {
        "epochs": 3, "seeds": 2, "accuracy_one": 91.0, "accuracy_two": 93.0, "difference": 2.0,
        "standard_error": 2.24,
    }  # fmt: skip


@pytest.mark.slow
def test_distributed_writes_every_run_once_and_sums_up(tmp_path: Path) -> None:
    out = tmp_path / "distributed.csv"
    options = ["--data", "digits", "--scheme", "inside", "--epochs", "1", "--seeds", "0"]
    command = [sys.executable, "-m", "experiments.distributed", *options, "--out", str(out)]
    printed = []
    for _ in range(2):
        result = subprocess.run(
            command,
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
            capture_output=True,
            text=True,
            check=True,
        )
        printed.append(result.stdout.splitlines()[-1])
    rows = list(csv.DictReader(out.read_text().splitlines()))
    assert [row["processes"] for row in rows] == ["1", "2"]
    assert printed[0] == printed[1]
    assert json.loads(printed[0])["seeds"] == 1


@pytest.mark.slow
def test_demixing_is_measured_once_and_the_page_shows_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from experiments import demixing

    out = tmp_path / "demixing.csv"
    options = ["--data", "digits", "--schemes", "mixup-inside-2,inside-2", "--seconds", "1"]
    monkeypatch.setattr(sys, "argv", ["demixing", *options, "--out", str(out)])
    demixing.main()
    figures = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert set(figures) == {"digits mixup-inside-2", "digits inside-2"}
    before = out.read_bytes()
    demixing.main()
    assert out.read_bytes() == before
    page = (ROOT / "docs" / "attacks" / "demixing.md").read_text(encoding="utf-8")
    measured = ROOT / "experiments" / "results" / "demixing.csv"
    assert demixing.table(records.rows_of(measured)) in page


@pytest.mark.slow
def test_membership_is_measured_once_and_the_page_shows_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from experiments import membership

    monkeypatch.setattr(membership, "EPOCHS", dict.fromkeys(membership.EPOCHS, 1))
    out = tmp_path / "membership.csv"
    options = ["--data", "digits", "--images", "120", "--networks", "2", "--schemes", "inside-4"]
    monkeypatch.setattr(sys, "argv", ["membership", *options, "--out", str(out)])
    membership.main()
    figures = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert {"accuracy_test", "membership auc", "membership-loss auc_low"} <= set(
        figures["inside-4"]
    )
    before = out.read_bytes()
    membership.main()
    assert out.read_bytes() == before
    page = (ROOT / "docs" / "attacks" / "membership.md").read_text(encoding="utf-8")
    measured = ROOT / "experiments" / "results" / "membership.csv"
    assert membership.table(records.rows_of(measured)) in page


def test_gradient_inversion_is_summed_up_by_medians() -> None:
    from experiments import gradients

    def rows(first: int, psnr: float) -> list[dict[str, str]]:
        task = {"attack": "dlg", "scheme": "plain", "setting": "gradient", "first": str(first)}
        measures = dict.fromkeys(gradients.SHOWN, "0.5") | {"encoding_psnr_mean": str(psnr)}
        return [{**task, "measure": name, "value": value} for name, value in measures.items()]

    found = gradients.summary([*rows(0, 20.0), *rows(1, 25.0), *rows(2, 40.0)])
    medians = dict.fromkeys(gradients.SHOWN, 0.5) | {"encoding_psnr_mean": 25.0}
    assert found == {"dlg plain gradient": {**medians, "recovered": 2, "of": 3}}


def test_the_page_of_gradient_inversion_shows_what_was_measured() -> None:
    from experiments import gradients

    page = (ROOT / "docs" / "attacks" / "gradient-inversion.md").read_text(encoding="utf-8")
    rows = records.rows_of(ROOT / "experiments" / "results" / "gradients.csv")
    assert gradients.table(rows) in page


def test_the_page_of_all_updates_shows_what_was_measured() -> None:
    from experiments import federated_attack

    page = federated_attack.PAGE.read_text(encoding="utf-8")
    assert federated_attack.rewritten(page) == page
    measured = {row["setting"] for row in records.rows_of(federated_attack.RESULTS)}
    assert measured == set(federated_attack.SETTINGS)


@pytest.mark.parametrize("page", ["PAGE", "FIGURES_PAGE", "PROVABLE"])
def test_the_pages_of_the_reconstruction_show_what_was_measured(page: str) -> None:
    path = getattr(reconstruction_tables, page)
    text = path.read_text(encoding="utf-8")
    assert reconstruction_tables.rewritten(path) == text
    for title in reconstruction_tables.sections(path):
        assert f"\n### {title}\n\n" in text


def test_exact_search_is_measured_once_and_grows_as_it_should(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from experiments.theory import ksum

    out = tmp_path / "ksum.csv"
    monkeypatch.setattr(
        ksum,
        "SIZES",
        {
            2: (100, 1_000),
            4: (20, 80),
            6: (20, 60),
        },
    )
    monkeypatch.setattr(sys, "argv", ["ksum", "--out", str(out), "--most", "100"])
    ksum.main()
    assert len(records.rows_of(out)) == 5
    monkeypatch.setattr(sys, "argv", ["ksum", "--out", str(out)])
    ksum.main()
    ksum.main()
    rows = records.rows_of(out)
    assert len(rows) == 6
    figures = json.loads(capsys.readouterr().out.splitlines()[-1])
    for k in (2, 4, 6):
        assert figures[f"k={k}"]["steps"] == pytest.approx(k / 2, abs=0.25)
    figure = Figure()
    ksum.growth(figure, rows)
    assert [text.get_text() for text in figure.axes[0].texts] == [
        "k = 2: 2 N",
        "k = 4: 2 N²",
        "k = 6: 2 N³",
    ]

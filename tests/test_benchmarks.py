"""Every benchmark runs, and ends with the figures that are promised; no time is checked here."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks import peers
from benchmarks.measure import medians
from tests.waiting import LIMIT

ROOT = Path(__file__).resolve().parents[1]
PROMISED = {
    "app": {"answer_k4_ms", "answer_k8_ms"},
    "encode": {
        "vs_authors_k4", "vs_authors_k6", "vs_authors_augmented", "vs_floor_k4",
        "vs_floor_in_cache_k4", "images_per_s", "keys_share", "uint16_vs_uint8",
        "volumes_vs_bandwidth",
    },
    "duplicates": {
        "encoding_inside", "encoding_cross", "opening_png", "opening_jpeg", "opening_idx",
    },
    "keys": {"keys_share", "masks_gb_per_s", "stream_gb_per_s", "coefficients_per_s"},
    "memory": {"over_table_mib", "million_rss_mib"},
    "ledger": {"overhead_percent", "syncing_percent", "entering_percent"},
    "loader": {"overhead"},
    "publish": {"share_of_floor", "publish_images_per_second"},
    "public_search": {"search_vs_product", "prepare_seconds", "products_per_s"},
    "ray_nodes": {"two_nodes_against_one"},
    "reading": {"reading_vs_memory", "reading_encodings_per_s"},
    "distributed": {"two_ranks_against_one"},
    "startup": {"help_seconds"},
    "wrapping": {"overhead"},
    "client_round": {"overhead", "processor_overhead"},
    "lightning_callback": {"overhead"},
}  # fmt: skip
#: Those that take seconds; the others take up to a minute each.
QUICK = {"startup", "keys", "publish", "public_search"}


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=[] if name in QUICK else [pytest.mark.slow]) for name in PROMISED],
)
def test_last_line_is_json_with_the_promised_figures(name: str) -> None:
    path = os.pathsep.join(filter(None, [str(ROOT / "src"), os.environ.get("PYTHONPATH")]))
    result = subprocess.run(
        [sys.executable, "-m", f"benchmarks.{name}", "--quick"],
        cwd=ROOT,
        # Two threads that wait for each other at every step are very slow on a busy machine.
        env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=LIMIT,
    )
    assert result.returncode == 0, result.stderr
    figures = json.loads(result.stdout.splitlines()[-1])
    assert set(figures) >= PROMISED[name]
    assert all(math.isfinite(value) and value >= 0 for value in figures.values())


def test_every_benchmark_that_make_runs_is_tested() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    (line,) = (line for line in makefile.splitlines() if line.startswith("BENCHMARKS :="))
    assert set(line.partition(":=")[2].split()) == set(PROMISED)


def test_medians_take_turns_and_leave_out_the_first_run() -> None:
    ticks = iter([0.0, 1.0, 1.0, 9.0, 9.0, 14.0, 14.0, 16.0])
    calls: list[str] = []
    works = {name: lambda name=name: calls.append(name) for name in "ab"}
    assert medians(works, 2, clock=lambda: next(ticks)) == {"a": 3.0, "b": 5.0}
    assert "".join(calls) == "ababab"


@pytest.mark.parametrize("public", [None, 5])
def test_the_peer_does_what_its_description_says(public: int | None) -> None:
    """Ours must not be compared to a routine that leaves part of the work out."""
    images, onehot = torch.ones(200, 1, 2, 2), torch.eye(2)[torch.arange(200) % 2]
    if public is None:
        encodings, labels = peers.inside(images, onehot, 4, 0.65)
        total = torch.ones(200)
    else:
        encodings, labels = peers.cross(images, onehot, torch.ones(public, 1, 2, 2), 6, 0.65, 0.3)
        total = labels.sum(dim=1)
        assert bool((total >= 0.3 - 1e-6).all())
        assert bool((total < 1).all())
    # Mixes of ones are ones again, under signs that are all there.
    torch.testing.assert_close(encodings.abs(), torch.ones_like(encodings))
    torch.testing.assert_close(labels.sum(dim=1), total)
    assert {-1, 1} == set(np.sign(encodings.reshape(-1).numpy()).tolist())


def test_the_peers_coefficients_keep_to_the_bounds() -> None:
    drawn = peers.coefficients(500, 4, 0.4, private_k=2, c2=0.5)
    assert float(drawn.max()) <= 0.4
    assert float(drawn[:, :2].sum(dim=1).min()) >= 0.5 - 1e-6

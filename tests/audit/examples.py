"""Results and reports for tests, made up."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from instahide.audit.report.images import save_png
from instahide.audit.report.schema import AttackResult, Facts, Picture, Report

HOSTILE = '"><script>alert(1)</script>&amp;'

FACTS = Facts(
    name="run", kind="run", source="digits", images=200, shape=(1, 8, 8), classes=["0", HOSTILE],
    public=50, scheme={"k": 4, "private_k": 2}, copies=30, exposures=60.0, epsilon=None,
    delta=1e-5, rehearsed_images=100, rehearsed_copies=30,
    settings={"participant": HOSTILE},
)  # fmt: skip


def result(attack: str = "averaging", **changes: Any) -> AttackResult:
    plain: dict[str, Any] = {
        "attack": attack, "title": "Averaging", "paper": "unpublished", "on": "rehearsal",
        "images": 100, "encodings_per_image": 30, "grants": ["soft labels"], "state": "done",
        "seconds": 2.0,
    }  # fmt: skip
    return AttackResult.model_validate(plain | changes)


def recovered(count: int, total: int = 100, **changes: Any) -> AttackResult:
    figures = {
        "images_recognizable": float(count), "images_sought": float(total),
        "images_recovered": float(total), "ssim_mean": 0.3, "ssim_mean_of_best": 0.5,
        "ssim_best": 0.9, "ssim_of_nothing": 0.1, "identified": 0.4,
    }  # fmt: skip
    return result(**{"figures": figures} | changes)


def report(**changes: Any) -> Report:
    plain: dict[str, Any] = {
        "complete": True, "budget_seconds": 600.0, "surroundings": {"python": "3.11"},
        "verdict": ["Of 100 images, 92 were recovered.", "More."], "subject": FACTS,
        "summary": {"recovered": 0.92, "ssim": None}, "thresholds": [], "results": [],
        "untried": {HOSTILE: HOSTILE}, "command": f"instahide audit {HOSTILE}",
        "hardness": {"caveat": "No guarantee.", "figures": [
            {"name": "brute force", "kind": "steps of an attack", "log2": 40.0, "formula": "N",
             "assumes": "Nothing.", "source": "Counting"},
        ]},
    }  # fmt: skip
    return Report.model_validate(plain | changes)


def picture(folder: Path, name: str = "0", *, recognizable: bool = True) -> Picture:
    folder.mkdir(exist_ok=True)
    names = [f"{name}-original.png", f"{name}-recovered.png"]
    for seed, file in enumerate(names):
        image = torch.rand(3, 8, 8, generator=torch.Generator().manual_seed(seed))
        save_png(folder / file, image, 8)
    return Picture(ssim=0.75, recognizable=recognizable, original=names[0], recovered=names[1])

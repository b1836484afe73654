"""What the reconstruction attack recovers of photographs, with and without labels.

    python -m experiments.reconstruction --victims 1,2 --labels none,soft

Private, public and shadow photographs are all different ones; see `experiments.photographs`.
Nothing was tuned on victims 1 and 2. Every finished run adds a line to the CSV, and runs that it
holds are not repeated. ``--picture`` attacks crops of scikit-image's photographs, with features
that are not trained, and draws them. The last line printed is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import resource
import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from statistics import mean

import numpy as np
import torch
from skimage.metrics import structural_similarity

from experiments.photographs import patches, victim
from experiments.records import add, rows_of, surroundings
from instahide.attacks.base import Budget, Observation, Reconstruction, ThreatModel
from instahide.attacks.reconstruction.attack import RECOVERED, ReconstructionAttack
from instahide.attacks.reconstruction.encoder import shipped_encoder
from instahide.attacks.reconstruction.features import edges_of_square
from instahide.audit.challenge import COPIES, SCHEME, ChallengeTruth
from instahide.audit.contest import score_submission
from instahide.audit.recovered import RecoveredScore, score_recovered
from instahide.audit.truth import Truth, observe
from instahide.images import ImageTable

OUT = Path("experiments/results/reconstruction.csv")
PICTURE = Path("docs/assets/reconstruction.png")
PUBLIC = 5000


def say(what: str, share: float) -> None:
    print(f"{time.strftime('%H:%M:%S')} {share:4.0%} {what}", flush=True)


def run(number: int, labels: str, public: ImageTable) -> dict[str, object]:
    threat = ThreatModel(labels=labels, public="none", encodings_per_image=COPIES)
    observation, truth = observe(victim(number), public, SCHEME, threat)
    graph = graph_figures(observation, truth)
    began, cpu = time.perf_counter(), processor_seconds()
    found = ReconstructionAttack().run(observation, Budget(), say)
    seconds, cpu = time.perf_counter() - began, processor_seconds() - cpu
    score = score_recovered(found, truth, observation.mean, observation.std)
    assert found.confidence is not None
    figures = score.summary(found.confidence, RECOVERED)
    figures["ssim_7x7"] = mean(
        structural_similarity(one, other, channel_axis=0, data_range=1)
        for one, other in zip(score.mapped.numpy(), score.originals.numpy(), strict=True)
    )
    contest = challenge_figures(found, observation, truth)
    return {**graph, **figures, **contest, "seconds": seconds, "cpu_seconds": cpu}


def processor_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def graph_figures(observation: Observation, truth: Truth) -> dict[str, float]:
    """AUC over a million pairs, and the precision of the 100,000 likeliest of all."""
    from sklearn.metrics import roc_auc_score

    encoder = shipped_encoder((3, 32, 32))
    assert encoder is not None
    began, cpu = time.perf_counter(), processor_seconds()
    features = encoder.features(observation.encodings)
    likeness = features @ features.T
    seconds, cpu = time.perf_counter() - began, processor_seconds() - cpu
    held = torch.zeros(len(observation), len(truth.images))
    held.scatter_(1, truth.partners[:, : truth.private_k], 1.0)
    first, second = torch.triu_indices(len(held), len(held), 1)
    values, shared = likeness[first, second], (held @ held.T > 0)[first, second]
    some = torch.randperm(len(values), generator=torch.Generator().manual_seed(0))[:1_000_000]
    plain = edges_of_square(observation.encodings)
    return {
        "auc": float(roc_auc_score(shared[some], values[some])),
        "auc_untrained": float(roc_auc_score(shared[some], (plain @ plain.T)[first, second][some])),
        "precision_top": float(shared[values.topk(100_000).indices].float().mean()),
        "features_seconds": seconds,
        "features_cpu_seconds": cpu,
    }


def challenge_figures(
    found: Reconstruction, observation: Observation, truth: Truth
) -> dict[str, float]:
    """The challenge's own, for each encoding the image of its larger coefficient.

    The attacker knows that images have mean 0 and deviation 1 a channel, but for one sign of all
    of them, which is tried both ways.
    """
    assert found.images is not None
    assert found.members is not None
    assert found.coefficients is not None
    moments = {"dim": (0, 2, 3), "keepdim": True}
    images = (found.images - found.images.mean(**moments)) / found.images.std(**moments)
    largest = found.members.gather(1, found.coefficients.argmax(dim=1, keepdim=True))[:, 0]
    private = truth.partners[:, : truth.private_k].numpy()
    secret = ChallengeTruth(truth.images.numpy(), private, observation.mean, observation.std)
    scores = []
    with tempfile.TemporaryDirectory() as folder:
        for sign in (1, -1):
            path = Path(folder) / "decryption.npy"
            np.save(path, (sign * images)[largest].permute(0, 2, 3, 1).numpy())
            scores.append(score_submission(path, secret))
    best = max(scores, key=lambda score: score.mean_ssim)
    return {f"challenge_{name}": value for name, value in asdict(best).items()}


def draw(public: ImageTable) -> None:
    """Attack crops of scikit-image's photographs and draw those recovered below the real ones."""
    from matplotlib.figure import Figure

    from experiments.photographs import scikit_image

    private = ImageTable.from_arrays(scikit_image(100), np.arange(100) % 10)
    threat = ThreatModel(labels="none", public="none", encodings_per_image=COPIES)
    observation, truth = observe(private, public, SCHEME, threat)
    found = ReconstructionAttack(features=edges_of_square).run(observation, Budget(), say)
    score = score_recovered(found, truth, observation.mean, observation.std)
    print(f"Picture: mass {score.mass:.3f}, SSIM {score.ssim.mean():.3f}")
    figure = Figure(figsize=(10, 2.3), layout="constrained")
    axes = figure.subplots(2, 1)
    shown = score.ssim.argsort(descending=True)[:: max(1, len(score.ssim) // 20)][:20]
    for axis, images, name in zip(
        axes, picture_rows(score, shown), ("private", "recovered"), strict=True
    ):
        axis.imshow(images, interpolation="nearest")
        axis.set_ylabel(name)
        axis.set_xticks([])
        axis.set_yticks([])
    figure.savefig(PICTURE, dpi=110)


def picture_rows(score: RecoveredScore, shown: torch.Tensor) -> list[np.ndarray]:
    return [
        images[shown].permute(2, 0, 3, 1).reshape(images.shape[2], -1, images.shape[1]).numpy()
        for images in (score.originals, score.mapped)
    ]


def summary(rows: list[dict[str, str]]) -> dict[str, object]:
    """Means over victims, by label mode."""
    figures: dict[str, object] = {}
    for labels in sorted({row["labels"] for row in rows}):
        mine = [row for row in rows if row["labels"] == labels]
        names = [name for name in mine[0] if name not in ("victim", "labels", *surroundings())]
        figures[labels] = {name: round(mean(float(row[name]) for row in mine), 4) for name in names}
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--victims", default="1,2")
    parser.add_argument("--labels", default="none,soft")
    parser.add_argument("--threads", type=int, help="of PyTorch; all processors by default")
    parser.add_argument("--picture", action="store_true", help="only draw the picture")
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    public = ImageTable.from_arrays(patches("public", PUBLIC, 2))
    if options.picture:
        draw(public)
        return
    have = {(row["victim"], row["labels"]) for row in rows_of(OUT)}
    for number in options.victims.split(","):
        for labels in options.labels.split(","):
            if (number, labels) in have:
                continue
            row = {"victim": number, "labels": labels, **run(int(number), labels, public)}
            row = {name: round(v, 5) if isinstance(v, float) else v for name, v in row.items()}
            row |= surroundings()
            add(OUT, list(row), row)
    print(json.dumps(summary(rows_of(OUT))))


if __name__ == "__main__":
    main()

"""Measure what the reconstruction attack recovers from photographs, with and without labels.

    python -m experiments.reconstruction --victims 1,2,3 --labels none,soft

Private, public and shadow photographs are all different (see `experiments.photographs`). Nothing
was tuned on victims 2 and 3. ``--recoveries`` selects attacks:

    ours       our attack
    published  the recovery of Carlini et al., after the assignment of our attack
    carlini    the whole attack of Carlini et al., with the pair similarity of our encoder instead
               of theirs; it needs soft labels
    fusion     the recovery of Luo et al., after the assignment of our attack

"published-uncorrected" and "carlini-uncorrected" leave out the learned correction of colors.
Beside every result is the ceiling: the recovery of our attack, started at the true images with the
true assignment and coefficients.

Each finished run adds a row to the CSV file; runs that the file already contains are skipped. An
interrupted run continues from ``--work``, but then its seconds are not recorded. ``--train`` trains
the encoder further, on shadow photographs. The last line printed is a JSON object.
"""

from __future__ import annotations

import argparse
import json
import resource
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from functools import cache
from pathlib import Path
from statistics import mean
from typing import Literal, cast

import numpy as np
import torch
from skimage.metrics import structural_similarity
from torch import nn

from experiments.command_line import parsed
from experiments.photographs import patches, victim
from experiments.records import add, keys_in, rows_of, surroundings
from instahide.attacks.base import AssignedImages, EncodingObservation, ThreatModel
from instahide.attacks.baselines.all_pairs import all_pairs
from instahide.attacks.baselines.carlini import (
    attack_as_published,
    learnt_colours,
    recoloured,
    recover_as_published,
)
from instahide.attacks.baselines.fusion_denoising import (
    FusionDenoiser,
    learnt_denoiser,
    recover_by_fusion,
)
from instahide.attacks.budget import Budget
from instahide.attacks.reconstruction.attack import RECOVERED, ReconstructionAttack
from instahide.attacks.reconstruction.pair_encoder.features import edges_of_square
from instahide.attacks.reconstruction.pair_encoder.network import shipped_encoder
from instahide.attacks.reconstruction.state import FILE
from instahide.audit.challenge.challenge import Challenge, ChallengeTruth
from instahide.audit.challenge.facts import COEFFICIENTS, COPIES, PARTNERS, SCHEME, read_array
from instahide.audit.challenge.making import make_challenge
from instahide.audit.challenge.score import score_decryptions
from instahide.audit.ground_truth import GroundTruth
from instahide.audit.scoring.blank_baseline import HALF, counts_as_recovered
from instahide.audit.scoring.ceiling import ceiling_of
from instahide.audit.scoring.matching import match_to_truth
from instahide.audit.scoring.reconstruction import score_reconstruction
from instahide.data import ImageTable

OUT = Path("experiments/results/reconstruction.csv")
PUBLIC, SHADOW = 5000, 12_000
GRAPH = (
    "auc", "auc_untrained", "precision_top", "features_seconds", "features_cpu_seconds",
)  # fmt: skip
TIMES = ("seconds", "cpu_seconds")
CEILING = ("ceiling_ssim", "ceiling_above_half", "ceiling_recovered")
#: Encodings that are compared with each other, at most.
COMPARED = 5000
KEYS = ("victim", "labels", "recovery", "train")
FIELDS = (
    *KEYS, *GRAPH, "mass", "ssim", "ssim_best", "above_half", "recovered", "claimed",
    "claimed_rightly", *CEILING, "ssim_7x7",
    "challenge_max_ssim", "challenge_max_ssim_low", "challenge_max_ssim_high",
    "challenge_mean_ssim", "challenge_min_l2", "challenge_max_l2", "challenge_mean_l2",
    "challenge_max_ssim_per_image", "challenge_max_ssim_affine", "challenge_images_recovered",
    *TIMES,
)  # fmt: skip


#: What an attack found, and the columns of its times.
Result = tuple[AssignedImages, dict[str, float]]


def say(what: str, share: float) -> None:
    print(f"{time.strftime('%H:%M:%S')} {share:4.0%} {what}", flush=True)


class Victim:
    """A challenge, made once for all label modes and recoveries.

    The truth is stored next to it, because these private images are published ones.
    """

    def __init__(
        self, folder: Path, private: Callable[[], ImageTable], *, public: int, copies: int
    ) -> None:
        self.folder = folder
        given, secret = folder / "given", folder / "truth"
        if not given.exists():
            make_challenge(private(), public_images(public), given, secret, copies=copies)
        self.secret = ChallengeTruth.open(secret)
        partners, coefficients = (
            torch.from_numpy(np.array(read_array(secret / name, 2)))
            for name in (PARTNERS, COEFFICIENTS)
        )
        nothing = torch.zeros(0, dtype=torch.int64)
        originals = torch.from_numpy(self.secret.originals)
        self.truth = GroundTruth(
            originals, partners, coefficients, SCHEME.private_k, nothing, nothing, nothing
        )

    @classmethod
    def numbered(cls, number: int, work: Path) -> Victim:
        """The victim of this number of `experiments.photographs`."""
        folder = work / f"victim-{number}"
        return cls(folder, lambda: victim(number), public=PUBLIC, copies=COPIES)

    def observation(self, labels: str) -> EncodingObservation:
        # Opened anew: mapped files count as memory of the process.
        challenge = Challenge.open(self.folder / "given")
        return challenge.observation(cast(Literal["soft", "coarse", "none"], labels))


def run(target: Victim, labels: str, recovery: str, train: float) -> dict[str, object]:
    """Return one row of the CSV file, for our attack or for another one."""
    observation = target.observation(labels)
    figures: dict[str, object] = {}
    if recovery == "ours":
        figures |= graph_figures(observation, target.truth)
    found, times = ATTACKS[recovery](target, labels, train)
    return figures | figures_of(found, observation, target) | times


@cache
def ours(target: Victim, labels: str, train: float) -> Result:
    """Run our attack, or read what it found before; then the time is not known."""
    observation = target.observation(labels)
    folder = target.folder / f"{labels}-{train:.0f}"
    fresh = not (folder / FILE).exists()
    if train:
        threat = ThreatModel(labels=observation.threat.labels, public="none", shadow=True,
                             encodings_per_image=COPIES)  # fmt: skip
        observation = replace(observation, threat=threat, shadow=shadow())
    attack = ReconstructionAttack(training=train, folder=folder)
    found, times = timed(lambda: attack.run(observation, Budget(), say))
    return found, times if fresh else {}


@cache
def published(target: Victim, labels: str, train: float) -> Result:
    """Run the published recovery after the assignment of our attack, without correcting colors."""
    found, _ = ours(target, labels, train)
    return timed(lambda: recover_as_published(target.observation(labels), found))


@cache
def carlini(target: Victim, labels: str, _: float) -> Result:
    """Run the published attack with the pair similarity of our encoder, colors not corrected."""
    observation = target.observation(labels)

    def attack() -> AssignedImages:
        encoder = shipped_encoder((3, 32, 32))
        assert encoder is not None
        likeness = all_pairs(encoder.features(observation.encodings))
        count = len(observation) // COPIES
        return attack_as_published(observation, likeness, count, torch.Generator().manual_seed(0))

    return timed(attack)


def fusion(target: Victim, labels: str, train: float) -> Result:
    """Run the recovery of Luo et al. after the assignment of our attack."""
    (found, _), network = ours(target, labels, train), denoiser()
    return timed(lambda: recover_by_fusion(target.observation(labels), found, network=network))


def corrected(result: Result) -> Result:
    """Correct the colors as the published attack does; that takes next to no time."""
    found, times = result
    return replace(found, images=recoloured(found.images, colours())), times


def timed(attack: Callable[[], AssignedImages]) -> Result:
    began, cpu = time.perf_counter(), processor_seconds()
    found = attack()
    spent = time.perf_counter() - began, processor_seconds() - cpu
    return found, dict(zip(TIMES, spent, strict=True))


#: Attacks by name. `published` and `carlini` run once for both of their rows.
ATTACKS: dict[str, Callable[[Victim, str, float], Result]] = {
    "ours": ours,
    "published": lambda *key: corrected(published(*key)),
    "published-uncorrected": published,
    "carlini": lambda *key: corrected(carlini(*key)),
    "carlini-uncorrected": carlini,
    "fusion": fusion,
}
#: Attacks that need soft labels.
LABELLED = ("carlini", "carlini-uncorrected")


@cache
def public_images(count: int = PUBLIC) -> ImageTable:
    return ImageTable.from_arrays(patches("public", count, 2))


@cache
def shadow() -> ImageTable:
    return ImageTable.from_arrays(patches("shadow", SHADOW, 1))


@cache
def colours() -> nn.Module:
    """Train the color correction once, as in the published code; the time is not counted."""
    say("colours of the published recovery", 0.0)
    return learnt_colours(shadow(), SCHEME)


@cache
def denoiser() -> FusionDenoiser:
    """Train the denoiser once; the time is not counted."""
    say("training of the fusion", 0.0)
    torch.manual_seed(0)
    return learnt_denoiser(shadow(), SCHEME, COPIES)


def figures_of(
    found: AssignedImages, observation: EncodingObservation, target: Victim
) -> dict[str, float]:
    score = score_reconstruction(found, target.truth, observation.mean, observation.std)
    if found.confidence is None:
        figures = score.figures()
    else:
        figures = score.summary(found.confidence, RECOVERED)
    figures["ssim_7x7"] = mean(
        structural_similarity(one, other, channel_axis=0, data_range=1)
        for one, other in zip(score.shown.numpy(), score.originals.numpy(), strict=True)
    )
    figures |= ceiling_figures(found, observation, target.truth)
    return figures | challenge_figures(found, target.secret)


def ceiling_figures(
    found: AssignedImages | None, observation: EncodingObservation, truth: GroundTruth
) -> dict[str, float]:
    """Return the figures of our recovery, started at the truth; at least those of ``found``."""
    matches = None if found is None else match_to_truth(found, observation, truth)
    ceiling = ceiling_of(observation, truth, matches)
    recovered = counts_as_recovered(ceiling.ssim, ceiling.blank)
    values = (ceiling.ssim.mean(), (ceiling.ssim > HALF).sum(), recovered.sum())
    return dict(zip(CEILING, map(float, values), strict=True))


def processor_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def sharing(truth: GroundTruth, first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    """Return (p,) whether encodings ``first`` (p,) and ``second`` (p,) share a private image."""
    private = truth.partners[:, : truth.private_k]
    return (private[first][:, :, None] == private[second][:, None, :]).flatten(1).any(dim=1)


def auc_of(features: torch.Tensor, truth: GroundTruth) -> float:
    """Return the AUC of similarity for whether two encodings share an image, on a million pairs.

    If there are many encodings, an evenly spaced sample is used. NaN if all pairs share an image.
    """
    from sklearn.metrics import roc_auc_score

    some = torch.arange(0, len(features), -(-len(features) // COMPARED))
    generator = torch.Generator().manual_seed(0)
    first, second = torch.randint(len(some), (2, 1_000_000), generator=generator)
    first, second = first[first != second], second[first != second]
    shares = sharing(truth, some[first], some[second])
    likeness = (features[some] @ features[some].T)[first, second]
    return float("nan") if shares.all() else float(roc_auc_score(shares, likeness))


def graph_figures(observation: EncodingObservation, truth: GroundTruth) -> dict[str, float]:
    """Return the AUC, and the precision of the 100,000 most similar pairs."""
    encoder = shipped_encoder((3, 32, 32))
    assert encoder is not None
    began, cpu = time.perf_counter(), processor_seconds()
    features = encoder.features(observation.encodings)
    likeness = features @ features.T
    seconds, cpu = time.perf_counter() - began, processor_seconds() - cpu
    first, second = torch.triu_indices(len(features), len(features), 1)
    likeliest = likeness[first, second].topk(100_000).indices
    rightly = sharing(truth, first[likeliest], second[likeliest])
    return {
        "auc": auc_of(features, truth),
        "auc_untrained": auc_of(edges_of_square(observation.encodings), truth),
        "precision_top": float(rightly.float().mean()),
        "features_seconds": seconds,
        "features_cpu_seconds": cpu,
    }


def challenge_figures(found: AssignedImages, secret: ChallengeTruth) -> dict[str, float]:
    """Return the figures of the challenge, with each encoding's image of larger coefficient.

    The attacker knows that images have mean 0 and deviation 1 in each channel. One sign of all
    images is unknown; both signs are tried.
    """
    moments = {"dim": (0, 2, 3), "keepdim": True}
    images = (found.images - found.images.mean(**moments)) / found.images.std(**moments)
    largest = found.assignment.gather(1, found.coefficients.argmax(dim=1, keepdim=True))[:, 0]
    decryptions = images[largest].permute(0, 2, 3, 1).numpy()
    scores = [score_decryptions(sign * decryptions, secret) for sign in (1, -1)]
    best = max(scores, key=lambda score: score.max_ssim)
    return {f"challenge_{name}": value for name, value in asdict(best).items()}


def summary(rows: list[dict[str, str]]) -> dict[str, object]:
    """Return the means over victims, by label mode and recovery."""
    figures: dict[str, object] = {}
    for labels, recovery in sorted({(row["labels"], row["recovery"]) for row in rows}):
        mine = [row for row in rows if (row["labels"], row["recovery"]) == (labels, recovery)]
        names = [name for name in mine[0] if name not in (*KEYS, *surroundings())]
        known = {name: [float(row[name]) for row in mine if row[name]] for name in names}
        figures[f"{labels} {recovery}"] = {
            name: round(mean(values), 4) for name, values in known.items() if values
        }
    return figures


def measure(options: argparse.Namespace) -> None:
    have = keys_in(OUT, KEYS)
    for number in options.victims.split(","):
        target = Victim.numbered(int(number), options.work)
        for labels in options.labels.split(","):
            for recovery in options.recoveries.split(","):
                key = (number, labels, recovery, f"{options.train:.0f}")
                if key not in have and (labels == "soft" or recovery not in LABELLED):
                    figures = run(target, labels, recovery, options.train)
                    row = dict(zip(KEYS, key, strict=True)) | figures
                    row = {n: round(v, 5) if isinstance(v, float) else v for n, v in row.items()}
                    row = {name: row.get(name, "") for name in FIELDS} | surroundings()
                    add(OUT, list(row), row)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--victims", default="1,2,3")
    parser.add_argument("--labels", default="none,soft")
    parser.add_argument("--recoveries", default=",".join(ATTACKS))
    parser.add_argument("--train", type=float, default=0, help="seconds, on shadow photographs")
    parser.add_argument("--work", type=Path, help="folder to go on in; by default a new one")
    options = parsed(parser)
    with tempfile.TemporaryDirectory() as scratch:
        options.work = options.work or Path(scratch)
        measure(options)
    print(json.dumps(summary(rows_of(OUT))))


if __name__ == "__main__":
    main()

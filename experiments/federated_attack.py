"""Measure what the server of a federation gets: from updates to encodings to private images.

    python -m experiments.federated_attack

A participant with 50 photographs (`experiments.photographs`, victim 1, on which nothing was tuned)
trains on new encodings in every epoch, and sends gradients (FedSGD) or changes of the weights
(FedAvg). The attack knows no labels. Where the inversion did not recover all encodings, the same
reconstruction also gets the exact ones, which tells what the inversion costs. Each finished setting
adds its figures to the CSV file; settings that the file already contains are skipped.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import NamedTuple

from torch import nn

from experiments import markdown
from experiments.budgets import ProcessorTime
from experiments.command_line import parsed
from experiments.gradients import photographs
from experiments.records import add, rows_of, surroundings, with_measured
from instahide.attacks.base import LocalTraining, no_progress
from instahide.attacks.federated.attack import FederatedAttack
from instahide.attacks.gradients.perceptron import perceptron
from instahide.attacks.reconstruction.attack import ReconstructionAttack
from instahide.audit.federation import exact_encodings, observe_federation
from instahide.audit.scoring.scores import score
from instahide.encryption.scheme import Scheme

SCHEME = Scheme.cross(4)
SSIM = "ssim_mean"
ROOT = Path(__file__).resolve().parents[1]
RESULTS = Path("experiments/results/federated_attack.csv")
PAGE = ROOT / "docs" / "attacks" / "federated.md"


class Setting(NamedTuple):
    """A participant.

    Attributes:
        title: of its row in the table.
        images: private images.
        epochs: encodings of each.
        training: for each update.
        units: of the dense first layer.
        seconds: CPU time of the attack.
    """

    title: str
    images: int
    epochs: int
    training: LocalTraining
    units: int = 128
    seconds: float = 200.0

    def network(self) -> nn.Module:
        return perceptron((3, 32, 32), 10, units=self.units, seed=0)


BATCH = LocalTraining(images=10, batch_size=10, learning_rate=0.1)
STEPS = LocalTraining(images=20, batch_size=5, steps=4, learning_rate=0.1)
EPOCH = LocalTraining(images=50, batch_size=10, steps=5, learning_rate=0.1)
SETTINGS = {
    "fedsgd-50": Setting("FedSGD, gradient of 10", 50, 50, BATCH),
    "fedavg-50": Setting("FedAvg, 4 steps on 20", 50, 50, STEPS),
    "fedsgd-20": Setting("FedSGD, gradient of 10", 50, 20, BATCH),
    "fedavg-20": Setting("FedAvg, 4 steps on 20", 50, 20, STEPS),
    "fedsgd-10": Setting("FedSGD, gradient of 10", 50, 10, BATCH),
    "fedavg-10": Setting("FedAvg, 4 steps on 20", 50, 10, STEPS),
    "epoch-10": Setting("FedAvg, 5 steps on 50, 200 units", 50, 10, EPOCH, 200, 40.0),
}
FIELDS = ["setting", "measure", "value", "threads", "torch", "python", "platform", "commit"]


def run(setting: Setting) -> dict[str, float]:
    """Run the attack, and return its figures."""
    private, public = photographs()
    observation, truth = observe_federation(
        private.subset(slice(0, setting.images)), public, SCHEME, setting.network(),
        setting.training, epochs=setting.epochs,
    )  # fmt: skip
    started = time.process_time()
    found = FederatedAttack().run(observation, ProcessorTime(setting.seconds), no_progress)
    figures = {**found.statistics, **score(found, observation, truth).summary}
    figures["seconds"] = time.process_time() - started
    if figures["encodings_recovered"] == figures["encodings_sent"]:
        return figures
    exact = exact_encodings(observation, truth, labels=found.labels is not None)
    again = ReconstructionAttack().run(exact, ProcessorTime(setting.seconds), no_progress)
    control = score(again, exact, truth).summary
    return figures | {f"exact_{name}": control[name] for name in ("images_recognizable", SSIM)}


def table(rows: list[dict[str, str]]) -> list[str]:
    """Return the table of docs/attacks/federated.md."""
    heads = [
        "update", "epochs", "encodings recovered", "PSNR, dB: median, worst",
        "private images recovered", "SSIM", "the same from the exact encodings", "CPU time",
    ]  # fmt: skip
    shown = []
    for name, setting in SETTINGS.items():
        mine = {row["measure"]: float(row["value"]) for row in rows if row["setting"] == name}
        if mine:
            shown.append(_cells(setting, mine))
    return markdown.table(heads, shown)


def _cells(setting: Setting, mine: dict[str, float]) -> list[str]:
    control = "exact_images_recognizable"
    return [
        setting.title,
        str(setting.epochs),
        f"{mine['encodings_recovered']:,.0f} of {mine['encodings_sent']:,.0f}",
        f"{mine['encoding_psnr_median']:.0f}, {mine['encoding_psnr_worst']:.0f}",
        f"{mine['images_recognizable']:.0f} of {setting.images}",
        f"{mine[SSIM]:.2f}",
        f"{mine[control]:.0f}, {mine[f'exact_{SSIM}']:.2f}" if control in mine else "the same",
        f"{mine['seconds']:.0f} s",
    ]


def rewritten(page: str) -> str:
    """Return docs/attacks/federated.md with the table of what was measured."""
    return with_measured(page, table(rows_of(RESULTS)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--settings", help="only these, such as fedsgd-50,fedavg-50")
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parsed(parser, threads=1)
    have = {row["setting"] for row in rows_of(options.out)}
    wanted = options.settings.split(",") if options.settings else SETTINGS
    for name in wanted:
        if name not in have:
            figures = run(SETTINGS[name])
            rows = [
                {"setting": name, "measure": measure, "value": f"{value:.6g}", **surroundings()}
                for measure, value in figures.items()
            ]
            add(options.out, FIELDS, *rows)
    if options.out == RESULTS:
        PAGE.write_text(rewritten(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
    print("\n".join(table(rows_of(options.out))))


if __name__ == "__main__":
    main()

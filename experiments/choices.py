"""Measure accuracy for several k and c1, for keys drawn only once, and for DP-SGD.

    python -m experiments.choices --threads 1

The small network is tested on plain images. DP-SGD (Abadi et al., arXiv:1607.00133, by Opacus)
trains on plain images, with group normalization, and reports its epsilon. Each finished run adds a
row to the CSV file; runs that the file already contains are skipped. The last line printed is a
JSON object.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

from experiments.command_line import parsed
from experiments.frontier import BATCH_SIZE, FixedEncodings, learned, public_of
from experiments.reconstruction import processor_seconds
from experiments.records import add, keys_in, mean_by, percent, rows_of, surroundings
from instahide import EncodedLoader, Encoder, Scheme, open_split
from instahide.data import Split
from instahide.training.evaluate import accuracy, table_batches
from instahide.training.models import build

OUT = Path("experiments/results/choices.csv")
#: What a run is told apart by, and what is kept of it.
KEYS = ("data", "what", "value", "epochs", "seed")
MEASURES = ("accuracy", "epsilon", "delta", "seconds")


class Choice(NamedTuple):
    """What is varied: "k" (inside-dataset), "c1" (cross-dataset), "once" or "dp", and its value."""

    what: str
    value: str


def choices() -> Iterator[Choice]:
    yield Choice("k", "1")
    yield from (Choice("k", str(k)) for k in (4, 2, 8, 6, 3, 5, 7))
    yield from (Choice("c1", c1) for c1 in ("0.65", "0.35", "1.0", "0.5"))
    yield from (Choice("dp", noise) for noise in ("1.0", "2.0", "0.5"))
    yield from (Choice("once", scheme) for scheme in ("inside-4", "cross-4"))


def scheme_of(choice: Choice) -> Scheme:
    if choice.what == "k":
        return Scheme.inside(int(choice.value))
    if choice.what == "c1":
        return Scheme.cross(4, c1=float(choice.value))
    return {"inside-4": Scheme.inside(4), "cross-4": Scheme.cross(4)}[choice.value]


def measure(choice: Choice, split: Split, epochs: int, seed: int) -> dict[str, object]:
    """Return the test accuracy; for DP-SGD also epsilon and delta."""
    if choice.what == "dp":
        return privately(float(choice.value), split, epochs, seed)
    scheme = scheme_of(choice)
    if choice.what == "once":
        batches = FixedEncodings(scheme, split.train, 1, BATCH_SIZE)
    else:
        encoder = Encoder(scheme, split.train, public_of(scheme, split.train))
        batches = EncodedLoader(encoder, BATCH_SIZE)
    return {"accuracy": percent(learned(scheme, split, batches, epochs, seed))}


def privately(noise: float, split: Split, epochs: int, seed: int) -> dict[str, object]:
    """Train with DP-SGD as a federated client does in one round."""
    from instahide.integrations.flower.client.dp_sgd import train_with_dp_sgd
    from instahide.integrations.flower.client.participant import Participant
    from instahide.integrations.flower.config import FederatedSettings
    from instahide.training.losses import Loss

    channels, classes = split.train.shape[0], len(split.train.classes)
    # What is spent is counted beside the ledger, over all runs: here for this run alone.
    with TemporaryDirectory() as folder:
        settings = FederatedSettings.from_config(
            {"dp": True, "scheme": "plain", "model": "small-group", "rounds": 1,
             "local-epochs": epochs, "noise-multiplier": noise,
             "ledger": str(Path(folder) / "ledger.sqlite")}
        )  # fmt: skip
        network = build(settings.model, channels, classes, sign_invariant=False, seed=seed)
        spent = train_with_dp_sgd(network, split.train, Participant(settings), 1, Loss())
    network.eval()
    return {
        "accuracy": percent(accuracy(network, table_batches(split.test)).overall),
        "epsilon": round(spent["epsilon"], 3),
        "delta": settings.delta,
    }


def summary(rows: list[dict[str, str]]) -> dict[str, float]:
    """Return the accuracy in % of each choice, as a mean over seeds."""
    return mean_by(rows, "{what} {value}".format_map, "accuracy", 2)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", default="mnist-5k")
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--seeds", default="0", help="for instance 0,1,2")
    parser.add_argument("--what", help="only these, such as k,dp")
    parser.add_argument("--out", type=Path, default=OUT)
    options = parsed(parser)
    have = keys_in(options.out, KEYS)
    wanted = options.what.split(",") if options.what else ["k", "c1", "once", "dp"]
    for seed in map(int, options.seeds.split(",")):
        for choice in choices():
            key = (options.data, *choice, str(options.epochs), str(seed))
            if choice.what not in wanted or key in have:
                continue
            print(*key, flush=True)
            began = processor_seconds()
            figures = measure(choice, open_split(options.data), options.epochs, seed)
            figures["seconds"] = round(processor_seconds() - began, 1)
            row = dict(zip(KEYS, key, strict=True)) | {n: figures.get(n, "") for n in MEASURES}
            add(options.out, [*row, *surroundings()], row | surroundings())
    print(json.dumps(summary(rows_of(options.out))))


if __name__ == "__main__":
    main()

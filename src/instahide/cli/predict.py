"""`instahide predict`."""

from __future__ import annotations

import csv
from pathlib import Path

import torch
from torch import Tensor, nn

from instahide.cli.console import out
from instahide.data import ImageTable, open_pool, open_test
from instahide.encryption.scheme import Scheme
from instahide.errors import InstaHideError
from instahide.training.data.alignment import align_to_model
from instahide.training.device import pick_device, pick_precision
from instahide.training.model_io import load_network
from instahide.training.predict import predict_encrypted, probabilities
from instahide.utils.atomic_write import atomic_write


def run_prediction(
    run: Path,
    source: str,
    public: str,
    queries: int,
    coefficient: float,
    size: int | None,
    skip_bad: bool,
    out_file: Path,
) -> None:
    """Write the most likely class of every image in ``source`` to a CSV file, and the accuracy."""
    network, card = load_network(run / "model.safetensors")
    images = open_test(source, size=size, skip_bad=skip_bad)
    images = align_to_model(images, card.shape, card.classes, card.mean, card.std)
    scheme = Scheme.from_json(card.scheme)
    if queries and scheme.k == 1:
        raise InstaHideError(
            "The network was trained on plain images, so there is no scheme to encrypt queries by.",
            "Ask with `--queries 0`.",
        )
    answers = _answers(network, scheme, images, public, queries, coefficient)
    with atomic_write(out_file) as partial, partial.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["image", "class", "probability"])
        for number, (share, choice) in enumerate(zip(*answers.max(1), strict=True)):
            writer.writerow([number, card.classes[int(choice)], f"{float(share):.4f}"])
    right = answers.argmax(1) == torch.from_numpy(images.labels)
    out.print(f"Accuracy on {len(images)} images: {right.float().mean():.1%}")
    out.print(f"Predictions: {out_file}")


def _answers(
    network: nn.Module,
    scheme: Scheme,
    images: ImageTable,
    public: str,
    queries: int,
    coefficient: float,
) -> Tensor:
    device = pick_device("auto")
    precision = pick_precision("auto", device)
    network.to(device)
    if not queries:
        pixels = torch.from_numpy(images.normalized())
        return probabilities(network, pixels, precision=precision, classes=len(images.classes))
    pool = open_pool(public, images.shape) if scheme.public_k else None
    return predict_encrypted(
        network,
        scheme,
        images,
        pool,
        encodings=queries,
        coefficient=coefficient,
        precision=precision,
    )

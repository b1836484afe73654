"""`instahide predict`."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn

from instahide.cli.console import out
from instahide.encryption.scheme import Scheme
from instahide.errors import InstaHideError
from instahide.files import writing
from instahide.images import BUILTIN, ImageTable, open_images, open_pool, open_split
from instahide.learning.hardware import pick_device, pick_precision
from instahide.learning.network_file import NetworkCard, load_network
from instahide.learning.predict import predict_encrypted, probabilities


def run_prediction(
    run: Path,
    data: str,
    public: str,
    queries: int,
    coefficient: float,
    size: int | None,
    skip_bad: bool,
    out_file: Path,
) -> None:
    """Write the most likely class of every image in ``data`` to a CSV file, and the accuracy."""
    network, card = load_network(run / "model.safetensors")
    images = _as_trained(_opened(data, size, skip_bad), card)
    scheme = Scheme.from_json(card.scheme)
    if queries and scheme.k == 1:
        raise InstaHideError(
            "The network was trained on plain images, so there is no scheme to encrypt queries by.",
            "Ask with `--queries 0`.",
        )
    answers = _answers(network, scheme, images, public, queries, coefficient)
    with writing(out_file) as partial, partial.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["image", "class", "probability"])
        for number, (share, choice) in enumerate(zip(*answers.max(1), strict=True)):
            writer.writerow([number, card.classes[int(choice)], f"{float(share):.4f}"])
    right = answers.argmax(1) == torch.from_numpy(images.labels)
    out.print(f"Accuracy on {len(images)} images: {right.float().mean():.1%}")
    out.print(f"Predictions: {out_file}", soft_wrap=True)


def _opened(data: str, size: int | None, skip_bad: bool) -> ImageTable:
    """All images of a path, and the test images of a built-in set."""
    if data in BUILTIN:
        return open_split(data, size=size).test
    return open_images(data, size=size, skip_bad=skip_bad)


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
        return probabilities(network, torch.from_numpy(images.normalised()), precision=precision)
    pool = open_pool(public, images.shape)
    return predict_encrypted(
        network,
        scheme,
        images,
        pool,
        encodings=queries,
        coefficient=coefficient,
        precision=precision,
    )


def _as_trained(images: ImageTable, card: NetworkCard) -> ImageTable:
    """``images`` with the normalisation and the class numbers of the network."""
    if images.shape != card.shape:
        raise InstaHideError(
            f"The images are {images.shape}, the network was trained on {card.shape} "
            "(channels, height, width).",
            f"Bring them to its size with `--size {card.shape[1]}`.",
        )
    strange = sorted(set(images.classes) - set(card.classes))
    if strange:
        raise InstaHideError(
            f"The network knows no class {', '.join(strange[:5])}.",
            f"It knows {', '.join(card.classes[:20])}.",
        )
    numbers = torch.tensor([card.classes.index(name) for name in images.classes]).numpy()
    return replace(
        images,
        labels=numbers[images.labels],
        classes=card.classes,
        mean=card.mean,
        std=card.std,
    )

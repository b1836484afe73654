"""`instahide predict`."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from pydantic import BaseModel, Field

from instahide.cli.console import out
from instahide.cli.options import MOST, Pool, Size, SkipBad, TrustedModel, command
from instahide.data import ImageTable, open_pool, open_test
from instahide.encryption.scheme import Scheme
from instahide.errors import InstaHideError
from instahide.utils.atomic_write import atomic_write

if TYPE_CHECKING:
    from torch import Tensor, nn


class PredictOptions(BaseModel):
    """What `instahide predict` takes."""

    run: Annotated[Path, typer.Argument(help="Folder of a finished run.")]
    source: Annotated[str, typer.Argument(help="Images to classify, as for train --test.")]
    public: Pool = "photos"
    queries: int = Field(
        10, description="encodings of each image; 0: send plain images", ge=0, le=MOST
    )
    coefficient: float = Field(0.5, description="lower bound of the image's own coefficient")
    size: Size = None
    skip_bad: SkipBad = False
    model: TrustedModel = None
    out: Annotated[Path, typer.Option(help="CSV file to write.")] = Path("predictions.csv")


@command
def predict(options: PredictOptions) -> None:
    """Classify images with a trained network, as encrypted or plain queries.

    Example: instahide predict runs/run digits --queries 20
    """
    import torch

    from instahide.training.data.alignment import align_to_model
    from instahide.training.model_io import load_network

    network, card = load_network(options.run / "model.safetensors", model=options.model)
    images = open_test(options.source, size=options.size, skip_bad=options.skip_bad)
    images = align_to_model(images, card.shape, card.classes, card)
    scheme = Scheme.from_json(card.scheme)
    if options.queries and scheme.k == 1:
        raise InstaHideError(
            "The network was trained on plain images, so there is no scheme to encrypt queries by.",
            "Use `--queries 0`.",
        )
    answers = _answers(network, scheme, images, options)
    with (
        atomic_write(options.out) as partial,
        partial.open("w", newline="", encoding="utf-8") as file,
    ):
        writer = csv.writer(file)
        writer.writerow(["image", "class", "probability"])
        for number, (share, choice) in enumerate(zip(*answers.max(1), strict=True)):
            writer.writerow([number, card.classes[int(choice)], f"{float(share):.4f}"])
    right = answers.argmax(1) == torch.from_numpy(images.labels)
    accuracy = float(right.float().mean())
    out.results(
        {"images": len(images), "accuracy": accuracy, "predictions": options.out},
        f"Accuracy on {len(images)} images: {accuracy:.1%}",
        f"Predictions: {options.out}",
    )


def _answers(
    network: nn.Module, scheme: Scheme, images: ImageTable, options: PredictOptions
) -> Tensor:
    import torch

    from instahide.training.device import pick_device, pick_precision
    from instahide.training.predict import predict_encrypted, probabilities

    device = pick_device("auto")
    precision = pick_precision("auto", device)
    network.to(device)
    if not options.queries:
        pixels = torch.from_numpy(images.normalized())
        return probabilities(network, pixels, precision=precision, classes=len(images.classes))
    return predict_encrypted(
        network,
        scheme,
        images,
        open_pool(options.public, images.shape) if scheme.public_k else None,
        encodings=options.queries,
        coefficient=options.coefficient,
        precision=precision,
    )

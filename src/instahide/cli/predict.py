"""`instahide predict`."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from pydantic import Field

from instahide.cli.console import notes, out
from instahide.cli.options import MOST, Pool, TrustedModel, command, require_no_input, run_files
from instahide.data import ImageTable, open_pool
from instahide.data.read_settings import ReadSettings
from instahide.data.readers.row_names import RowNames
from instahide.data.readers.window import read_window
from instahide.data.sources import open_named_test
from instahide.encryption.scheme import Scheme
from instahide.errors import InstaHideError
from instahide.utils.atomic_write import atomic_write
from instahide.utils.csv_text import csv_text

if TYPE_CHECKING:
    from torch import Tensor, nn

    from instahide.training.models.model_io import NetworkCard
    from instahide.training.outputs import Outputs


class PredictOptions(ReadSettings):
    """What `instahide predict` takes."""

    run: Annotated[Path, typer.Argument(help="Folder of a finished run.")]
    source: Annotated[str, typer.Argument(help="Images to classify, as for train --test.")]
    public: Pool = "photos"
    queries: int = Field(
        10, description="encodings of each image; 0: send plain images", ge=0, le=MOST
    )
    coefficient: float = Field(0.5, description="lower bound of the image's own coefficient")
    model: TrustedModel = None
    out: Annotated[Path, typer.Option(help="CSV file to write.")] = Path("predictions.csv")


@command
def predict(options: PredictOptions) -> None:
    """Classify images with a trained network, as encrypted or plain queries.

    The CSV file has a row for each image, in their order, with the probability of every class or
    finding, or every value. Images of a folder have the name of their file in it, and of their
    group if a table of labels names groups.

    Example: instahide predict runs/run digits --queries 20
    """
    import torch

    from instahide.training.data.alignment import align_to_model
    from instahide.training.metrics import as_text, evaluation
    from instahide.training.models.model_io import load_network, require_image_input

    inputs = (options.source, options.labels, options.public)
    require_no_input(options.out, *run_files(options.run), *inputs)
    network, card = load_network(options.run / "model.safetensors", model=options.model)
    require_image_input(card)
    if options.labels is not None and options.task is None:
        options.task = card.task
    opened = open_named_test(options.source, **options.read_options())
    _note_other_window(options)
    images = align_to_model(opened.images, card.shape, card.classes, card, card.task)
    scheme = Scheme.from_json(card.scheme)
    if options.queries and scheme.k == 1:
        raise InstaHideError(
            "The network was trained on plain images, so there is no scheme to encrypt queries by.",
            "Use `--queries 0`.",
        )
    answers = _answers(network, scheme, images, card.outputs, options)
    _write(options.out, card, answers, opened.names)
    if opened.names is not None:
        notes.print(f"Note: {options.out} holds {opened.names.description}. Keep it private.")
    found = evaluation(card.task, card.classes, answers, torch.from_numpy(images.labels)).metrics
    out.results(
        {"images": len(images), **found, "predictions": options.out},
        *(
            f"{name.replace('_', ' ').capitalize()} on {len(images)} images: {as_text(name, value)}"
            for name, value in found.items()
        ),
        f"Predictions: {options.out}",
    )


def _note_other_window(options: PredictOptions) -> None:
    """Note that pixels were scaled to 0 to 1 from another range in training than here."""
    from instahide.training.settings import TrainSettings

    file = options.run / "settings.json"
    if not (options.rescale and file.exists()):
        return
    trained = TrainSettings.load(file)
    if trained.rescale and read_window(trained.window) != read_window(options.window):
        notes.print(
            "Note: the network was trained on pixels scaled to 0 to 1 from the window "
            f"{trained.window}, these from {options.window}. Predictions are right only if the "
            "ends of both windows mean the same, as for another scanner.",
        )


def _write(path: Path, card: NetworkCard, answers: Tensor, names: RowNames | None) -> None:
    """The file of predictions: for classes also the class of largest probability."""
    kind = "value" if card.task == "regression" else "probability"
    # A prefix, as a class may be called like another column.
    columns = [f"{kind}:{name}" for name in card.classes]
    best = ["class", "probability"] if card.task == "single-label" else []
    named = {} if names is None else names.columns
    with atomic_write(path) as partial, partial.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["image", *named, *best, *map(csv_text, columns)])
        for number, answer in enumerate(answers.tolist()):
            numbers = [f"{each:.6g}" if kind == "value" else f"{each:.4f}" for each in answer]
            first = [csv_text(column[number]) for column in named.values()]
            if best:
                choice = max(range(len(answer)), key=answer.__getitem__)
                first += [csv_text(card.classes[choice]), numbers[choice]]
            writer.writerow([number, *first, *numbers])


def _answers(
    network: nn.Module,
    scheme: Scheme,
    images: ImageTable,
    outputs: Outputs,
    options: PredictOptions,
) -> Tensor:
    import torch

    from instahide.training.device import pick_device, pick_precision
    from instahide.training.predict import predict_encrypted, probabilities

    device = pick_device("auto")
    precision = pick_precision("auto", device)
    network.to(device)
    if not options.queries:
        pixels = torch.from_numpy(images.normalized())
        return probabilities(network, pixels, precision=precision, outputs=outputs)
    return predict_encrypted(
        network,
        scheme,
        images,
        open_pool(options.public, images.shape) if scheme.public_k else None,
        encodings=options.queries,
        coefficient=options.coefficient,
        precision=precision,
        outputs=outputs,
    )

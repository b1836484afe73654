"""`instahide calibrate`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from pydantic import Field

from instahide.cli.console import notes, out
from instahide.cli.options import MOST, Pool, TrustedModel, command
from instahide.data import open_pool, open_test
from instahide.data.read_settings import ReadSettings
from instahide.encryption.scheme import Scheme

if TYPE_CHECKING:
    from instahide.training.models.model_io import NetworkCard

#: Fewer images than this are reported.
_FEW = 100


class CalibrateOptions(ReadSettings):
    """What `instahide calibrate` takes."""

    run: Annotated[Path, typer.Argument(help="Folder of a finished run; its network is changed.")]
    source: Annotated[
        str, typer.Argument(help="Labeled images that it was neither trained nor tested on.")
    ]
    public: Pool = "photos"
    queries: int = Field(
        10,
        description="encodings of each image; 0: calibrate plain images alone",
        ge=0,
        le=MOST,
    )
    coefficient: float = Field(0.5, description="lower bound of the image's own coefficient")
    model: TrustedModel = None


@command
def calibrate(options: CalibrateOptions) -> None:
    """Correct the probabilities of a trained network with further images.

    The images must be others than those that the run was trained or tested on; they are compared
    with these if the folder of the run names them. A scale and a bias are fitted to plain images,
    and another pair to encrypted queries, and written into the network's file. Weights and the
    order of predictions do not change. This is for networks that were trained on encodings of
    others, in a federation, or with noise.

    Example: instahide calibrate runs/run further_images.npz
    """
    import torch

    from instahide.training.calibration import LEAST_OF_QUERIES, fit_calibration
    from instahide.training.data.alignment import align_to_model
    from instahide.training.data.unused_images import require_unused
    from instahide.training.models.model_io import (
        load_network,
        require_image_input,
        save_network,
    )
    from instahide.training.predict import predict_encrypted, probabilities

    path = options.run / "model.safetensors"
    network, card = load_network(path, model=options.model)
    require_image_input(card)
    if options.labels is not None and options.task is None:
        options.task = card.task
    found = open_test(options.source, **options.read_options())
    require_unused(found, options.source, options.run)
    images = align_to_model(
        found,
        card.shape,
        card.classes,
        card,
        card.task,
    )
    outputs, labels = card.outputs.uncalibrated, torch.from_numpy(images.labels)
    plain = probabilities(network, torch.from_numpy(images.normalized()), outputs=outputs)
    card = replace(card, calibration=fit_calibration(plain, labels, card.task))
    scheme = Scheme.from_json(card.scheme)
    if options.queries and scheme.k > 1:
        pool = open_pool(options.public, images.shape) if scheme.public_k else None
        queried = predict_encrypted(
            network, scheme, images, pool, encodings=options.queries,
            coefficient=options.coefficient, outputs=outputs,
        )  # fmt: skip
        fitted = fit_calibration(queried, labels, card.task, LEAST_OF_QUERIES)
        card = replace(card, query_calibration=fitted)
    save_network(path, network, card)
    _note_doubts(card, len(images))
    out.results(
        {"images": len(images), "plain": card.calibration, "queries": card.query_calibration},
        *_sentences(card),
        f"Network: {path}",
    )


def _note_doubts(card: NetworkCard, images: int) -> None:
    """Note why the fit may be wrong: few images, or labels that bound a scale on one side only."""
    from instahide.training.calibration import is_at_limit

    if images < _FEW:
        notes.print(f"Note: {images} images determine a scale only roughly. Use {_FEW} or more.")
    pairs = (card.calibration, card.query_calibration)
    if any(pair is not None and is_at_limit(pair) for pair in pairs):
        notes.print(
            "Note: a scale is at its limit, since the labels contradict the predictions, or agree "
            "with all of them. Check the labels, and use more images."
        )


def _sentences(card: NetworkCard) -> Iterator[str]:
    found = {"plain images": card.calibration, "encrypted queries": card.query_calibration}
    for name, pair in found.items():
        if pair is not None:
            yield f"Logits of {name}: times {pair[0]:.3g}, plus {pair[1]:.3g}"

"""`instahide export-model`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from instahide.cli.console import out
from instahide.cli.options import TrustedModel, command, require_no_input, run_files


@command
def export_model(
    run: Annotated[Path, typer.Argument(help="Folder of a finished run.")],
    form: Annotated[
        Literal["onnx", "pt2", "safetensors"],
        typer.Option("--format", help="Format of the file; pt2 is torch.export."),
    ],
    out_file: Annotated[Path, typer.Option("--out", help="File to write.")],
    model: TrustedModel = None,
) -> None:
    """Write a trained network for use elsewhere, with its preprocessing.

    Files of onnx and pt2 take pixels as they are in the image files, as float32, and return
    probabilities, or values. If the network was trained with --rescale, they take pixels from 0 to
    1, scaled by the window of the training.

    Example: instahide export-model runs/run --format onnx --out model.onnx
    """
    from instahide.training.models.deployment import export_network
    from instahide.training.models.model_io import load_network, require_image_input

    require_no_input(out_file, *run_files(run))
    network, card = load_network(run / "model.safetensors", model=model)
    require_image_input(card)
    export_network(network, card, out_file, form)
    out.results(
        {
            "file": out_file,
            "format": form,
            "shape": card.shape,
            "value_range": card.value_range,
            "classes": card.classes,
        },
        f"Network for images of {' x '.join(map(str, card.shape))}, with pixels from "
        f"{card.value_range[0]:g} to {card.value_range[1]:g}: {out_file}",
    )

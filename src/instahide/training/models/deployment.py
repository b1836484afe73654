"""Writes a trained network for use elsewhere, with the preprocessing of its images in it.

ONNX is for other runtimes, ``pt2`` (`torch.export`) for PyTorch, which deprecates TorchScript, and
safetensors for this library: weights and card alone, as `load_network` reads them.
"""

from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn

from instahide.errors import InstaHideError
from instahide.training.models.model_io import NetworkCard
from instahide.utils.atomic_write import atomic_write
from instahide.utils.optional_deps import requires_extra
from instahide.utils.tensor_file import write_tensors

DeploymentFormat = Literal["onnx", "pt2", "safetensors"]

#: Names of the input and the output of an exported network, and of the card in its metadata.
INPUT, OUTPUT, CARD = "pixels", "predictions", "instahide_card"
#: Largest difference of a probability between the file and the network; of a value, in standard
#: deviations if these are above 1.
TOLERANCE = 1e-3
#: Images of the batch that a network is traced with, and then checked with.
_TRACED, _CHECKED = 2, 3


class Deployment(nn.Module):
    """A network with its preprocessing: from pixels as in the image file to predictions.

    Predictions are probabilities of classes or findings, or values in the unit of the labels.

    Pixels beyond the value range are set to its nearer end, as by the window that the images were
    read with. Then they are normalized, and the network follows, with its sign-invariant stem if it
    has one.

    Args:
        network: maps normalized images to logits.
        card: its card.

    Examples:
        >>> import torch
        >>> from instahide import Scheme
        >>> from instahide.training.models.model_io import NetworkCard
        >>> from instahide.training.models import build
        >>> from instahide.training.models.deployment import Deployment
        >>> network = build("small", 1, 2, sign_invariant=True).eval()
        >>> scheme = Scheme.inside(4).to_json()
        >>> card = NetworkCard("small", True, (1, 8, 8), ("a", "b"), (0.5,), (0.2,), scheme)
        >>> tuple(Deployment(network, card)(torch.zeros(3, 1, 8, 8)).shape)
        (3, 2)
    """

    mean: Tensor
    std: Tensor

    def __init__(self, network: nn.Module, card: NetworkCard) -> None:
        super().__init__()
        self.network = network
        self.outputs = card.outputs
        self.low, self.high = card.value_range
        places = (1,) * (len(card.shape) - 1)
        mean, std = (torch.tensor(m).reshape(-1, *places) for m in (card.mean, card.std))
        self.register_buffer("mean", mean, persistent=False)
        self.register_buffer("std", std, persistent=False)

    def forward(self, pixels: Tensor) -> Tensor:
        """(n, C, H, W) or (n, C, D, H, W) float32 pixels -> (n, columns) predictions."""
        units = (pixels.clamp(self.low, self.high) - self.low) / (self.high - self.low)
        # Exporters trace no check of values.
        return self.outputs.converted(self.network((units - self.mean) / self.std))


def export_network(
    network: nn.Module, card: NetworkCard, path: Path, form: DeploymentFormat
) -> None:
    """Write ``network`` to ``path``, atomically, after a check that the file computes the same.

    Files of the formats ``onnx`` and ``pt2`` take ``pixels`` (n, C, H, W), or (n, C, D, H, W) for
    volumes, float32 and not normalized, and return ``predictions`` (n, columns): the probability of
    each class or finding, or each value in the unit of the labels. The card is in their metadata
    (``instahide_card``), as JSON.

    Args:
        network: as `load_network` returns it, on the CPU.
        card: its card.
        path: the file.
        form: format of the file.

    Raises:
        InstaHideError: the network cannot be exported, the file would compute something else, or it
            cannot be written.
        IntegrationError: a package that the format needs is missing.
    """
    if form == "safetensors":
        write_tensors(path, network.state_dict(), asdict(card))
        return
    deployed = Deployment(network, card).eval()
    low, high = card.value_range
    generator = torch.Generator().manual_seed(0)
    size = (_TRACED + _CHECKED, *card.shape)
    pixels = low + (high - low) * torch.rand(size, generator=generator)
    write = _write_onnx if form == "onnx" else _write_pt2
    with atomic_write(path) as partial, torch.no_grad(), _silence():
        traced, checked = pixels[:_TRACED], pixels[_TRACED:]
        try:
            run = write(deployed, traced, json.dumps(asdict(card)), partial)
            # A value is compared in units of its spread over images.
            unit = torch.tensor(card.target_std or (1.0,))
            difference = float(((run(checked) - deployed(checked)).abs() / unit).max())
        except InstaHideError:
            raise
        except Exception as error:  # the exporters raise several kinds
            raise InstaHideError(
                f"The network `{card.model}` cannot be exported to {form} ({type(error).__name__}: "
                f"{str(error).strip().partition(chr(10))[0][:200]}).",
                "Use another format, or export it from Python with its own package.",
            ) from error
        if not difference <= TOLERANCE:
            raise InstaHideError(
                f"The exported file computes other predictions than the network (difference "
                f"{difference:.2g}).",
                "Use another format.",
            )


def _write_onnx(
    deployed: Deployment, pixels: Tensor, card: str, path: Path
) -> Callable[[Tensor], Tensor]:
    """Write the file; returns a function that runs it."""
    with requires_extra("ONNX", "export"):
        import onnxruntime
        import onnxscript  # noqa: F401  which torch.onnx needs
    program = torch.onnx.export(
        deployed,
        (pixels,),
        dynamo=True,
        verbose=False,
        input_names=[INPUT],
        output_names=[OUTPUT],
        dynamic_shapes={"pixels": {0: torch.export.Dim("images")}},
    )
    if program is None:
        raise ValueError("torch.onnx returned no program")
    program.model.metadata_props[CARD] = card
    program.save(path, external_data=False)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return lambda batch: torch.from_numpy(session.run(None, {INPUT: batch.numpy()})[0])


def _write_pt2(
    deployed: Deployment, pixels: Tensor, card: str, path: Path
) -> Callable[[Tensor], Tensor]:
    """Write the file; returns a function that runs it."""
    shapes = {"pixels": {0: torch.export.Dim("images")}}
    program = torch.export.export(deployed, (pixels,), dynamic_shapes=shapes)
    # As an open file, since PyTorch refuses the name of a file that does not end in .pt2.
    with path.open("wb") as file:
        torch.export.save(program, file, extra_files={CARD: card})
    with path.open("rb") as file:
        module: nn.Module = torch.export.load(file).module()
    return module


@contextmanager
def _silence() -> Iterator[None]:
    """Without the warnings of the exporters, which are for their own developers."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)

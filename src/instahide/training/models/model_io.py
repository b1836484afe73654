"""Saving and loading of a trained network, with the metadata that its use needs."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import torch
from pydantic import Field, TypeAdapter
from torch import Tensor, nn

from instahide.data.labels import Task
from instahide.data.pixels import EIGHT_BIT
from instahide.encryption.scheme import Scheme
from instahide.errors import DamagedFileError, InstaHideError
from instahide.training.calibration import UNCALIBRATED
from instahide.training.models import build
from instahide.training.models.imported import is_imported
from instahide.training.outputs import Outputs
from instahide.utils.tensor_file import read_tensors, write_tensors

#: Scale and bias, see `calibration`.
ScaleAndBias = tuple[
    Annotated[float, Field(gt=0, allow_inf_nan=False)], Annotated[float, Field(allow_inf_nan=False)]
]
#: Channels, height or width.
Size = Annotated[int, Field(ge=1, le=1 << 16)]


@dataclass(frozen=True)
class NetworkCard:
    """The metadata of a network.

    Attributes:
        model: name of the architecture, as `models.build` takes it.
        sign_invariant: whether its input is replaced by its absolute values.
        shape: (C, H, W) of its images, or (C, D, H, W) of its volumes.
        classes: names of its outputs: classes, findings or values.
        mean: mean of pixels in the unit range for the normalization of images, per channel.
        std: standard deviation, likewise.
        scheme: the scheme of its training, as `Scheme.to_json` writes it; that of plain images if
            it was trained on encodings of another encoder.
        value_range: the lowest and the highest value of a pixel, 0 and 1 in the unit range.
        task: what its outputs are.
        target_mean: mean of each value of a regression, in the unit of the labels; else empty.
        target_std: standard deviation, likewise.
        calibration: scale and bias of its logits, see `calibration`; 1 and 0 if not calibrated.
        query_calibration: the same for encrypted queries; None for `calibration`.
        data_set_key: whether its input is encodings under a key that no file has, instead of
            images.
    """

    model: Annotated[str, Field(max_length=200)]
    sign_invariant: bool
    shape: Annotated[tuple[Size, ...], Field(min_length=3, max_length=4)]
    classes: Annotated[tuple[str, ...], Field(min_length=1)]
    mean: tuple[Annotated[float, Field(allow_inf_nan=False)], ...]
    std: tuple[Annotated[float, Field(gt=0, allow_inf_nan=False)], ...]
    scheme: str
    value_range: tuple[float, float] = EIGHT_BIT
    task: Task = "single-label"
    target_mean: tuple[Annotated[float, Field(allow_inf_nan=False)], ...] = ()
    target_std: tuple[Annotated[float, Field(gt=0, allow_inf_nan=False)], ...] = ()
    calibration: ScaleAndBias = UNCALIBRATED
    query_calibration: ScaleAndBias | None = None
    data_set_key: bool = False

    def __post_init__(self) -> None:
        values = len(self.classes) if self.task == "regression" else 0
        if not len(self.target_mean) == len(self.target_std) == values:
            raise ValueError("target_mean and target_std need one value a column of a regression")
        if not len(self.mean) == len(self.std) == self.shape[0]:
            raise ValueError("mean and std need one value a channel")
        low, high = self.value_range
        if not (low < high and math.isfinite(high - low)):
            raise ValueError("the range of pixels is empty or not finite")
        Scheme.from_json(self.scheme)

    @property
    def outputs(self) -> Outputs:
        """What the outputs of the network mean."""
        return Outputs(
            self.task,
            len(self.classes),
            self.target_mean,
            self.target_std,
            self.calibration,
            self.query_calibration,
            self.classes,
        )


_CARD = TypeAdapter(NetworkCard)


def require_image_input(card: NetworkCard) -> None:
    """Check that a network takes images.

    Raises:
        InstaHideError: its input is encodings under the key of a data set.
    """
    if card.data_set_key:
        raise InstaHideError(
            "The network was trained on encodings that share a key, which was never stored: it "
            "classifies encodings under this key, and no others.",
            "Train with an encoder without a key of the data set, to use the network on images.",
        )


def save_network(path: Path, model: nn.Module, card: NetworkCard) -> None:
    """Write the weights of ``model`` and ``card`` to ``path``, atomically."""
    write_tensors(path, model.state_dict(), asdict(card))


def load_network(
    path: str | os.PathLike[str], *, model: str | None = None
) -> tuple[nn.Module, NetworkCard]:
    """Load a trained network, on the CPU and in evaluation mode, and its card.

    A file names its network. If that is a built-in one, loading runs no code of the file. If it is
    one of another package (``timm:NAME``, ``monai:NAME`` or ``package.module:factory``), loading
    would import that package and call it, so the file is refused unless you name the same network
    yourself.

    Args:
        path: the ``model.safetensors`` of a finished run.
        model: name of the network that the file must have; required for one of another package.

    Returns:
        The network, which maps normalized images (n, C, H, W), or volumes (n, C, D, H, W), to
        outputs (n, classes); and its card.

    Raises:
        DamagedFileError: the file is missing or damaged, or holds no network of this library.
        InstaHideError: its network is of another package or not ``model``.

    Examples:
        >>> from pathlib import Path
        >>> from tempfile import TemporaryDirectory
        >>> import torch
        >>> from instahide import load_network
        >>> from instahide.training.settings import TrainSettings
        >>> from instahide.training.trainer import start
        >>> with TemporaryDirectory() as folder:
        ...     settings = TrainSettings(
        ...         data="digits", scheme="inside", epochs=1, queries=0, ledger=f"{folder}/ledger"
        ...     )
        ...     _ = start(settings, Path(folder) / "run")
        ...     network, card = load_network(Path(folder) / "run" / "model.safetensors")
        >>> card.shape, tuple(network(torch.zeros(2, *card.shape)).shape)
        ((1, 8, 8), (2, 10))
    """
    path = Path(path)
    tensors, facts = read_tensors(path)
    try:
        card = _CARD.validate_json(json.dumps(facts), strict=True)
    except ValueError as error:
        raise _no_network(path) from error
    _require_consent(path, card, model)
    try:
        if not is_imported(card.model):
            with torch.device("meta"):
                _require_weights(_network(card), tensors)  # Before memory is allocated.
        network = _network(card)
        _require_weights(network, tensors)
        network.load_state_dict(tensors)
    except Exception as error:  # PyTorch raises several kinds on tensors that do not fit
        if isinstance(error, InstaHideError) and is_imported(card.model):
            raise
        raise _no_network(path) from error
    return network.eval(), card


def _require_consent(path: Path, card: NetworkCard, model: str | None) -> None:
    """Check that loading imports no package that the caller has not named."""
    if model is not None and model != card.model:
        raise InstaHideError(
            f"{path} holds the network `{card.model}`, not `{model}`.",
            "Name the network that it was trained with.",
        )
    if model is None and is_imported(card.model):
        raise InstaHideError(
            f"{path} names the network `{card.model}`, and loading it would run code of that "
            "package.",
            f"If you trust the file and the package, name it: `model='{card.model}'`.",
        )


def _no_network(path: Path) -> DamagedFileError:
    return DamagedFileError(
        f"{path} does not hold a network.", "Name the model.safetensors of a finished run."
    )


def _network(card: NetworkCard) -> nn.Module:
    return build(
        card.model,
        card.shape[0],
        len(card.classes),
        sign_invariant=card.sign_invariant,
        size=card.shape[1:],
    )


def _require_weights(network: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    wanted = {name: value.shape for name, value in network.state_dict().items()}
    if wanted != {name: value.shape for name, value in tensors.items()}:
        raise ValueError("the weights are not those of the network")

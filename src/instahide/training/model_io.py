"""Saving and loading of a trained network, with the metadata that its use needs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import torch
from pydantic import Field, TypeAdapter
from torch import Tensor, nn

from instahide.data.pixels import EIGHT_BIT
from instahide.encryption.scheme import Scheme
from instahide.errors import DamagedFileError
from instahide.training import checkpoint
from instahide.training.models import build

#: Channels, height or width.
Size = Annotated[int, Field(ge=1, le=1 << 16)]


@dataclass(frozen=True)
class NetworkCard:
    """The metadata of a network.

    Attributes:
        model: name of the architecture, a key of `models.NETWORKS`.
        sign_invariant: whether its input is replaced by its absolute values.
        shape: (C, H, W) of its images, or (C, D, H, W) of its volumes.
        classes: names of its outputs.
        mean: mean of pixels in the unit range for the normalization of images, per channel.
        std: standard deviation, likewise.
        scheme: the scheme of its training, as `Scheme.to_json` writes it.
        value_range: the lowest and the highest value of a pixel, 0 and 1 in the unit range.
    """

    model: str
    sign_invariant: bool
    shape: Annotated[tuple[Size, ...], Field(min_length=3, max_length=4)]
    classes: Annotated[tuple[str, ...], Field(min_length=1)]
    mean: tuple[Annotated[float, Field(allow_inf_nan=False)], ...]
    std: tuple[Annotated[float, Field(gt=0, allow_inf_nan=False)], ...]
    scheme: str
    value_range: tuple[float, float] = EIGHT_BIT

    def __post_init__(self) -> None:
        if not len(self.mean) == len(self.std) == self.shape[0]:
            raise ValueError("mean and std need one value a channel")
        Scheme.from_json(self.scheme)


_CARD = TypeAdapter(NetworkCard)


def save_network(path: Path, model: nn.Module, card: NetworkCard) -> None:
    """Write the weights of ``model`` and ``card`` to ``path``, atomically."""
    checkpoint.write(path, model.state_dict(), asdict(card))


def load_network(path: Path) -> tuple[nn.Module, NetworkCard]:
    """Load a network, on the CPU and in evaluation mode, and its card.

    Raises:
        DamagedFileError: the file is missing or damaged, or holds no network of this library.
    """
    tensors, facts = checkpoint.read(path)
    try:
        card = _CARD.validate_json(json.dumps(facts), strict=True)
        with torch.device("meta"):
            _require_weights(_network(card), tensors)  # Before memory is allocated.
        model = _network(card)
        model.load_state_dict(tensors)
    except Exception as error:  # PyTorch raises several kinds on tensors that do not fit
        raise DamagedFileError(
            f"{path} does not hold a network.", "Name the model.safetensors of a finished run."
        ) from error
    return model.eval(), card


def _network(card: NetworkCard) -> nn.Module:
    return build(card.model, card.shape[0], len(card.classes), sign_invariant=card.sign_invariant)


def _require_weights(network: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    wanted = {name: value.shape for name, value in network.state_dict().items()}
    if wanted != {name: value.shape for name, value in tensors.items()}:
        raise ValueError("the weights are not those of the network")

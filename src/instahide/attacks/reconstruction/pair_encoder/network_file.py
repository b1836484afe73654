"""Saves and loads an attacker's network as safetensors, which loads without pickle."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

import torch
from safetensors.torch import load, save
from torch import Tensor, nn

from instahide.errors import DamagedFileError, failure_reason
from instahide.utils.atomic_write import atomic_write, read_regular

N = TypeVar("N", bound=nn.Module)

#: Maximum size of a weights file in bytes, many times that of the largest network here.
MOST_BYTES = 1 << 30
#: Maximum number of tensors in a weights file.
MOST_TENSORS = 1000


def save_network(path: Path, network: nn.Module) -> None:
    """Write the weights to ``path`` atomically."""
    tensors = {name: tensor.contiguous() for name, tensor in network.state_dict().items()}
    with atomic_write(path) as partial:
        partial.write_bytes(save(tensors))


def load_network(
    path: Path, build: Callable[[Mapping[str, Tensor]], N], what: str, remedy: str
) -> N:
    """Read a network that `save_network` wrote; it is on the CPU and in evaluation mode.

    Args:
        path: the file.
        build: builds a network of the size that fits the named tensors.
        what: name of the network for error messages.
        remedy: remedy for error messages.

    Raises:
        DamagedFileError: the file is missing or damaged, or does not contain such a network.
    """
    try:
        tensors = load(read_regular(path, MOST_BYTES))
        if len(tensors) > MOST_TENSORS:
            raise ValueError(f"it has more than {MOST_TENSORS} tensors")
        with torch.device("meta"):
            _require_weights(build(tensors), tensors)  # Before memory is allocated.
        network = build(tensors)
        network.load_state_dict(tensors)
    except Exception as error:  # safetensors and PyTorch raise several kinds on damaged files
        raise DamagedFileError(
            f"{path} does not hold {what} ({failure_reason(error)}).", remedy
        ) from error
    return network.eval()


def _require_weights(network: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    wanted = {name: value.shape for name, value in network.state_dict().items()}
    if wanted != {name: value.shape for name, value in tensors.items()}:
        raise ValueError("the weights are not those of the network")

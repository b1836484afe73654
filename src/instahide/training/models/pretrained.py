"""Loads pretrained weights from a file on disk into a new network, as far as they fit."""

from __future__ import annotations

import warnings
import zipfile
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from instahide.errors import DamagedFileError, InstaHideError, failure_reason
from instahide.utils.atomic_write import require_regular

#: Names of weights in a message, at most.
_SHOWN = 5
#: What wrappers put before the names of a network's weights.
_PREFIXES = ("module.", "network.", "model.")
#: Where files of `torch.save` keep the weights, if they hold more.
_KEYS = ("state_dict", "model_state_dict", "model")


def load_pretrained(network: nn.Module, path: Path) -> None:
    """Set the weights of ``network`` to those of the same name and shape in ``path``.

    The others keep their values, and a warning names them: usually those of the last layer, if the
    pretrained network has other outputs. A file of `torch.save` is read with
    ``weights_only=True``, so that it cannot run code.

    Raises:
        DamagedFileError: the file is missing or damaged, or holds no weights.
        InstaHideError: no weight in it fits.
    """
    found = _without_prefix(_read(path), network)
    wanted = network.state_dict()
    fitting = {
        name: value
        for name, value in found.items()
        if name in wanted and wanted[name].shape == value.shape
    }
    if not any(name in fitting for name, _ in network.named_parameters()):
        raise InstaHideError(
            f"No weight in {path} fits the network: none has the name and shape of one of it.",
            "Give the weights of the same architecture.",
        )
    network.load_state_dict(fitting, strict=False)
    missing, unused = _names(wanted.keys() - fitting), _names(found.keys() - wanted.keys())
    if missing or unused:
        parts = [f"new ones instead of {missing}"] if missing else []
        parts += [f"not used: {unused}"] if unused else []
        warnings.warn(
            f"Of {path}, {len(fitting)} of the network's {len(wanted)} weights were loaded; "
            f"{'; '.join(parts)}.",
            stacklevel=2,
        )


def _read(path: Path) -> dict[str, Tensor]:
    try:
        require_regular(path)
        if path.suffix == ".safetensors":
            return load_file(path)
        _require_uncompressed(path)
        loaded = torch.load(path, map_location="cpu", weights_only=True)
        for key in _KEYS:
            if isinstance(loaded, dict) and isinstance(loaded.get(key), dict):
                loaded = loaded[key]
                break
        weights = {
            name: value
            for name, value in dict(loaded).items()
            if isinstance(name, str) and isinstance(value, Tensor)
        }
        if not weights:
            raise ValueError("it holds no weights")
        return weights
    except Exception as error:  # PyTorch and safetensors raise several kinds on damaged files
        raise DamagedFileError(
            f"{path} holds no weights that can be loaded ({failure_reason(error)[:200]}).",
            "Name a .safetensors file, or the file of a state dict that torch.save wrote.",
        ) from error


def _require_uncompressed(path: Path) -> None:
    """Check that a file of `torch.save` is not larger in memory than on disk."""
    with zipfile.ZipFile(path) as archive:
        if sum(entry.file_size for entry in archive.infolist()) > path.stat().st_size:
            raise ValueError("it is compressed, which torch.save never does")


def _without_prefix(found: dict[str, Tensor], network: nn.Module) -> dict[str, Tensor]:
    """``found`` with the names that the weights have without a wrapper around the network."""
    if found.keys() & network.state_dict().keys():
        return found
    for prefix in _PREFIXES:
        if all(name.startswith(prefix) for name in found):
            return {name.removeprefix(prefix): value for name, value in found.items()}
    return found


def _names(names: set[str]) -> str:
    shown = ", ".join(name[:80] for name in sorted(names)[:_SHOWN])
    return shown + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")

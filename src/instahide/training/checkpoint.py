"""Checkpoint files: tensors and JSON metadata with a checksum.

The format is safetensors, which loads without pickle, so an untrusted file cannot run code. The
header holds the metadata ("facts") and a SHA-256 of tensors and metadata, so that damage is
detected. A run folder stores weights, optimiser moments and measurements in this format, never keys
or generator states.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor

from instahide.data.readers.size_limits import failure_reason
from instahide.errors import DamagedFileError
from instahide.utils.atomic_write import atomic_write, require_regular


def write(path: Path, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
    """Write ``tensors`` and ``facts`` to ``path``, atomically.

    Raises:
        InstaHideError: the disk is full or the folder is read-only.
    """
    copies = {name: _on_cpu(tensor) for name, tensor in tensors.items()}
    text = json.dumps(facts, allow_nan=False)
    content = save(copies, {"facts": text, "sha256": _digest(copies, text)})
    with atomic_write(path) as partial:
        partial.write_bytes(content)


def read(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read the tensors (on the CPU) and facts that `write` stored in ``path``.

    Raises:
        DamagedFileError: the file is missing, incomplete, changed, or was not written by `write`.
    """
    try:
        require_regular(path)
        with safe_open(path, framework="pt") as file:
            header = file.metadata()
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        text = header["facts"]
        if header["sha256"] != _digest(tensors, text):
            raise ValueError("its checksum does not match its content")
        return tensors, dict(json.loads(text))
    except Exception as error:  # safetensors and PyTorch raise several kinds on damaged files
        raise DamagedFileError(
            f"{path} is not a whole checkpoint ({failure_reason(error)}).",
            "Restore it from a copy, or start a new run in another folder.",
        ) from error


def _on_cpu(tensor: Tensor) -> Tensor:
    """A contiguous copy in main memory, as safetensors requires."""
    return tensor.detach().to("cpu", copy=True, memory_format=torch.contiguous_format)


def _digest(tensors: Mapping[str, Tensor], text: str) -> str:
    digest = hashlib.sha256(text.encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()

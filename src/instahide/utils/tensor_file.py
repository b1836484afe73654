"""A file of tensors and JSON facts with a checksum: checkpoints, networks, states of attacks.

The format is safetensors, which loads without pickle, so an untrusted file cannot run code. The
header holds the facts and a SHA-256 of tensors and facts, so that damage is detected. Such files
hold weights, optimiser moments and measurements, never keys or generator states.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load, save
from torch import Tensor

from instahide.errors import DamagedFileError, failure_reason
from instahide.utils.atomic_write import atomic_write, read_regular

#: Largest file that is read, in bytes. A network of a billion values has four.
MOST_BYTES = 64 << 30


def write_tensors(path: Path, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
    """Write ``tensors`` and ``facts`` to ``path``, atomically.

    Raises:
        InstaHideError: the disk is full or the folder is read-only.
    """
    copies = {name: _on_cpu(tensor) for name, tensor in tensors.items()}
    text = json.dumps(facts, allow_nan=False)
    content = save(copies, {"facts": text, "sha256": _digest(copies, text)})
    with atomic_write(path) as partial:
        partial.write_bytes(content)


def read_tensors(
    path: Path, remedy: str = "Restore it from a copy, or start a new run in another folder."
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read the tensors (on the CPU) and facts that `write_tensors` stored in ``path``.

    The file is opened once: another process may replace it at any time. (`safetensors.safe_open`
    opens it once for the header and once for the tensors.)

    Args:
        path: the file.
        remedy: remedy for the error message.

    Raises:
        DamagedFileError: the file is missing, incomplete, changed, or was not written by
            `write_tensors`.
    """
    try:
        content = read_regular(path, MOST_BYTES)
        tensors, header = load(content), _header(content)
        text = header["facts"]
        if header["sha256"] != _digest(tensors, text):
            raise ValueError("its checksum does not match its content")
        return tensors, dict(json.loads(text))
    except Exception as error:  # safetensors and PyTorch raise several kinds on damaged files
        raise DamagedFileError(
            f"{path} is damaged, or another program wrote it ({failure_reason(error)}).", remedy
        ) from error


def _header(content: bytes) -> dict[str, str]:
    """The metadata of a safetensors file: a length of 8 bytes, then JSON."""
    end = 8 + int.from_bytes(content[:8], "little")
    return dict(json.loads(content[8:end])["__metadata__"])


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

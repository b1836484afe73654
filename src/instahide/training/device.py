"""Device and precision of a network."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from instahide.errors import InstaHideError

#: The types of devices that networks are trained on.
DEVICES = ("cpu", "cuda", "mps")


def pick_device(name: str) -> torch.device:
    """The device ``name``; ``auto`` is a CUDA GPU if there is one, else the CPU.

    Raises:
        InstaHideError: PyTorch does not know the device, or this machine lacks it.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
        if device.type not in DEVICES:
            raise RuntimeError(f"Fabric trains on {', '.join(DEVICES)}")
    except (RuntimeError, AssertionError) as error:
        raise InstaHideError(
            f"Device `{name}` cannot be used here.", "Choose `cpu`, or leave the device out."
        ) from error
    return device


def pick_precision(name: str, device: torch.device) -> torch.dtype:
    """The type of the network's arithmetic; ``auto`` is bfloat16 if the hardware supports it.

    Raises:
        InstaHideError: ``name`` is float16 and the device is not a CUDA GPU.
    """
    if name == "auto":
        return torch.bfloat16 if _has_bfloat16(device) else torch.float32
    if name == "float16" and device.type != "cuda":
        raise InstaHideError(
            f"float16 needs a CUDA GPU; this run is on `{device}`.",
            "Choose precision bfloat16 or float32.",
        )
    return {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}[name]


def autocast(device: torch.device, precision: torch.dtype) -> torch.autocast:
    """A context in which networks compute in ``precision``; no effect for float32."""
    return torch.autocast(device.type, precision, enabled=precision is not torch.float32)


def place(model: nn.Module, device: torch.device) -> None:
    """Move ``model`` to ``device``, with the weights in the layout of `channels_last`."""
    model.to(device)
    for tensor in (*model.parameters(), *model.buffers()):
        tensor.data = channels_last(tensor.data)


def channels_last(values: Tensor) -> Tensor:
    """Images or volumes with the channels of a pixel side by side, as convolutions are fastest."""
    layouts = {4: torch.channels_last, 5: torch.channels_last_3d}
    return values.contiguous(memory_format=layouts.get(values.ndim, torch.contiguous_format))


def _has_bfloat16(device: torch.device) -> bool:
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    # Older PyTorch releases lack the query; without AMX, bfloat16 is slower than float32.
    capabilities: Mapping[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
    return device.type == "cpu" and bool(capabilities.get("amx_bf16"))

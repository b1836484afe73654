"""One file of encodings: safetensors, memory-mapped, without pickle.

It holds two tensors: ``images`` (n, C, H, W), stored as the manifest's ``values`` say, and
``labels`` (n, classes) float32.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from instahide.encodings.manifest import STORED, Manifest, Shard, Values
from instahide.encryption.encoder import Encoded
from instahide.errors import InstaHideError

#: 8-bit values stand for so many steps on either side of 0, which is stored as `_ZERO`.
_STEPS, _ZERO = 127, 128


def worst_error(values: Values, reach: float) -> float:
    """How far a stored value may be from one that is at most ``reach`` from 0."""
    share = {"float32": 0.0, "float16": 2**-11, "uint8": 0.5 / _STEPS}[values]
    # Steps of float16 next to 0; and rounding of the way there and back.
    return reach * share * (1 + 1e-5) + (2**-25 if values == "float16" else 0.0)


def packed(images: Tensor, values: Values, reach: float) -> Tensor:
    """Encodings as they are stored."""
    if values == "uint8":
        return images.float().mul(_STEPS / reach).round_().add_(_ZERO).to(torch.uint8)
    return images.to(STORED[values])


def unpacked(stored: Tensor, reach: float) -> Tensor:
    """float32 encodings from what `packed` gave."""
    if stored.dtype == torch.uint8:
        return stored.float().sub_(_ZERO).mul_(reach / _STEPS)
    return stored.float()


def write_shard(path: Path, name: str, images: Tensor, labels: Tensor) -> Shard:
    """Write stored ``images`` and ``labels`` to ``path``; the shard will be known as ``name``.

    Raises:
        OSError: it cannot be written.
    """
    content = save({"images": images.contiguous(), "labels": labels.contiguous()})
    path.write_bytes(content)
    digest = hashlib.sha256(content).hexdigest()
    return Shard(name=name, encodings=len(images), bytes=len(content), sha256=digest)


def read_shard(path: Path, shard: Shard, manifest: Manifest) -> Encoded:
    """The encodings of a shard as they are stored, memory-mapped, and their labels.

    Raises:
        InstaHideError: the file is not what ``shard`` and ``manifest`` say.
    """
    if path.stat().st_size != shard.bytes:
        raise damaged(shard, f"it has {path.stat().st_size} bytes, not {shard.bytes}")
    expected = {
        "images": (STORED[manifest.values], (shard.encodings, *manifest.shape)),
        "labels": (torch.float32, (shard.encodings, len(manifest.classes))),
    }
    try:
        with safe_open(path, framework="pt") as file:
            if set(file.keys()) != set(expected):
                raise damaged(shard, "it holds other tensors than images and labels")
            found = {name: file.get_tensor(name) for name in expected}
    except SafetensorError:
        raise damaged(shard, "it is no safetensors file") from None
    for name, (dtype, shape) in expected.items():
        if (found[name].dtype, tuple(found[name].shape)) != (dtype, shape):
            raise damaged(shard, f"its {name} are of another type or shape")
    return Encoded(**found)


def damaged(shard: Shard, reason: str) -> InstaHideError:
    """What to say of a ``shard`` that is not what the manifest says."""
    return InstaHideError(
        f"Shard {shard.name} is damaged: {reason}.",
        "Get it anew from whoever published it.",
    )

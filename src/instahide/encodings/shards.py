"""One file of encodings: safetensors, memory-mapped, without pickle.

It holds two tensors: ``images`` (n, C, H, W), of the type in the manifest's ``values``, and
``labels`` (n, classes) float32. Length, types and shapes are compared with the manifest before
values are read.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from instahide.encodings.manifest import STORED, Manifest, Shard, Values
from instahide.encryption.encoder import Encoded
from instahide.errors import DamagedFileError, InstaHideError
from instahide.utils.atomic_write import require_regular

#: Images (n, C, H, W) and labels (n, classes), floats of any kind.
EncodedArrays: TypeAlias = tuple[NDArray[np.generic], NDArray[np.generic]]

#: Steps of 8-bit values on either side of 0, which is stored as `_ZERO`.
_STEPS, _ZERO = 127, 128
#: Names of the types in safetensors.
_NAMES: dict[Values, str] = {"float32": "F32", "float16": "F16", "uint8": "U8"}


def max_quantization_error(values: Values, max_abs: float) -> float:
    """The largest error of a stored value whose magnitude is at most ``max_abs``."""
    share = {"float32": 0.0, "float16": 2**-11, "uint8": 0.5 / _STEPS}[values]
    # The spacing of float16 near 0; and the rounding of both conversions.
    return max_abs * share * (1 + 1e-5) + (2**-25 if values == "float16" else 0.0)


def quantize(images: Tensor, values: Values, max_abs: float) -> Tensor:
    """Convert encodings to stored values."""
    if values == "uint8":
        return images.float().mul(_STEPS / max_abs).round_().add_(_ZERO).to(torch.uint8)
    return images.to(STORED[values])


def dequantize(stored: Tensor, max_abs: float) -> Tensor:
    """Convert the result of `quantize` to float32 encodings.

    It uses NumPy in the calling thread. PyTorch would start threads in the loader's background,
    which slow down the threads of the model.
    """
    values = stored.numpy().astype(np.float32)
    if stored.dtype == torch.uint8:
        values -= _ZERO
        values *= np.float32(max_abs / _STEPS)
    return torch.from_numpy(values)


def magnitudes(stored: Tensor) -> Tensor:
    """|x| of stored encodings, which does not depend on the mask."""
    if stored.dtype == torch.uint8:
        return stored.to(torch.int16).sub_(_ZERO).abs_()
    return stored.abs()


def write_shard(path: Path, name: str, images: Tensor, labels: Tensor) -> Shard:
    """Write stored ``images`` and ``labels`` to ``path``; returns the entry of the shard ``name``.

    Raises:
        OSError: the file cannot be written.
    """
    try:
        # Directly from the memory of the tensors; `save` would copy them twice.
        save_file({"images": images.contiguous(), "labels": labels.contiguous()}, path)
    except SafetensorError as error:
        raise OSError(str(error)) from error
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    size = path.stat().st_size
    return Shard(name=name, encodings=len(images), bytes=size, sha256=digest)


def read_shard(path: Path, shard: Shard, manifest: Manifest, location: str) -> Encoded:
    """The stored encodings of a shard, memory-mapped, and their labels.

    Args:
        path: the file.
        shard: its entry in the manifest.
        manifest: manifest of the folder.
        location: path or URL of the folder, for messages.

    Raises:
        InstaHideError: the file does not agree with ``shard`` and ``manifest``, or cannot be read.
    """
    expected = {
        "images": (_NAMES[manifest.values], [shard.encodings, *manifest.shape]),
        "labels": (_NAMES["float32"], [shard.encodings, len(manifest.classes)]),
    }
    with reading(shard, location):
        if path.stat().st_size != shard.bytes:
            raise damaged(shard, location, f"it has not {shard.bytes:,} bytes")
        require_regular(path)
        with safe_open(path, framework="pt") as file:
            slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118
            found = {name: (each.get_dtype(), each.get_shape()) for name, each in slices.items()}
            if found != expected:
                raise damaged(shard, location, "it holds other tensors than it should")
            return Encoded(**{name: file.get_tensor(name) for name in expected})


@contextmanager
def reading(shard: Shard, location: str) -> Iterator[None]:
    """Convert errors while a shard is read to `InstaHideError`.

    Raises:
        InstaHideError: the file is not in safetensors format, or cannot be read.
    """
    try:
        yield
    except InstaHideError:
        raise
    except OSError as error:
        raise damaged(shard, location, error.strerror or "it cannot be read") from error
    except Exception:  # safetensors and PyTorch raise many kinds of errors on damaged files
        raise damaged(shard, location, "it is no safetensors file") from None


def damaged(shard: Shard, location: str, reason: str) -> DamagedFileError:
    """The error for a ``shard`` that does not agree with the manifest in ``location``."""
    return DamagedFileError(
        f"Shard {shard.name} of {location} is damaged: {reason}.",
        "Ask the publisher for a new copy.",
    )

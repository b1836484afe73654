"""Arrays from another machine, checked against the arrays of a known network.

Flower's own reader, `Array.numpy`, reads any shape and size that the bytes claim, and compressed
archives as well. Here the header is compared with what is expected before anything is allocated.
"""

from __future__ import annotations

from collections.abc import Mapping
from io import BytesIO
from typing import TypeAlias

import numpy as np
import torch
from flwr.app import Array, ArrayRecord
from numpy.lib import format as npy
from numpy.typing import NDArray
from torch import Tensor, nn

from instahide.integrations.flower.errors import RefusalError
from instahide.integrations.flower.untrusted_values import printable

#: Largest size of a header in bytes, far more than any shape needs.
MOST_HEADER = 4096
#: Running statistics of batch normalization that are sums of squares.
_VARIANCE = "running_var"


Arrays: TypeAlias = dict[str, NDArray[np.generic]]


class ArraysError(RefusalError):
    """Arrays that were received do not fit the expected network."""


def read(
    record: object, like: Mapping[str, Tensor], *, exact: bool
) -> dict[str, NDArray[np.generic]]:
    """Read the arrays of ``record``.

    Args:
        record: the `ArrayRecord` that was received.
        like: expected names, shapes and types, such as the state of a network.
        exact: whether types must be equal. If not, any floating or integer type is accepted,
            because an average of integers is not an integer.

    Raises:
        ArraysError: ``record`` is no `ArrayRecord`; an array is missing, unknown, malformed or of
            another shape or type; or a value is not finite or out of range. The message names the
            array.
    """
    if not isinstance(record, ArrayRecord):
        raise ArraysError("There is no record of arrays.", "Send one.")
    if missing := sorted(set(like) - set(record)):
        raise ArraysError(f"The array `{missing[0]}` is missing.", "Send the whole network.")
    if strange := sorted(set(record) - set(like)):
        raise ArraysError(
            f"The network has no array `{printable(strange[0])}`.", "Send its own arrays only."
        )
    return {name: _read(name, record[name], tensor, exact) for name, tensor in like.items()}


def load(network: nn.Module, record: object) -> nn.Module:
    """Load weights and statistics from an untrusted record into ``network``; returns ``network``.

    Raises:
        ArraysError: as for `read`.
    """
    found = read(record, network.state_dict(), exact=False)
    network.load_state_dict({name: torch.from_numpy(array) for name, array in found.items()})
    return network


def _read(name: str, array: Array, like: Tensor, exact: bool) -> NDArray[np.generic]:
    values = _parsed(name, array, tuple(like.shape))
    wanted = torch.empty(0, dtype=like.dtype).numpy().dtype
    if values.dtype != wanted and (exact or values.dtype.kind not in "fiu"):
        raise ArraysError(f"The array `{name}` is {values.dtype}, not {wanted}.", f"Send {wanted}.")
    largest = np.finfo(wanted).max if wanted.kind == "f" else 2**53
    # A comparison with NaN is false.
    floats = values.astype(np.float64)
    if not (np.abs(floats) <= largest).all():
        raise ArraysError(
            f"The array `{name}` holds values that are not finite or out of range.",
            "Send finite numbers.",
        )
    if name.endswith(_VARIANCE) and (floats < 0).any():
        raise ArraysError(f"The array `{name}` holds a negative variance.", "Send variances.")
    return values


def _parsed(name: str, array: Array, shape: tuple[int, ...]) -> NDArray[np.generic]:
    """The values of ``array``, after its header was checked against ``shape`` and its size."""
    try:
        file = BytesIO(array.data)
        version = npy.read_magic(file)
        read_header = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}
        found, by_columns, kind = read_header[version](file, max_header_size=MOST_HEADER)
        if found != shape or kind.kind not in "fiub" or kind.itemsize > 8:
            raise ValueError(f"{found} of {kind}")
        rest = array.data[file.tell() :]
        count = int(np.prod(shape, dtype=np.int64))
        if len(rest) != count * kind.itemsize:
            raise ValueError("the size differs from the header")
        flat = np.frombuffer(rest, kind)
    except Exception as error:  # NumPy's header parser raises many kinds
        raise ArraysError(
            f"The array `{name}` is not an array of shape {shape}.", "Send NumPy's own format."
        ) from error
    values = flat.reshape(shape[::-1]).T if by_columns else flat.reshape(shape)
    return np.array(values, kind.newbyteorder("="), order="C")

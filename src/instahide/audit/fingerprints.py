"""Fingerprints by which a resumed audit or search recognizes what it measures."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import fields

import numpy as np
import torch
from torch import Tensor, nn

from instahide._version import __version__
from instahide.data import ImageTable


def of_table(table: ImageTable | None) -> str:
    """A hash of all of a table that its encodings, networks and attacks depend on; empty of None.

    Examples:
        >>> from instahide import open_split
        >>> from instahide.audit.fingerprints import of_table
        >>> split = open_split("digits")
        >>> of_table(split.train) == of_table(split.test)
        False
    """
    if table is None:
        return ""
    values = {field.name: getattr(table, field.name) for field in fields(table)}
    arrays = {name: value for name, value in values.items() if isinstance(value, np.ndarray)}
    shapes = {name: (value.shape, value.dtype.str) for name, value in arrays.items()}
    digest = hashlib.sha256(repr(values | shapes).encode())
    for array in arrays.values():
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def of_network(network: nn.Module | None) -> str:
    """A hash of the kinds of layers, weights and buffers of a network; empty of None."""
    if network is None:
        return ""
    layers = [(name, type(layer).__qualname__) for name, layer in network.named_modules()]
    tensors = dict(network.named_parameters()) | dict(network.named_buffers())
    return of_tensors(tensors, repr(layers))


def of_tensors(tensors: Mapping[str, Tensor | None], text: str = "") -> str:
    """A hash of ``tensors``, their names, and ``text``."""
    digest = hashlib.sha256(text.encode())
    for name, tensor in sorted(tensors.items()):
        if tensor is None:
            digest.update(f"{name} none\n".encode())
            continue
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        values = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
        digest.update(values.numpy().data)
    return digest.hexdigest()


def measuring_version() -> str:
    """The version of this library without its last part: measurements of others may differ."""
    return __version__.rpartition(".")[0]

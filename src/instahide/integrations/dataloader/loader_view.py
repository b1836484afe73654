"""The readable attributes of a wrapped loader: settings, lengths and item numbers, no items."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from multiprocessing.context import BaseContext
from typing import Any

import torch

from instahide.integrations.dataloader.hidden_items import (
    Hidden,
    HiddenDataset,
    HiddenSampler,
    hidden_function,
    refuse_setting,
    reveal,
    set_epoch,
)

#: Types of readable attributes: none of them leads to an item.
_SETTINGS = (bool, int, float, str, type(None), torch.device, torch.Generator, BaseContext)


class LoaderView:
    """An object with the attributes of a `DataLoader` that do not lead to a plain item.

    It is not a subclass of `DataLoader`, because frameworks rebuild a `DataLoader` from its parts.

    Args:
        loader: the plain loader.
        classes: names or number of its classes; None if unknown.
        shown: the loader whose settings are readable; ``loader`` by default.
    """

    def __init__(
        self, loader: Any, classes: int | Sequence[str] | None = None, shown: Any = None
    ) -> None:
        self._plain = Hidden(loader)
        self._shown = Hidden(loader if shown is None else shown)
        self._dataset = HiddenDataset(loader.dataset, classes)

    @property
    def dataset(self) -> HiddenDataset:
        """A stand-in for the data set, with length and class names but no items."""
        return self._dataset

    @property
    def sampler(self) -> HiddenSampler:
        """A sampler of item numbers; it accepts `set_epoch` if the plain loader's does."""
        return HiddenSampler(reveal(self._plain).sampler)

    @property
    def batch_sampler(self) -> HiddenSampler:
        """A sampler of lists of item numbers."""
        return HiddenSampler(reveal(self._plain).batch_sampler)

    @property
    def collate_fn(self) -> Any:
        """A function that raises."""
        return hidden_function

    @property
    def worker_init_fn(self) -> Any:
        """None, or a function that raises if there is one; frameworks may set it."""
        return None if reveal(self._plain).worker_init_fn is None else hidden_function

    @worker_init_fn.setter
    def worker_init_fn(self, function: Any) -> None:
        reveal(self._plain).worker_init_fn = function

    def __getattr__(self, name: str) -> Any:
        loader = None if name.startswith("_") else reveal(self._shown)
        if hasattr(loader, name):
            value = getattr(loader, name)
            if name == "set_epoch":
                return partial(set_epoch, self._shown)
            if isinstance(value, _SETTINGS):
                return value
        raise AttributeError(f"A wrapped loader, {type(self).__name__}, does not show {name!r}.")

    def __setattr__(self, name: str, value: Any) -> None:
        if not name.startswith("_") and name != "worker_init_fn":
            refuse_setting(name)
        super().__setattr__(name, value)

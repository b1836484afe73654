"""What a wrapped loader shows of the plain one: settings, lengths and item numbers, but no item."""

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

#: Types of attributes that are shown: none of them leads to an item.
_SETTINGS = (bool, int, float, str, type(None), torch.device, torch.Generator, BaseContext)


class LoaderView:
    """Has the attributes of a `DataLoader`, and none through which a plain item could be had.

    It is no `DataLoader`: frameworks build these anew from their parts.

    Args:
        loader: the plain loader.
        classes: the names of its classes, or how many there are, if that is known.
        shown: the loader whose settings are shown, if it is another.
    """

    def __init__(
        self, loader: Any, classes: int | Sequence[str] | None = None, shown: Any = None
    ) -> None:
        self._plain = Hidden(loader)
        self._shown = Hidden(loader if shown is None else shown)
        self._dataset = HiddenDataset(loader.dataset, classes)

    @property
    def dataset(self) -> HiddenDataset:
        """Stands for the data set: it has a length and class names, and refuses to give items."""
        return self._dataset

    @property
    def sampler(self) -> HiddenSampler:
        """Gives item numbers, and takes `set_epoch` if the plain loader's does."""
        return HiddenSampler(reveal(self._plain).sampler)

    @property
    def batch_sampler(self) -> HiddenSampler:
        """Gives lists of item numbers."""
        return HiddenSampler(reveal(self._plain).batch_sampler)

    @property
    def collate_fn(self) -> Any:
        """A function that refuses to be called."""
        return hidden_function

    @property
    def worker_init_fn(self) -> Any:
        """None, or a function that refuses to be called if there is one; frameworks may set it."""
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

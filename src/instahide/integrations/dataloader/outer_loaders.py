"""Loaders of Accelerate, Fabric and Ray Train that wrap a `DataLoader` to move its batches."""

from __future__ import annotations

from typing import Any

#: The attribute with the wrapped loader, by the module that defines the wrapper.
_INNER = {
    "accelerate.data_loader": "base_dataloader",
    "lightning.fabric.wrappers": "_dataloader",
    "lightning_fabric.wrappers": "_dataloader",
    "ray.train.torch.train_loop_utils": "_dataloader",
}


def inner_loader(loader: Any) -> Any:
    """The loader that ``loader`` wraps, if it is of a known library; else ``loader``."""
    name = _inner_name(loader)
    return loader if name is None else inner_loader(getattr(loader, name))


def around(loader: Any, inner: Any) -> Any:
    """A copy of ``loader`` that wraps ``inner`` in place of its `inner_loader`.

    The library's handling of devices, epochs and gradient accumulation is unchanged.
    """
    name = _inner_name(loader)
    if name is None:
        return inner
    replaced = getattr(loader, name)
    copy = object.__new__(type(loader))
    for key, value in vars(loader).items():
        # Some of these loaders copy the attributes of the inner one, its data set among them.
        if vars(replaced).get(key, copy) is not value:
            vars(copy)[key] = value
    vars(copy)[name] = around(replaced, inner)
    return copy


def _inner_name(loader: Any) -> str | None:
    # `type`, since Accelerate's loaders give the class of the inner loader as their `__class__`.
    iterate = getattr(type(loader), "__iter__", None)
    return _INNER.get(getattr(iterate, "__module__", ""))

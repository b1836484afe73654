"""A device that is none: its tensors are on the processor, but do not mix with those that are.

It tells, where there is no GPU, whether an attack would run on one: a tensor that was left on the
processor beside others that were not raises an error, as it would there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map

#: A device that PyTorch knows of, and that nobody here has.
DEVICE = torch.device("meta")
#: What takes tensors of two devices: a copy, and indices.
BETWEEN = (torch.ops.aten.copy_.default, torch.ops.aten.index.Tensor)


class _There(Tensor):
    """A tensor on `DEVICE`, whose values are those of ``here``."""

    here: Tensor

    @staticmethod
    def __new__(cls, here: Tensor) -> _There:
        made: _There = Tensor._make_wrapper_subclass(  # type: ignore[attr-defined]
            cls, here.size(), strides=here.stride(), dtype=here.dtype, device=DEVICE
        )
        made.here = here
        return made

    @classmethod
    def __torch_function__(
        cls,
        function: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        # The one way to the processor that a class of tensors has to see to itself.
        if function is Tensor.tolist:
            return args[0].cpu().tolist()
        with torch._C.DisableTorchFunctionSubclass():
            return function(*args, **kwargs or {})

    @classmethod
    def __torch_dispatch__(
        cls,
        function: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        return _called(function, args, dict(kwargs or {}))


class Elsewhere(TorchDispatchMode):
    """While it is entered, tensors can be moved to `DEVICE` and back."""

    def __torch_dispatch__(
        self,
        function: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        return _called(function, args, dict(kwargs or {}))


def _called(function: Callable[..., Any], args: Any, kwargs: dict[str, Any]) -> Any:
    leaves = tree_flatten((args, kwargs))[0]
    tensors = [leaf for leaf in leaves if isinstance(leaf, Tensor)]
    there = [tensor for tensor in tensors if isinstance(tensor, _There)]
    # Single numbers may be anywhere.
    left = [t for t in tensors if not isinstance(t, _There) and t.dim() > 0]
    named = [leaf for leaf in leaves if isinstance(leaf, torch.device)]
    if there and left and not named and function not in BETWEEN:
        raise RuntimeError(f"{function} of tensors on {DEVICE} and on the processor")
    if any(tensor.device == DEVICE for tensor in tensors if not isinstance(tensor, _There)):
        raise RuntimeError(f"PyTorch itself made a tensor on {DEVICE} for {function}")
    wanted = named[0] == DEVICE if named else bool(there)
    known = {id(tensor.here): tensor for tensor in there}
    found = function(*tree_map(_here, args), **tree_map(_here, kwargs))
    if not wanted:
        return found
    return tree_map(
        lambda leaf: known.get(id(leaf), _There(leaf)) if isinstance(leaf, Tensor) else leaf, found
    )


def _here(leaf: Any) -> Any:
    if isinstance(leaf, torch.device):
        return torch.device("cpu")
    return leaf.here if isinstance(leaf, _There) else leaf

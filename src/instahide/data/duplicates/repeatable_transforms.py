"""Makes random transforms treat every item alike, so that equal pictures stay equal."""

from __future__ import annotations

import copy
import random
import sys
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from types import CellType, FunctionType, MethodType
from typing import TYPE_CHECKING, TypeAlias, TypeGuard

import numpy as np

if TYPE_CHECKING:
    import torch

#: Largest number of objects that are searched for generators.
MOST_OBJECTS = 20_000
#: Containers of more elements hold samples, not transforms.
MOST_ELEMENTS = 1_000

#: Restores the state of one generator.
Restore = Callable[[], object]
Seeded: TypeAlias = "random.Random | np.random.RandomState | np.random.Generator | torch.Generator"


class RepeatableTransforms:
    """A context manager that resets all random generators of a data set to the same state.

    These are the global generators of Python, NumPy and PyTorch, and those in the attributes of the
    data set and its transforms, as in MONAI and Albumentations. On exit, their states are restored.

    Args:
        *owners: data sets, transforms or functions that may hold generators.
    """

    def __init__(self, *owners: object) -> None:
        self._own = _generators(owners)
        self._before: list[Restore] = []
        self._same: list[Restore] = []

    def __enter__(self) -> RepeatableTransforms:
        self._before = self._states()
        # A fixed seed gives the same state in every process.
        for generator in [*_loaded(), *self._own]:
            _seed(generator)
        self._same = self._states()
        return self

    def again(self) -> None:
        """Set every generator to the state of a fixed seed."""
        for restore in self._same:
            restore()

    def __exit__(self, *_: object) -> None:
        for restore in self._before:
            restore()

    def _states(self) -> list[Restore]:
        return [_restore(generator) for generator in [*_loaded(), *self._own]]


def _loaded() -> list[Seeded]:
    """The global generators of Python, NumPy and, if it is imported, PyTorch."""
    found: list[Seeded] = [random._inst, np.random.mtrand._rand]
    if torch := sys.modules.get("torch"):
        found.append(torch.default_generator)
    return found


def _seed(generator: Seeded) -> None:
    if isinstance(generator, np.random.Generator):
        bits = generator.bit_generator
        bits.state = type(bits)(0).state
    elif isinstance(generator, np.random.RandomState):
        state = generator.get_state(legacy=False)
        bits = generator._bit_generator
        # Normals are drawn in pairs, and the second one is kept for the next call.
        generator.set_state({**state, **type(bits)(0).state, "has_gauss": 0, "gauss": 0.0})
    elif isinstance(generator, random.Random):
        generator.seed(0)
    else:
        generator.manual_seed(0)


def _restore(generator: Seeded) -> Restore:
    if isinstance(generator, random.Random):
        return partial(generator.setstate, generator.getstate())
    if isinstance(generator, np.random.RandomState):
        return partial(generator.set_state, generator.get_state(legacy=False))
    if isinstance(generator, np.random.Generator):
        bits = generator.bit_generator
        return partial(setattr, bits, "state", copy.deepcopy(bits.state))
    return partial(generator.set_state, generator.get_state())


def _is_generator(found: object) -> TypeGuard[Seeded]:
    kinds = [random.Random, np.random.RandomState, np.random.Generator]
    if torch := sys.modules.get("torch"):
        kinds.append(torch.Generator)
    return isinstance(found, tuple(kinds)) and not isinstance(found, random.SystemRandom)


def _generators(owners: Iterable[object]) -> list[Seeded]:
    """The generators in the attributes of ``owners``, searched recursively."""
    waiting, seen = list(owners), set[int]()
    found: list[Seeded] = []
    kept = []  # Keeps objects alive, so that their IDs stay unique.
    while waiting and len(seen) < MOST_OBJECTS:
        one = waiting.pop()
        if id(one) in seen:
            continue
        seen.add(id(one))
        kept.append(one)
        if _is_generator(one):
            found.append(one)
        else:
            waiting += _parts(one)
    return found


def _parts(owner: object) -> list[object]:
    if isinstance(owner, (str, bytes, int, float, type, np.ndarray)):
        return []
    if isinstance(owner, Mapping) and len(owner) <= MOST_ELEMENTS:
        return list(owner.values())
    if isinstance(owner, (list, tuple, set)):
        return list(owner) if len(owner) <= MOST_ELEMENTS else []
    if isinstance(owner, FunctionType):
        cells = [cell.cell_contents for cell in owner.__closure__ or () if _is_filled(cell)]
        return [*cells, *(owner.__defaults__ or ())]
    if isinstance(owner, MethodType):
        return [owner.__self__, owner.__func__]
    if isinstance(owner, partial):
        return [owner.func, *owner.args, *owner.keywords.values()]
    slots = [getattr(owner, name, None) for kind in type(owner).__mro__ for name in _slots(kind)]
    return [*getattr(owner, "__dict__", {}).values(), *slots]


def _slots(kind: type) -> list[str]:
    slots = kind.__dict__.get("__slots__", ())
    names = [slots] if isinstance(slots, str) else list(slots)
    return [name for name in names if name not in ("__dict__", "__weakref__")]


def _is_filled(cell: CellType) -> bool:
    try:
        return cell.cell_contents is not None
    except ValueError:
        return False

"""Reader of untrusted pickles of plain data, without the `pickle` module.

Unpickling calls any function that the file names. Even without calls, a few bytes can exhaust
memory (a memo entry with a huge number) or time (the hash of a nested tuple). This interpreter
supports only the instructions of plain data: it calls nothing, hashes and compares only strings and
numbers, and creates at most one small object per instruction.
"""

from __future__ import annotations

import io
import pickletools
from collections.abc import Callable

#: Largest number of instructions of a file; CIFAR-100's largest has a quarter of a million.
MOST_INSTRUCTIONS = 1 << 19

_MARK = object()


class Stub:
    """A placeholder for an object that the file would create by a call.

    Attributes:
        name: module and name of the function.
        arguments: arguments of the call.
        state: state that the file sets afterwards, if any.
    """

    def __init__(self, name: tuple[str, str], arguments: tuple[object, ...]) -> None:
        self.name = name
        self.arguments = arguments
        self.state: object = None


class _Global:
    def __init__(self, name: tuple[str, str]) -> None:
        self.name = name


def read_pickle(content: bytes, allowed: frozenset[tuple[str, str]]) -> object:
    """Read a pickle of dicts, lists, tuples, strings, bytes and numbers.

    Strings of Python 2 become bytes. Objects become `Stub`, if their name is in ``allowed``.

    Raises:
        ValueError: the pickle is damaged, uses another instruction, or names another function.
    """
    return _Machine(allowed).run(content)


class _Machine:
    """An interpreter of one pickle."""

    def __init__(self, allowed: frozenset[tuple[str, str]]) -> None:
        self._allowed = allowed
        self._stack: list[object] = []
        self._memo: dict[int, object] = {}

    def run(self, content: bytes) -> object:
        """The value on the stack at the end."""
        instructions = pickletools.genops(io.BytesIO(content))
        for count, (instruction, argument, _) in enumerate(instructions):
            if count >= MOST_INSTRUCTIONS:
                raise ValueError("it has too many instructions")
            if instruction.name == "STOP":
                return self._pop()
            self._step(instruction.name, argument)
        raise ValueError("it does not end")

    def _step(self, name: str, argument: object) -> None:
        if name in _VALUES:
            self._stack.append(argument)
        elif name in _ACTIONS:
            _ACTIONS[name](self, argument)
        else:
            raise ValueError(f"it has an instruction {name}, which plain data does not need")

    def _pop(self) -> object:
        value = self._stack.pop()
        if value is _MARK:
            raise ValueError("it ends inside a list")
        return value

    def _top(self) -> object:
        return self._stack[-1]

    def _to_mark(self) -> list[object]:
        for at in range(len(self._stack) - 1, -1, -1):
            if self._stack[at] is _MARK:
                items = self._stack[at + 1 :]
                del self._stack[at:]
                return items
        raise ValueError("it has a list without a beginning")

    def put(self, key: object) -> None:
        """Store the top of the stack in the memo."""
        if not isinstance(key, int):
            raise ValueError("it remembers something under no number")
        self._memo[key] = self._top()

    def get(self, key: object) -> None:
        """Push a value from the memo."""
        if not isinstance(key, int) or key not in self._memo:
            raise ValueError("it asks for something that was not remembered")
        self._stack.append(self._memo[key])

    def push(self, value: object) -> None:
        """Put a value on top of the stack."""
        self._stack.append(value)

    def extend(self, items: list[object]) -> None:
        """Append to the list on top of the stack."""
        target = self._top()
        if type(target) is not list:
            raise ValueError("it appends to something that is not a list")
        target.extend(items)

    def set_items(self, items: list[object]) -> None:
        """Set keys and values in the dict on top of the stack."""
        target = self._top()
        if type(target) is not dict or len(items) % 2:
            raise ValueError("it sets items of something that is not a dict")
        if not all(type(key) in (bytes, str, int) for key in items[::2]):
            raise ValueError("it has a key that is neither text nor number")
        target.update(zip(items[::2], items[1::2], strict=True))

    def name(self, module: object, name: object) -> None:
        """Push a name, which is never resolved."""
        if not isinstance(module, str) or not isinstance(name, str):
            raise ValueError("it has a name that is not text")
        if (module, name) not in self._allowed:
            raise ValueError(f"it asks to run {module[:80]}.{name[:80]}")
        self._stack.append(_Global((module, name)))

    def call(self) -> None:
        """Replace a call by a `Stub`."""
        arguments, called = self._pop(), self._pop()
        if not isinstance(called, _Global) or type(arguments) is not tuple:
            raise ValueError("it calls something that has no name")
        self.push(Stub(called.name, arguments))

    def build(self) -> None:
        """Set the state of the `Stub` on top of the stack."""
        state, target = self._pop(), self._top()
        if not isinstance(target, Stub):
            raise ValueError("it sets the state of something that is not an object")
        target.state = state


def _tuple(machine: _Machine, count: int) -> None:
    machine.push(tuple([machine._pop() for _ in range(count)][::-1]))


def _pairs(machine: _Machine) -> None:
    items = machine._to_mark()
    machine.push({})
    machine.set_items(items)


def _one(machine: _Machine, into: Callable[[list[object]], None], count: int) -> None:
    into([machine._pop() for _ in range(count)][::-1])


def _marked(machine: _Machine, make: Callable[[list[object]], object]) -> None:
    machine.push(make(machine._to_mark()))


def _push_latin(machine: _Machine, argument: object) -> None:
    machine.push(str(argument).encode("latin-1"))


def _split_name(argument: object) -> tuple[str, str]:
    module, _, name = str(argument).partition(" ")
    return module, name


#: Instructions that push their argument, a text, a number or bytes.
_VALUES = frozenset({
    "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8", "UNICODE", "BININT", "BININT1", "BININT2",
    "INT", "LONG", "LONG1", "BINFLOAT", "FLOAT", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8",
})  # fmt: skip
_ACTIONS: dict[str, Callable[[_Machine, object], None]] = {
    "NONE": lambda machine, _: machine.push(None),
    "NEWTRUE": lambda machine, _: machine.push(True),
    "NEWFALSE": lambda machine, _: machine.push(False),
    # The bytes of Python 2's strings were read as Latin-1.
    **dict.fromkeys(("STRING", "BINSTRING", "SHORT_BINSTRING"), _push_latin),
    "PROTO": lambda machine, _: None,
    "FRAME": lambda machine, _: None,
    "MARK": lambda machine, _: machine.push(_MARK),
    **dict.fromkeys(("PUT", "BINPUT", "LONG_BINPUT"), _Machine.put),
    "MEMOIZE": lambda machine, _: machine.put(len(machine._memo)),
    **dict.fromkeys(("GET", "BINGET", "LONG_BINGET"), _Machine.get),
    "EMPTY_LIST": lambda machine, _: machine.push([]),
    "EMPTY_DICT": lambda machine, _: machine.push({}),
    "EMPTY_TUPLE": lambda machine, _: machine.push(()),
    "TUPLE1": lambda machine, _: _tuple(machine, 1),
    "TUPLE2": lambda machine, _: _tuple(machine, 2),
    "TUPLE3": lambda machine, _: _tuple(machine, 3),
    "TUPLE": lambda machine, _: _marked(machine, tuple),
    "LIST": lambda machine, _: _marked(machine, list),
    "DICT": lambda machine, _: _pairs(machine),
    "APPEND": lambda machine, _: _one(machine, machine.extend, 1),
    "APPENDS": lambda machine, _: machine.extend(machine._to_mark()),
    "SETITEM": lambda machine, _: _one(machine, machine.set_items, 2),
    "SETITEMS": lambda machine, _: machine.set_items(machine._to_mark()),
    "GLOBAL": lambda machine, argument: machine.name(*_split_name(argument)),
    "STACK_GLOBAL": lambda machine, _: _one(machine, lambda pair: machine.name(*pair), 2),
    "REDUCE": lambda machine, _: machine.call(),
    "BUILD": lambda machine, _: machine.build(),
}

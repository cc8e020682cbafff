"""Reads a pickle as plain data: no class is looked up, imported, called or changed.

Python's own unpickler builds objects by calling what the file names. This one walks the opcodes
that `pickletools.genops` (standard library) parses. Python scalars, strings, lists, tuples and
dictionaries become themselves; everything else becomes a `Global` (a name) or a `Stub` (the result
of calling a name). The caller's `reduce`, which gets names as strings only, decides what a call
means, and its `build` what an object's state does to the result.
"""

import io
import pickletools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

MAX_OPCODES = 300_000  # a training file of a ResNet-152 has about 60 000
MAX_NAME = 200  # characters kept of a Python name


class BrokenPickleError(ValueError):
    """The bytes are not a valid pickle."""


@dataclass(frozen=True)
class Global:
    """A name `module name` that the file refers to; never looked up."""

    name: str


@dataclass(frozen=True, eq=False)
class Stub:
    """Stands for the object that calling `name` would return; later changes to it are lost."""

    name: str


_MARK = object()
# fmt: off
_PUSH_ARGUMENT = frozenset([
    "INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT",
    "STRING", "BINSTRING", "SHORT_BINSTRING",
    "UNICODE", "SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8",
    "BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8",
])
# fmt: on
_NO_EFFECT = frozenset(["PROTO", "FRAME", "READONLY_BUFFER"])
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
_KEY_TYPES = (str, bytes, float, bool, type(None))


def load(
    stream: io.BytesIO,
    *,
    reduce: Callable[[str, tuple], Any],
    persistent: Callable[[Any], Any],
    build: Callable[[Any, Any], None] = lambda result, state: None,
) -> Any:
    """Reads one pickle from `stream` and leaves the stream positioned after it.

    Args:
      stream: the bytes, positioned at the start of a pickle.
      reduce: returns the value of `name(*arguments)`; both are plain data.
      persistent: returns the value of a persistent id (PyTorch's storages).
      build: gives a result of `reduce` its state; by default states are dropped.

    Raises:
      BrokenPickleError: the bytes are not a valid pickle or exceed `MAX_OPCODES`.
    """
    machine = _Machine(reduce, persistent, build)
    try:
        for count, (opcode, argument, _) in enumerate(pickletools.genops(stream)):
            if count > MAX_OPCODES:
                raise BrokenPickleError(f"it has more than {MAX_OPCODES} instructions")
            if opcode.name == "STOP":
                return machine.pop()
            machine.run(opcode.name, argument)
    except RecursionError as error:
        raise BrokenPickleError("its objects are nested too deeply") from error
    except (ValueError, LookupError, TypeError, OverflowError, MemoryError) as error:
        # genops reports truncation and unknown opcodes as ValueError; an opcode whose operands
        # are missing from the stack or memo fails with LookupError or TypeError.
        raise BrokenPickleError(printable(str(error)) or type(error).__name__) from error
    raise BrokenPickleError("it does not end")


class _Machine:
    """The stack, the memo, and what each opcode does to them."""

    def __init__(self, reduce, persistent, build):
        self._on_reduce = reduce
        self._on_persistent = persistent
        self._on_build = build
        self._stack = []
        self._memo = {}

    def pop(self):
        value = self._stack.pop()
        if value is _MARK:
            raise BrokenPickleError("an item is missing on the stack")
        return value

    def _top(self):
        if self._stack[-1] is _MARK:
            raise BrokenPickleError("an item is missing on the stack")
        return self._stack[-1]

    def _pop_to_mark(self) -> list:
        items = []
        while (item := self._stack.pop()) is not _MARK:
            items.append(item)
        return items[::-1]

    def run(self, name: str, argument: Any) -> None:
        if name in _PUSH_ARGUMENT:
            self._stack.append(argument)
        elif name in _CONSTANTS:
            self._stack.append(_CONSTANTS[name])
        elif name in _TUPLES:
            self._stack.append(tuple([self.pop() for _ in range(_TUPLES[name])][::-1]))
        elif name not in _NO_EFFECT:
            handler = getattr(self, "_" + name.lower(), None)
            if handler is None:
                raise BrokenPickleError(f"instruction {name} is not supported")
            handler(argument)

    def _mark(self, _):
        self._stack.append(_MARK)

    def _pop(self, _):
        self._stack.pop()

    def _pop_mark(self, _):
        self._pop_to_mark()

    def _dup(self, _):
        self._stack.append(self._top())

    # Containers.

    def _empty_list(self, _):
        self._stack.append([])

    def _list(self, _):
        self._stack.append(self._pop_to_mark())

    def _tuple(self, _):
        self._stack.append(tuple(self._pop_to_mark()))

    def _empty_dict(self, _):
        self._stack.append({})

    def _dict(self, _):
        self._stack.append(to_dict(self._pop_to_mark()))

    def _empty_set(self, _):
        self._stack.append(Stub("builtins set"))

    def _frozenset(self, _):
        self._pop_to_mark()
        self._stack.append(Stub("builtins frozenset"))

    def _extend(self, items):
        if isinstance(self._top(), list):
            self._top().extend(items)

    def _append(self, _):
        self._extend([self.pop()])

    def _appends(self, _):
        self._extend(self._pop_to_mark())

    def _additems(self, _):
        self._pop_to_mark()

    def _update(self, items):
        if isinstance(self._top(), dict):
            self._top().update(to_dict(items))

    def _setitem(self, _):
        value, key = self.pop(), self.pop()
        self._update([key, value])

    def _setitems(self, _):
        self._update(self._pop_to_mark())

    # Memo. A dictionary: a list would grow to the largest index, which a file can make billions.

    def _put(self, index):
        self._memo[index] = self._top()

    _binput = _long_binput = _put

    def _memoize(self, _):
        self._memo[len(self._memo)] = self._top()

    def _get(self, index):
        self._stack.append(self._memo[index])

    _binget = _long_binget = _get

    # Names and calls: recorded, never followed.

    def _global(self, name):
        self._stack.append(Global(printable(name)))

    def _stack_global(self, _):
        name, module = self.pop(), self.pop()
        # Only strings: formatting nested tuples could take for ever.
        if not (isinstance(name, str) and isinstance(module, str)):
            raise BrokenPickleError("a name is not a string")
        self._stack.append(Global(f"{printable(module)} {printable(name)}"))

    def _ext1(self, code):
        self._stack.append(Global(f"copyreg extension_{code}"))

    _ext2 = _ext4 = _ext1

    def _call(self, function, arguments):
        if isinstance(function, Global) and isinstance(arguments, tuple):
            self._stack.append(self._on_reduce(function.name, arguments))
        else:
            self._stack.append(Stub("call of something that is not a name"))

    def _reduce(self, _):
        arguments, function = self.pop(), self.pop()
        self._call(function, arguments)

    _newobj = _reduce

    def _newobj_ex(self, _):
        self.pop()
        self._reduce(None)

    def _inst(self, name):
        self._call(Global(printable(name)), tuple(self._pop_to_mark()))

    def _obj(self, _):
        function, *arguments = self._pop_to_mark()
        self._call(function, tuple(arguments))

    def _build(self, _):
        state = self.pop()
        self._on_build(self._top(), state)

    def _persid(self, name):
        self._stack.append(self._on_persistent(name))

    def _binpersid(self, _):
        self._stack.append(self._on_persistent(self.pop()))


def printable(text: str) -> str:
    """The beginning of a text from a file, with control characters escaped for the terminal."""
    text = text[:MAX_NAME]
    return text if text.isprintable() else ascii(text)[1:-1]


def to_dict(items: list) -> dict:
    """A dictionary from alternating keys and values; entries whose key is not a scalar are dropped.

    (Hashing nested tuples or integers of megabytes again and again could take for ever.)
    """
    pairs = zip(items[::2], items[1::2], strict=True)
    return {key: value for key, value in pairs if _is_key(key)}


def _is_key(key: Any) -> bool:
    if isinstance(key, int):
        return key.bit_length() < 64
    return isinstance(key, _KEY_TYPES)

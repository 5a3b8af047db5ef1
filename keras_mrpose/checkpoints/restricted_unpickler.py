"""Reads a pickle without running it: data is taken in, everything else is refused by name.

A pickle is a program for a stack machine, and `pickle.load` lets that program import and call anything. `load` takes
the program apart with `pickletools` and follows only the instructions that saved state dicts consist of; what they
"call" is looked up in a table of the caller's own functions. Nothing is imported or called because a file says so.

Source: the description of every instruction in Python's `pickletools`.
"""

from __future__ import annotations

import pickletools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import BinaryIO

_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}
_LITERALS = {
    *("BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT", "SHORT_BINBYTES"),
    *("BINUNICODE", "SHORT_BINUNICODE", "BINSTRING", "SHORT_BINSTRING"),  # the last two are Python 2's str
}
_TAKES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3, "APPEND": 1, "SETITEM": 2}  # from the stack; others: down to a mark
# A ResNet-152 with its Adam has less than 100,000; this bounds the time to seconds and the memory to 200 MB.
_MOST_INSTRUCTIONS = 1_000_000


class UnsafeFile(Exception):
    """Why a file is not read, in words that follow "<the file>: "."""


@dataclass(frozen=True)
class Global:
    """A function or class that a pickle names. It is only the name, with its module: "collections.OrderedDict"."""

    name: str


class Opaque:
    """Stands for a value that nobody here looks at, such as a NumPy number."""


def opaque(*_: object) -> Opaque:
    """Takes the place of a function whose result nobody here looks at."""
    return Opaque()


def load(
    stream: BinaryIO, functions: Mapping[str, Callable[..., object]], persistent: Callable[[object], object]
) -> object:
    """The object that the next pickle of a stream describes.

    Containers in it can be nested to any depth and can contain themselves: do not recurse into them or print them.

    Args:
        stream: in memory (`io.BytesIO`: only that never reserves memory for a length that a damaged file claims);
            left behind the pickle.
        functions: what the pickle may name, with module, and what stands for it; gets the pickle's arguments whatever
            they are.
        persistent: makes an object from what the pickle gives as a persistent identity.

    Returns:
        dict (OrderedDict too), list, tuple, str, int, float, bool, None, bytes, `Global`, `Inert` or what the
        functions return.

    Raises:
        Refused: the pickle is damaged, or would do anything else than build such an object.
    """
    machine = _Machine(functions, persistent)
    try:
        for count, (opcode, argument, _) in enumerate(pickletools.genops(stream)):
            if count == _MOST_INSTRUCTIONS:
                raise UnsafeFile("it holds far more than a network; save model.state_dict() alone.")
            machine.step(opcode.name, argument)
    except (ValueError, DeprecationWarning) as error:  # the latter from pickletools for a wrong escape under "-W error"
        raise damaged() from error
    return machine.pop()


def put(target: dict, key: object, value: object) -> None:
    """Adds an entry to a dict; a key that is there already is refused, as are keys that no checkpoint has.

    (Tuples and enormous integers can be made so that their hashes take forever, or are all the same.)
    """
    if not (isinstance(key, str) or (isinstance(key, int) and abs(key) < 2**60)):
        raise UnsafeFile(f"it has a strange key ({type(key).__name__}) in a dict; save model.state_dict() alone.")
    if key in target:
        raise UnsafeFile(f"it has the key {shown(key)} twice in one dict; fetch the file again.")
    target[key] = value


def shown(name: object) -> str:
    """A name out of a file, fit for a message: short and printable."""
    text = repr(name[:80] if isinstance(name, str) else name)
    return text[1:-1] if isinstance(name, str) else text


def damaged() -> UnsafeFile:
    """The exception for what torch.save never writes."""
    return UnsafeFile("it is damaged, cut short or not a PyTorch file; fetch it again.")


class _Machine:
    """The stack machine; a mark sets the stack aside and begins a new one."""

    def __init__(self, functions, persistent):
        self.functions, self.persistent = functions, persistent
        self.stack, self.marked, self.memo = [], [], {}

    def pop(self) -> object:
        if not self.stack:
            raise damaged()
        return self.stack.pop()

    def pop_to_mark(self) -> list:
        if not self.marked:
            raise damaged()
        items, self.stack = self.stack, self.marked.pop()
        return items

    def top(self, kind: type) -> object:
        if not (self.stack and isinstance(self.stack[-1], kind)):
            raise damaged()
        return self.stack[-1]

    def step(self, name: str, argument: object) -> None:
        """Follows one instruction."""
        match name:
            case "PROTO" | "FRAME" | "STOP":
                pass
            case _ if name in _CONSTANTS:
                self.stack.append(_CONSTANTS[name])
            case _ if name in _LITERALS:
                self.stack.append(argument)
            case "EMPTY_DICT":
                self.stack.append({})
            case "EMPTY_LIST":
                self.stack.append([])
            case "MARK":
                self.marked.append(self.stack)
                self.stack = []
            case "BINPUT" | "LONG_BINPUT":
                self.memo[argument] = self.top(object)
            case "MEMOIZE":
                self.memo[len(self.memo)] = self.top(object)
            case "BINGET" | "LONG_BINGET":
                if argument not in self.memo:
                    raise damaged()
                self.stack.append(self.memo[argument])
            case _ if name.startswith(("TUPLE", "APPEND", "SETITEM")):
                self.fill(name)
            case _:
                self.call(name, argument)

    def fill(self, name: str) -> None:
        """The instructions that put what lies on the stack into a container."""
        items = [self.pop() for _ in range(_TAKES[name])][::-1] if name in _TAKES else self.pop_to_mark()
        if name.startswith("TUPLE"):
            self.stack.append(tuple(items))
        elif name.startswith("APPEND"):
            self.top(list).extend(items)
        else:
            for key, value in zip(items[::2], items[1::2], strict=True):  # ValueError if one is left over
                put(self.top(dict), key, value)

    def call(self, name: str, argument: object) -> None:
        """The instructions with which a pickle could do harm."""
        match name:
            case "GLOBAL":
                self.stack.append(self.named(*argument.split(" ", 1)))
            case "STACK_GLOBAL":
                attribute, module = self.pop(), self.pop()
                self.stack.append(self.named(module, attribute))
            case "REDUCE":
                arguments, function = self.pop(), self.pop()
                if not (isinstance(function, Global) and isinstance(arguments, tuple) and len(arguments) < 10):
                    raise damaged()
                self.stack.append(self.functions[function.name](*arguments))
            case "BUILD" if len(self.stack) > 1 and isinstance(self.stack[-2], dict | Opaque):
                self.stack.pop()  # attributes: an OrderedDict's (PyTorch's _metadata) or a NumPy dtype's; left unread
            case "BINPERSID":
                self.stack.append(self.persistent(self.pop()))
            case _:
                what = f"{name} ({shown(argument)})" if isinstance(argument, str) else name
                raise UnsafeFile(f"its pickle has the instruction {what}, which no state dict needs; nothing was run.")

    def named(self, module: object, attribute: object) -> Global:
        """The function or class of that name if the table has it."""
        if not (isinstance(module, str) and isinstance(attribute, str)):
            raise damaged()
        name = f"{module}.{attribute}"
        if name not in self.functions:
            if module.split(".")[0] in ("__main__", "__torch__") or name.startswith("torch.nn."):
                raise UnsafeFile(
                    f"it holds a whole pickled model or object ({shown(name)}), not a state dict; "
                    "save model.state_dict() instead."
                )
            raise UnsafeFile(f"it would run `{shown(name)}`; nothing was run. Save model.state_dict() alone.")
        return Global(name)

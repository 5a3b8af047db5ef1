"""PyTorch's checkpoint files, read and written without PyTorch.

Published weights are PyTorch files, but nobody should have to install PyTorch, which is larger than all that this
package needs, to convert a file once; and `torch.load`, unless restricted, runs whatever a file says. Here nothing in a
file is ever run, every size in it is checked against the file before memory is taken, and only the storages of the one
state dict are read (not those of an optimizer). What a training keeps beside it (MMEngine's records, NumPy arrays)
becomes placeholders: nothing of it is built.

`torch.save` writes a pickle, which describes the object, and beside it the bytes of the storages, which the tensors are
views of: since torch 1.6 as the members ``<root>/data.pkl`` and ``<root>/data/<key>`` of a zip archive; before as a
stream of five pickles (magic number, version, system, object, keys of the storages) followed by the storages in the
order of the keys, each an int64 count and its elements.

From top to bottom: reading and writing a file, the two containers, the restricted unpickler, and the tensors that a
pickle describes. A pickle is a program for a stack machine, and `pickle.load` lets that program import and call
anything. The unpickler takes the program apart with `pickletools` and follows only the instructions that saved state
dicts consist of; what they "call" is looked up in a table of this module's own functions.

Source: what `torch.save` of torch 0.4 to 2.13 writes; `torch.load(weights_only=True)` reads what is written here; the
description of every instruction in Python's `pickletools`.
"""

from __future__ import annotations

import contextlib
import io
import math
import os
import pickle
import pickletools
import struct
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

from keras_mrpose.errors import InputError

_USUAL_NAMES = ("state_dict", "model_state_dict", "model", "net", "best_state_dict")
DTYPES = {  # of the storages, in the file and in memory
    **{"Float": "float32", "Double": "float64", "Half": "float16", "Bool": "bool", "Byte": "uint8"},
    **{"Char": "int8", "Short": "int16", "Int": "int32", "Long": "int64"},
}
BFLOAT16 = "BFloat16"  # the upper half of a float32, for which NumPy has no type


class UnsafeFile(Exception):
    """A file is refused; the message follows "<the file>: "."""


@dataclass(frozen=True)
class StateDict:
    """The tensors of a network by name, and the plain values beside them.

    `tensors`: names as stored (with "module." if it is there), in the file's order. The arrays can be read-only and can
    share memory.
    `notes`: the plain values of the dict that holds the tensors, and of the dict around that (epoch, perf).
    """

    tensors: dict[str, np.ndarray]
    notes: dict[str, str | int | float | bool]


def read_torch_file(path: Path) -> StateDict:
    """Read the state dict in a file of `torch.save`; nothing in the file is ever run.

    The saved object is a dict of tensors, or a dict with such a dict under "state_dict", "model_state_dict", "model",
    "net" or "best_state_dict" (the first of these), or with only one such dict. Optimizer states are passed over.

    Args:
        path: `.pth`, `.pth.tar`, `.pt`; the suffix does not matter.

    Returns:
        The tensors in their own dtypes, except that bfloat16 comes as float32, which holds it exactly. Values are
        not checked: they can be NaN.

    Raises:
        InputError: the file cannot be read, is damaged, holds no state dict or more than one, or would run something.
    """
    try:
        if not path.is_file():
            raise UnsafeFile("there is no such file.")
        with path.open("rb") as file:
            container = open_container(file)
            tensors, notes = _state_dict(container.saved)
            return StateDict(_arrays(tensors, container), notes)
    except UnsafeFile as refusal:
        raise InputError(f"{path}: {refusal}") from refusal
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}).") from error


def _state_dict(saved: object) -> tuple[dict[str, TensorRef], dict[str, str | int | float | bool]]:
    """The tensors of the one state dict, and the plain values beside it and in it."""
    around = {}
    if not _is_state_dict(saved):
        around, saved = saved, _inner_state_dict(saved)
    plain = {
        name: value
        for part in (around, saved)
        for name, value in part.items()
        if isinstance(name, str) and isinstance(value, str | int | float)
    }
    return {name: value for name, value in saved.items() if isinstance(value, TensorRef)}, plain


def _is_state_dict(value: object) -> bool:
    return (
        isinstance(value, dict)
        and all(
            isinstance(name, str) and isinstance(entry, TensorRef | str | int | float) for name, entry in value.items()
        )
        and any(isinstance(entry, TensorRef) for entry in value.values())
    )


def _inner_state_dict(saved: object) -> dict:
    if not isinstance(saved, dict):
        kind = {TensorRef: "a single tensor", list: "a list", tuple: "a tuple"}.get(type(saved), "a single value")
        raise UnsafeFile(f"it holds {kind}, not a state dict; save model.state_dict().")
    values = {id(value): value for value in saved.values()}  # one dict can be there under a million names
    state_dicts = {key for key, value in values.items() if _is_state_dict(value)}
    found = {name: value for name, value in saved.items() if id(value) in state_dicts}
    for name in _USUAL_NAMES:
        if name in found:
            return found[name]
    if len(found) > 1:
        raise UnsafeFile(f"it holds several state dicts ({_listed(found)}); save the one that is wanted alone.")
    if not found:
        raise UnsafeFile(f"it holds a dict without a state dict ({_listed(saved)}); save model.state_dict().")
    return next(iter(found.values()))


def _listed(names: dict) -> str:
    few = [_printable(name) for name in list(names)[:5]] + ["..."] * (len(names) > 5)
    return "keys: " + (", ".join(few) or "none")


def _arrays(tensors: dict[str, TensorRef], container: ZipContainer | StreamContainer) -> dict[str, np.ndarray]:
    """Reads the storages that these tensors are views of, each once."""
    storages = dict.fromkeys(tensor.storage for tensor in tensors.values())
    if sum(storage.size for storage in storages) > container.total:  # also when members of an archive overlap
        raise UnsafeFile("its tensors are larger than the file; it is cut short or damaged, fetch it again.")
    flat = {storage: _elements(container.read(storage), storage, container.order) for storage in storages}
    return {name: _view(name, tensor, flat[tensor.storage]) for name, tensor in tensors.items()}


def _elements(data: bytes, storage: Storage, order: str) -> np.ndarray:
    """The elements of a storage, `(count,)`, in the byte order of this machine."""
    if len(data) < storage.size:
        raise UnsafeFile(f"its storage {_printable(storage.key)} is too short; fetch it again.")
    stored = np.ndarray(storage.count, storage.dtype.newbyteorder(order), data)
    if storage.kind == BFLOAT16:
        wide = stored.astype(np.uint32)
        wide <<= 16
        return wide.view(np.float32)
    if storage.kind == "Bool":  # a damaged file can have other bytes than 0 and 1, with which NumPy would go astray
        return stored.view(np.uint8) != 0
    return stored.astype(storage.dtype, copy=False)


def _view(name: str, tensor: TensorRef, elements: np.ndarray) -> np.ndarray:
    """One tensor as a read-only view; none of its elements lies outside of its storage."""
    count = math.prod(tensor.shape)
    if count == 0:
        return np.empty(tensor.shape, elements.dtype)
    last = tensor.offset + sum((side - 1) * step for side, step in zip(tensor.shape, tensor.stride, strict=True))
    if last >= elements.size or count > elements.size:  # the latter: a few elements, repeated with a stride of 0
        raise UnsafeFile(f"tensor {_printable(name)} of shape {tensor.shape} needs more elements than its storage has.")
    strides = [step * elements.itemsize for step in tensor.stride]
    return np.lib.stride_tricks.as_strided(elements[tensor.offset :], tensor.shape, strides, writeable=False)


# --- writing ----------------------------------------------------------------------------------------------------------

_KINDS = {dtype: kind for kind, dtype in DTYPES.items()}
_ORDERED_DICT = b"ccollections\nOrderedDict\n)R"


def write_torch_file(
    path: Path, tensors: dict[str, np.ndarray], notes: dict[str, str | int | float | bool] | None = None
) -> None:
    """Write a state dict as `torch.save` does; the same tensors give the same bytes.

    Args:
        path: replaced in one piece when all is written.
        tensors: float32, float64, float16, integers that PyTorch has, or bool; written in this order.
        notes: plain values; with them the saved object is ``{"state_dict": tensors, **notes}``, else the tensors.

    Raises:
        InputError: a tensor or note that cannot be written, or the file cannot be. An old file is still there then.
    """
    for name, value in tensors.items():
        if value.dtype.name not in _KINDS:
            raise InputError(f"{path}: tensor {name} has dtype {value.dtype}; give one of {', '.join(_KINDS)}.")
    for name, value in (notes or {}).items():
        if name == "state_dict" or type(value) not in (str, int, float, bool):
            raise InputError(f"{path}: note {name} ({type(value).__name__}): give a text or number, not as state_dict.")
    part = path.with_name(f".{path.name}.part")
    try:
        with zipfile.ZipFile(part, "w") as archive:

            def member(name: str, data: bytes) -> None:
                archive.writestr(zipfile.ZipInfo(f"{path.stem}/{name}"), data)  # dated 1980

            member("data.pkl", _pickled(tensors, notes))
            member("byteorder", b"little")
            for key, value in enumerate(tensors.values()):
                member(f"data/{key}", value.astype(value.dtype.newbyteorder("<"), copy=False).tobytes())
            member("version", b"3\n")
        part.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            part.unlink()
        raise InputError(f"{path} cannot be written ({error.strerror}).") from error


def _pickled(tensors: dict[str, np.ndarray], notes: dict | None) -> bytes:
    """The saved object in pickle's instructions; tensor number i is the whole of storage i."""
    parts = [b"\x80\x02"]
    if notes:
        parts += [b"}(", _literal("state_dict")]
    parts += [_ORDERED_DICT, b"("]
    for key, (name, value) in enumerate(tensors.items()):
        strides = tuple(math.prod(value.shape[axis + 1 :]) for axis in range(value.ndim))
        parts += [
            _literal(name),
            b"ctorch._utils\n_rebuild_tensor_v2\n((",
            _literal("storage"),
            f"ctorch\n{_KINDS[value.dtype.name]}Storage\n".encode(),
            *(_literal(field) for field in (str(key), "cpu", value.size)),
            b"tQ",  # the storage, by its persistent identity
            *(_literal(field) for field in (0, value.shape, strides, False)),
            _ORDERED_DICT,  # of hooks
            b"tR",
        ]
    parts.append(b"u")
    if notes:
        parts += [*(_literal(field) for note in notes.items() for field in note), b"u"]
    return b"".join([*parts, b"."])


def _literal(value: str | int | float | tuple) -> bytes:
    """The instructions for a plain value: a pickle without its first and last one."""
    return pickle.dumps(value, 2)[2:-1]


# --- the two containers -----------------------------------------------------------------------------------------------

_MAGIC, _VERSION = 0x1950A86A20F9469CFC6C, 1001  # of the stream
_MAX_PICKLE_BYTES = 2**24  # that of a ResNet-152 with its Adam has less than 1 MB
_ZIP_ERRORS = (zipfile.BadZipFile, OSError, ValueError, RuntimeError, EOFError, struct.error)  # for damage, all of them


def open_container(file: BinaryIO) -> ZipContainer | StreamContainer:
    """Open the container of a file and read its pickle (without running it), not its storages.

    Returns:
        A container: `saved` is the object, with `TensorRef`s in it; `read(storage)` gives the bytes of a storage, in
        the byte order `order`; `total` is the size of the file in bytes.

    Raises:
        UnsafeFile: the file is damaged or not one of `torch.save`, or would run something.
    """
    return ZipContainer(file) if file.read(4) == b"PK\x03\x04" else StreamContainer(file)


class ZipContainer:
    """The zip archive of torch 1.6 and later. `torch.save` never compresses."""

    def __init__(self, file: BinaryIO):
        try:
            self.archive = zipfile.ZipFile(file)
        except _ZIP_ERRORS as error:
            raise _damaged() from error
        names = self.archive.namelist()
        roots = [name.removesuffix("data.pkl") for name in names if name.endswith("/data.pkl")]
        if len(roots) != 1 or len(set(names)) < len(names):
            raise UnsafeFile("it is a zip archive, but none that torch.save writes: it needs one member data.pkl.")
        self.root = roots[0]
        self.total = os.fstat(file.fileno()).st_size
        self.order = "little"
        if f"{self.root}byteorder" in names:  # torch 2.1 and later
            self.order = self._member("byteorder", 16).decode("latin-1")
        if self.order not in ("little", "big"):
            raise _damaged()
        self.saved, _ = _load_pickle(io.BytesIO(self._member("data.pkl", _MAX_PICKLE_BYTES)))

    def read(self, storage: Storage) -> bytes:
        """The bytes of a storage, at most those that it should have."""
        return self._member(f"data/{storage.key}", storage.size)

    def _member(self, name: str, max_bytes: int) -> bytes:
        """The bytes of one member, no more than `max_bytes`; their checksum is right."""
        try:
            member = self.archive.getinfo(self.root + name)
        except KeyError as error:
            raise UnsafeFile(f"its member {_printable(name)} is missing; fetch it again.") from error
        if member.compress_type != zipfile.ZIP_STORED or member.file_size != member.compress_size:
            raise UnsafeFile(f"its member {_printable(name)} is compressed, which PyTorch never does; fetch it again.")
        if member.file_size > max_bytes:
            raise UnsafeFile(f"its member {_printable(name)} is larger than it should be; fetch it again.")
        try:
            return self.archive.read(member)
        except _ZIP_ERRORS as error:
            raise _damaged() from error


class StreamContainer:
    """The stream of pickles and storages of torch before 1.6."""

    order = "little"  # also on big-endian machines: PyTorch swaps when it writes, and does not look at "system"

    def __init__(self, file: BinaryIO):
        self.file, self.total = file, os.fstat(file.fileno()).st_size
        file.seek(0)
        head = io.BytesIO(file.read(_MAX_PICKLE_BYTES))
        if head.getbuffer()[257:262] == b"ustar":
            raise UnsafeFile(
                "it is in PyTorch's first format (tar, before 2017); load it in PyTorch and save it again."
            )
        if _load_pickle(head)[0] != _MAGIC or _load_pickle(head)[0] != _VERSION:
            raise UnsafeFile("it is a pickle, but not a file of torch.save; save model.state_dict() with that.")
        _load_pickle(head)  # the system that wrote it
        self.saved, storages = _load_pickle(head)
        self.starts = self._storage_starts(_load_pickle(head)[0], storages, head.tell())

    def _storage_starts(self, keys: object, storages: dict[str, Storage], at: int) -> dict[str, int]:
        """Where in the file the elements of each storage begin; `at`: where the first count is."""
        if not (
            isinstance(keys, list)
            and all(isinstance(key, str) for key in keys)
            and sorted(keys) == sorted(storages)  # none twice
        ):
            raise _damaged()
        starts = {}
        for key in keys:
            self.file.seek(at)
            if self.file.read(8) != storages[key].count.to_bytes(8, "little"):
                raise _damaged()
            starts[key] = at + 8
            at += 8 + storages[key].size
        if at > self.total:
            raise UnsafeFile("it is cut short; fetch it again.")
        return starts

    def read(self, storage: Storage) -> bytes:
        """The bytes of a storage, at most those that it should have."""
        self.file.seek(self.starts[storage.key])
        return self.file.read(storage.size)


# --- the restricted unpickler -----------------------------------------------------------------------------------------

_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}
_LITERALS = {
    *("BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT", "SHORT_BINBYTES"),
    *("BINUNICODE", "SHORT_BINUNICODE", "BINSTRING", "SHORT_BINSTRING"),  # the last two are Python 2's str
}
_TAKES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3, "APPEND": 1, "SETITEM": 2}  # from the stack; others: down to a mark
# A ResNet-152 with its Adam has less than 100,000; this bounds the time to seconds and the memory to 200 MB.
_MAX_INSTRUCTIONS = 1_000_000


@dataclass(frozen=True)
class Global:
    """Name of a function or class in a pickle, with its module, such as "collections.OrderedDict"; only the name."""

    name: str


class Opaque:
    """Placeholder for a value that is not used here, such as a NumPy array or a record of MMEngine's."""


def _opaque(*_: object) -> Opaque:
    """Stand-in for functions whose result is not used here."""
    return Opaque()


def unpickle(
    stream: BinaryIO, functions: Mapping[str, Callable[..., object]], persistent: Callable[[object], object]
) -> object:
    """Read the object that the next pickle of a stream describes, without running the pickle.

    Containers in it can be nested to any depth and can contain themselves: do not recurse into them or print them.

    Args:
        stream: in memory (`io.BytesIO`: only that never reserves memory for a length that a damaged file claims);
            left behind the pickle.
        functions: what the pickle may name, with module, and what stands for it; gets the pickle's arguments whatever
            they are.
        persistent: makes an object from what the pickle gives as a persistent identity.

    Returns:
        dict (OrderedDict too), list, tuple, str, int, float, bool, None, bytes, `Global`, `Opaque` or what the
        functions return.

    Raises:
        UnsafeFile: the pickle is damaged, or would do anything else than build such an object.
    """
    machine = _Machine(functions, persistent)
    try:
        for count, (opcode, argument, _) in enumerate(pickletools.genops(stream)):
            if count == _MAX_INSTRUCTIONS:
                raise UnsafeFile("it holds far more than a network; save model.state_dict() alone.")
            machine.step(opcode.name, argument)
    except (ValueError, DeprecationWarning) as error:  # the latter from pickletools for a wrong escape under "-W error"
        raise _damaged() from error
    return machine.pop()


def _put(target: dict, key: object, value: object) -> None:
    """Add an entry to a dict; refuses a key that is there already, and keys that no checkpoint has.

    (Tuples and enormous integers can be made so that their hashes take forever, or are all the same.)
    """
    if not (isinstance(key, str) or (isinstance(key, int) and abs(key) < 2**60)):
        raise UnsafeFile(f"it has a strange key ({type(key).__name__}) in a dict; save model.state_dict() alone.")
    if key in target:
        raise UnsafeFile(f"it has the key {_printable(key)} twice in one dict; fetch the file again.")
    target[key] = value


def _printable(name: object) -> str:
    """A name from a file, short and printable, for messages."""
    text = repr(name[:80] if isinstance(name, str) else name)
    return text[1:-1] if isinstance(name, str) else text


def _damaged() -> UnsafeFile:
    """Exception for content that torch.save never writes."""
    return UnsafeFile("it is damaged, cut short or not a PyTorch file; fetch it again.")


class _Machine:
    """Stack machine of a pickle; a mark sets the stack aside and starts a new one."""

    def __init__(self, functions, persistent):
        self.functions, self.persistent = functions, persistent
        self.stack, self.marked, self.memo = [], [], {}

    def pop(self) -> object:
        if not self.stack:
            raise _damaged()
        return self.stack.pop()

    def pop_to_mark(self) -> list:
        if not self.marked:
            raise _damaged()
        items, self.stack = self.stack, self.marked.pop()
        return items

    def top(self, kind: type) -> object:
        if not (self.stack and isinstance(self.stack[-1], kind)):
            raise _damaged()
        return self.stack[-1]

    def step(self, name: str, argument: object) -> None:
        """Execute one instruction."""
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
                    raise _damaged()
                self.stack.append(self.memo[argument])
            case _ if name.startswith(("TUPLE", "APPEND", "SETITEM")):
                self.fill(name)
            case _:
                self.call(name, argument)

    def fill(self, name: str) -> None:
        """Execute an instruction that moves items from the stack into a container."""
        items = [self.pop() for _ in range(_TAKES[name])][::-1] if name in _TAKES else self.pop_to_mark()
        if name.startswith("TUPLE"):
            self.stack.append(tuple(items))
        elif name.startswith("APPEND"):
            self.top(list).extend(items)
        else:
            for key, value in zip(items[::2], items[1::2], strict=True):  # ValueError if one is left over
                _put(self.top(dict), key, value)

    def call(self, name: str, argument: object) -> None:
        """Execute, or refuse, an instruction with which a pickle could do harm."""
        match name:
            case "GLOBAL":
                self.stack.append(self.named(*argument.split(" ", 1)))
            case "STACK_GLOBAL":
                attribute, module = self.pop(), self.pop()
                self.stack.append(self.named(module, attribute))
            case "REDUCE" | "NEWOBJ":
                arguments, function = self.pop(), self.pop()
                if not (isinstance(function, Global) and isinstance(arguments, tuple) and len(arguments) < 10):
                    raise _damaged()
                self.stack.append(self.functions[function.name](*arguments))
            case "BUILD" if len(self.stack) > 1 and isinstance(self.stack[-2], dict | Opaque):
                self.stack.pop()  # attributes: an OrderedDict's (PyTorch's _metadata) or a NumPy dtype's; left unread
            case "BINPERSID":
                self.stack.append(self.persistent(self.pop()))
            case _:
                what = f"{name} ({_printable(argument)})" if isinstance(argument, str) else name
                raise UnsafeFile(f"its pickle has the instruction {what}, which no state dict needs; nothing was run.")

    def named(self, module: object, attribute: object) -> Global:
        """The function or class of that name; refused if it is not in the table."""
        if not (isinstance(module, str) and isinstance(attribute, str)):
            raise _damaged()
        name = f"{module}.{attribute}"
        if name not in self.functions:
            if module.split(".")[0] in ("__main__", "__torch__") or name.startswith("torch.nn."):
                raise UnsafeFile(
                    f"it holds a whole pickled model or object ({_printable(name)}), not a state dict; "
                    "save model.state_dict() instead."
                )
            raise UnsafeFile(f"it would run `{_printable(name)}`; nothing was run. Save model.state_dict() alone.")
        return Global(name)


# --- the tensors that a pickle describes ------------------------------------------------------------------------------

_MAX_ELEMENTS = 2**40  # more than any tensor has, and little enough that sizes and strides in bytes fit into 64 bits
_MAX_AXES = 32  # NumPy's least limit


@dataclass(frozen=True)
class Storage:
    """The elements that tensors are views of, by name; `kind` is a key of `DTYPES`, or `BFLOAT16`."""

    key: str
    kind: str
    count: int

    @property
    def dtype(self) -> np.dtype:
        """Of the elements in the file, in no special byte order."""
        return np.dtype("uint16" if self.kind == BFLOAT16 else DTYPES[self.kind])

    @property
    def size(self) -> int:
        """In bytes."""
        return self.count * self.dtype.itemsize


@dataclass(frozen=True)
class TensorRef:
    """A view of a storage; offset and strides in elements, none of them checked against the storage."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]


def _tensor(*arguments: object) -> TensorRef:
    match arguments:  # then requires_grad and hooks; a seventh argument tells of negated or conjugated elements
        case (Storage() as storage, int(offset), tuple(shape), tuple(stride), *rest) if (
            len(rest) <= 2
            and len(shape) == len(stride) <= _MAX_AXES
            and all(isinstance(number, int) and 0 <= number < _MAX_ELEMENTS for number in (offset, *shape, *stride))
            and math.prod(side or 1 for side in shape) < _MAX_ELEMENTS
        ):
            return TensorRef(storage, offset, shape, stride)
    raise UnsafeFile("it describes a tensor in a way that PyTorch does not; fetch it again.")


def _parameter(*arguments: object) -> TensorRef:
    match arguments:
        case (TensorRef() as tensor, *_):
            return tensor
    raise _damaged()


def _ordered_dict(*arguments: object) -> dict:
    match arguments:
        case ():
            return {}
        case (list(pairs),):  # Python 2
            result = {}
            for pair in pairs:
                if not (isinstance(pair, list | tuple) and len(pair) == 2):
                    raise _damaged()
                _put(result, *pair)
            pairs.clear()  # or a pickle could have this list copied a million times
            return result
    raise _damaged()


def _attribute(*arguments: object) -> Opaque:
    """Stand-in for `getattr`, by which MMEngine's records name their own methods; no attribute is ever looked up."""
    match arguments:
        case (Global(name), str()) if name == _RECORD:
            return Opaque()
    raise UnsafeFile("it would run `getattr`; nothing was run. Save model.state_dict() alone.")


_RECORD = "mmengine.logging.history_buffer.HistoryBuffer"
_STORAGES = {f"torch.{kind}Storage": kind for kind in (*DTYPES, BFLOAT16)}
_FUNCTIONS = {
    "collections.OrderedDict": _ordered_dict,
    "torch._utils._rebuild_tensor": _tensor,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_parameter": _parameter,
    **dict.fromkeys(_STORAGES, _opaque),
    **dict.fromkeys((f"torch.{dtype}" for dtype in (*DTYPES.values(), "bfloat16")), _opaque),
    **dict.fromkeys(("torch.Size", "torch.device", "numpy.dtype", "_codecs.encode"), _opaque),
    "collections.Counter": _opaque,  # in the state of learning rate schedules
    **dict.fromkeys(
        (f"numpy.{core}.multiarray.{name}" for core in ("core", "_core") for name in ("scalar", "_reconstruct")),
        _opaque,
    ),
    **dict.fromkeys(("numpy.ndarray", _RECORD), _opaque),
    **dict.fromkeys(("__builtin__.getattr", "builtins.getattr"), _attribute),
}


def _load_pickle(stream: BinaryIO) -> tuple[object, dict[str, Storage]]:
    """The object of the next pickle, and the storages that it names."""
    storages = {}

    def persistent(identity: object) -> Storage:
        match identity:  # the fourth is the device; a sixth would tell which storage this one is a part of
            case ("storage", Global(name), str(key), str(), int(count)) | (
                "storage",
                Global(name),
                str(key),
                str(),
                int(count),
                None,
            ) if name in _STORAGES and 0 <= count < _MAX_ELEMENTS:
                storage = Storage(key, _STORAGES[name], count)
            case _:
                raise UnsafeFile("it describes a storage in a way that is not known; save it with a newer PyTorch.")
        if storages.setdefault(key, storage) != storage:
            raise UnsafeFile(f"it describes storage {_printable(key)} in two ways; fetch it again.")
        return storage

    return unpickle(stream, _FUNCTIONS, persistent), storages

"""The two containers of `torch.save`, and the description of tensors in them.

`torch.save` writes a pickle, which describes the object, and beside it the bytes of the storages, which the tensors are
views of: since torch 1.6 as the members ``<root>/data.pkl`` and ``<root>/data/<key>`` of a zip archive; before as a
stream of five pickles (magic number, version, system, object, keys of the storages) followed by the storages in the
order of the keys, each an int64 count and its elements.

Opening a container reads the pickle (without running it, see `pickles`), not the storages. No memory is taken for a
size that only the file claims.

Source: what `torch.save` of torch 0.4 to 2.13 writes.
"""

from __future__ import annotations

import io
import math
import os
import struct
import zipfile
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np

from keras_mrpose.checkpoints.restricted_unpickler import Global, UnsafeFile, damaged, load, opaque, put, shown

DTYPES = {  # of the storages, in the file and in memory
    **{"Float": "float32", "Double": "float64", "Half": "float16", "Bool": "bool", "Byte": "uint8"},
    **{"Char": "int8", "Short": "int16", "Int": "int32", "Long": "int64"},
}
BFLOAT16 = "BFloat16"  # the upper half of a float32, for which NumPy has no type
_MAGIC, _VERSION = 0x1950A86A20F9469CFC6C, 1001  # of the stream
_PICKLE_BYTES = 2**24  # that of a ResNet-152 with its Adam has less than 1 MB
_ELEMENTS = 2**40  # more than any tensor has, and little enough that sizes and strides in bytes fit into 64 bits
_AXES = 32  # NumPy's least limit
_ZIP_ERRORS = (zipfile.BadZipFile, OSError, ValueError, RuntimeError, EOFError, struct.error)  # for damage, all of them


# --- what the pickle says --------------------------------------------------------------------------------------------


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
            and len(shape) == len(stride) <= _AXES
            and all(isinstance(number, int) and 0 <= number < _ELEMENTS for number in (offset, *shape, *stride))
            and math.prod(side or 1 for side in shape) < _ELEMENTS
        ):
            return TensorRef(storage, offset, shape, stride)
    raise UnsafeFile("it describes a tensor in a way that PyTorch does not; fetch it again.")


def _parameter(*arguments: object) -> TensorRef:
    match arguments:
        case (TensorRef() as tensor, *_):
            return tensor
    raise damaged()


def _ordered_dict(*arguments: object) -> dict:
    match arguments:
        case ():
            return {}
        case (list(pairs),):  # Python 2
            result = {}
            for pair in pairs:
                if not (isinstance(pair, list | tuple) and len(pair) == 2):
                    raise damaged()
                put(result, *pair)
            pairs.clear()  # or a pickle could have this list copied a million times
            return result
    raise damaged()


_STORAGES = {f"torch.{kind}Storage": kind for kind in (*DTYPES, BFLOAT16)}
_FUNCTIONS = {
    "collections.OrderedDict": _ordered_dict,
    "torch._utils._rebuild_tensor": _tensor,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_parameter": _parameter,
    **dict.fromkeys(_STORAGES, opaque),
    **dict.fromkeys((f"torch.{dtype}" for dtype in (*DTYPES.values(), "bfloat16")), opaque),
    **dict.fromkeys(("torch.Size", "torch.device", "numpy.dtype", "_codecs.encode"), opaque),
    "collections.Counter": opaque,  # in the state of learning rate schedules
    **dict.fromkeys((f"numpy.{core}.multiarray.scalar" for core in ("core", "_core")), opaque),
}


def _load(stream: BinaryIO) -> tuple[object, dict[str, Storage]]:
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
            ) if name in _STORAGES and 0 <= count < _ELEMENTS:
                storage = Storage(key, _STORAGES[name], count)
            case _:
                raise UnsafeFile("it describes a storage in a way that is not known; save it with a newer PyTorch.")
        if storages.setdefault(key, storage) != storage:
            raise UnsafeFile(f"it describes storage {shown(key)} in two ways; fetch it again.")
        return storage

    return load(stream, _FUNCTIONS, persistent), storages


# --- the two containers ----------------------------------------------------------------------------------------------


def open_container(file: BinaryIO) -> Zip | Stream:
    """Reads what was saved in a file that is open for reading.

    Returns:
        a container: `saved` is the object, with `Tensor`s in it; `read(storage)` gives the bytes of a storage, in the
        byte order `order`; `total` is the size of the file in bytes.

    Raises:
        Refused: the file is damaged or not one of `torch.save`, or would run something.
    """
    return Zip(file) if file.read(4) == b"PK\x03\x04" else Stream(file)


class Zip:
    """The zip archive of torch 1.6 and later. `torch.save` never compresses."""

    def __init__(self, file: BinaryIO):
        try:
            self.archive = zipfile.ZipFile(file)
        except _ZIP_ERRORS as error:
            raise damaged() from error
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
            raise damaged()
        self.saved, _ = _load(io.BytesIO(self._member("data.pkl", _PICKLE_BYTES)))

    def read(self, storage: Storage) -> bytes:
        """The bytes of a storage, at most those that it should have."""
        return self._member(f"data/{storage.key}", storage.size)

    def _member(self, name: str, most: int) -> bytes:
        """The bytes of one member, no more than `most`; their checksum is right."""
        try:
            member = self.archive.getinfo(self.root + name)
        except KeyError as error:
            raise UnsafeFile(f"its member {shown(name)} is missing; fetch it again.") from error
        if member.compress_type != zipfile.ZIP_STORED or member.file_size != member.compress_size:
            raise UnsafeFile(f"its member {shown(name)} is compressed, which PyTorch never does; fetch it again.")
        if member.file_size > most:
            raise UnsafeFile(f"its member {shown(name)} is larger than it should be; fetch it again.")
        try:
            return self.archive.read(member)
        except _ZIP_ERRORS as error:
            raise damaged() from error


class Stream:
    """The stream of pickles and storages of torch before 1.6."""

    order = "little"  # also on big-endian machines: PyTorch swaps when it writes, and does not look at "system"

    def __init__(self, file: BinaryIO):
        self.file, self.total = file, os.fstat(file.fileno()).st_size
        file.seek(0)
        head = io.BytesIO(file.read(_PICKLE_BYTES))
        if head.getbuffer()[257:262] == b"ustar":
            raise UnsafeFile(
                "it is in PyTorch's first format (tar, before 2017); load it in PyTorch and save it again."
            )
        if _load(head)[0] != _MAGIC or _load(head)[0] != _VERSION:
            raise UnsafeFile("it is a pickle, but not a file of torch.save; save model.state_dict() with that.")
        _load(head)  # the system that wrote it
        self.saved, storages = _load(head)
        self.starts = self._storage_starts(_load(head)[0], storages, head.tell())

    def _storage_starts(self, keys: object, storages: dict[str, Storage], at: int) -> dict[str, int]:
        """Where in the file the elements of each storage begin; `at`: where the first count is."""
        if not (
            isinstance(keys, list)
            and all(isinstance(key, str) for key in keys)
            and sorted(keys) == sorted(storages)  # none twice
        ):
            raise damaged()
        starts = {}
        for key in keys:
            self.file.seek(at)
            if self.file.read(8) != storages[key].count.to_bytes(8, "little"):
                raise damaged()
            starts[key] = at + 8
            at += 8 + storages[key].size
        if at > self.total:
            raise UnsafeFile("it is cut short; fetch it again.")
        return starts

    def read(self, storage: Storage) -> bytes:
        """The bytes of a storage, at most those that it should have."""
        self.file.seek(self.starts[storage.key])
        return self.file.read(storage.size)

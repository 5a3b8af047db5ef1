"""Reader of MATLAB 5 files (``.mat``, before version 7.3) that survives damaged and hostile ones.

Why not `scipy.io.loadmat`: it allocates whatever a file claims (a file of 128 bytes asks for 16 GB), and ends the
process with a segmentation fault on deeply nested arrays. A look at `scipy.io.whosmat` first does not help: of MPII's
release it sees one struct, and everything above can lie inside it (SciPy 1.17). Here every size is checked against the
bytes that are there before memory is taken, and unpacked bytes, arrays and depth have a limit.

Source: "MAT-File Format", MathWorks, version 5.
"""

from __future__ import annotations

import math
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np

from keras_mrpose.errors import InputError, short_message

_TYPES = {  # of stored numbers
    **{1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4"},
    **{7: "f4", 9: "f8", 12: "i8", 13: "u8"},
}
_TEXT = {1: "latin-1", 2: "latin-1", 4: "utf-16", 16: "utf-8", 17: "utf-16", 18: "utf-32"}
_INT8, _INT32, _UINT32, _MATRIX, _COMPRESSED = 1, 5, 6, 14, 15
_CELL, _STRUCT, _OBJECT, _CHAR, _NUMBERS = 1, 2, 3, 4, range(6, 16)  # classes of arrays
_COMPLEX = 0x800  # flag of an array
_TAG = 8  # bytes; every element has one, and is filled up to a multiple of so many
MAX_BYTES = 2**29  # MPII's release, the largest by far, has some 150 MB when it is unpacked
MAX_ARRAYS = 10**7  # that has some 2 million: a bound to the time
MAX_DEPTH = 32  # that has 6 levels; also the axes that an array may have, NumPy's least limit


def read(file: str | Path, advice: str, *names: str) -> dict[str, np.ndarray]:
    """Variables of a MATLAB file, those of these names that it has.

    Returns:
        Numbers are arrays of the type and shape in which they are stored; text is an array of strings, one for each
        row of it; a cell array is an array of objects; a struct array is an array of `SimpleNamespace`.

    Raises:
        InputError: the file is missing (then with the advice), damaged, not one of MATLAB 5, or unpacks to more than
            half a gigabyte.
    """
    try:
        content = Path(file).read_bytes()
        return {name: array() for name, array in _variables(content) if name in names}
    except FileNotFoundError:
        raise InputError(f"{file} is not there; {advice}.") from None
    except (OSError, ValueError, OverflowError, struct.error, zlib.error) as error:
        raise InputError(
            f"{file} cannot be read as a MATLAB file ({short_message(error)}); download it again."
        ) from error


def _variables(content: bytes) -> Iterator[tuple[str, object]]:
    """The name of each variable and a function that makes its value."""
    order = {b"IM": "<", b"MI": ">"}.get(content[126:128])
    if order is None or struct.unpack_from(f"{order}H", content, 124)[0] != 0x100:
        raise ValueError("it has not the header of MATLAB 5")
    left, at = MAX_BYTES, 128
    while at < len(content):
        reader = _Reader(content, order)
        kind, begin, end, at = reader.element(at, len(content))
        if kind == _COMPRESSED:
            at = end  # these alone are not filled up
            unpacked = _unpacked(content[begin:end], left)
            left -= len(unpacked)
            reader = _Reader(unpacked, order)
            kind, begin, end, _ = reader.element(0, len(unpacked))
        if kind == _MATRIX:
            yield reader.variable(begin, end)


def _unpacked(packed: bytes, most: int) -> bytes:
    stream = zlib.decompressobj()
    unpacked = stream.decompress(packed, most)
    if not stream.eof:
        raise ValueError("a compressed variable is cut short" if len(unpacked) < most else "it unpacks to gigabytes")
    return unpacked


class _Reader:
    """Elements in a buffer: a tag with kind and length, and the content. Places are bytes from the buffer's begin."""

    def __init__(self, buffer: bytes, order: str):
        self.buffer, self.order, self.arrays = buffer, order, 0
        self.tag = struct.Struct(f"{order}II").unpack_from

    def element(self, at: int, end: int) -> tuple[int, int, int, int]:
        """Kind, begin and end of the element at a place, and where the next is; it ends before `end`."""
        if at + _TAG > end:
            raise ValueError(f"it is cut short at byte {at}")
        kind, size = self.tag(self.buffer, at)
        begin = at + _TAG
        if kind >> 16:  # up to four bytes lie in the tag itself
            kind, size, begin = kind & 0xFFFF, kind >> 16, at + 4
            if size > 4:
                raise ValueError(f"byte {at} begins no element")
        if begin + size > end:
            raise ValueError(f"the element at byte {at} claims {size} bytes, {end - begin} are left")
        return kind, begin, begin + size, begin + size + (-(begin + size) % _TAG)

    def variable(self, begin: int, end: int) -> tuple[str, object]:
        """The name of an array and a function that reads it."""
        name = self.head(begin, end)[3]
        return name, lambda: self.array(begin, end, MAX_DEPTH)

    def head(self, begin: int, end: int) -> tuple[int, int, tuple[int, ...], str, int]:
        """Class, flags, shape and name of an array, and where its values begin."""
        kind, first, last, at = self.element(begin, end)
        if kind != _UINT32 or last - first != 8:
            raise ValueError(f"byte {begin} begins no array")
        (flags,) = struct.unpack_from(f"{self.order}I", self.buffer, first)
        kind, first, last, at = self.element(at, end)
        axes = (last - first) // 4
        if kind != _INT32 or not 2 <= axes <= MAX_DEPTH:
            raise ValueError(f"the array at byte {begin} has no shape")
        shape = struct.unpack_from(f"{self.order}{axes}i", self.buffer, first)
        if min(shape) < 0:
            raise ValueError(f"the array at byte {begin} has the shape {shape}")
        kind, first, last, at = self.element(at, end)
        return flags & 0xFF, flags, shape, self.buffer[first:last].decode("latin-1"), at

    def array(self, begin: int, end: int, levels: int) -> np.ndarray:
        """The array whose content lies there; in it, arrays may lie in arrays so many levels deep."""
        self.arrays += 1
        if begin == end:
            return np.zeros((0, 0))
        if not levels or self.arrays > MAX_ARRAYS:
            raise ValueError("arrays lie in arrays deeper than anybody would put them, or are too many")
        kind, flags, shape, _, at = self.head(begin, end)
        if kind in _NUMBERS and not flags & _COMPLEX:
            return self.numbers(shape, at, end)
        if kind == _CHAR:
            return self.text(shape, at, end)
        if kind == _CELL:
            return _shaped(self.children(math.prod(shape), at, end, levels), shape)
        if kind in (_STRUCT, _OBJECT):
            return _shaped(self.structs(math.prod(shape), kind, at, end, levels), shape)
        raise ValueError(f"the array at byte {begin} is of class {kind}: neither real numbers, text, cells nor structs")

    def numbers(self, shape: tuple[int, ...], at: int, end: int) -> np.ndarray:
        """The values of an array of numbers."""
        kind, begin, last, _ = self.element(at, end)
        if kind not in _TYPES:
            raise ValueError(f"byte {at} begins no numbers")
        dtype = np.dtype(self.order + _TYPES[kind])
        if math.prod(shape) * dtype.itemsize != last - begin:
            raise ValueError(f"an array of shape {shape} at byte {at} has {last - begin} bytes")
        return np.frombuffer(self.buffer, dtype, math.prod(shape), begin).reshape(shape, order="F")

    def text(self, shape: tuple[int, ...], at: int, end: int) -> np.ndarray:
        """The rows of an array of letters."""
        if not math.prod(shape):
            return np.zeros(0, str)
        kind, begin, last, _ = self.element(at, end)
        if kind not in _TEXT:
            raise ValueError(f"byte {at} begins no text")
        wide = {"<": "-le", ">": "-be"}[self.order] if _TEXT[kind] in ("utf-16", "utf-32") else ""
        letters = self.buffer[begin:last].decode(_TEXT[kind] + wide)
        if len(letters) != math.prod(shape):
            raise ValueError(f"a text of shape {shape} at byte {at} has {len(letters)} letters")
        return np.array(["".join(letters[row :: shape[0]]) for row in range(shape[0])])

    def children(self, count: int, at: int, end: int, levels: int) -> list[np.ndarray]:
        """So many arrays, one after the other."""
        if count * _TAG > end - at:
            raise ValueError(f"{count} arrays at byte {at} claim more than the {end - at} bytes that are left")
        found = []
        for _ in range(count):
            kind, begin, last, at = self.element(at, end)
            if kind != _MATRIX:
                raise ValueError(f"byte {begin} begins no array")
            found.append(self.array(begin, last, levels - 1))
        return found

    def structs(self, count: int, kind: int, at: int, end: int, levels: int) -> list[SimpleNamespace]:
        """So many records of the same fields."""
        if kind == _OBJECT:
            at = self.element(at, end)[3]  # the name of its class
        _, begin, last, at = self.element(at, end)
        length = int.from_bytes(self.buffer[begin:last], {"<": "little", ">": "big"}[self.order])
        _, begin, last, at = self.element(at, end)
        if not length or (last - begin) % length or begin == last:
            raise ValueError(f"the structs at byte {at} have no fields")
        words = (self.buffer[first : first + length] for first in range(begin, last, length))
        fields = [word.split(b"\0")[0].decode("latin-1") for word in words]
        values = self.children(count * len(fields), at, end, levels)
        width = len(fields)
        return [
            SimpleNamespace(**dict(zip(fields, values[first : first + width], strict=True)))
            for first in range(0, len(values), width)
        ]


def _shaped(items: list, shape: tuple[int, ...]) -> np.ndarray:
    """An array of these objects, which are in MATLAB's order."""
    array = np.empty(len(items), object)
    for place, item in enumerate(items):  # as a slice NumPy would look into them
        array[place] = item
    return array.reshape(shape, order="F")

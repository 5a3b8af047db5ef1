"""Reads a ``.npz`` file without trusting it.

`numpy.load` takes memory for whatever shape a header claims, unpacks a thousand times what is there, and fails in a
dozen ways. Here sizes are checked first, and nothing in the file is ever run.

Source: `numpy.lib.format`, versions 1 and 2.
"""

from __future__ import annotations

import math
import warnings
import zipfile
from pathlib import Path

import numpy as np

_MOST_TIMES = 20  # that an archive unpacks to; weights hardly get smaller
_SLACK = 2**24  # bytes that it may have on top, of zeros


def read_npz(path: Path) -> dict[str, np.ndarray]:
    """All arrays of the file, in its order, read-only.

    Raises:
        OSError: the file cannot be opened.
        ValueError: it is damaged, is none, or holds something else than arrays of numbers, words or booleans.
    """
    try:
        with zipfile.ZipFile(path) as archive, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of Python, about words in a header that is none
            members = archive.infolist()
            if sum(member.file_size for member in members) > _MOST_TIMES * path.stat().st_size + _SLACK:
                raise ValueError(f"it unpacks to more than {_MOST_TIMES} times its size")
            return {member.filename.removesuffix(".npy"): _array(archive, member) for member in members}
    except (OSError, ValueError):
        raise
    except Exception as error:  # zipfile, zlib and the parser of headers raise many kinds for damage
        raise ValueError(f"{type(error).__name__}: {error}") from error


def npz_names(path: Path) -> list[str]:
    """Names of the arrays in a file, without reading them; none if it is damaged: `read_npz` says what is wrong."""
    try:
        with zipfile.ZipFile(path) as archive:
            return [name.removesuffix(".npy") for name in archive.namelist()]
    except Exception:  # of many kinds, as above
        return []


def _array(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> np.ndarray:
    with archive.open(member) as stream:
        headers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
        shape, is_fortran, dtype = headers[np.lib.format.read_magic(stream)](stream)
        content = stream.read()
    if dtype.kind not in "biufU" or any(side < 0 for side in shape):
        raise ValueError(f"its member {member.filename!r} is an array of {dtype} with shape {shape}")
    if math.prod(shape) * dtype.itemsize != len(content):
        raise ValueError(f"its member {member.filename!r} of shape {shape} has {len(content)} bytes")
    if not content:
        return np.empty(shape, dtype)
    return np.frombuffer(content, dtype).reshape(shape, order="F" if is_fortran else "C")

"""MATLAB files: the values that SciPy reads, and nothing that a file claims without having it."""

import io
import resource
import struct
import time
import zlib
from pathlib import Path

import numpy as np
import pytest
from scipy.io import loadmat, savemat

from keras_mrpose.data import matlab
from keras_mrpose.errors import InputError

HEAD = b"MATLAB 5.0 MAT-file, made up".ljust(124) + struct.pack("<H", 0x100) + b"IM"
EMPTY = np.zeros((0, 0))


def cells(*values):
    array = np.empty((len(values), 1), object)
    for place, value in enumerate(values):
        array[place, 0] = value
    return array


def written(path, **variables):
    savemat(path, variables, do_compression=path.stem == "packed")
    return path


def same(ours, scipys):
    """SciPy's structs are records with `_fieldnames`."""
    ours, scipys = np.asarray(ours), np.asarray(scipys)
    if scipys.dtype != object:
        assert ours.dtype == scipys.dtype
        np.testing.assert_array_equal(ours, scipys, strict=True)
        return
    assert ours.shape == scipys.shape
    for mine, theirs in zip(ours.ravel(), scipys.ravel(), strict=True):
        if hasattr(theirs, "_fieldnames"):
            assert list(vars(mine)) == theirs._fieldnames
            for name in theirs._fieldnames:
                same(getattr(mine, name), getattr(theirs, name))
        else:
            same(mine, theirs)


@pytest.mark.parametrize("name", ["plain.mat", "packed.mat"])
def test_everything_that_scipy_writes(name, tmp_path):
    draw = np.random.default_rng(0)
    variables = {
        **{
            kind: draw.integers(0, 100, (2, 3, 4)).astype(kind)
            for kind in ("int8", "uint8", "int16", "uint16", "int32")
        },
        **{kind: draw.integers(0, 100, (3, 5)).astype(kind) for kind in ("uint32", "int64", "uint64", "float32")},
        **{"double": draw.normal(size=(1, 7)), "one": 3.5, "none": EMPTY, "yes": np.array([[True, False]])},
        **{
            "word": "a word",
            "rows": np.array(["ab", "cd", "ef"]),
            "cells": cells("x", EMPTY, np.eye(3), cells(1.0, "z")),
        },
        "struct": {"name": "im.jpg", "inner": {"x": 1, "y": [2.5, 3]}, "list": cells({"a": 1}, {"b": "two"})},
    }
    path = written(tmp_path / name, **variables)
    expected = loadmat(path, struct_as_record=False)
    found = matlab.read(path, "", *variables)
    assert set(found) == set(variables)
    for key in set(variables) - {"one"}:
        same(found[key], expected[key])
    assert found["one"].shape == (1, 1) and found["one"] == 3.5


def test_real_files(shared):
    for path in sorted((shared / "data").rglob("*.mat")):
        expected = {name: value for name, value in loadmat(path).items() if name[0] != "_"}
        found = matlab.read(path, "", *expected)
        assert set(found) == set(expected)
        for name, value in expected.items():
            same(found[name], value)


def test_only_what_is_asked_for(tmp_path):
    path = written(tmp_path / "plain.mat", one=1, two=2)
    assert set(matlab.read(path, "", "two", "three")) == {"two"}


def test_big_endian(tmp_path):
    body = struct.pack(">IIII", 6, 8, 6, 0) + struct.pack(">IIii", 5, 8, 2, 3)
    body += struct.pack(">I", 1 << 16 | 1) + b"x\0\0\0" + struct.pack(">II6d", 9, 48, *range(6))
    head = HEAD[:124] + struct.pack(">H", 0x100) + b"MI"
    (tmp_path / "big.mat").write_bytes(head + struct.pack(">II", 14, len(body)) + body)
    found = matlab.read(tmp_path / "big.mat", "", "x")["x"]
    assert found.tolist() == [[0, 2, 4], [1, 3, 5]]


# --- hostile ------------------------------------------------------------------------------------------------------


def array(kind, shape, body, name=b""):
    head = struct.pack("<IIII", 6, 8, kind, 0) + struct.pack("<II", 5, 4 * len(shape))
    head += struct.pack(f"<{len(shape)}i", *shape) + b"\0" * (-4 * len(shape) % 8)
    head += struct.pack("<II", 1, len(name)) + name + b"\0" * (-len(name) % 8)
    return struct.pack("<II", 14, len(head) + len(body)) + head + body


def deep(levels):
    """Cells in cells, from the outermost; written without copying what is inside again and again."""
    unit = len(array(1, (1, 1), b""))
    inside = array(6, (1, 1), struct.pack("<IId", 9, 8, 1.0))
    heads = [array(1, (1, 1), b"")[8:]] * levels
    sizes = [unit * (levels - level) - 8 + len(inside) for level in range(levels)]
    return b"".join(struct.pack("<II", 14, size) + head for size, head in zip(sizes, heads, strict=True)) + inside


def bomb(megabytes):
    stream = zlib.compressobj(9)
    parts = [stream.compress(struct.pack("<II", 14, 2**20 * megabytes - 8))]
    zeros = bytes(2**20)
    return b"".join([*parts, *(stream.compress(zeros) for _ in range(megabytes)), stream.flush()])


def packed(content):
    return struct.pack("<II", 15, len(content)) + content


FIELDS = struct.pack("<IIII", 4 << 16 | 5, 8, 1, 8) + b"x".ljust(8, b"\0")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (array(1, (1, 2**31 - 1), b"", b"joints"), "claim more than the 0 bytes that are left"),
        (array(2, (2**30, 1), FIELDS, b"joints"), "claim more than the 0 bytes"),
        (array(2, (2**30, 1), FIELDS[:8] + struct.pack("<II", 1, 0), b"joints"), "have no fields"),
        (array(6, (2**31 - 1, 2**31 - 1), struct.pack("<II", 9, 0), b"joints"), "has 0 bytes"),
        (array(6, (1, 1), struct.pack("<II", 9, 2**32 - 8), b"joints"), "claims 4294967288 bytes"),
        (array(6, (-1, 1), struct.pack("<IId", 9, 8, 1.0), b"joints"), r"has the shape \(-1, 1\)"),
        (array(6, (1,) * 40, struct.pack("<IId", 9, 8, 1.0), b"joints"), "has no shape"),
        (array(4, (1, 2**31 - 1), struct.pack("<II", 1, 0), b"joints"), "has 0 letters"),
        (array(5, (1, 1), b"", b"joints"), "of class 5"),
        (array(1, (1, 1), deep(100_000), b"joints"), "deeper than anybody"),
        (packed(bomb(40)), "unpacks to gigabytes"),
        (packed(zlib.compress(array(6, (1, 1), struct.pack("<IId", 9, 8, 1.0)))[:-6]), "cut short"),
        (packed(b"nothing"), "cannot be read as a MATLAB file"),
        (b"\0" * 7, "cut short at byte 128"),
    ],
)
def test_hostile_files_are_refused_at_once(content, words, monkeypatch, tmp_path):
    monkeypatch.setattr(matlab, "MAX_BYTES", 2**25)
    path = tmp_path / "joints.mat"
    path.write_bytes(HEAD + content)
    before, begin = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.thread_time()
    with pytest.raises(InputError, match=words) as caught:
        matlab.read(path, "", "joints")
    assert str(caught.value).startswith(f"{path} cannot be read as a MATLAB file")
    assert time.thread_time() - begin < 3
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 2**10
    assert grown < 100


def test_too_many_arrays(monkeypatch, tmp_path):
    monkeypatch.setattr(matlab, "MAX_ARRAYS", 100)
    for count, fits in ((90, True), (110, False)):
        path = written(tmp_path / f"{count}.mat", cells=cells(*range(count)))
        if fits:
            assert matlab.read(path, "", "cells")["cells"].shape == (count, 1)
        else:
            with pytest.raises(InputError, match="or are too many"):
                matlab.read(path, "", "cells")


@pytest.mark.parametrize("content", [b"", b"nothing", HEAD[:127], HEAD[:126] + b"XX", HEAD[:124] + b"\0\2IM"])
def test_files_of_another_kind(content, tmp_path):
    (tmp_path / "a.mat").write_bytes(content)
    with pytest.raises(InputError, match="header of MATLAB 5"):
        matlab.read(tmp_path / "a.mat", "")


def test_missing_files_and_folders(tmp_path):
    with pytest.raises(InputError, match=r"a\.mat is not there; do this\."):
        matlab.read(tmp_path / "a.mat", "do this")
    with pytest.raises(InputError, match="cannot be read as a MATLAB file"):
        matlab.read(tmp_path, "")


def test_cut_at_every_byte(tmp_path):
    """Nothing else than an `InputError` comes of it, and never a value that is not the whole one."""
    stream = io.BytesIO()
    savemat(stream, {"s": {"a": np.arange(3.0), "b": "word", "c": cells(1, "x")}})
    whole, path = stream.getvalue(), Path(tmp_path, "a.mat")
    for size in (*range(128, 200), *range(200, len(whole), 17)):
        path.write_bytes(whole[:size])
        try:
            assert not matlab.read(path, "", "s")
        except InputError:
            continue
        assert size == 128

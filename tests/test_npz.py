"""Archives of arrays: what NumPy wrote, and nothing that a file claims without having it."""

import io
import resource
import zipfile

import numpy as np
import pytest

from keras_mrpose.checkpoints.npz import read_npz

ARRAYS = {
    **{
        kind: np.arange(24).reshape(2, 3, 4).astype(kind)
        for kind in ("float16", "float32", "float64", "int64", "uint8")
    },
    **{"turned": np.asfortranarray(np.arange(6.0).reshape(2, 3)), "one": np.array(2.5), "none": np.zeros((0, 3))},
    **{"yes": np.array([True, False]), "word": np.array("torchvision"), "big": np.arange(3, dtype=">i4")},
}


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_what_numpy_wrote(save, tmp_path):
    save(tmp_path / "a.npz", **ARRAYS)
    found = read_npz(tmp_path / "a.npz")
    assert list(found) == list(ARRAYS)
    for name, value in ARRAYS.items():
        assert found[name].dtype == value.dtype
        np.testing.assert_array_equal(found[name], value, strict=True)


def test_long_headers(tmp_path):
    """Version 2 of the format."""
    stream = io.BytesIO()
    np.lib.format.write_array(stream, np.arange(3.0), version=(2, 0))
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("a.npy", stream.getvalue())
    np.testing.assert_array_equal(read_npz(tmp_path / "a.npz")["a"], np.arange(3.0), strict=True)


def header(descr, shape):
    stream = io.BytesIO()
    np.lib.format.write_array_header_1_0(stream, {"descr": descr, "fortran_order": False, "shape": shape})
    return stream.getvalue()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (header("<f4", (2**40,)), r"of shape \(1099511627776,\) has 0 bytes"),
        (header("<f4", (-1,)) + bytes(8), r"with shape \(-1,\)"),
        (header("<f4", (3,)) + bytes(8), "has 8 bytes"),
        (header("|O", (1,)) + b"cos\nsystem\n(S'true'\ntR.", "is an array of object"),
        (header([("a", "<f4")], (1,)) + bytes(4), "is an array of"),
        (header("<f4", (1,))[:20], "EOF|array header"),
        (b"\x93NUMPY\x01\x00\x10\x00{'descr': open(1}", "ValueError|Error"),
        (b"\x93NUMPY\x09\x00", "KeyError"),
        (b"no array", "magic string"),
    ],
)
def test_hostile_arrays(content, words, tmp_path):
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("a.npy", content)
    with pytest.raises(ValueError, match=words):
        read_npz(tmp_path / "a.npz")


def test_a_bomb_is_not_unpacked(tmp_path):
    """64 MB of zeros in 64 kB; 20 times that and 16 MB are allowed."""
    with zipfile.ZipFile(tmp_path / "a.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.npy", header("|u1", (2**26,)) + bytes(2**26))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(ValueError, match="unpacks to more than 20 times its size"):
        read_npz(tmp_path / "a.npz")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 2**14  # KiB


@pytest.mark.parametrize("content", [b"", b"no archive", b"PK\x03\x04" + bytes(40)])
def test_files_of_another_kind(content, tmp_path):
    (tmp_path / "a.npz").write_bytes(content)
    with pytest.raises(ValueError, match="not a zip file"):
        read_npz(tmp_path / "a.npz")
    with pytest.raises(OSError, match="No such file"):
        read_npz(tmp_path / "b.npz")

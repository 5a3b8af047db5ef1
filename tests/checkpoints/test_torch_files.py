"""PyTorch's files: golden ones exactly, our own there and back, and whatever is hostile or damaged is refused."""

import io
import json
import math
import pickle
import struct
import warnings
import zipfile
from pathlib import Path

import numpy as np
import pytest

from keras_mrpose.checkpoints import torch_files
from keras_mrpose.checkpoints.torch_files import StateDict, read_torch_file, write_torch_file
from keras_mrpose.errors import InputError

MAGIC = 0x1950A86A20F9469CFC6C
ORDERED_DICT = b"ccollections\nOrderedDict\n"
REBUILD = b"ctorch._utils\n_rebuild_tensor_v2\n"


# --- pickles and containers, put together by hand --------------------------------------------------------------------


def literal(value):
    return pickle.dumps(value, 2)[2:-1]


def dict_of(entries):
    """A dict of names to instructions."""
    return b"}(" + b"".join(literal(name) + entry for name, entry in entries.items()) + b"u"


def storage(key="0", kind="Float", count=6, last=b""):
    fields = literal("storage"), f"ctorch\n{kind}Storage\n".encode(), literal(key), literal("cpu"), literal(count), last
    return b"(" + b"".join(fields) + b"tQ"


def tensor(shape=(2, 3), strides=(3, 1), offset=0, rebuild=REBUILD, last=b"", **where):
    fields = literal(offset), literal(shape), literal(strides), b"\x89", ORDERED_DICT + b")R", last
    return rebuild + b"(" + storage(**where) + b"".join(fields) + b"tR"


def zip_bytes(program, storages, byteorder=b"little", **options):
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", **options) as archive:
        archive.writestr("root/data.pkl", b"\x80\x02" + program + b".")
        if byteorder:
            archive.writestr("root/byteorder", byteorder)
        for key, data in storages.items():
            archive.writestr(f"root/data/{key}", data)
    return stream.getvalue()


def stream_bytes(program, storages, itemsize=4, little=True):
    parts = [pickle.dumps(value, 2) for value in (MAGIC, 1001, {"little_endian": little})]
    parts += [b"\x80\x02" + program + b".", pickle.dumps(list(storages), 2)]
    parts += [struct.pack("<q", len(data) // itemsize) + data for data in storages.values()]
    return b"".join(parts)


VALUES = np.arange(6, dtype="<f4")
DATA = {"0": VALUES.tobytes()}
CONTAINERS = pytest.mark.parametrize("pack", [zip_bytes, stream_bytes])


@pytest.fixture
def read(tmp_path_factory):
    """Reads bytes as a file; an error must name it. (No name of a test is in its path: messages are searched.)"""
    path = tmp_path_factory.mktemp("files") / "given.pth"

    def read(content):
        path.write_bytes(content)
        try:
            return read_torch_file(path)
        except InputError as error:
            assert str(error).startswith(str(path))
            raise

    return read


def assert_same(tensors, expected):
    assert list(tensors) == list(expected)
    for name, value in expected.items():
        assert tensors[name].dtype == value.dtype, name
        assert tensors[name].shape == value.shape, name
        np.testing.assert_array_equal(tensors[name], value, err_msg=name, strict=True)


# --- files that torch.save wrote -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def golden(golden_dir):
    folder = golden_dir / "pth"
    return folder, json.loads((folder / "index.json").read_text()), dict(np.load(folder / "expected.npz"))


def test_golden_files(golden):
    folder, index, expected = golden
    valid = [entry for entry in index if entry["kind"] == "valid"]
    assert {entry["format"] for entry in valid} == {"zip", "legacy"}
    for entry in valid:
        state = read_torch_file(folder / entry["file"])
        assert_same(state.tensors, {name: expected[f"{entry['file']}|{name}"] for name in entry["keys_in_order"]})
        dtypes = [str(value.dtype) for value in state.tensors.values()]
        assert dtypes == [dtype.replace("bfloat16", "float32") for dtype in entry["dtypes"]]
        assert {key: state.notes.get(key) for key in ("epoch", "perf")} == {
            key: entry.get(key) for key in ("epoch", "perf")
        }


def test_golden_files_of_mmpose(golden):
    """Names of version 0 as they are; beside the tensors of a training lie MMEngine's records, NumPy arrays, Adam."""
    folder, _, _ = golden
    expected = dict(np.load(folder / "mm_expected.npz"))
    training = read_torch_file(folder / "mmengine_training.pth")
    assert_same(training.tensors, expected)
    assert training.notes == {}
    old = {name.replace("head.", "keypoint_head."): value for name, value in expected.items()}
    assert_same(read_torch_file(folder / "mmpose_v0.pth").tensors, old)


def test_golden_hostile_files(golden):
    folder, index, _ = golden
    hostile = [entry for entry in index if entry["kind"] == "hostile"]
    assert hostile
    for entry in hostile:
        with pytest.raises(InputError, match=entry["file"]):
            read_torch_file(folder / entry["file"])
        assert entry["marker_file"] is None or not Path(entry["marker_file"]).exists()


@CONTAINERS
def test_both_containers(read, pack):
    state = read(pack(dict_of({"b": tensor(), "a": tensor((3,), (2,), 1), "epoch": literal(3)}), DATA))
    assert_same(state.tensors, {"b": VALUES.reshape(2, 3), "a": VALUES[1::2]})
    assert state.notes == {"epoch": 3}
    assert np.shares_memory(*state.tensors.values())


@CONTAINERS
def test_python_2_and_first_rebuild_function(read, pack):
    """Python 2 wrote `str` as bytes and an OrderedDict as a list of pairs."""
    name = b"U\x06weight"
    old = b"ctorch._utils\n_rebuild_tensor\n(" + storage() + literal(0) + literal((6,)) + literal((1,)) + b"tR"
    program = ORDERED_DICT + b"](](" + name + old + b"ee\x85R"
    assert_same(read(pack(program, DATA)).tensors, {"weight": VALUES})


def test_protocol_4(read):
    """Frames, short texts, globals from the stack, and a memo that counts by itself."""

    def text(word):
        return b"\x8c" + bytes([len(word)]) + word.encode() + b"\x94"

    program = text("collections") + text("OrderedDict") + b"\x93\x94)R\x94(" + text("one") + tensor()
    program += b"\x94" + text("two") + b"h\x05" + text("three") + b"h\x04u"
    program = b"\x80\x04\x95" + struct.pack("<Q", len(program)) + program
    state = read(zip_bytes(program, DATA))
    assert_same(state.tensors, {"one": VALUES.reshape(2, 3), "two": VALUES.reshape(2, 3)})
    assert state.notes == {"three": "one"}


def test_big_endian_zip(read):
    values = np.array([1.5, -2, 3e-3], np.float32)
    program = dict_of({"w": tensor((3,), (1,), count=3)})
    state = read(zip_bytes(program, {"0": values.astype(">f4").tobytes()}, byteorder=b"big"))
    assert_same(state.tensors, {"w": values})


def test_byte_order_elsewhere(read):
    """A zip before torch 2.1 does not tell; a stream tells of the machine, but PyTorch always swaps to little."""
    program = dict_of({"w": tensor()})
    assert_same(read(zip_bytes(program, DATA, byteorder=None)).tensors, {"w": VALUES.reshape(2, 3)})
    assert_same(read(stream_bytes(program, DATA, little=False)).tensors, {"w": VALUES.reshape(2, 3)})
    with pytest.raises(InputError):
        read(zip_bytes(program, DATA, byteorder=b"middle"))


def test_bfloat16_is_widened_exactly(read):
    """All 65536 of them: a bfloat16 is the upper half of a float32. NaNs keep their bits."""
    bits = np.arange(2**16, dtype="<u2")
    program = dict_of({"w": tensor((2**16,), (1,), kind="BFloat16", count=2**16)})
    for order in ("little", "big"):
        data = bits.astype(bits.dtype.newbyteorder(order)).tobytes()
        (value,) = read(zip_bytes(program, {"0": data}, order.encode())).tensors.values()
        assert value.dtype == np.float32
        np.testing.assert_array_equal(value.view(np.uint32), bits.astype(np.uint32) << 16)


def test_bool_is_true_or_false(read):
    program = dict_of({"w": tensor((4,), (1,), kind="Bool", count=4)})
    (value,) = read(zip_bytes(program, {"0": b"\x00\x01\x02\xff"})).tensors.values()
    assert_same({"w": value}, {"w": np.array([False, True, True, True])})
    assert value.view(np.uint8).max() == 1


# --- which dict is the state dict ------------------------------------------------------------------------------------

ADAM = (  # {"state": {0: {"step": 1, "exp_avg": <tensor of storage 9>}}, "param_groups": [{"lr": ..., ...}]}
    dict_of(
        {
            "state": b"}K\x00" + dict_of({"step": literal(1), "exp_avg": tensor(key="9")}) + b"s",
            "param_groups": b"]"
            + dict_of({"lr": literal(1e-3), "betas": literal((0.9, 0.999)), "fused": b"N", "params": b"]K\x00a"})
            + b"a",
        }
    )
)
NUMPY_SCALAR = (
    b"cnumpy.core.multiarray\nscalar\ncnumpy\ndtype\n(X\x02\x00\x00\x00f8\x89\x88tR(K\x03X\x01\x00\x00\x00<NNNJ\xff\xff\xff\xffJ\xff"
    b"\xff\xff\xffK\x00tbc_codecs\nencode\n(X\x02\x00\x00\x00abX\x06\x00\x00\x00latin1tR\x86R"
)


@pytest.mark.parametrize("name", ["state_dict", "model_state_dict", "model", "net", "best_state_dict", "something"])
def test_wrapping_dict(read, name):
    """The optimizer's tensors are not read: their storage 9 is not even there."""
    entries = {"epoch": literal(7), "optimizer": ADAM, name: dict_of({"module.w": tensor(), "v": literal("x")})}
    entries |= {"perf": literal(0.5), "best_perf": NUMPY_SCALAR, "none": b"N", "size": b"ctorch\nSize\nK\x02\x85\x85R"}
    state = read(zip_bytes(dict_of(entries), DATA))
    assert_same(state.tensors, {"module.w": VALUES.reshape(2, 3)})
    assert state.notes == {"epoch": 7, "v": "x", "perf": 0.5}


def test_state_of_a_learning_rate_schedule_is_passed_over(read):
    milestones = b"ccollections\nCounter\n(}(K\x5aK\x01K\x78K\x01utR"  # Counter({90: 1, 120: 1})
    schedule = dict_of({"milestones": milestones, "gamma": literal(0.1)})
    state = read(zip_bytes(dict_of({"lr_scheduler": schedule, "state_dict": dict_of({"w": tensor()})}), DATA))
    assert_same(state.tensors, {"w": VALUES.reshape(2, 3)})


def test_first_usual_name_wins(read):
    entries = {"ema": dict_of({"ema": tensor()})}
    for name in ("best_state_dict", "net", "model", "model_state_dict", "state_dict"):
        entries[name] = dict_of({name: tensor()})
        assert list(read(zip_bytes(dict_of(entries), DATA)).tensors) == [name]
    entries["state_dict"] = literal("resnet")
    assert list(read(zip_bytes(dict_of(entries), DATA)).tensors) == ["model_state_dict"]


@pytest.mark.parametrize(
    "program, words",
    [
        (b"](" + tensor() + b"e", "holds a list"),
        (tensor(), "a single tensor"),
        (literal(3), "a single value"),
        (b"}", "keys: none"),
        (dict_of({"epoch": literal(1), "names": b"]"}), "keys: epoch, names"),
        (dict_of({f"k{i}": b"N" for i in range(7)}), r"k0, k1, k2, k3, k4, \.\.\."),
        (dict_of({"w": tensor(), "more": b"]"}), "keys: w, more"),
        (
            dict_of({"a": dict_of({"w": tensor()}), "b": dict_of({"w": tensor()})}),
            r"several state dicts \(keys: a, b\)",
        ),
        (b"}K\x01" + tensor() + b"s", "keys: 1"),
    ],
)
def test_no_state_dict(read, program, words):
    with pytest.raises(InputError, match=words):
        read(zip_bytes(program, DATA))


# --- hostile pickles -------------------------------------------------------------------------------------------------


def state_dict_and(entry):
    return dict_of({"w": tensor(), "x": entry})


@CONTAINERS
@pytest.mark.parametrize(
    "attack, words",
    [
        (lambda run: b"cposix\nsystem\n" + run + b"\x85R", r"would run `posix\.system`; nothing was run"),
        (lambda run: literal("posix") + literal("system") + b"\x93" + run + b"\x85R", r"would run `posix\.system`"),
        (lambda run: literal("builtins") + literal("eval.x") + b"\x93", r"would run `builtins\.eval\.x`"),
        (lambda run: b"(" + run + b"iposix\nsystem\n", r"instruction INST \(posix system\)"),
        (lambda run: b"(cposix\nsystem\n" + run + b"o", r"posix\.system"),
        (lambda run: b"cposix\nsystem\n" + run + b"\x85\x81", r"would run `posix\.system`"),
        (lambda run: b"cposix\nsystem\n" + run + b"\x81", r"would run `posix\.system`"),
        (lambda run: literal(3) + b")\x81", "damaged"),
        (lambda run: b"cbuiltins\ngetattr\nctorch\nSize\n" + run + b"\x86R", "would run `getattr`"),
        (lambda run: b"c__builtin__\ngetattr\n" + tensor() + run + b"\x86R", "would run `getattr`"),
        (lambda run: b"cmmengine.config\nConfig\n)\x81", r"would run `mmengine\.config\.Config`"),
        (lambda run: b"ccollections\nOrderedDict\n)}\x92", "instruction NEWOBJ_EX"),
        (lambda run: b"\x82\x01", "instruction EXT1"),
        (lambda run: b"P0\n", "instruction PERSID"),
        (lambda run: b"0", "instruction POP"),
        (
            lambda run: b"ctorch.nn.modules.conv\nConv2d\n",
            r"whole pickled model .*torch\.nn\.modules\.conv\.Conv2d.*state_dict",
        ),
        (lambda run: b"c__main__\nConfig\n)R", r"whole pickled model or object \(__main__\.Config\)"),
        (lambda run: b"ctorch\ncollections.os.system\n", "would run"),
        (lambda run: literal(3) + b")R", "damaged"),
        (lambda run: tensor() + b")R", "damaged"),
        (lambda run: tensor() + dict_of({"x": b"N"}) + b"b", "instruction BUILD"),
        (lambda run: ORDERED_DICT + dict_of({"x": b"N"}) + b"b", "instruction BUILD"),
        (lambda run: b"\x93", "damaged"),
        (lambda run: b"NN\x93", "damaged"),
    ],
)
def test_code_in_the_pickle(read, tmp_path, pack, attack, words):
    marker = tmp_path / "it_ran"
    program = state_dict_and(attack(literal(f"touch {marker}")))
    with pytest.raises(InputError, match=words):
        read(pack(program, DATA))
    assert not marker.exists()


@pytest.mark.parametrize(
    "program, words",
    [
        (b"}q\x00" + literal("state_dict") + b"h\x00s", "keys: state_dict"),
        (b"}q\x05(" + literal("w") + tensor() + literal("me") + b"h\x05u", "keys: w, me"),
        (b"]q\x00h\x00a", "a list"),
        (dict_of({"w": tensor()}) + literal("w") + tensor() + b"s", "key w twice"),
        (b")q\x00" + b"h\x00\x86q\x00" * 200 + b"}h\x00Ns", "strange key"),
        (b"}" + b"\x8a\xff" + b"\x7f" * 255 + b"Ns", "strange key"),
        (b"}\x8b\x00\x00\x10\x00" + b"\x7f" * 2**20 + b"0", "instruction LONG4"),
        (b"}\x8b\xff\xff\xff\x7f\x01", "damaged"),
        (b"L" + b"9" * 10_000 + b"L\n", "damaged"),
        (b"I" + b"9" * 10_000 + b"\n", "damaged"),
        (b"X\xff\xff\xff\xffabc", "damaged"),
        (b"\x8d" + b"\xff" * 8 + b"abc", "damaged"),
        (b"X\x02\x00\x00\x00\xff\xff", "damaged"),
        (b"h\x07", "damaged"),
        (b"e", "damaged"),
        (b"Na", "damaged"),
        (b"N(NNu", "damaged"),
        (b"}(Nu", "damaged"),
        (b"Q", "damaged"),
        (b"\x86", "damaged"),
        (b"q\x00", "damaged"),
        (b"", "damaged"),
        (b"}" * 1_000_001, "far more than a network"),
        (b"]" * 50_000 + b"a" * 49_999, "a list"),
        (b")" + b"\x85" * 50_000, "a tuple"),
        (b"(" + b"N" * 100_000 + b"tq\x00ctorch\ndevice\nq\x01" + b"h\x01h\x00R" * 100_000, "damaged"),
        (b"]q\x00" + (b"](" + b"h\x00" * 10 + b"eq\x00") * 50, "a list"),
    ],
)
def test_bombs_and_broken_pickles(read, program, words):
    with pytest.raises(InputError, match=words):
        read(zip_bytes(program, DATA))


@pytest.mark.parametrize("action, words", [("ignore", "would run `foo"), ("error", "damaged")])
def test_wrong_escape_in_a_name(read, action, words):
    with warnings.catch_warnings(), pytest.raises(InputError, match=words):
        warnings.simplefilter(action)
        read(zip_bytes(b"cfoo\\q\nbar\n", DATA))


def test_a_list_of_pairs_is_used_once(read):
    """Else a small pickle could have a long list copied into a million dicts."""
    pairs = b"](](" + literal("w") + tensor() + b"ee\x85q\x08"
    program = b"}(" + literal("a") + ORDERED_DICT + b"q\x09" + pairs + b"R" + literal("b") + b"h\x09h\x08Ru"
    assert list(read(zip_bytes(program, DATA)).tensors) == ["w"]  # "b" is empty


def test_a_dict_under_many_names_is_looked_at_once(read, monkeypatch):
    """Else a small pickle could have a long dict searched a million times."""
    looked = []
    monkeypatch.setattr(torch_files, "_is_state_dict", lambda value: looked.append(value) or bool(len(looked) > 1))
    program = b"}(" + literal("k0") + dict_of({"w": tensor()}) + b"q\x08"
    program += b"".join(literal(f"k{i}") + b"h\x08" for i in range(1, 100)) + b"u"
    with pytest.raises(InputError, match="several state dicts"):
        read(zip_bytes(program, DATA))
    assert len(looked) == 2


def test_memo_may_have_any_index(read):
    program = literal("w") + b"r\xff\xff\xff\xff" + b"}j\xff\xff\xff\xff" + tensor() + b"s"
    assert list(read(zip_bytes(program, DATA)).tensors) == ["w"]


def test_pickles_are_not_taken_from_disk_lengths():
    """The machine itself: what lies behind the pickle stays in the stream."""
    stream = io.BytesIO(b"\x80\x02K\x01.\x80\x02K\x02.rest")
    assert [torch_files.unpickle(stream, {}, None) for _ in range(2)] == [1, 2]
    assert stream.read() == b"rest"


# --- tensors that do not fit their storages --------------------------------------------------------------------------


@CONTAINERS
@pytest.mark.parametrize(
    "entry, words",
    [
        (tensor((7,), (1,)), r"tensor w of shape \(7,\) needs more elements"),
        (tensor((6,), (1,), 1), "more elements"),
        (tensor((2, 3), (4, 1)), "more elements"),
        (tensor((1,), (1,), 6), "more elements"),
        (tensor((7,), (0,)), "more elements"),
        (tensor((2**20, 2**19), (0, 0)), "more elements"),
        (tensor((2**39, 2**39), (0, 0)), "describes a tensor"),
        (tensor((0, 2**39, 2**39), (0, 0, 0)), "describes a tensor"),
        (tensor((6,), (-1,), 5), "describes a tensor"),
        (tensor((-6,), (1,)), "describes a tensor"),
        (tensor((6,), (1,), -1), "describes a tensor"),
        (tensor((2**70,), (0,)), "describes a tensor"),
        (tensor((2, 3), (3,)), "describes a tensor"),
        (tensor((1,) * 40, (1,) * 40), "describes a tensor"),
        (tensor((2.0, 3), (3, 1)), "describes a tensor"),
        (tensor([6], [1]), "describes a tensor"),
        (tensor(last=dict_of({"neg": b"\x88"})), "describes a tensor"),
        (REBUILD + b")R", "describes a tensor"),
        (b"ctorch._utils\n_rebuild_parameter\n)R", "damaged"),
        (tensor(count=-1), "describes a storage"),
        (tensor(count=2**60), "describes a storage"),
        (tensor(kind="Float", last=b"", key=3), "describes a storage"),
        (REBUILD + b"(" + storage(last=literal(("1", 0, 6))) + b"tR", "describes a storage"),
        (b"NQ", "describes a storage"),
    ],
)
def test_tensor_out_of_bounds(read, pack, entry, words):
    with pytest.raises(InputError, match=words):
        read(pack(dict_of({"w": entry}), DATA))


def test_largest_views_that_fit(read):
    entries = {"all": tensor(), "last": tensor((1, 1), (2**30, 2**30), 5), "repeated": tensor((3, 2), (0, 1), 4)}
    entries |= {"scalar": tensor((), (), 2), "empty": tensor((0, 7), (7, 1)), "turned": tensor((3, 2), (1, 3))}
    square = VALUES.reshape(2, 3)
    expected = {"all": square, "last": VALUES[5:].reshape(1, 1), "repeated": np.tile(VALUES[4:], (3, 1))}
    expected |= {"scalar": VALUES[2].reshape(()), "empty": np.empty((0, 7), "f4"), "turned": square.T}
    assert_same(read(zip_bytes(dict_of(entries), DATA)).tensors, expected)


@pytest.mark.parametrize(
    "content, words",
    [
        (zip_bytes(dict_of({"w": tensor()}), {}), "data/0 is missing"),
        (zip_bytes(dict_of({"w": tensor()}), {"0": b"\0" * 20}), "storage 0 is too short"),
        (zip_bytes(dict_of({"w": tensor()}), {"0": b"\0" * 28}), "data/0 is larger"),
        (zip_bytes(dict_of({"w": tensor(count=2**39)}), DATA), "larger than the file"),
        (zip_bytes(dict_of({"w": tensor(), "v": tensor(kind="Int")}), DATA), "storage 0 in two ways"),
        (zip_bytes(dict_of({"w": tensor()}), DATA, compression=zipfile.ZIP_DEFLATED), "compressed"),
        (zip_bytes(literal("a" * 2**24), DATA), "data.pkl is larger"),
        (stream_bytes(dict_of({"w": tensor()}), {}), "damaged"),
        (stream_bytes(dict_of({"w": tensor()}), DATA | {"1": b""}), "damaged"),
        (stream_bytes(dict_of({"w": tensor()}), {"0": b"\0" * 20}), "damaged"),
        (stream_bytes(dict_of({"w": tensor()}), DATA)[:-1], "cut short"),
        (stream_bytes(dict_of({"w": tensor()}), DATA)[:-25], "damaged"),
        (pickle.dumps({"w": 1}, 2), "not a file of torch.save"),
        (pickle.dumps(MAGIC, 2) + pickle.dumps(1000, 2), "not a file of torch.save"),
        (b"", "damaged"),
        (b"this is a text file", "damaged"),
        (b"PK\x03\x04", "damaged"),
        (b"storages".ljust(257, b"\0") + b"ustar  \0", "tar, before 2017"),
    ],
)
def test_damaged_containers(read, content, words):
    with pytest.raises(InputError, match=words):
        read(content)


def test_other_zip_archives(read):
    def archive(*names):
        stream = io.BytesIO()
        with zipfile.ZipFile(stream, "w") as file, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # zipfile warns of a name that comes twice
            for name in names:
                file.writestr(name, b"\x80\x02}.")
        return stream.getvalue()

    for names in (["model.keras"], ["data.pkl"], ["a/data.pkl", "b/data.pkl"], ["a/data.pkl", "a/data/0", "a/data/0"]):
        with pytest.raises(InputError, match=r"needs one member data\.pkl"):
            read(archive(*names))


def test_compressed_member_of_equal_size(read):
    """The sizes alone do not tell: here only the method is "deflated", and what it inflates to would be unbounded."""
    content = bytearray(zip_bytes(dict_of({"w": tensor()}), DATA))
    content[content.rindex(b"PK\x01\x02") + 10] = zipfile.ZIP_DEFLATED
    with pytest.raises(InputError, match="data/0 is compressed"):
        read(bytes(content))


def test_changed_bytes_are_noticed(read):
    content = zip_bytes(dict_of({"w": tensor()}), DATA)
    with pytest.raises(InputError, match="damaged"):  # by the checksum
        read(content.replace(VALUES.tobytes(), VALUES[::-1].tobytes()))


def test_missing_file_and_folder(tmp_path):
    for path in (tmp_path, tmp_path / "nothing.pth", tmp_path / "a" / "b.pth"):
        with pytest.raises(InputError, match="no such file"):
            read_torch_file(path)


# --- fuzzing ---------------------------------------------------------------------------------------------------------


def mutated(content, rng):
    """Bytes changed, cut out, doubled, cut off or put in."""
    content = bytearray(content)
    for _ in range(rng.integers(1, 3)):
        start, length = int(rng.integers(len(content) + 1)), int(rng.integers(1, 9))
        match rng.integers(5):
            case 0:
                content[start : start + length] = rng.bytes(length)
            case 1:
                del content[start : start + length]
            case 2:
                content[start:start] = content[start : start + length]
            case 3:
                content[start : start + 1] = rng.choice(
                    list(b"}]()tuesaR\x85\x86\x87q\x00h\x01cQb\x8a\xff\x7f."), 1
                ).tobytes()[:1]
            case _:
                del content[max(start, 1) :]
    return bytes(content)


def test_mutated_files(read):
    """Every outcome is a state dict or an `InputError`, and nothing is larger than the file could hold."""
    rng = np.random.default_rng(0)
    entries = {"epoch": literal(2), "optimizer": ADAM, "perf": NUMPY_SCALAR}
    entries["state_dict"] = ORDERED_DICT + b")R(" + b"".join(literal(n) + tensor(key="0") for n in "ab") + b"u}b"
    program = dict_of(entries)
    storages = {"0": DATA["0"], "9": DATA["0"]}
    whole = zip_bytes(program, storages), stream_bytes(program, storages)
    outcomes = {InputError: 0, StateDict: 0}
    for turn in range(600):
        content = [
            lambda: mutated(whole[0], rng),
            lambda: mutated(whole[1], rng),
            lambda: zip_bytes(mutated(program, rng), storages),
        ][turn % 3]()
        try:
            state = read(content)
        except InputError:
            outcomes[InputError] += 1
        else:
            outcomes[StateDict] += 1
            assert sum(value.size for value in state.tensors.values()) <= 1000
    assert min(outcomes.values()) > 20, outcomes  # neither all refused nor all read


# --- writing ---------------------------------------------------------------------------------------------------------


def some_tensors():
    rng = np.random.default_rng(0)
    return {
        "layer.weight": rng.standard_normal((4, 3, 2, 5)).astype(np.float32),
        "double": rng.standard_normal(3),
        "half": rng.standard_normal((2, 3)).astype(np.float16),
        "long": np.arange(5) - 2**40,
        "int": np.arange(3, dtype=np.int32),
        "byte": np.arange(256, dtype=np.uint8).reshape(2, 128),
        "bool": np.array([True, False, True]),
        "scalar": np.array(3.5, np.float32),
        "num_batches_tracked": np.array(0),
        "empty": np.empty((0, 7), np.float32),
        "turned": rng.standard_normal((4, 3)).T,
        "backwards": np.arange(7.0)[::-2],
        "name with é": np.array([np.nan, np.inf], np.float32),
    }


@pytest.mark.parametrize(
    "notes", [{}, {"epoch": 3, "perf": 0.25, "preprocessing": "rgb", "flip": True, "big": -(2**40)}]
)
def test_round_trip(tmp_path, notes):
    path = tmp_path / "best.pth.tar"
    write_torch_file(path, some_tensors(), notes)
    state = read_torch_file(path)
    assert_same(state.tensors, some_tensors())
    assert state.notes == notes
    assert {key: type(value) for key, value in state.notes.items()} == {k: type(v) for k, v in notes.items()}


def test_big_endian_array_is_written_little(tmp_path):
    write_torch_file(tmp_path / "a.pth", {"w": VALUES.astype(">f4")})
    assert_same(read_torch_file(tmp_path / "a.pth").tensors, {"w": VALUES})


def test_written_file_as_pickle_sees_it(tmp_path):
    """Python's own unpickler, with three names, finds what torch.load expects: contiguous tensors, one storage each."""
    path = tmp_path / "net.pth"
    tensors = some_tensors()
    write_torch_file(path, tensors, {"epoch": 3})
    archive = zipfile.ZipFile(path)
    assert archive.namelist() == [
        "net/data.pkl",
        "net/byteorder",
        *(f"net/data/{i}" for i in range(len(tensors))),
        "net/version",
    ]
    assert (archive.read("net/byteorder"), archive.read("net/version")) == (b"little", b"3\n")
    assert {member.compress_type for member in archive.infolist()} == {zipfile.ZIP_STORED}

    class Unpickler(pickle.Unpickler):
        def find_class(self, module, name):
            if module == "torch":
                return name
            return {"OrderedDict": dict, "_rebuild_tensor_v2": lambda *fields: fields}[name]

        def persistent_load(self, identity):
            return identity

    saved = Unpickler(io.BytesIO(archive.read("net/data.pkl"))).load()
    assert saved["epoch"] == 3
    assert list(saved) == ["state_dict", "epoch"]
    assert list(saved["state_dict"]) == list(tensors)
    kinds = {"f4": "Float", "f8": "Double", "f2": "Half", "i8": "Long", "i4": "Int", "u1": "Byte", "b1": "Bool"}
    for key, (name, (where, offset, shape, strides, grad, hooks)) in enumerate(saved["state_dict"].items()):
        value = tensors[name]
        assert where == ("storage", f"{kinds[value.dtype.str[1:]]}Storage", str(key), "cpu", value.size)
        assert (offset, shape, grad, hooks) == (0, value.shape, False, {})
        assert strides == tuple(math.prod(shape[axis + 1 :]) for axis in range(len(shape)))
        assert archive.read(f"net/data/{key}") == value.tobytes()


def test_same_tensors_give_the_same_bytes(tmp_path):
    contents = []
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        path = tmp_path / folder / "net.pth"
        write_torch_file(path, some_tensors(), {"epoch": 3})
        contents.append(path.read_bytes())
    assert contents[0] == contents[1]


@pytest.mark.parametrize(
    "tensors, notes, words",
    [
        ({"w": np.array(["a"])}, {}, "tensor w has dtype <U1"),
        ({"w": np.array(1j)}, {}, "tensor w has dtype complex128"),
        ({}, {"state_dict": 1}, "note state_dict"),
        ({}, {"best": None}, "note best"),
        ({}, {"best": np.float64(1)}, "note best"),
    ],
)
def test_what_cannot_be_written(tmp_path, tensors, notes, words):
    path = tmp_path / "net.pth"
    path.write_bytes(b"old")
    with pytest.raises(InputError, match=words):
        write_torch_file(path, tensors, notes)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_failing_disk_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "net.pth"
    path.write_bytes(b"old")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(zipfile.ZipFile, "writestr", full)
    with pytest.raises(InputError, match="No space left"):
        write_torch_file(path, some_tensors())
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_folder_that_is_missing(tmp_path):
    with pytest.raises(InputError, match="cannot be written"):
        write_torch_file(tmp_path / "a" / "net.pth", some_tensors())

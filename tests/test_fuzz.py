"""Every reader of files from elsewhere, fed with thousands of damaged ones: a clean record or an `InputError`, quickly.

A file is damaged at the level of its bytes (flipped, cut, spliced, lengths overwritten) and, where it is JSON or a zip
archive, at the level of its values, so that the damage gets past the outermost check. The order is always the same.
"""

import contextlib
import copy
import io
import json
import pickle
import resource
import struct
import tempfile
import time
import zipfile
from dataclasses import asdict
from pathlib import Path

import keras
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.configuration import set_hypothesis_home_dir
from scipy.io import savemat

from keras_mrpose.checkpoints import state_dicts
from keras_mrpose.checkpoints.torch_files import write_torch_file
from keras_mrpose.codecs import GaussianCodec
from keras_mrpose.data import coco, lsp, mpii
from keras_mrpose.data.people import People
from keras_mrpose.errors import InputError
from keras_mrpose.evaluation.evaluate import read_numbers
from keras_mrpose.evaluation.predictions import Predictions
from keras_mrpose.evaluation.provenance import Settings
from keras_mrpose.models import networks, pretrained
from keras_mrpose.runtime.litert import ExportedModel
from keras_mrpose.skeletons import COCO
from keras_mrpose.training.config import Experiment

set_hypothesis_home_dir(Path(tempfile.gettempdir(), "hypothesis"))  # nothing is written into the checkout
MOST_BYTES = 2**28  # that reading a file of some kilobytes may take
MOST_SECONDS = 2.0  # of CPU time; all take milliseconds


# --- how files are damaged ----------------------------------------------------------------------------------------

LENGTHS = [0, 1, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF]


def place(size):
    return st.integers(0, max(0, size - 1))


@st.composite
def damaged(draw, content):
    """One to four wounds in some bytes."""
    content = bytearray(content)
    for _ in range(draw(st.integers(1, 4))):
        size = len(content)
        at, other = draw(place(size)), draw(place(size))
        length = draw(st.integers(1, 64))
        match draw(st.sampled_from(["flip", "set", "cut", "remove", "splice", "insert", "length", "length 8"])):
            case "flip" if size:
                content[at] ^= 1 << draw(st.integers(0, 7))
            case "set" if size:
                content[at] = draw(st.integers(0, 255))
            case "cut":
                del content[at:]
            case "remove":
                del content[at : at + length]
            case "splice":
                content[at : at + length] = content[other : other + length]
            case "insert":
                content[at:at] = content[other : other + length]
            case "length":
                content[at - at % 4 : at - at % 4 + 4] = struct.pack("<I", draw(st.sampled_from(LENGTHS)))
            case "length 8":
                content[at : at + 8] = struct.pack("<Q", draw(st.sampled_from(LENGTHS)) << 16)
    return bytes(content)


def nested(depth, value=0):
    for _ in range(depth):
        value = [value]
    return value


VALUES = [
    *(None, True, False, 0, 1, -1, 2, 17, 0.5, -0.5, 1e308, -1e308, 1e39, 5e-324, 10**400, -(10**400), 2**31, 2**63),
    *(float("nan"), float("inf"), float("-inf"), "", "0", "person", "\x00", "\ud800", "ä" * 9, "../" * 9, "x" * 5000),
    *(
        [],
        {},
        [[]],
        [{}],
        {"name": 1},
        nested(70),
        nested(400),
        [1, 2, 3, 4],
        [1e308] * 4,
        ["1"] * 4,
        [float("nan")] * 51,
    ),
]


def places(value, path=()):
    """All paths into a JSON value."""
    found = [path]
    if isinstance(value, dict | list):
        for key in value if isinstance(value, dict) else range(len(value)):
            found += places(value[key], (*path, key))
    return found


@st.composite
def damaged_json(draw, value):
    """One to three fields gone, doubled, renamed, of another type, or of a value that nobody expects; as bytes."""
    value = copy.deepcopy(value)
    for _ in range(draw(st.integers(1, 3))):
        *path, last = draw(st.sampled_from(places(value)[1:] or [(None,)]))
        parent = value
        if last is None:
            break
        for key in path:
            parent = parent[key]
        match draw(st.sampled_from(["set", "set", "set", "remove", "double", "wrap", "rename"])):
            case "set":
                parent[last] = copy.deepcopy(draw(st.sampled_from(VALUES)))
            case "remove":
                del parent[last]
            case "double" if isinstance(parent, list):
                parent.insert(last, copy.deepcopy(parent[last]))
            case "wrap":
                parent[last] = [parent[last]]
            case "rename" if isinstance(parent, dict):
                parent[f"{last} "] = parent.pop(last)
    text = json.dumps(value)
    match draw(st.integers(0, 15)):
        case 0:  # deeper than Python's own decoder goes
            at = draw(place(len(text)))
            text = text[:at] + "[" * 5_000 + text[at:]
        case 1:  # every key twice
            text = text.replace('{"', '{"id": -1, "')
        case 2:
            return draw(damaged(text.encode()))
    return text.encode()


# --- what may come of it ------------------------------------------------------------------------------------------


@contextlib.contextmanager
def bounded():
    """Memory and CPU time of what happens inside."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + MOST_BYTES, before[1]))
    begin = time.thread_time()
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)
    assert time.thread_time() - begin < MOST_SECONDS


def outcome(read, *arguments):
    """What was read, or None after a clean error."""
    with bounded():
        try:
            return read(*arguments)
        except InputError as error:
            message = str(error)
            assert 10 < len(message) < 2000 and "\n" not in message.strip(), message[:3000]
            return None


def assert_people(people):
    """All that is promised downstream."""
    if people is None:
        return
    assert isinstance(people, People)
    count = len(people)
    assert people.boxes.shape == (count, 4) and people.keypoints.shape == (count, people.skeleton.num_joints, 3)
    for column in (people.boxes, people.keypoints, people.reference_length, people.areas, people.scores):
        assert np.isfinite(column).all() and len(column) == count
    assert (
        (people.boxes[:, 2:] >= 0).all()
        and people.boxes[:, 2:].any(axis=1).all()
        and (people.reference_length > 0).all()
    )
    assert np.isin(people.keypoints[..., 2], (0, 1, 2)).all()
    assert len(people.paths()) == count and people.image_paths.nbytes < MOST_BYTES


# --- the readers --------------------------------------------------------------------------------------------------


def rezipped(draw, content, change):
    """The same archive, one member changed; its checksum is right again."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    chosen = draw(st.sampled_from(sorted(members)))
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name, value in members.items():
            archive.writestr(name, change(name, value) if name == chosen else value)
    return stream.getvalue()


@st.composite
def damaged_zip(draw, content):
    """Damage outside, or inside one member."""
    if draw(st.booleans()):
        return draw(damaged(content))

    def change(name, value):
        return draw(damaged_json(json.loads(value))) if name.endswith(".json") else draw(damaged(value))

    return rezipped(draw, content, change)


def coco_file():
    draw = np.random.default_rng(0)
    images = [{"id": 3 * i, "file_name": f"{i}.jpg", "width": 60, "height": 40} for i in range(3)]
    people = [
        {
            **{"id": i + 1, "image_id": 3 * (i % 3), "category_id": 1, "iscrowd": int(i == 3), "area": 200.5},
            **{"bbox": [4, 5.5, 20, 30], "num_keypoints": 17, "segmentation": [[1, 2, 3, 4, 5, 6]]},
            "keypoints": [int(n) for n in np.c_[draw.integers(0, 40, (17, 2)), draw.integers(0, 3, 17)].ravel()],
        }
        for i in range(4)
    ]
    return {"images": images, "annotations": people, "categories": [{"id": 1, "name": "person"}]}


BOXES = [{"image_id": 3 * (i % 3), "category_id": 1, "bbox": [1, 2, 30, 20.5], "score": 0.1 * i} for i in range(4)]
RECORD = {"image": "a.jpg", "center": [30, 40.5], "scale": 1.2, "joints": [[5, 6]] * 16, "joints_vis": [1, 0] * 8}


def mat(**variables):
    stream = io.BytesIO()
    savemat(stream, variables, do_compression=False)
    return stream.getvalue()


def structs(*records):
    names = list(records[0])
    array = np.empty((1, len(records)), [(name, object) for name in names])
    for at, record in enumerate(records):
        for name in names:
            array[name][0, at] = record[name]
    return array


def release_file():
    points = structs(*({"x": 9.0 * j, "y": 5.0, "id": j, "is_visible": "1"} for j in range(3)))
    person = {
        **{"x1": 1.0, "y1": 2.0, "x2": 30.0, "y2": 40.0, "scale": 1.5, "objpos": structs({"x": 20.0, "y": 30.0})},
        "annopoints": structs({"point": points}),
    }
    images = structs(*({"image": structs({"name": f"{i}.jpg"}), "annorect": structs(person)} for i in range(2)))
    single = np.empty((2, 1), object)
    single[:, 0] = [np.array([[1]]), np.zeros((0, 0))]
    content = {"annolist": images, "img_train": np.array([[1, 1]]), "single_person": single}
    return mat(RELEASE=structs(content))


def array_file(**arrays):
    stream = io.BytesIO()
    np.savez(stream, **arrays)
    return stream.getvalue()


TENSORS = {
    "conv1.weight": np.arange(24, dtype=np.float32).reshape(2, 3, 4),
    "bn1.num_batches_tracked": np.array(7, np.int64),
    "half": np.ones(5, np.float16),
}


def zip_checkpoint():
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "network.pth")
        write_torch_file(path, TENSORS, {"epoch": 3})
        return path.read_bytes()


def stream_checkpoint():
    """As torch before 1.6: `zip_checkpoint`'s pickle among the others, then the storages."""
    with zipfile.ZipFile(io.BytesIO(zip_checkpoint())) as archive:
        program = archive.read("network/data.pkl")
        storages = [archive.read(f"network/data/{key}") for key in range(3)]
    head = [pickle.dumps(value, 2) for value in (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True})]
    tail = [struct.pack("<q", value.size) + data for value, data in zip(TENSORS.values(), storages, strict=True)]
    # the older persistent identity has a sixth field
    return b"".join([*head, program.replace(b"tQ", b"NtQ"), pickle.dumps(["0", "1", "2"], 2), *tail])


def keras_file():
    image = keras.Input((32, 32, 3))
    maps = keras.layers.Conv2D(17, 4, 4)(keras.layers.BatchNormalization()(image))
    model = networks.PoseModel(image, maps, skeleton=COCO, codec=GaussianCodec(), spec={"input_shape": (32, 32, 3)})
    with tempfile.TemporaryDirectory() as folder:
        model.save(Path(folder, "network.keras"))
        return Path(folder, "network.keras").read_bytes()


PREDICTIONS = {
    **{"input_size": np.array([96, 64]), "images": np.arange(3), "ids": np.arange(4), "image_ids": np.zeros(4, int)},
    **{"boxes": np.ones((4, 4)), "box_scores": np.ones(4), "gaussian": np.ones((4, 17, 3), np.float32)},
}
RESULT = {
    **{"metric": "AP", "value": 0.5, "numbers": {"AP": 0.5, "AR": None}, "diagnosis": None},
    "protocol": {
        **{"settings": vars(Settings(codec="gaussian")), "evaluation": "ap", "data": {"sha256": "0"}},
        **{"boxes": {"source": "annotated"}, "network": {"name": "mrfeanet1"}},
    },
}
NETWORK = b"not looked into: the hash of the sidecar is that of another"
SIDECAR = {
    **{
        "version": 1,
        "name": "micro",
        "model": "mrfeanet1",
        "backbone": "tiny_v1b",
        "made_from": {"preprocessing": None},
    },
    **{"skeleton": COCO.to_dict(), "codec": {"name": "gaussian", "sigma": 2.0, "scale": [0.25, 0.25]}},
    **{"input": {"size": [64, 96]}, "heatmaps": {"size": [16, 24]}},
    "files": {"a.tflite": {"output": "heatmaps", "precision": "float32", "sha256": "0" * 64}},
}


class Readers:
    """Each writes the bytes to a file, reads it and looks at what came of it."""

    def __init__(self, folder):
        self.folder = folder
        for name in ("annotations", "annot"):
            (folder / name).mkdir()
        (folder / "a.tflite").write_bytes(NETWORK)

    def put(self, name, content):
        (self.folder / name).write_bytes(content)
        return self.folder / name

    def coco(self, content):
        path = self.put("annotations/person_keypoints_val2017.json", content)
        assert_people(outcome(coco.load, self.folder, "val", False))
        truth = outcome(coco.ground_truth, path)
        assert truth is None or {"images", "annotations", "categories"} == set(truth)

    def boxes(self, content):
        self.put("annotations/person_keypoints_val2017.json", json.dumps(coco_file()).encode())
        path = self.put("boxes.json", content)
        assert_people(outcome(coco.load_detections, path, self.folder, "val", 0.0, False))

    def mpii(self, content):
        self.put("annot/valid.json", content)
        assert_people(outcome(mpii.load, self.folder, "val", False))

    def heads(self, content):
        found = outcome(mpii.head_sizes, self.put("gt.mat", content))
        assert found is None or (np.isfinite(found).all() and (found > 0).all())

    def lsp(self, content):
        self.put("joints.mat", content)
        assert_people(outcome(lsp.load, self.folder, None, False))

    def release(self, content):
        self.put(mpii.RELEASE_FILE, content)
        for split in mpii.RELEASE_SPLITS:
            assert_people(outcome(mpii.load_release, self.folder, split, False))

    def state_dict(self, content, suffix=".pth"):
        file = outcome(state_dicts.read_state_dict, self.put(f"network{suffix}", content))
        if file is not None:
            assert all(isinstance(value, np.ndarray) for value in file.tensors.values())
            assert sum(value.nbytes for value in file.tensors.values()) < MOST_BYTES

    def arrays(self, content):
        self.state_dict(content, ".npz")

    def keras(self, content):
        model = outcome(pretrained.read_keras, self.put("network.keras", content))
        assert model is None or all(np.isfinite(values).all() for values in model.get_weights())

    def sidecar(self, content):
        self.put("model.json", content)
        assert outcome(ExportedModel, self.folder / "a.tflite") is None

    def config(self, content):
        found = outcome(Experiment.load, self.put("config.json", content))
        assert found is None or found.recipe.epochs > 0

    def result(self, content):
        found = outcome(read_numbers, self.put("result.json", content))
        assert found is None or set(found) == set(RESULT)

    def predictions(self, content):
        found = outcome(Predictions.load, self.put("result.npz", content))
        assert found is None or found.boxes.shape == (len(found.ids), 4)


FILES = {
    "coco": lambda: damaged_json(coco_file()),
    "boxes": lambda: damaged_json(BOXES),
    "mpii": lambda: damaged_json([RECORD, {**RECORD, "scale": -1}]),
    "heads": lambda: damaged(mat(headboxes_src=np.arange(12.0).reshape(2, 2, 3) % 7)),
    "lsp": lambda: damaged(mat(joints=np.ones((14, 3, 4)))),
    "release": lambda: damaged(release_file()),
    "zip checkpoint": lambda: damaged_zip(zip_checkpoint()),
    "stream checkpoint": lambda: damaged(stream_checkpoint()),
    "array checkpoint": lambda: damaged_zip(array_file(**TENSORS)),
    "keras": lambda: damaged_zip(keras_file()),
    "sidecar": lambda: damaged_json(SIDECAR),
    "config": lambda: damaged_json(json.loads(json.dumps(asdict(Experiment(name="made up"))))),
    "result": lambda: damaged_json(RESULT),
    "predictions": lambda: damaged_zip(array_file(**PREDICTIONS)),
}
READERS = {
    **{name: name for name in FILES},
    **{"zip checkpoint": "state_dict", "stream checkpoint": "state_dict", "array checkpoint": "arrays"},
}


@pytest.fixture(scope="module")
def readers(tmp_path_factory):
    return Readers(tmp_path_factory.mktemp("files"))


def search(files, check, examples):
    """So many files, the same ones each time."""

    @settings(
        max_examples=examples, derandomize=True, deadline=None, database=None, suppress_health_check=list(HealthCheck)
    )
    @given(files)
    def each(content):
        check(content)

    each()


@pytest.mark.parametrize("name", FILES)
def test_damaged_files(readers, name):
    search(FILES[name](), getattr(readers, READERS[name]), 4 if name == "keras" else 15)


@pytest.mark.slow
@pytest.mark.parametrize("name", FILES)
def test_many_damaged_files(readers, name):
    search(FILES[name](), getattr(readers, READERS[name]), 100 if name == "keras" else 600)

"""Exported networks predict and are evaluated as the ones that they were made from; a sidecar's mistakes are named."""

import hashlib
import json
import shutil

import commands
import dots
import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

import keras_mrpose
from keras_mrpose import geometry
from keras_mrpose.codecs import CODECS, DarkCodec, GaussianCodec, UDPCodec
from keras_mrpose.data import augmentation
from keras_mrpose.data.people import People
from keras_mrpose.errors import InputError
from keras_mrpose.evaluation import compare, provenance
from keras_mrpose.evaluation.evaluate import Result, evaluate
from keras_mrpose.evaluation.predictions import predict
from keras_mrpose.export import litert, outputs
from keras_mrpose.geometry import crop_matrices
from keras_mrpose.predict.predictor import Predictor
from keras_mrpose.runtime import litert as runtime
from keras_mrpose.runtime.litert import ExportedModel
from keras_mrpose.skeletons import Skeleton
from keras_mrpose.synthetic import dataset

SIZE, PICTURE = (96, 64), (170, 330)
BOXES = np.array([[20, 30, 40, 60], [120.5, 20.25, 60, 110], [-12, 100, 50, 45], [230, 40, 100, 70.5]])


def joints(seed=0):
    """(4, 3, 2) places in the inner part of each box's visible piece."""
    low, high = np.maximum(BOXES[:, :2], 0), BOXES[:, :2] + BOXES[:, 2:]
    return low[:, None] + np.random.default_rng(seed).uniform(0.25, 0.75, (4, 3, 2)) * (high - low)[:, None]


def crops(count):
    """Crops of people, also for the calibration."""
    made, matrices = [], tf.constant(crop_matrices(BOXES, SIZE), tf.float32)
    for number in range(count):
        picture = dots.picture(PICTURE, joints(100 + number))
        made.append(augmentation.warp(tf.constant(picture), matrices[number % len(BOXES)], SIZE).numpy())
    return np.stack(made)


def export(model, folder, **files):
    """Write files, name -> (output, precision), and their sidecar by hand."""
    entries = {}
    for stem, (output, precision) in files.items():
        made = litert.convert(getattr(outputs, output)(model), precision, crops(32) if precision == "int8" else None)
        (folder / f"{stem}.tflite").write_bytes(made.content)
        hashed = hashlib.sha256(made.content).hexdigest()
        types = {"input_type": made.input_type, "output_type": made.output_type, "bytes": len(made.content)}
        entries[f"{stem}.tflite"] = {"output": output, "precision": precision, **types, "sha256": hashed}
    size, codec = model.input_shape[1:3], model.codec
    name = next(name for name, kind in CODECS.items() if type(codec) is kind)
    about = {
        "version": 1,
        "name": model.name,
        "model": model.spec.get("name"),
        "backbone": model.spec.get("backbone"),
        "input": {"size": list(size), "colour": "RGB", "range": [0, 255]},
        "heatmaps": {"size": [side // 4 for side in size]},
        "skeleton": model.skeleton.to_dict(),
        "codec": {"name": name, "scale": codec.scale(size).tolist(), **codec.get_config()},
        "crop": {"padding": geometry.PADDING},
        "threshold": 0.3,
        "files": entries,
        "made_from": {"weights_sha256": "", "preprocessing": model.spec.get("preprocessing"), "versions": {}},
    }
    (folder / "model.json").write_text(json.dumps(about))


@pytest.fixture(scope="module")
def network():
    return dots.network(SIZE)


@pytest.fixture(scope="module")
def folder(network, tmp_path_factory):
    """Both outputs in two precisions, beside the network itself."""
    folder = tmp_path_factory.mktemp("exported")
    pairs = [(output, precision) for output in ("heatmaps", "keypoints") for precision in ("float32", "int8")]
    export(network, folder, **{f"{output}_{precision}": (output, precision) for output, precision in pairs})
    network.save(folder / "best.keras")
    return folder


@pytest.fixture(scope="module")
def people(tmp_path_factory):
    """Two images of four people; annotations up to 15 pixels off, so that some joints are wrong."""
    folder = tmp_path_factory.mktemp("people")
    truth = np.concatenate([joints(1), joints(2)])
    for number in range(2):
        Image.fromarray(dots.picture(PICTURE, truth[4 * number : 4 * number + 4])).save(folder / f"{number}.png")
    annotated = truth + np.random.default_rng(3).uniform(-15, 15, truth.shape)
    return People(
        source=str(folder / "truth.json"),
        skeleton=dots.DOTS,
        image_paths=[str(folder / f"{number}.png") for number in range(2)],
        image_ids=range(2),
        image_index=np.repeat([0, 1], 4),
        ids=range(8),
        boxes=np.tile(BOXES, (2, 1)),
        keypoints=np.concatenate([annotated, np.full((8, 3, 1), 2)], axis=-1),
        reference_length=np.full(8, 50),
        areas=np.full(8, 2500),
    )


def in_cells(one, other):
    """The largest difference of joints ``(4, 3, 3)`` in heatmap cells."""
    cells = geometry.scale_of(crop_matrices(BOXES, SIZE))[:, None, None] / 4
    return np.abs((one - other)[..., :2] * cells).max()


# --- the same joints ----------------------------------------------------------------------------------------------


def pairs(folder, **options):
    """Joints of both precisions and of Keras, in five images."""
    keras, float32, int8 = (
        Predictor(folder / f"{name}", **options)
        for name in ("best.keras", "heatmaps_float32.tflite", "heatmaps_int8.tflite")
    )
    for seed in range(5):
        picture = dots.picture(PICTURE, joints(seed))
        yield keras(picture, BOXES), float32(picture, BOXES), int8(picture, BOXES)


@pytest.mark.parametrize("flip_test", [False, True])
@pytest.mark.parametrize("codec", [None, "dark"])
def test_heatmaps_give_the_joints_of_keras(folder, codec, flip_test):
    """float32: sums in another order. int8: see the bounds."""
    # The published codec rounds to a peak and a quarter: near the middle between two cells and near the middle of one
    # it jumps by half a cell, and 256 levels decide for themselves there. DARK does not jump: rounding is off by 0.3
    # levels, of 100 for a low peak; smoothed, the slope of the log is off by 0.1 %, over a curvature of some 0.3 that
    # is 0.003 cells in the mean, and three or four times that for the worst.
    bound = 0.51 if codec is None else 0.03
    largest = 0
    for wanted, float32, int8 in pairs(folder, codec=codec, flip_test=flip_test):
        np.testing.assert_allclose(float32, wanted, rtol=0, atol=1e-4)
        assert in_cells(int8, wanted) < bound
        # a level, and what is rounded before
        np.testing.assert_allclose(int8[..., 2], wanted[..., 2], rtol=0, atol=2 / 256)
        largest = max(largest, abs(int8 - wanted).max())
    assert largest > 1e-3  # int8 is int8


@pytest.mark.parametrize("precision", ["float32", "int8"])
def test_keypoints_give_the_joints_of_the_heatmaps(folder, precision):
    """The interpreter rounds as often; decoding inside is float32: 1e-4 crop pixels, up to 2.5 image pixels each."""
    maps = Predictor(folder / f"heatmaps_{precision}.tflite", flip_test=False)
    ends = Predictor(folder / f"keypoints_{precision}.tflite", flip_test=False)
    assert ends.ends_in_keypoints and not maps.ends_in_keypoints
    for seed in range(3):
        picture = dots.picture(PICTURE, joints(seed))
        np.testing.assert_allclose(ends(picture, BOXES), maps(picture, BOXES), rtol=0, atol=3e-4)
    nothing = ends(np.zeros((*PICTURE, 3), np.uint8), BOXES)
    np.testing.assert_allclose(nothing, maps(np.zeros((*PICTURE, 3), np.uint8), BOXES), rtol=0, atol=3e-4)


def test_what_it_is(folder, network):
    exported = ExportedModel(folder / "heatmaps_int8.tflite")
    assert (exported.name, exported.skeleton, exported.codec) == ("dots", dots.DOTS, network.codec)
    assert (exported.output, exported.precision, exported.input_shape) == ("heatmaps", "litert int8", (1, *SIZE, 3))
    predictor = Predictor(exported)
    assert predictor.model is exported and predictor.input_size == SIZE
    one = predictor.heatmaps(crops(1))
    assert one.shape == (1, 24, 16, 3) and one.dtype == np.float32
    np.testing.assert_array_equal(predictor.heatmaps(crops(2))[:1], one)


def test_left_and_right_change_places(tmp_path):
    """The sidecar's pairs are those of the flip test."""
    skeleton = Skeleton("paired", ("left_hip", "right_hip", "nose"), flip_pairs=((0, 1),))
    network = dots.network(SIZE, skeleton)
    export(network, tmp_path, net=("heatmaps", "float32"))
    image = crops(1)
    wanted = Predictor(network).heatmaps(image)
    np.testing.assert_allclose(Predictor(tmp_path / "net.tflite").heatmaps(image), wanted, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    "codec",
    [
        GaussianCodec(1.5),
        GaussianCodec(1.5, published_border=False),
        GaussianCodec(1.5, flip_shift=False),
        DarkCodec(1.5),
        DarkCodec(1.5, flip_shift=False),
        UDPCodec(1.5),
    ],
    ids=str,
)
def test_a_flip_test_needs_no_keras(tmp_path, codec):
    """It is the codec's own."""
    skeleton = Skeleton("paired", ("left_hip", "right_hip", "nose"), flip_pairs=((0, 1),))
    export(dots.network(SIZE, skeleton, codec), tmp_path, net=("heatmaps", "float32"))
    maps, flipped = np.random.default_rng(3).random((2, 2, 24, 16, 3), np.float32)
    wanted = keras.ops.convert_to_numpy(codec.merge_flipped(maps, flipped, skeleton.flip_indices))
    merged = ExportedModel(tmp_path / "net.tflite").merge_flipped(maps, flipped)
    assert merged.dtype == np.float32
    np.testing.assert_allclose(merged, wanted, rtol=1e-6)


# --- evaluated ----------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("flip_test", [True, False])
def test_evaluation_gives_the_numbers_of_keras(folder, people, flip_test):
    keras, lite = (
        evaluate(Predictor(folder / name, flip_test=flip_test, batch_size=3), people)
        for name in ("best.keras", "heatmaps_float32.tflite")
    )
    assert 0 < keras.value < 1 and lite.numbers == keras.numbers and lite.diagnosis == keras.diagnosis
    assert set(lite.predictions.keypoints) == set(keras.predictions.keypoints)
    for way, found in keras.predictions.keypoints.items():
        np.testing.assert_allclose(lite.predictions.keypoints[way], found, rtol=0, atol=1e-3)


@pytest.mark.slow
def test_joints_have_one_way(folder, people):
    ends = Predictor(folder / "keypoints_float32.tflite", flip_test=False, batch_size=3)
    result = evaluate(ends, people)
    assert set(result.predictions.keypoints) == {"gaussian/single"}
    wanted = predict(Predictor(folder / "best.keras", flip_test=False), people).keypoints["gaussian/single"]
    np.testing.assert_allclose(result.predictions.read(result.settings), wanted, rtol=0, atol=1e-3)


def test_stamp(folder, people, network):
    """Keras and int8 differ in their weights and how precise they are; a comparison says what that costs."""
    first, second = (evaluate(Predictor(folder / f), people) for f in ("best.keras", "heatmaps_int8.tflite"))
    wanted = {
        "network.precision": ("float32", "litert int8"),
        "network.weights_sha256": (
            provenance.of_network(Predictor(network))["weights_sha256"],
            hashlib.sha256((folder / "heatmaps_int8.tflite").read_bytes()).hexdigest(),
        ),
        "versions.ai_edge_litert": (None, second.protocol["versions"]["ai_edge_litert"]),
    }
    different = compare.differences(first.protocol, second.protocol)
    assert {name: values for name, *values in different} == {name: list(values) for name, values in wanted.items()}
    (change,) = compare.changes(first, second, people)
    assert change.name == "network" and change.of_first == pytest.approx(second.value - first.value)


# --- the command line ---------------------------------------------------------------------------------------------


def test_command_line(run, tmp_path, capsys):
    """`evaluate` and `predict` take a file; the results of two files lie side by side."""
    dataset.write(tmp_path / "drawn", 3, seed=3, split="val2017")
    model = keras_mrpose.build("simplebaseline", backbone="tiny_v1b", input_shape=(*SIZE, 3), skeleton="coco")
    (tmp_path / "export").mkdir()
    export(model, tmp_path / "export", maps=("heatmaps", "float32"), ends=("keypoints", "float32"))
    file, ends = tmp_path / "export" / "maps.tflite", tmp_path / "export" / "ends.tflite"
    assert commands.call(run, "evaluate", file, "--data", tmp_path / "drawn", "--no-diagnosis") == 0
    assert commands.call(run, "evaluate", ends, "--data", tmp_path / "drawn", "--no-diagnosis", "--no-flip") == 0
    picture = next((tmp_path / "drawn" / "val2017").iterdir())
    assert commands.call(run, "predict", file, picture, "--out", tmp_path / "out") == 0
    capsys.readouterr()
    assert commands.call(run, "predict", ends, picture, "--flip", "--out", tmp_path / "out") == 2
    assert "give --no-flip" in capsys.readouterr().err
    made = {path.name for path in file.parent.iterdir()}
    assert made >= {f"{stem}.result.{suffix}" for stem in ("maps", "ends") for suffix in ("json", "npz")}
    result = Result.load(tmp_path / "export" / "maps.result.json")
    assert result.protocol["network"] == provenance.of_network(Predictor(model)) | {
        "precision": "litert float32",
        "weights_sha256": hashlib.sha256(file.read_bytes()).hexdigest(),
    }
    assert len(list((tmp_path / "out").iterdir())) == 2


# --- mistakes -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{}, {"flip_test": False, "codec": "dark"}])
def test_joints_cannot_be_read_in_another_way(folder, options):
    with pytest.raises(
        InputError, match=r"export of dots ends in keypoints, decoded by GaussianCodec\(.*give flip_test=F"
    ):
        Predictor(folder / "keypoints_float32.tflite", **options)


def test_joints_are_no_heatmaps(folder):
    with pytest.raises(InputError, match="ends in keypoints; take the export that ends in heatmaps"):
        Predictor(folder / "keypoints_float32.tflite", flip_test=False).heatmaps(crops(1))


@pytest.fixture
def copied(folder, tmp_path):
    """One file and its sidecar, to be spoilt."""
    for name in ("model.json", "heatmaps_float32.tflite"):
        shutil.copy(folder / name, tmp_path)
    return tmp_path / "heatmaps_float32.tflite"


def refused(file, words):
    with pytest.raises(InputError, match=words) as caught:
        Predictor(file)
    assert "\n" not in str(caught.value) and ".)" not in str(caught.value) and str(file.parent) in str(caught.value)


def edit(file, change):
    sidecar = file.with_name("model.json")
    about = json.loads(sidecar.read_text())
    change(about)
    sidecar.write_text(json.dumps(about))


REQUIRED = ["version", "name", "model", "backbone", "input", "input.size", "heatmaps", "heatmaps.size", "skeleton"]
REQUIRED += ["skeleton.joints", "codec", "codec.name", "files", "made_from"]
REQUIRED += [f"files.F.{name}" for name in ("output", "precision", "sha256")]


@pytest.mark.parametrize("field", REQUIRED)
def test_a_sidecar_without_a_field(copied, field):
    *outer, last = (part.replace("F", copied.name) for part in field.split("."))

    def change(about):
        for part in outer:
            about = about[part]
        del about[last]

    edit(copied, change)
    refused(copied, rf"model\.json .*'{last}'.*export.* again")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"version": 2}, r"model\.json is of version 2, this library reads 1; export heatmaps_float32\.tflite again"),
        ({"files": {"other.tflite": {}}}, r"knows no heatmaps_float32\.tflite, only other\.tflite"),
        ({"files": {"heatmaps_float32.tflite": 3}}, "does not describe a network"),
        ({"codec": {"name": "dart", "sigma": 2.0}}, "Unknown codec 'dart'. Did you mean dark"),
        ({"codec": {"name": "dark", "width": 2.0}}, "unexpected keyword argument 'width'"),
        ({"codec": {"name": "dark", "sigma": -1}}, "sigma is -1; give a positive number"),
        ({"codec": "dark"}, "does not describe a network"),
        ({"skeleton": {"name": "two", "joints": ["a", "a"]}}, "has a joint name twice"),
        ({"skeleton": {"name": "two", "joints": ["a", "b"]}}, r"makes \(1, 24, 16, 3\) of .* makes \(1, 24, 16, 2\)"),
        ({"input": {"size": [64, 96]}}, r"of \(1, 96, 64, 3\), but .* of \(1, 64, 96, 3\); export it again"),
        ({"input": {"size": 96}}, "does not describe a network"),
        ({"heatmaps": {"size": [16, 24]}}, r"but .* that makes \(1, 16, 24, 3\)"),
    ],
    ids=str,
)
def test_a_sidecar_of_something_else(copied, changes, words):
    edit(copied, lambda about: about.update(changes))
    refused(copied, words)


def test_an_output_that_it_is_not(copied):
    edit(copied, lambda about: about["files"][copied.name].update(output="keypoints"))
    refused(copied, r"makes \(1, 24, 16, 3\) of \(1, 96, 64, 3\), but .* makes \(1, 3, 3\)")
    edit(copied, lambda about: about["files"][copied.name].update(output="both"))
    refused(copied, "Unknown output 'both'")


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b"3", b"\xff\xfe", b'{"files": []}', b'{"version": 1, "files": 3}']
)
def test_a_sidecar_that_is_none(copied, content):
    copied.with_name("model.json").write_bytes(content)
    refused(copied, r"model\.json is damaged or not of an export")


def test_files_that_are_missing_or_others(copied, folder, monkeypatch):
    gone = copied.with_name("gone.tflite")
    refused(gone, r"gone\.tflite is not there; give a \.keras file, a \.tflite file")
    shutil.copy(copied, gone)
    refused(gone, r"knows no gone\.tflite, only heatmaps_float32\.tflite, .*keep the names")
    content = copied.read_bytes()
    for other in (content[:-1], content + b"\0", (folder / "heatmaps_int8.tflite").read_bytes()):
        copied.write_bytes(other)
        refused(copied, r"heatmaps_float32\.tflite is not the file that .*model\.json describes")
    copied.write_bytes(content)
    Predictor(copied)
    with monkeypatch.context() as patch:
        patch.setattr(runtime, "Interpreter", None)
        with pytest.raises(InputError, match=r"pip install ai-edge-litert"):
            Predictor(copied)
    copied.with_name("model.json").unlink()
    refused(copied, r"model\.json is not there: it tells what heatmaps_float32\.tflite is; keep the two together")
    copied.unlink()
    copied.mkdir()
    refused(copied, "give the folder of a run")

"""An export's folder: all of it right, or nothing there; every mistake is one sentence."""

import dataclasses
import hashlib
import json
import shutil
import subprocess
import sys
import zipfile
from importlib import metadata
from pathlib import Path

import commands
import dotted
import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

import keras_mrpose
from keras_mrpose import InputError
from keras_mrpose.calibration import Calibration
from keras_mrpose.codecs import CODECS, UDPCodec
from keras_mrpose.data import augmentation
from keras_mrpose.data.images import read_image
from keras_mrpose.evaluation import provenance
from keras_mrpose.export import (
    TOLERANCES,
    Tolerance,
    ToleranceError,
    bundle,
    export_litert,
    litert,
)
from keras_mrpose.export.verify import Reference, reference_case
from keras_mrpose.geometry import crop_matrices
from keras_mrpose.predict.predictor import Predictor
from keras_mrpose.runtime import decoder
from keras_mrpose.runtime import litert as runtime
from keras_mrpose.skeletons import COCO, Skeleton

ALL = litert.PRECISIONS
CONFIDENCE = Calibration((0.1, 0.9), (0.2, 0.7), "close")
NAMES = [f"{output}_{precision}.tflite" for output in ("heatmaps", "keypoints") for precision in ALL]
OTHERS = ["decoder.py", "reference.npz", "model.json", "report.json", "report.md"]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return tmp_path_factory.mktemp("data")


@pytest.fixture(scope="module")
def people(data):
    return dotted.folder(data, "val2017", 10)


@pytest.fixture(scope="module")
def calibration(data):
    return dotted.folder(data, "train2017", 34, seed=1)


@pytest.fixture(scope="module")
def model():
    network = dotted.network()
    network.calibration = CONFIDENCE
    return network


@pytest.fixture(scope="module")
def exported(model, people, calibration, tmp_path_factory):
    """Everything that can be exported, in a folder whose parents are missing."""
    folder = tmp_path_factory.mktemp("exported") / "new" / "export"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bundle, "CALIBRATION", 40)
        options = {"people": people, "calibration": calibration, "outputs": ("heatmaps", "keypoints")}
        report = export_litert(model, folder, ALL, **options)
    return folder, report


@pytest.fixture
def copy(exported, tmp_path):
    return shutil.copytree(exported[0], tmp_path / "copy")


def about(folder):
    return json.loads((folder / "model.json").read_text())


def decoded(folder):
    """`python decoder.py` in a folder, where nothing but NumPy can be imported."""
    script = (
        "import sys, importlib.abc, runpy\n"
        "class Only(importlib.abc.MetaPathFinder):\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name in ('keras', 'tensorflow', 'keras_mrpose', 'PIL', 'scipy'): raise ImportError(name)\n"
        "sys.meta_path.insert(0, Only())\n"
        "runpy.run_path('decoder.py', run_name='__main__')\n"
    )
    return subprocess.run([sys.executable, "-c", script], cwd=folder, capture_output=True, text=True, check=False)


# --- the folder ---------------------------------------------------------------------------------------------------


def test_files(exported):
    folder, report = exported
    assert sorted(path.name for path in folder.iterdir()) == sorted(NAMES + OTHERS)
    assert list(folder.parent.iterdir()) == [folder]  # nothing beside it
    assert report.passed and list(report.files) == NAMES
    for name, entry in about(folder)["files"].items():
        content = (folder / name).read_bytes()
        output, precision = name.removesuffix(".tflite").split("_")
        assert (entry["output"], entry["precision"], entry["bytes"]) == (output, precision, len(content))
        assert entry["sha256"] == hashlib.sha256(content).hexdigest()
        assert (entry["input_type"], entry["output_type"]) == ("float32", "float32")
        assert entry["float_layers"] == (["joints"] if name == "keypoints_int8.tflite" else [])
        network = runtime.LiteRTModel(folder / name)
        shape = (1, 24, 16, 17) if output == "heatmaps" else (1, 17, 3)
        assert (network.input_shape, network.output_shape) == ((1, 96, 64, 3), shape)
    assert (folder / "decoder.py").read_bytes() == Path(decoder.__file__).read_bytes()


def test_sidecar(exported, model):
    found = about(exported[0])
    assert list(found["files"]) == NAMES
    made = found.pop("made_from")
    del found["files"]
    assert found == {
        "version": 1,
        "name": "dotted",
        "model": "dotted",
        "backbone": "none",
        "input": {"size": [96, 64], "colour": "RGB", "range": [0, 255]},
        "heatmaps": {"size": [24, 16]},
        "skeleton": json.loads(json.dumps(COCO.to_dict())),
        "codec": {
            "name": "gaussian",
            "scale": [0.25, 0.25],
            "sigma": 1.0,
            "flip_shift": True,
            "published_border": True,
        },
        "calibration": {"scores": [0.1, 0.9], "probabilities": [0.2, 0.7], "criterion": "close"},
        "crop": {"padding": 1.25},
        "threshold": 0.3,
    }
    assert made["weights_sha256"] == provenance.of_network(Predictor(model))["weights_sha256"]
    assert made["preprocessing"] == "own" and made["versions"]["tensorflow"] == metadata.version("tensorflow")
    assert "ai-edge-litert" in made["versions"]


def test_it_predicts_like_the_model(exported, model, people):
    """Through the sidecar, which is all that the predictor knows of it."""
    image, boxes = read_image(people.paths()[0]), people.boxes[:2]
    wanted = Predictor(model, flip_test=False)(image, boxes)
    for name, atol in (("heatmaps_float32", 1e-3), ("keypoints_float32", 1e-3), ("heatmaps_int8", 1.5)):
        found = Predictor(exported[0] / f"{name}.tflite", flip_test=False)(image, boxes)
        np.testing.assert_allclose(found, wanted, rtol=0, atol=atol)


def test_scores_are_probabilities_everywhere(exported, people):
    """In predictions of the files and in the reference case, which the NumPy decoder is checked with: 0.2 to 0.7."""
    image, boxes = read_image(people.paths()[0]), people.boxes[:2]
    plain = Predictor(dotted.network(), flip_test=False)(image, boxes)[..., 2]
    for name in ("heatmaps_float32", "keypoints_float32"):
        found = Predictor(exported[0] / f"{name}.tflite", flip_test=False)(image, boxes)[..., 2]
        np.testing.assert_allclose(found, np.interp(plain, [0.1, 0.9], [0.2, 0.7]), rtol=0, atol=1e-3)
    case = np.load(exported[0] / "reference.npz")
    peaks = case["heatmaps"].max(axis=(0, 1))
    np.testing.assert_allclose(case["joints"][:, 2], np.interp(peaks, [0.1, 0.9], [0.2, 0.7]), rtol=0, atol=1e-6)


def test_it_is_evaluated_as_by_the_export(exported, people):
    folder, report = exported
    for name in ("heatmaps_int8.tflite", "keypoints_float16.tflite"):
        found = keras_mrpose.evaluate(Predictor(folder / name, flip_test=False), people, diagnose=False)
        assert found.value == report.files[name].value


def test_report(exported, people):
    folder, report = exported
    found = json.loads((folder / "report.json").read_text())
    assert found == json.loads(json.dumps(report.to_dict()))
    assert (found["metric"], found["crops"], found["calibration"], found["passed"]) == ("AP", len(people), 40, True)
    assert found["tolerances"]["int8"] == {"points": 1.0, "correlation": 0.98, "shift": 6.0}
    page = (folder / "report.md").read_text()
    for name in NAMES:
        (line,) = [line for line in page.splitlines() if line.startswith(f"| {name.removesuffix('.tflite')} |")]
        value = 100 * found["files"][name]["value"]
        assert f"{100 * found['before']:.2f} -> {value:.2f}" in line and line.count("|") == 8
    worst = [line for line in page.splitlines() if "FULLY_CONNECTED" in line or "CONV_2D" in line]
    assert worst and 0 < len(found["worst"]) <= 10
    assert [one["rmse"] / one["scale"] for one in found["worst"]] == sorted(
        (one["rmse"] / one["scale"] for one in found["worst"]), reverse=True
    )
    levels = found["files"]["heatmaps_int8.tflite"]["levels"]
    assert (
        100 < levels <= 256 and f"| {levels} |" in page and found["files"]["heatmaps_float32.tflite"]["levels"] is None
    )


# --- the reference case ----------------------------------------------------------------------------------------------


def test_decoder_accepts_the_reference_case_with_numpy_alone(exported):
    done = decoded(exported[0])
    assert (done.returncode, done.stderr) == (0, ""), done
    assert done.stdout.startswith("crop: 0.0")


@pytest.mark.parametrize(
    "change",
    [
        {"codec": {"name": "dark", "scale": [0.25, 0.25], "sigma": 1.0}},
        {"codec": {"name": "gaussian", "scale": [23 / 95, 15 / 63], "published_border": True}},
        {"crop": {"padding": 1.2}},
    ],
    ids=["codec", "scale", "padding"],
)
def test_decoder_notices_a_wrong_sidecar(copy, change):
    (copy / "model.json").write_text(json.dumps(about(copy) | change))
    assert decoded(copy).returncode == 1


@pytest.fixture(scope="module")
def noisy(tmp_path_factory):
    """People whose images are black nowhere, so that a piece that is too small shows."""
    folder = tmp_path_factory.mktemp("noisy")
    people, rng = dotted.folder(folder, "val2017", 6), np.random.default_rng(0)
    for path in people.image_paths:
        image = read_image(path)
        Image.fromarray(np.maximum(image, rng.integers(30, 90, image.shape, np.uint8))).save(path)
    return people


@pytest.mark.parametrize("larger", [1, 1.5], ids=["inside", "over the edge"])
@pytest.mark.parametrize("codec", [kind(1.0) for kind in CODECS.values()], ids=CODECS)
def test_reference_case_is_the_whole_way(noisy, codec, larger):
    """A piece of an image, whose crop is that of the whole image, and the joints that the predictor finds in it."""
    people = dataclasses.replace(noisy, boxes=noisy.boxes * (1, 1, larger, larger))
    predictor = Predictor(dotted.network(codec), flip_test=False)
    case = reference_case(predictor, people, Reference(predictor, people))
    assert case["image"].dtype == np.uint8 and case["crop"].dtype == case["heatmaps"].dtype == np.float32
    assert case["crop"].shape == (96, 64, 3) and case["heatmaps"].shape == (24, 16, 17)
    wanted = predictor(case["image"], case["box"][None])[0]
    np.testing.assert_allclose(case["joints"], wanted, rtol=0, atol=1e-4)
    (row,) = [row for row in range(len(people)) if _is_piece(people, row, case)]
    whole = read_image(people.paths()[row])
    matrix = crop_matrices(people.boxes[[row]], (96, 64))[0]
    crop = augmentation.warp(tf.constant(whole), tf.constant(matrix, tf.float32), (96, 64))
    np.testing.assert_allclose(case["crop"], crop, rtol=0, atol=0.05)  # positions in float32
    assert case["image"].size < whole.size and (crop[-1].numpy().max() == 0) == (larger > 1)


def _is_piece(people, row, case):
    """Whether the case's image is where it says in a person's image."""
    left, top = np.rint(people.boxes[row, :2] - case["box"][:2]).astype(int)
    height, width = case["image"].shape[:2]
    piece = read_image(people.paths()[row])[top : top + height, left : left + width]
    return np.array_equal(piece, case["image"])


def test_reference_person_is_confident_and_not_large(people):
    """Person 3 is the most confident, person 5 of those whose window is no more than twice the crop."""
    boxes = people.boxes.copy()
    boxes[3, 2:] *= 3
    people = dataclasses.replace(people, boxes=boxes)
    predictor = Predictor(dotted.network(), flip_test=False)
    reference = Reference(predictor, people)
    reference.scores[:] = 0.5
    reference.scores[3], reference.scores[5], reference.scores[6, 1:] = 0.9, 0.8, 0.95
    assert _is_piece(people, 5, reference_case(predictor, people, reference))
    everybody_large = dataclasses.replace(people, boxes=boxes * (1, 1, 4, 4))
    assert _is_piece(everybody_large, 3, reference_case(predictor, everybody_large, reference))


def test_reference_case_of_a_crop_without_an_image(people):
    predictor = Predictor(dotted.network(UDPCodec(1.0)), flip_test=False)
    crops = Reference(predictor, people).crops
    case = reference_case(predictor, crops, Reference(predictor, crops))
    np.testing.assert_allclose(case["crop"], case["image"], rtol=0, atol=1e-3)  # it is its own crop
    assert any(np.array_equal(np.rint(crop), case["image"]) for crop in crops)


# --- options ------------------------------------------------------------------------------------------------------


def test_options(people, calibration, tmp_path, monkeypatch):
    """A file, uint8, plain crops on both sides, a layer in float, and an earlier export that is replaced."""
    monkeypatch.setattr(bundle, "CALIBRATION", 32)
    dotted.network().save(tmp_path / "best.keras")
    predictor = Predictor(tmp_path, flip_test=False)
    crops = Reference(predictor, people).crops
    plain = bundle.calibration_crops(predictor, calibration)
    options = {"people": crops, "calibration": plain, "input_type": "uint8", "float_layers": ["joints"]}
    report = export_litert(tmp_path, tmp_path / "export", ["int8", "float32", "int8"], **options)
    assert list(report.files) == ["heatmaps_int8.tflite", "heatmaps_float32.tflite"]
    assert (report.metric, report.before, report.headings()[-2]) == (None, None, "shift")
    assert "without labels" in (tmp_path / "export" / "report.md").read_text()
    entries = about(tmp_path / "export")["files"]
    assert entries["heatmaps_int8.tflite"]["float_layers"] == ["joints"]
    assert report.files["heatmaps_int8.tflite"].levels is None  # its last layer is in float
    for name, entry in entries.items():
        assert runtime.LiteRTModel(tmp_path / "export" / name).input_type == np.uint8 and entry["input_type"] == "uint8"
    assert decoded(tmp_path / "export").returncode == 0
    (tmp_path / "export" / "old").write_text("old")
    export_litert(tmp_path, tmp_path / "export", ["float16"], people=people, overwrite=True)
    assert sorted(path.name for path in (tmp_path / "export").iterdir()) == sorted(["heatmaps_float16.tflite", *OTHERS])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["best.keras", "export"]


@pytest.mark.slow
def test_whole_numbers_in_and_out(people, calibration, tmp_path, monkeypatch):
    """Only int8's heatmaps change; they are verified as they leave, and the predictor reads them as before."""
    monkeypatch.setattr(bundle, "CALIBRATION", 32)
    options = {"calibration": calibration, "input_type": "uint8", "output_type": "uint8"}
    options["outputs"] = ["heatmaps", "keypoints"]
    report = export_litert(dotted.network(), tmp_path / "export", ["float32", "int8"], people=people, **options)
    entries = about(tmp_path / "export")["files"]
    types = {name: entry["output_type"] for name, entry in entries.items()}
    whole = "heatmaps_int8.tflite"
    assert types == {name: "uint8" if name == whole else "float32" for name in entries} and len(types) == 4
    network = runtime.LiteRTModel(tmp_path / "export" / whole)
    assert (network.input_type, network.output_type) == (np.uint8, np.uint8)
    assert report.files[whole].levels > 50
    image = np.zeros((120, 90, 3), np.uint8)
    found = Predictor(tmp_path / "export" / whole)(image, [[0, 0, 90, 120]])
    assert found.shape == (1, 17, 3) and np.isfinite(found).all()


def test_files_tell_what_they_are(exported):
    """By name, with the joints' names inside."""
    folder, _ = exported
    for path in folder.glob("*.tflite"):
        (signature,) = runtime.Interpreter(str(path)).get_signature_list().values()
        assert signature == {"inputs": ["image"], "outputs": ["heatmaps" if "heatmaps" in path.name else "joints"]}
        with zipfile.ZipFile(path) as archive:
            assert archive.read("joints.txt").decode().splitlines() == about(folder)["skeleton"]["joints"]


@pytest.mark.slow
def test_calibration_is_augmented(model, calibration):
    """More crops than people, few of them alike, none as it would be still; the same ones every time."""
    predictor = Predictor(model)
    crops = bundle.calibration_crops(predictor, calibration)
    assert crops.shape == (256, 96, 64, 3) and crops.dtype == np.float32 and 200 < crops.max() <= 255
    assert len(np.unique(crops.reshape(256, -1), axis=0)) > 240  # a scale is clipped
    still = Reference(Predictor(model, flip_test=False), calibration).crops
    assert min(np.abs(still - crop).max(axis=(1, 2, 3)).min() for crop in crops) > 1
    nameless = Skeleton("nameless", [f"joint_{i}" for i in range(17)])  # crops have no labels: no sides are needed
    again = bundle.calibration_crops(predictor, dataclasses.replace(calibration, skeleton=nameless))
    np.testing.assert_array_equal(crops, again)


# --- what does not ship --------------------------------------------------------------------------------------------


def refuse(words, kind, folder, *arguments, **options):
    """Refused in one line, and nothing has changed in the folder's parent."""
    before = commands.contents(folder.parent)
    with pytest.raises(kind, match=words) as caught:
        export_litert(*arguments, **options)
    assert "\n" not in str(caught.value)
    assert commands.contents(folder.parent) == before
    return caught.value


@pytest.mark.slow
def test_dark_calibration_is_beyond_the_tolerance(model, people, data, tmp_path):
    """Ranges of images a tenth as bright: all maps are cut at a tenth, and nothing is left of the places."""
    dark = dotted.folder(tmp_path / "dark", "train2017", 34, brightness=0.1)
    error = refuse(
        r"Nothing was written: heatmaps_int8\.tflite loses \d+\.\d+ points of AP \(tolerance 1\)",
        ToleranceError,
        tmp_path / "export",
        model,
        tmp_path / "export",
        ["float32", "int8"],
        people=people,
        calibration=dark,
    )
    assert "keep layers of the worst tensors in float" in str(error)
    assert not error.report.passed and error.report.worst
    assert error.report.files["heatmaps_float32.tflite"].faults == ()
    assert "Beyond the tolerance: heatmaps_int8.tflite loses" in error.report.markdown()


def test_an_earlier_export_survives_a_refusal(model, people, copy):
    none = {"float32": Tolerance(100, 2, 0)}  # no correlation is 2
    error = refuse(
        "heatmaps_float32.tflite has heatmaps of correlation 1.0000 .at least 2.; check on more crops than 10",
        ToleranceError,
        copy,
        model,
        copy,
        ["float32"],
        people=people,
        tolerances=none,
        overwrite=True,
    )
    assert list(error.report.tolerances) == ["float32"]


def test_a_decoder_that_disagrees_stops_the_export(model, people, copy, monkeypatch):
    """A bug of ours; the earlier export stays, and of a new one not even the folder above it."""
    monkeypatch.setattr(decoder, "check", lambda folder: (0.7, 0.0))
    before = commands.contents(copy.parent)
    for place in (copy, copy.parent / "new" / "export"):
        with pytest.raises(RuntimeError, match="off the reference case"):
            export_litert(model, place, ["float32"], people=people, overwrite=True)
        assert commands.contents(copy.parent) == before


@pytest.mark.parametrize("broken", ["write_bytes", "rename"])
def test_a_full_disk(model, people, copy, monkeypatch, broken):
    """While writing, and while moving into place: the earlier export is there again."""
    calls = []
    real = bundle.Path.rename

    def full(path, *arguments):
        calls.append(path)
        if broken == "rename" and len(calls) != 2:  # the second is the move into place
            return real(path, *arguments)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(bundle.Path, broken, full)
    refuse(
        "copy cannot be written: No space left",
        InputError,
        copy,
        model,
        copy,
        ["float32"],
        people=people,
        overwrite=True,
    )


# --- mistakes -----------------------------------------------------------------------------------------------------

MISTAKES = {
    "format": ({"formats": ["int4"]}, r"Unknown format 'int4'\. Did you mean int8"),
    "no format": ({"formats": []}, "No format to export; give some of float32"),
    "output": ({"outputs": ["heatmap"]}, r"Unknown output 'heatmap'\. Did you mean heatmaps"),
    "no output": ({"outputs": ()}, "No output to export"),
    "input type": ({"input_type": "int8"}, "Unknown input type 'int8'"),
    "output type": ({"output_type": "int4"}, "Unknown output type 'int4'"),
    "output without int8": ({"formats": ["float16"], "output_type": "uint8"}, "for heatmaps of int8"),
    "output of joints": (
        {"formats": ["int8"], "outputs": ["keypoints"], "output_type": "int8"},
        "for heatmaps of int8",
    ),
    "output in float": ({"formats": ["int8"], "float_layers": ["joints"], "output_type": "int8"}, "without layers in"),
    "deconvolution": ({"deconvolution": "shuffle"}, "deconvolution is 'shuffle'"),
    "tolerance": ({"tolerances": {"int9": TOLERANCES["int8"]}}, "Unknown format 'int9'"),
    "float layer": (
        {"formats": ["int8"], "float_layers": ["joint"]},
        "float_layers names 'joint'.*did you mean joints",
    ),
    "no int8": (
        {"formats": ["float16"], "float_layers": ["joints"]},
        "float_layers is for int8; leave it out",
    ),
    "no calibration": ({"formats": ["int8"], "calibration": None}, "calibrated with 0 crops; give at least 32"),
    "0..1": ({"formats": ["int8"], "calibration": np.full((40, 96, 64, 3), 0.5)}, "from 0.5 to 0.5; give RGB 0..255"),
    "normalised": (
        {"formats": ["int8"], "calibration": np.linspace(-100, 150, 40 * 96 * 64 * 3).reshape(40, 96, 64, 3)},
        "from -100 to 150; give RGB 0..255",
    ),
    "no people": ({"people": np.zeros((0, 96, 64, 3))}, "crops to check on have shape"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes(model, people, calibration, tmp_path, mistake, monkeypatch):
    """All are found before the first conversion."""
    monkeypatch.setattr(litert, "convert", lambda *_, **__: pytest.fail("too late"))
    monkeypatch.setattr(bundle, "CALIBRATION", 32)
    change, words = MISTAKES[mistake]
    options = {"formats": ["float32"], "people": people, "calibration": calibration} | change
    refuse(words, InputError, tmp_path / "export", model, tmp_path / "export", **options)


def test_too_few_people_to_calibrate(model, people, tmp_path):
    options = {"people": people, "calibration": people}
    words = r"val2017\.json has 10 people to calibrate int8 with; give at least 32"
    refuse(words, InputError, tmp_path / "export", model, tmp_path / "export", ["int8"], **options)


def test_a_model_of_others(people, tmp_path, exported):
    plain = keras.Sequential([keras.Input((96, 64, 3)), keras.layers.Conv2D(17, 1)])
    words = r"not one made by keras_mrpose\.build"
    refuse(words, InputError, tmp_path / "export", plain, tmp_path / "export", people=people)
    file = exported[0] / "heatmaps_float32.tflite"
    words = r"heatmaps_float32\.tflite has been exported already"
    refuse(words, InputError, tmp_path / "export", file, tmp_path / "export", people=people)


def test_without_the_interpreter(model, people, tmp_path, monkeypatch):
    monkeypatch.setattr(runtime, "Interpreter", None)
    words = r"takes ai-edge-litert: pip install ai-edge-litert"
    refuse(words, InputError, tmp_path / "export", model, tmp_path / "export", people=people)


def test_places(model, people, copy, tmp_path, monkeypatch):
    """Nothing is run for hours and then not written."""
    monkeypatch.setattr(litert, "convert", lambda *_, **__: pytest.fail("too late"))
    Image.new("RGB", (8, 8)).save(tmp_path / "file.png")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("text")
    for place, overwrite, words in (
        (copy, False, "copy holds an earlier export; give another folder, or overwrite it"),
        (tmp_path / "mine", True, r"mine is there and is no export \(it has no model\.json\)"),
        (tmp_path / "file.png", True, r"file\.png is there and is no export"),
        (tmp_path / "file.png" / "export", False, r"cannot be made: .*file\.png is no folder that can be written to"),
    ):
        refuse(words, InputError, place, model, place, people=people, overwrite=overwrite)
    monkeypatch.setattr(bundle.os, "access", lambda *_: False)  # for root every folder can be written to
    for place, words in (
        (tmp_path / "new" / "export", "export cannot be made: .* is no folder that can be written to"),
        (copy, "copy cannot be replaced: nothing can be written to"),
    ):
        refuse(words, InputError, tmp_path / "x", model, place, people=people, overwrite=True)


def test_red_is_red_from_the_file_to_the_reference_case(tmp_path):
    """Crops that calibrate, that are checked on, and that ship: in BGR they would be blue."""
    people = dotted.folder(tmp_path, "train2017", 34)
    red = np.zeros((*dotted.PICTURE, 3), np.uint8)
    red[..., 0] = 200
    for path in set(people.paths()):
        Image.fromarray(red).save(path)
    predictor = Predictor(dotted.network(), flip_test=False)
    checking = Reference(predictor, people)
    case = reference_case(predictor, people, checking)
    for crops in (bundle.calibration_crops(predictor, people), checking.crops, case["crop"], case["image"]):
        assert crops[..., 0].max() == pytest.approx(200)
        assert crops[..., 1:].max() == 0

"""Networks that come with the package: what is written is what is built, and what is wrong is told."""

import json
import shutil
from dataclasses import replace

import keras
import numpy as np
import pytest

import keras_mrpose
from keras_mrpose import presets
from keras_mrpose.calibration import Calibration
from keras_mrpose.codecs import DarkCodec
from keras_mrpose.errors import InputError
from keras_mrpose.export import export_litert
from keras_mrpose.export.verify import Tolerance
from keras_mrpose.models import networks, preset_weights
from keras_mrpose.predict.predictor import Predictor
from keras_mrpose.runtime import litert
from keras_mrpose.runtime.litert import ExportedModel
from keras_mrpose.skeletons import BODY19, COCO

SIZE = (64, 32, 3)
ANY = {"float16": Tolerance(100, 0, 1e6)}  # numbers that mean nothing
CALIBRATION = Calibration((0.1, 0.8), (0.05, 0.9), "close")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A tiny network with random weights, and the folder of its preset."""
    model = networks.build("mrfeanet1", "tiny_v1b", SIZE, skeleton=BODY19, codec=DarkCodec(1.5))
    rng = np.random.default_rng(0)
    for layer in model.layers:
        layer.set_weights([rng.uniform(0.1, 1, value.shape) for value in layer.get_weights()])
    norm = model.get_layer("deconv11_1")
    assert isinstance(norm, keras.layers.BatchNormalization)
    gamma, *others = norm.get_weights()
    norm.set_weights([np.r_[0, gamma[1:]], *others])  # a channel that is switched off
    model.calibration = CALIBRATION
    folder = tmp_path_factory.mktemp("presets") / "tiny"
    crops = rng.integers(0, 256, (4, *SIZE)).astype(np.float32)
    export_litert(model, folder, ["float16"], people=crops, tolerances=ANY)
    preset_weights.write_preset(model, folder)
    return model, folder


@pytest.fixture
def tiny(made, tmp_path, monkeypatch):
    """A preset of a tiny network; returns the network."""
    shutil.copytree(made[1], tmp_path / "tiny")
    monkeypatch.setattr(presets, "FOLDER", tmp_path)
    monkeypatch.setitem(presets.PRESETS, "tiny", replace(presets.PRESETS["people"], backbone="tiny_v1b"))
    return made[0]


def test_built_by_name(tiny):
    """Kernels are rounded to float16, all else is kept to the bit; joints, codec and calibration come with it."""
    model = keras_mrpose.build("mrfeanet1", "tiny_v1b", SIZE, weights="tiny")
    assert (model.skeleton, model.codec, model.calibration) == (BODY19, DarkCodec(1.5), CALIBRATION)
    kernels = 0
    for layer in model.layers:
        for mine, theirs in zip(layer.get_weights(), tiny.get_layer(layer.name).get_weights(), strict=True):
            if mine.ndim == 1:
                np.testing.assert_array_equal(mine, theirs)
                continue
            if layer.name == "deconv11_0":  # rows, columns, filters, inputs; the first filter is switched off
                assert not mine[:, :, 0].any()
                mine, theirs = mine[:, :, 1:], theirs[:, :, 1:]
            # float16 has 11 bits; dividing what was rounded as float32 before adds a few of 24
            np.testing.assert_allclose(mine, theirs, rtol=2**-11 + 2**-20)
            kernels += 1
    assert kernels > 10
    image = np.random.default_rng(1).integers(0, 256, (1, *SIZE)).astype(np.float32)
    maps, wanted = (keras.ops.convert_to_numpy(network(image)) for network in (model, tiny))
    assert np.corrcoef(maps.ravel(), wanted.ravel())[0, 1] > 0.999


def test_the_exported_network_is_the_built_one(tiny):
    """They read the same kernels; the rest, biases that are float16 in the file, is far below a grey level of a map."""
    model = keras_mrpose.build("mrfeanet1", "tiny_v1b", SIZE, weights="tiny")
    images = np.random.default_rng(1).integers(0, 256, (3, *SIZE)).astype(np.float32)
    built = keras.ops.convert_to_numpy(model(images))
    exported = ExportedModel(presets.exported_file("tiny"))
    assert (exported.skeleton, exported.codec, exported.calibration) == (BODY19, DarkCodec(1.5), CALIBRATION)
    np.testing.assert_allclose(exported.predict_on_batch(images), built, rtol=0, atol=2e-3 * np.abs(built).max())


def test_other_joints_are_mapped_or_refused(tiny):
    with pytest.raises(InputError, match="'tiny' has the 19 joints of body19, but coco is asked for"):
        keras_mrpose.build("mrfeanet1", "tiny_v1b", SIZE, skeleton="coco", weights="tiny")
    model = keras_mrpose.build("mrfeanet1", "tiny_v1b", SIZE, skeleton="coco", weights="tiny", map_joints=True)
    assert model.skeleton == COCO and model.calibration is None
    kernel, wanted = (network.get_layer("final_layer").get_weights()[0] for network in (model, tiny))
    np.testing.assert_allclose(kernel, wanted[..., :17], rtol=2**-11 + 2**-20)


def test_another_network_is_refused(tiny):
    with pytest.raises(InputError, match="The preset 'tiny' has backbone='tiny_v1b', but 'small_v1b' is asked for"):
        keras_mrpose.build("mrfeanet1", "small_v1b", SIZE, weights="tiny")
    with pytest.raises(InputError, match=r"no such weights file, nor a preset of that name \(did you mean tiny\?\)"):
        keras_mrpose.build("mrfeanet1", "tiny_v1b", SIZE, weights="tinny")


@pytest.mark.parametrize("damage", ["missing", "cut", "no about", "another network"])
def test_a_damaged_file_is_told(tiny, tmp_path, damage):
    path, network = tmp_path / "tiny" / "keras.npz", tmp_path / "tiny" / presets.LITERT
    if damage == "missing":
        path.unlink()
    elif damage == "cut":
        path.write_bytes(path.read_bytes()[:-100])
    elif damage == "no about":
        np.savez(path, a=np.zeros(3))
    else:
        network.write_bytes(network.read_bytes()[:-1] + b"?")
    with pytest.raises(InputError, match=r"keras\.npz is damaged or missing; install the package again"):
        keras_mrpose.build("mrfeanet1", "tiny_v1b", SIZE, weights="tiny")


def test_a_file_of_another_network_is_refused(tiny, tmp_path):
    other = networks.build("mrfeanet1", "tiny_v1b", SIZE, skeleton=BODY19, codec=DarkCodec(1.5))
    with pytest.raises(InputError, match=r"has no kernels of .*; export this network again"):
        preset_weights.write_preset(other, tmp_path / "tiny")


@pytest.mark.parametrize("name", [name for name, row in presets.PRESETS.items() if not row.address])
def test_the_package_has_what_it_names(name):
    """It is built, has a calibration, and its network is not larger than 10 MB; the exported one finds the same."""
    row = presets.PRESETS[name]
    assert presets.exported_file(name).stat().st_size <= 10_000_000
    model = keras_mrpose.PoseModel.from_preset(name)
    assert model.skeleton == BODY19 and model.calibration is not None
    assert (model.spec["name"], model.spec["backbone"]) == (row.network, row.backbone)
    assert (model.input_shape[1:3], model.skeleton.name, model.codec.sigma) == (row.input_size, row.skeleton, row.sigma)
    assert name in keras_mrpose.list_presets()
    assert json.dumps(model.calibration.to_dict())
    crops = presets.read_crops(name)[:4]
    built = Predictor(model, flip_test=False).keypoints(crops)
    exported = Predictor(presets.exported_file(name), flip_test=False).keypoints(crops)
    likely = built[1] > 0.3
    assert likely.mean() > 0.5
    shifts = np.linalg.norm(built[0] - exported[0], axis=-1)[likely]
    assert np.quantile(shifts, 0.95) < 0.1  # pixels of crops of 256x192
    assert np.abs(built[1] - exported[1]).max() < 0.01


def test_a_predictor_of_its_own():
    """Without arguments it is the network of the package: joints of a blank image have a low probability."""
    predictor = Predictor(flip_test=False)
    assert isinstance(predictor.model, ExportedModel)
    blank = np.full((120, 80, 3), 127, np.uint8)
    assert len(predictor(blank)) == 0  # nobody
    found = predictor(blank, [[0, 0, 80, 120]])
    assert found.shape == (1, 19, 3) and found[..., 2].max() < 0.5


def test_without_litert_it_is_built(monkeypatch):
    monkeypatch.setattr(litert, "Interpreter", None)
    assert isinstance(Predictor(flip_test=False).model, networks.PoseModel)

"""Networks that come with the package: what is written is what is built, and what is wrong is told."""

import json
from dataclasses import replace

import keras
import numpy as np
import pytest

import keras_mrpose
from keras_mrpose.calibration import Calibration
from keras_mrpose.codecs import DarkCodec
from keras_mrpose.errors import InputError
from keras_mrpose.models import networks, presets
from keras_mrpose.predict.predictor import Predictor
from keras_mrpose.skeletons import BODY19, COCO

SIZE = (64, 32, 3)
CALIBRATION = Calibration((0.1, 0.8), (0.05, 0.9), "close")


@pytest.fixture
def tiny(tmp_path, monkeypatch):
    """A preset of a tiny network with random weights; returns the network."""
    model = networks.build("mrfeanet1", "tiny_v1b", SIZE, skeleton=BODY19, codec=DarkCodec(1.5))
    rng = np.random.default_rng(0)
    for layer in model.layers:
        layer.set_weights([rng.uniform(0.1, 1, value.shape) for value in layer.get_weights()])
    model.calibration = CALIBRATION
    presets.write_preset(model, tmp_path / "tiny.npz")
    monkeypatch.setattr(presets, "FOLDER", tmp_path)
    row = replace(presets.PRESETS["people"], backbone="tiny_v1b", file="tiny.npz")
    monkeypatch.setitem(presets.PRESETS, "tiny", row)
    return model


def test_built_by_name(tiny):
    """Kernels are rounded to float16, all else is kept to the bit; joints, codec and calibration come with it."""
    model = keras_mrpose.build("mrfeanet1", "tiny_v1b", SIZE, weights="tiny")
    assert (model.skeleton, model.codec, model.calibration) == (BODY19, DarkCodec(1.5), CALIBRATION)
    rounded = 0
    for mine, theirs in zip(model.get_weights(), tiny.get_weights(), strict=True):
        if mine.ndim > 1:
            np.testing.assert_array_equal(mine, theirs.astype(np.float16).astype(np.float32))
            rounded += 1
        else:
            np.testing.assert_array_equal(mine, theirs)
    assert rounded > 10
    image = np.random.default_rng(1).integers(0, 256, (1, *SIZE)).astype(np.float32)
    maps, wanted = (keras.ops.convert_to_numpy(network(image)) for network in (model, tiny))
    assert np.corrcoef(maps.ravel(), wanted.ravel())[0, 1] > 0.999


def test_other_joints_are_mapped_or_refused(tiny):
    with pytest.raises(InputError, match="'tiny' has the 19 joints of body19, but coco is asked for"):
        keras_mrpose.build("mrfeanet1", "tiny_v1b", SIZE, skeleton="coco", weights="tiny")
    model = keras_mrpose.build("mrfeanet1", "tiny_v1b", SIZE, skeleton="coco", weights="tiny", map_joints=True)
    assert model.skeleton == COCO and model.calibration is None
    kernel, wanted = (network.get_layer("final_layer").get_weights()[0] for network in (model, tiny))
    np.testing.assert_array_equal(kernel, wanted[..., :17].astype(np.float16).astype(np.float32))


def test_another_network_is_refused(tiny):
    with pytest.raises(InputError, match="The preset 'tiny' has backbone='tiny_v1b', but 'small_v1b' is asked for"):
        keras_mrpose.build("mrfeanet1", "small_v1b", SIZE, weights="tiny")
    with pytest.raises(InputError, match=r"no such weights file, nor a preset \(people, tiny\)"):
        keras_mrpose.build("mrfeanet1", "tiny_v1b", SIZE, weights="tinny")


@pytest.mark.parametrize("damage", ["missing", "cut", "no about"])
def test_a_damaged_file_is_told(tiny, tmp_path, damage):
    path = tmp_path / "tiny.npz"
    if damage == "missing":
        path.unlink()
    elif damage == "cut":
        path.write_bytes(path.read_bytes()[:-100])
    else:
        np.savez(path, a=np.zeros(3))
    with pytest.raises(InputError, match=r"tiny\.npz is damaged or missing; install the package again"):
        keras_mrpose.build("mrfeanet1", "tiny_v1b", SIZE, weights="tiny")


def test_weights_beyond_float16_are_not_written(tiny, tmp_path):
    values = tiny.get_layer("final_layer").get_weights()
    values[0][0] = 1e6
    tiny.get_layer("final_layer").set_weights(values)
    with pytest.raises(InputError, match="Layer final_layer has a weight that float16 cannot hold"):
        presets.write_preset(tiny, tmp_path / "other.npz")


@pytest.mark.parametrize("name", presets.PRESETS)
def test_the_package_has_what_it_names(name):
    """It is built, has a calibration, and its file is not larger than 10 MB."""
    row = presets.PRESETS[name]
    assert (presets.FOLDER / row.file).stat().st_size <= 10_000_000
    model = keras_mrpose.build(row.network, row.backbone, weights=name)
    assert model.skeleton == BODY19 and model.calibration is not None
    assert name in keras_mrpose.list_presets()
    assert json.dumps(model.calibration.to_dict())


def test_a_predictor_of_its_own():
    """Without arguments it is the network of the package: joints of a blank image have a low probability."""
    predictor = Predictor(flip_test=False)
    blank = np.full((120, 80, 3), 127, np.uint8)
    assert len(predictor(blank)) == 0  # nobody
    found = predictor(blank, [[0, 0, 80, 120]])
    assert found.shape == (1, 19, 3) and found[..., 2].max() < 0.5

"""Presets that are downloaded: from an address to joints, and one sentence where that cannot be.

The addresses are of files on this machine: what the publisher's server does, no test here knows.
"""

import hashlib
import json
import math
import re
from dataclasses import replace

import keras
import numpy as np
import pytest
from keras.src.utils import file_utils
from published import SHAPE, formula_input, formula_tensors, formula_weight

import keras_mrpose
from keras_mrpose import presets
from keras_mrpose.checkpoints.torch_files import write_torch_file
from keras_mrpose.codecs import GaussianCodec
from keras_mrpose.errors import InputError
from keras_mrpose.models import build, downloads, list_backbones, list_models
from keras_mrpose.predict.predictor import load_model
from keras_mrpose.skeletons import COCO

MMPOSE = {name: row for name, row in presets.PRESETS.items() if row.address}
COCO_256 = presets.PRESETS["simplebaseline_mobilenetv2_coco_256x192"]


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """Keras' cache, empty; returns our folder in it."""
    (tmp_path / "cache").mkdir()
    monkeypatch.setattr(file_utils.config, "keras_home", lambda: str(tmp_path / "cache"))
    return tmp_path / "cache" / downloads.CACHE


def published(folder, tensors, row, **changes):
    """The row of a preset whose file has been written to a folder, its hash in its name as MMPose does."""
    folder.mkdir(exist_ok=True)
    path = folder / "new.pth"
    write_torch_file(path, tensors, {"meta": 1})
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    path = path.rename(folder / f"net_8xb64-210e_coco-{digest[:8]}_20220923.pth")
    return replace(row, address=path.as_uri(), **changes)


@pytest.fixture
def tiny(tmp_path, monkeypatch, cache):
    """A preset "tiny" of a tiny network; returns its row."""
    tensors = formula_tensors(build("simplebaseline", "tiny_v1b", SHAPE))
    named = {("head." if name[0] in "df" else "backbone.") + name: value for name, value in tensors.items()}
    changes = {"backbone": "tiny_v1b", "input_size": SHAPE[:2], "sigma": 3.0}
    row = published(tmp_path / "server", named, COCO_256, **changes)
    monkeypatch.setitem(presets.PRESETS, "tiny", row)
    return row


# --- the table -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", MMPOSE)
def test_rows(name, golden_dir):
    """A name says what its row says, and so does the file's; the size is that of the golden tensors, in float32."""
    row = MMPOSE[name]
    network, backbone, data, size = name.split("_")
    height, width = map(int, size.split("x"))
    assert (row.network, row.input_size, row.skeleton) == (network, (height, width), data)
    assert row.backbone in (f"{backbone}_v1b", f"{backbone}_torch") and row.backbone in list_backbones()
    assert row.network in list_models()
    assert row.sigma == (3 if (height, width) == (384, 288) else 2)  # MPII has 2 at 256x256
    assert f"{data}{'-' if data == 'coco' else '_'}{size}" in row.address
    assert backbone.replace("resnet", "res") in row.address
    assert re.fullmatch(r"https://download\.openmmlab\.com/mmpose/\S+-[0-9a-f]{8}_20\d{6}\.pth", row.address)
    assert row.address.split("-")[-1].split("_")[0] == row.sha256
    entries = json.loads((golden_dir / "mmpose.json").read_text())[backbone]["entries"]
    assert row.megabytes == round(4e-6 * sum(math.prod(shape) for _, shape in entries))
    assert row.metric == {"coco": "AP", "mpii": "PCKh"}[data] and 60 < row.value < 90


def test_the_list_tells_what_a_user_wants_to_see():
    rows = keras_mrpose.list_presets()
    assert list(rows) == list(presets.PRESETS) and len(MMPOSE) == 11
    assert rows is not presets.PRESETS
    lines = repr(rows).splitlines()
    assert len(lines) == len(rows)
    for (name, row), line in zip(rows.items(), lines, strict=True):
        assert line.startswith(name)
        assert all(word in line for word in (row.data, row.licence, row.source, row.metric, f"{row.megabytes} MB"))


# --- the download ----------------------------------------------------------------------------------------------------


def test_mmpose_mobilenet_computes_what_mmpose_computes(golden_dir, tmp_path, cache, monkeypatch):
    """From an address to heatmaps: all names, shapes and parameters, and one forward pass."""
    facts = json.loads((golden_dir / "mmpose.json").read_text())["mobilenetv2"]
    check_forward("mobilenetv2", facts, golden_dir, tmp_path, monkeypatch)


@pytest.mark.slow
def test_mmpose_resnet_computes_what_mmpose_computes(golden_dir, tmp_path, cache, monkeypatch):
    facts = json.loads((golden_dir / "mmpose.json").read_text())["resnet50"]
    check_forward("resnet50", facts, golden_dir, tmp_path, monkeypatch)


def check_forward(backbone, facts, golden_dir, tmp_path, monkeypatch):
    tensors = {
        name: formula_weight(name, shape) * np.float32(0.2 if name.endswith("conv.2.bn.weight") else 1)
        if shape
        else np.zeros((), np.int64)
        for name, shape in facts["entries"]
    }
    name = f"simplebaseline_{backbone}_coco_256x192"
    monkeypatch.setitem(presets.PRESETS, name, published(tmp_path / "server", tensors, presets.PRESETS[name]))
    model = build(preset=name, include_preprocessing=False)
    assert sum(math.prod(variable.shape) for variable in model.trainable_variables) == facts["trainable_params"]
    counters = sum(not shape for _, shape in facts["entries"])
    assert len(model.variables) == len(facts["entries"]) - counters
    shape = tuple(facts["input_nhwc"])
    assert model.input_shape[1:] == shape[1:] and model.skeleton == COCO and model.codec == GaussianCodec(2.0)
    expected = np.load(golden_dir / "mmpose.npz")[f"{backbone}_heatmaps"]
    heatmaps = keras.ops.convert_to_numpy(model(formula_input(facts["input_seed"], shape)))
    # PyTorch's own float32 and float64 differ by f32_vs_f64; ours is another order of the same float32 additions
    np.testing.assert_allclose(heatmaps, expected, rtol=0, atol=3 * facts["f32_vs_f64"])


def test_a_download_is_kept(tiny, cache, tmp_path):
    model = keras_mrpose.PoseModel.from_preset("tiny")
    assert model.spec["name"] == "simplebaseline" and model.spec["preprocessing"] == "torchvision"
    assert (model.input_shape[1:], model.skeleton, model.codec) == (SHAPE, COCO, GaussianCodec(3.0))
    kernel = formula_tensors(model)["final_layer.weight"].transpose(2, 3, 1, 0)
    np.testing.assert_array_equal(model.get_layer("final_layer").kernel, kernel)
    (file,) = cache.iterdir()
    (tmp_path / "server" / file.name).unlink()  # the second time it comes from the cache
    for again in (build("pose_resnet", "tiny_v1b", SHAPE, weights="tiny"), load_model("tiny")):
        np.testing.assert_array_equal(again.get_layer("final_layer").kernel, kernel)


def test_other_arguments_still_apply(tiny):
    larger = build(preset="tiny", input_shape=(96, 64, 3), codec="dark")
    assert larger.output_shape == (None, 24, 16, 17) and larger.codec.sigma == 2.0
    assert type(larger.codec).__name__ == "DarkCodec"
    mapped = build(preset="tiny", skeleton="body19", map_joints=True)
    assert mapped.skeleton.name == "body19"
    kernel = formula_tensors(larger)["final_layer.weight"].transpose(2, 3, 1, 0)
    np.testing.assert_array_equal(mapped.get_layer("final_layer").kernel[..., :17], kernel)
    for arguments, words in (
        ({"skeleton": "body19"}, "'tiny' has the 17 joints of coco, but body19 is asked for; map_joints=True"),
        ({"name": "mrfeanet1"}, "'tiny' has name='simplebaseline', but 'mrfeanet1' is asked for"),
        ({"backbone": "small_v1b"}, "'tiny' has backbone='tiny_v1b', but 'small_v1b' is asked for"),
        ({"weights": "people"}, "give preset or weights, not both"),
    ):
        with pytest.raises(InputError, match=re.escape(words)):
            build(preset="tiny", **arguments)


def test_a_spoilt_file_is_deleted(tiny, cache, tmp_path):
    (file,) = (tmp_path / "server").iterdir()
    good = file.read_bytes()
    file.write_bytes(good[:-1])
    digest = hashlib.sha256(good[:-1]).hexdigest()
    with pytest.raises(
        InputError, match=rf"'tiny', was spoilt \(its SHA-256 begins with {digest[:8]}, not {tiny.sha256}\)"
    ):
        downloads.download("tiny", tiny)
    assert not list(cache.iterdir())
    file.write_bytes(good)
    path = downloads.download("tiny", tiny)  # and trying again helps
    assert path.parent == cache and path.read_bytes() == good
    path.write_bytes(good[:100])  # as by a machine that was switched off
    with pytest.raises(InputError, match="has been deleted; try again"):
        downloads.download("tiny", tiny)
    assert not list(cache.iterdir())


def test_no_connection_is_one_sentence(tiny, cache, tmp_path):
    (file,) = (tmp_path / "server").iterdir()
    file.unlink()
    with pytest.raises(InputError) as error:
        build(preset="tiny")
    message = str(error.value)
    assert "The preset 'tiny' could not be downloaded (<urlopen error" in message and "\n" not in message
    assert "check the connection" in message and tiny.address in message
    assert not list(cache.iterdir())


# --- names -----------------------------------------------------------------------------------------------------------


def test_what_is_no_preset():
    with pytest.raises(
        InputError, match=r"Unknown preset 'simplebaseline_resnet50_coco'\. Did you mean simplebaseline_"
    ):
        build(preset="simplebaseline_resnet50_coco")
    with pytest.raises(InputError, match=r"give backbone_weights='imagenet'"):
        build("simplebaseline", "tiny_v1b", SHAPE, weights="imagenet")
    with pytest.raises(
        InputError, match=r"The network's name is None; give one of simplebaseline, .*, or preset, one of"
    ):
        build()
    with pytest.raises(InputError, match=r"is downloaded; exported networks and crops come with people alone"):
        presets.read_crops(next(iter(MMPOSE)))

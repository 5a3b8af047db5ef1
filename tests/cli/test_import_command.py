"""`mrpose import`: checkpoints in and out by command, and one sentence where that cannot be."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
from commands import call
from published import SHAPE, published_file

import keras_mrpose
from keras_mrpose import skeletons, training
from keras_mrpose.checkpoints import state_dicts
from keras_mrpose.checkpoints.torch_files import write_torch_file

TINY = ("--backbone", "tiny_v1b", "--input-size", "64", "32")


def test_in_and_out_again(run, tmp_path, capsys):
    file = published_file(tmp_path / "mrfea2.pth.tar")
    folder = tmp_path / "runs" / "imported"
    assert call(run, "import", file, "--model", "mrfea2_pose_resnet", *TINY, "--out", folder) == 0
    printed = capsys.readouterr().out
    assert "mrfeanet2" in printed and "17 joints" in printed and "none missing" in printed
    predictor = keras_mrpose.Predictor(folder)
    assert predictor.model.spec["preprocessing"] == "published" and predictor.input_size == SHAPE[:2]
    facts = json.loads((folder / "import.json").read_text())
    assert facts["style"] == "pytorch" and len(facts["sha256"]) == 64 and len(facts["joints"]) == 17
    assert sorted(path.name for path in folder.iterdir()) == ["best.keras", "import.json"]
    assert [path.name for path in folder.parent.iterdir()] == ["imported"]

    for out in (tmp_path / "back.pth", tmp_path / "back.npz"):
        assert call(run, "import", folder, "--out", out) == 0
        tensors = state_dicts.read_state_dict(file).tensors
        back = state_dicts.read_state_dict(out).tensors
        assert back.keys() == tensors.keys()
        assert all(np.array_equal(back[name], value) for name, value in tensors.items())


def test_mmpose_by_hand(run, tmp_path, capsys):
    """Kind, joints and colours are the file's; a name of version 0, and a size of its own."""
    tensors = state_dicts.read_state_dict(published_file(tmp_path / "mpii.npz", "simplebaseline", 16)).tensors
    parts = {name: "keypoint_head" if name.startswith(("deconv", "final")) else "backbone" for name in tensors}
    write_torch_file(tmp_path / "mm.pth", {f"{parts[name]}.{name}": value for name, value in tensors.items()})
    out = tmp_path / "mpii"
    # the backbone is one that no published file has
    assert call(run, "import", tmp_path / "mm.pth", "--model", "simplebaseline", *TINY, "--out", out) == 0
    printed = capsys.readouterr().out
    assert "16 joints" in printed and "'torchvision' preprocessing\n" in printed and "none missing" in printed
    model = keras_mrpose.Predictor(out).model
    assert model.spec["preprocessing"] == "torchvision" and model.skeleton.name == "mpii"
    wanted = tensors["final_layer.weight"].transpose(2, 3, 1, 0)
    np.testing.assert_array_equal(model.get_layer("final_layer").kernel, wanted)


@pytest.mark.slow
def test_mmpose_mobilenet_by_hand(run, tmp_path, golden_dir):
    """The backbone is that which pads as PyTorch does."""
    entries = json.loads((golden_dir / "mmpose.json").read_text())["mobilenetv2"]["entries"]
    write_torch_file(tmp_path / "mm.pth", {name: np.ones(shape, np.float32) for name, shape in entries})
    assert call(run, "import", tmp_path / "mm.pth", "--out", tmp_path / "mobile") == 0
    built = json.loads((tmp_path / "mobile" / "import.json").read_text())["built"]
    assert built["backbone"] == "mobilenetv2_torch" and built["input_shape"] == [256, 192, 3]


def test_joints_for_fine_tuning(run, tmp_path, capsys):
    """A COCO checkpoint as the start of a training on LSP."""
    file = published_file(tmp_path / "coco.npz", "mrheatnet1")
    out = tmp_path / "lsp"
    # the network is told by the file
    assert call(run, "import", file, *TINY, "--skeleton", "lsp", "--map-joints", "--sigma", 1.5, "--out", out) == 0
    assert "neck, head_top" in capsys.readouterr().out
    model = keras_mrpose.Predictor(out).model
    assert model.skeleton.name == "lsp" and model.codec.sigma == 1.5 and model.spec["name"] == "mrheatnet1"


def test_a_training_starts_from_it(tmp_path):
    file = published_file(tmp_path / "coco.npz")
    experiment = keras_mrpose.Experiment(
        "fine", "mrfeanet2", "tiny_v1b", "lsp", SHAPE[:2], weights=str(file), map_joints=True
    )
    model = training.train.build(experiment, SimpleNamespace(skeleton=skeletons.LSP, protocol="pck"), steps=10)
    wanted = keras_mrpose.build("mrfeanet2", "tiny_v1b", SHAPE, weights=file).get_layer("deconv11_0").kernel
    np.testing.assert_array_equal(model.get_layer("deconv11_0").kernel, wanted)
    assert model.compiled and model.skeleton.name == "lsp" and model.spec["preprocessing"] == "published"


def test_mistakes_are_one_sentence_and_leave_nothing(run, tmp_path, capsys):
    file = published_file(tmp_path / "simple.pth", "simplebaseline")
    text = tmp_path / "text.pth"
    text.write_text("not a checkpoint")
    cut = tmp_path / "cut.pth"
    cut.write_bytes(file.read_bytes()[:5000])
    there = tmp_path / "there"
    there.mkdir()
    out = tmp_path / "out"
    for arguments, words in (
        ([file, "--model", "mrfeanet1", *TINY, "--out", out], ["simplebaseline", "mrfeanet1"]),
        ([file, "--out", out], ["--backbone"]),
        ([file, *TINY, "--skeleton", "mpii", "--out", out], ["17 joints", "16", "map_joints"]),
        ([text, *TINY, "--out", out], [str(text)]),
        ([cut, *TINY, "--out", out], [str(cut)]),
        ([tmp_path / "none.pth", "--out", out], ["none.pth"]),
        ([file, *TINY, "--out", there], ["--overwrite"]),
        ([file, *TINY, "--preprocessing", "bgr", "--out", out], ["bgr", "published"]),
    ):
        assert call(run, "import", *arguments) == 2
        error = capsys.readouterr().err
        assert error.startswith("error: ") and error.count("\n") == 1
        assert all(word in error for word in words), error
        assert not out.exists() and not list(there.iterdir())


@pytest.mark.parametrize("name", ["x.h5", "x"])
def test_what_is_written_is_a_state_dict(run, name, tmp_path, capsys):
    keras_mrpose.build("simplebaseline", "tiny_v1b", SHAPE).save(tmp_path / "m.keras")
    assert call(run, "import", tmp_path / "m.keras", "--out", tmp_path / name) == 2
    assert ".npz or a .pth" in capsys.readouterr().err

"""MMPose's checkpoints: every tensor has its place, and what they say goes before what is assumed."""

import hashlib
import json
from types import SimpleNamespace

import numpy as np
import pytest
from published import SHAPE, formula_tensors

from keras_mrpose.checkpoints import state_dicts, tensor_names
from keras_mrpose.checkpoints.torch_files import write_torch_file
from keras_mrpose.errors import InputError
from keras_mrpose.models import build


@pytest.fixture
def mmpose(golden_dir):
    return json.loads((golden_dir / "mmpose.json").read_text())


def mmpose_file(path, head="head", joints=17, network="simplebaseline"):
    """A file with formula weights for SimpleBaseline on tiny_v1b, named as MMPose does."""
    tensors = formula_tensors(build(network, "tiny_v1b", SHAPE, joints))
    parts = {name: head if name.startswith(("deconv", "final")) else "backbone" for name in tensors}
    write_torch_file(path, {f"{parts[name]}.{name}": value for name, value in tensors.items()}, {"epoch": 210})
    return path


@pytest.mark.parametrize("depth", [50, 101, 152])
def test_resnets_are_the_published_networks(depth, mmpose, golden_dir):
    """All names, shapes, their order and the parameters are those of the published pose_resnet, by another program."""
    facts, published = mmpose[f"resnet{depth}"], json.loads((golden_dir / "manifest.json").read_text())["nets"]
    published = published[f"pose_resnet_{depth}"]
    shapes = dict(facts["entries"])
    assert tensor_names.is_mmpose(shapes)
    lines = [f"{name} {'x'.join(map(str, shape))}" for name, shape in tensor_names.respelled(shapes).items()]
    assert hashlib.sha256("\n".join(lines).encode()).hexdigest() == published["names_sha256"]
    assert facts["trainable_params"] == published["trainable_params"]


@pytest.mark.parametrize("name", ["resnet50", "resnet101", "resnet152", "mobilenetv2"])
def test_the_network_is_known_by_its_tensors(name, mmpose):
    tensors = tensor_names.respelled({key: np.empty(shape) for key, shape in mmpose[name]["entries"]})
    assert tensor_names.describe(tensors) == ("simplebaseline", name, 17)
    label = tensor_names.network_label("simplebaseline", name)
    assert label == "simplebaseline on " + {"mobilenetv2": "MobileNetV2"}.get(name, f"ResNet-{name[6:]}")


def test_mobilenet_in_all_spellings(mmpose):
    """MMPose's and torchvision's two; the second 1x1 of a block is flat in all of them."""
    nested = list(tensor_names.respelled(dict(mmpose["mobilenetv2"]["entries"])))
    assert len(set(nested)) == len(mmpose["mobilenetv2"]["entries"])
    for theirs, ours in (
        ("backbone.conv1.bn.bias", "features.0.1.bias"),
        ("backbone.layer1.0.conv.1.conv.weight", "features.1.conv.1.weight"),
        ("backbone.layer1.0.conv.1.bn.running_var", "features.1.conv.2.running_var"),
        ("backbone.layer3.0.conv.1.conv.weight", "features.4.conv.1.0.weight"),
        ("backbone.layer7.0.conv.2.bn.weight", "features.17.conv.3.weight"),
        ("backbone.conv2.conv.weight", "features.18.0.weight"),
    ):
        assert ours in nested and list(tensor_names.respelled({theirs: 0})) == [ours]
    flat = {
        "features.1.conv.3.weight": "features.1.conv.1.weight",
        "features.1.conv.4.bias": "features.1.conv.2.bias",
        "features.4.conv.3.weight": "features.4.conv.1.0.weight",
        "features.4.conv.7.bias": "features.4.conv.3.bias",
    }
    assert list(tensor_names.respelled(flat)) == list(flat.values())
    assert list(tensor_names.respelled(dict.fromkeys(nested))) == nested


@pytest.mark.parametrize(("head", "joints"), [("head", 17), ("keypoint_head", 16)])
def test_both_versions_are_read(head, joints, tmp_path):
    """RGB with torchvision's mean, without being asked for: 16 joints are MPII's."""
    model = build("simplebaseline", "tiny_v1b", SHAPE, weights=mmpose_file(tmp_path / "mm.pth", head, joints))
    assert model.spec["preprocessing"] == "torchvision"
    assert model.skeleton.name == {17: "coco", 16: "mpii"}[joints]
    tensors = formula_tensors(model)
    np.testing.assert_array_equal(model.get_layer("conv1").kernel, tensors["conv1.weight"].transpose(2, 3, 1, 0))
    np.testing.assert_array_equal(
        model.get_layer("final_layer").kernel, tensors["final_layer.weight"].transpose(2, 3, 1, 0)
    )
    file = state_dicts.read_state_dict(tmp_path / "mm.pth")
    report = state_dicts.assign(model, "mm.pth", file, "published", map_joints=False)
    assert "'torchvision' preprocessing\n" in str(report) and len(report.used) + len(report.unused) == len(file.tensors)
    assert file.notes == {"epoch": 210, "from": "MMPose", "preprocessing": "torchvision"}


def test_what_a_file_says_is_not_overruled(tmp_path):
    path = mmpose_file(tmp_path / "mm.pth")
    with pytest.raises(InputError, match="trained with 'torchvision' preprocessing, but 'published'"):
        build("simplebaseline", "tiny_v1b", SHAPE, weights=path, preprocessing="published")


@pytest.mark.parametrize(
    ("name", "backbone", "words"),
    [
        ("resnet50", "resnet50", "strides and pads as PyTorch does; build it on resnet50_v1b, not on resnet50"),
        ("mobilenetv2", "mobilenetv2", "build it on mobilenetv2_torch, not on mobilenetv2"),
        ("mobilenetv2", "resnet50_v1b", "simplebaseline on MobileNetV2; simplebaseline on resnet50_v1b was asked for"),
        ("resnet50", "efficientnetv2b0", "not of efficientnetv2b0"),
    ],
)
def test_another_backbone_is_refused(name, backbone, words, mmpose):
    """Names and shapes of the first two are the same, the function is another."""
    tensors = {key: np.empty(shape) for key, shape in mmpose[name]["entries"]}
    file = state_dicts.StateDict(tensor_names.respelled(tensors), dict(state_dicts.MMPOSE))
    spec = {"name": "simplebaseline", "backbone": backbone, "preprocessing": "torchvision"}
    with pytest.raises(InputError, match=words):
        state_dicts.assign(SimpleNamespace(spec=spec), "mm.pth", file, "torchvision", map_joints=False)


def test_a_network_of_another_kind(tmp_path):
    """Such as HRNet."""
    tensors = {"backbone.stage2.0.weight": np.ones((1, 1, 1, 1)), "head.final_layer.weight": np.ones((17, 1, 1, 1))}
    write_torch_file(tmp_path / "hrnet.pth", {name: value.astype(np.float32) for name, value in tensors.items()})
    with pytest.raises(InputError, match=r"hrnet\.pth is none of the networks of this library"):
        build("simplebaseline", "tiny_v1b", SHAPE, weights=tmp_path / "hrnet.pth")

"""Backbones: sizes, momentum, names, and that images and weights need not be square."""

import keras
import numpy as np
import pytest

import keras_mrpose
from keras_mrpose.errors import InputError, lookup
from keras_mrpose.models import backbones
from keras_mrpose.models.backbones import BACKBONES, LEVELS, build_backbone, list_backbones

LIGHT = ("tiny_v1b", "small_v1b", "mobilenetv2")
HEAVY = tuple(name for name in BACKBONES if name not in LIGHT)


@pytest.mark.parametrize("name", LIGHT + tuple(pytest.param(name, marks=pytest.mark.slow) for name in HEAVY))
def test_feature_maps_have_strides_4_to_32(name):
    image = keras.Input((96, 64, 3))
    model, features = build_backbone(name, image)
    assert tuple(features) == LEVELS
    sizes = [tuple(features[level].shape[1:3]) for level in LEVELS]
    assert sizes == [(24, 16), (12, 8), (6, 4), (3, 2)]
    # The last is the output: every layer of the backbone, and so every pretrained weight, is in use.
    assert features["C5"] is model.layers[-1].output
    assert model.output_names == [BACKBONES[name].feature_layers[-1]]
    norms = [layer for layer in model.layers if isinstance(layer, keras.layers.BatchNormalization)]
    assert norms and all(layer.momentum == 0.9 for layer in norms)
    # A tap is the last output of its stride: no later residual sum (or ReLU after one) that it would miss.
    ends = [layer for layer in model.layers if layer.name.endswith(("_add", "_out", "_relu"))]
    for level, tap in zip(LEVELS[:3], BACKBONES[name].feature_layers, strict=False):
        same = [layer.name for layer in ends if layer.output.shape == features[level].shape]
        assert same[-1] == tap


def test_only_strides_need_a_layer_that_pads():
    """Its gradient is computed for the padding, too; a convolution without a stride pads itself."""
    model, _ = build_backbone("tiny_v1b", keras.Input((64, 32, 3)))
    pads = [layer.name for layer in model.layers if isinstance(layer, keras.layers.ZeroPadding2D)]
    assert pads == ["conv1_pad", "maxpool_pad", *(f"layer{stage}_0_conv2_pad" for stage in (2, 3, 4))]
    by_pads = {model.get_layer(name).output.shape[1] - model.get_layer(name).input.shape[1] for name in pads}
    assert by_pads == {2, 6}  # PyTorch's rule: as much on both sides


def test_v1b_layers_are_called_as_torchvision_modules():
    model, _ = build_backbone("tiny_v1b", keras.Input((64, 32, 3)))
    names = {layer.name for layer in model.layers if layer.weights}
    block = ("conv1", "bn1", "conv2", "bn2", "conv3", "bn3", "downsample_0", "downsample_1")
    assert names == {"conv1", "bn1"} | {f"layer{s}_0_{part}" for s in (1, 2, 3, 4) for part in block}
    norms = [layer for layer in model.layers if isinstance(layer, keras.layers.BatchNormalization)]
    assert all(layer.epsilon == 1e-5 for layer in norms)
    convs = [layer for layer in model.layers if isinstance(layer, keras.layers.Conv2D)]
    assert not any(layer.use_bias for layer in convs)
    strided = {layer.name for layer in convs if layer.strides == (2, 2)}
    assert strided == {"conv1"} | {f"layer{s}_0_{part}" for s in (2, 3, 4) for part in ("conv2", "downsample_0")}


def test_list_and_lookup():
    assert list_backbones()[0] == "resnet50" and set(LIGHT) < set(list_backbones())
    assert lookup("backbone", "MobileNetV2", BACKBONES) == "mobilenetv2"
    with pytest.raises(InputError, match=r"backbone 'resnet5O'.*Did you mean resnet50.*efficientnetv2b0"):
        lookup("backbone", "resnet5O", BACKBONES)
    with pytest.raises(InputError, match="backbone None"):
        lookup("backbone", None, BACKBONES)


def test_frozen_stages_keep_weights_and_statistics():
    """All that C3 is computed from stands still in training, all else moves."""
    model = keras_mrpose.build("simplebaseline", "tiny_v1b", (64, 64, 3))
    backbones.freeze(model, "tiny_v1b", 2)
    model.compile("sgd", "mse")
    before = {layer.name: layer.get_weights() for layer in model.layers if layer.weights}
    rng = np.random.default_rng(0)
    model.train_on_batch(rng.uniform(0, 255, (2, 64, 64, 3)), rng.uniform(0, 1, (2, 16, 16, 17)))
    still = {
        name for name, values in before.items() if all(map(np.array_equal, values, model.get_layer(name).get_weights()))
    }
    wanted = {name for name in before if name in ("conv1", "bn1") or name.startswith(("layer1_", "layer2_"))}
    assert still == wanted
    backbones.freeze(model, "tiny_v1b", 0)
    assert not model.get_layer("conv1").trainable and model.get_layer("layer3_0_conv1").trainable

"""1x1 convolutions as matrix products: the same outputs and gradients, and where they are used."""

import numpy as np
import pytest
import tensorflow as tf
from keras import layers
from twins import assert_same_in_training, saved_and_loaded, twins

from keras_mrpose import build
from keras_mrpose.models import fuse, pointwise
from keras_mrpose.models.pointwise import PointwiseConv2D


def both(size, strides=1, dtype="float64", **options):
    """A plain 1x1 convolution and ours, and an input."""
    plain = layers.Conv2D(3, 1, strides=strides, dtype=dtype, **options)
    return twins(plain, PointwiseConv2D(3, strides=strides, dtype=dtype, **options), (2, *size, 5))


@pytest.fixture
def products(monkeypatch):
    """In every type; a list that grows with each convolution by a matrix product."""
    calls = []
    real = pointwise._every
    monkeypatch.setattr(pointwise, "pays", lambda dtype: True)
    monkeypatch.setattr(pointwise, "_every", lambda *arguments: calls.append(arguments) or real(*arguments))
    return calls


@pytest.mark.parametrize("options", [{"activation": "tanh", "bias_initializer": "ones"}, {"use_bias": False}])
@pytest.mark.parametrize(
    ("size", "strides"),
    [((8, 6), 1), ((8, 6), 2), ((7, 6), 2), ((8, 5), 2), ((9, 6), 3), ((8, 6), (2, 3)), ((8, 6), (1, 2)), ((1, 1), 2)],
)
def test_outputs_and_gradients_are_those_of_a_convolution(size, strides, options, products):
    assert_same_in_training(*both(size, strides, **options))
    assert products


def test_sides_that_are_not_known_before_it_runs_stay_a_convolution(products):
    plain, ours, inputs = both((8, 6))
    signature = [tf.TensorSpec((None, None, None, 5), tf.float64)]
    run = tf.function(lambda x: ours(x, training=True), input_signature=signature)
    np.testing.assert_allclose(run(inputs), plain(inputs), rtol=1e-12)
    assert not products


@pytest.mark.parametrize(
    ("dtype", "training", "gpu", "wanted"),
    [
        ("mixed_bfloat16", True, False, True),
        ("mixed_bfloat16", False, False, False),
        ("mixed_bfloat16", None, False, False),
        ("mixed_bfloat16", True, True, False),
        ("float32", True, False, False),
    ],
)
def test_only_in_bfloat16_in_training_on_a_cpu(dtype, training, gpu, wanted, monkeypatch):
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: ["GPU"] if gpu else [])
    calls = []
    real = pointwise._every
    monkeypatch.setattr(pointwise, "_every", lambda *arguments: calls.append(0) or real(*arguments))
    _, ours, inputs = both((4, 6), 2, dtype)
    ours(inputs, training=training)
    assert bool(calls) == wanted


@pytest.mark.parametrize(
    "backbone",
    [
        "tiny_v1b",
        "mobilenetv2",
        *(pytest.param(name, marks=pytest.mark.slow) for name in ("resnet50", "mobilenetv2_torch")),
    ],
)
def test_every_1x1_convolution_of_a_backbone_is_one(backbone):
    """And what predicts has plain layers."""
    model = build("simplebaseline", backbone=backbone, input_shape=(64, 64, 3))
    convolutions = [layer for layer in model.layers if isinstance(layer, layers.Conv2D)]
    narrow = [layer for layer in convolutions if layer.kernel_size == (1, 1) and layer.name != "final_layer"]
    assert len(narrow) > 8 and {type(layer) for layer in narrow} == {PointwiseConv2D}
    assert not any(isinstance(layer, PointwiseConv2D) for layer in fuse.fuse_for_inference(model).layers)


def test_a_layer_is_saved_and_loaded(tmp_path, products):
    _, ours, inputs = both((4, 6), 2, "float32", use_bias=False)
    loaded = saved_and_loaded(ours, inputs, tmp_path / "network.keras")
    assert type(loaded) is PointwiseConv2D and loaded.strides == (2, 2)

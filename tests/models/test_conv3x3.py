"""3x3 convolutions whose kernel gradient is nine products: the same outputs and gradients, and where they are used."""

import numpy as np
import pytest
import tensorflow as tf
from keras import layers
from twins import assert_same_in_training, saved_and_loaded, twins

from keras_mrpose import build
from keras_mrpose.models import conv3x3, fuse
from keras_mrpose.models.conv3x3 import Conv3x3


def both(size, dtype="float64", channels=5, filters=3, **options):
    """A plain 3x3 convolution and ours, and an input."""
    plain = layers.Conv2D(filters, 3, dtype=dtype, **options)
    return twins(plain, Conv3x3(filters, dtype=dtype, **options), (2, *size, channels))


@pytest.fixture
def gradients(monkeypatch):
    """A list that grows with each kernel gradient by matrix products."""
    calls = []
    real = conv3x3._kernel_gradient
    monkeypatch.setattr(conv3x3, "_kernel_gradient", lambda *arguments: calls.append(0) or real(*arguments))
    return calls


@pytest.fixture
def products(monkeypatch, gradients):
    """The same, in every type and of every width."""
    monkeypatch.setattr(conv3x3, "pays", lambda channels, filters, dtype: True)
    return gradients


SAME, STRIDE = {"padding": "same"}, {"strides": 2, "padding": "valid"}


@pytest.mark.parametrize("options", [{"activation": "tanh", "bias_initializer": "ones"}, {"use_bias": False}])
@pytest.mark.parametrize(
    ("size", "how"),
    [((8, 6), SAME), ((7, 5), SAME), ((3, 3), SAME), ((7, 6), {}), ((10, 8), STRIDE), ((4, 6), STRIDE)],
)
def test_outputs_and_gradients_are_those_of_a_convolution(size, how, options, products):
    assert_same_in_training(*both(size, **how, **options))
    assert products


@pytest.mark.parametrize(
    ("size", "how"),
    [
        ((9, 8), STRIDE),
        ((8, 7), STRIDE),
        ((8, 6), SAME | {"strides": 2}),
        ((9, 9), {"strides": 3}),
        ((8, 6), {"strides": (1, 2)}),
        ((8, 6), {"dilation_rate": 2}),
        ((2, 6), SAME),
    ],
)
def test_what_cannot_be_cut_up_stays_a_convolution(size, how, products):
    assert_same_in_training(*both(size, **how))
    assert not products


def test_sides_that_are_not_known_before_it_runs_stay_a_convolution(products):
    plain, ours, inputs = both((8, 6), padding="same")
    signature = [tf.TensorSpec((None, None, None, 5), tf.float64)]
    run = tf.function(lambda x: ours(x, training=True), input_signature=signature)
    np.testing.assert_allclose(run(inputs), plain(inputs), rtol=1e-12)
    assert not products


@pytest.mark.parametrize(
    ("dtype", "training", "gpu", "channels", "filters", "wanted"),
    [
        ("mixed_bfloat16", True, False, 256, 256, True),
        ("mixed_bfloat16", True, False, 255, 256, False),
        ("mixed_bfloat16", True, False, 256, 255, False),
        ("mixed_bfloat16", False, False, 256, 256, False),
        ("mixed_bfloat16", None, False, 256, 256, False),
        ("mixed_bfloat16", True, True, 256, 256, False),
        ("float32", True, False, 256, 256, False),
    ],
)
def test_only_wide_ones_in_bfloat16_in_training_on_a_cpu(
    dtype, training, gpu, channels, filters, wanted, gradients, monkeypatch
):
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: ["GPU"] if gpu else [])
    _, ours, inputs = both((4, 4), dtype, channels, filters, padding="same")
    with tf.GradientTape() as tape:
        outputs = ours(inputs, training=training)
    tape.gradient(outputs, ours.kernel.value)
    assert bool(gradients) == wanted


@pytest.mark.parametrize(("backbone", "stem"), [("tiny_v1b", 0), ("resnet50", 0), ("mobilenetv2", 1)])
def test_every_3x3_convolution_of_a_backbone_is_one(backbone, stem):
    """And what predicts has plain layers."""
    model = build("simplebaseline", backbone=backbone, input_shape=(64, 64, 3))
    convolutions = [layer for layer in model.layers if isinstance(layer, layers.Conv2D)]
    found = [layer for layer in convolutions if layer.kernel_size == (3, 3)]
    assert len(found) >= (stem or 4) and {type(layer) for layer in found} == {Conv3x3}
    assert not any(isinstance(layer, Conv3x3) for layer in fuse.fuse_for_inference(model).layers)


def test_a_layer_is_saved_and_loaded(tmp_path, products):
    _, ours, inputs = both((6, 6), "float32", use_bias=False, **STRIDE)
    loaded = saved_and_loaded(ours, inputs, tmp_path / "network.keras")
    assert type(loaded) is Conv3x3 and loaded.strides == (2, 2)

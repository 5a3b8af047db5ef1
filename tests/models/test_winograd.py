"""Minimal filtering: the same transposed convolution and gradients, and where it is used."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers
from twins import assert_same_in_training, saved_and_loaded, twins

from keras_mrpose import build
from keras_mrpose.models import fuse, winograd
from keras_mrpose.models.winograd import WinogradConv2DTranspose


def both(size, channels, filters, dtype="float64", **options):
    """A plain transposed convolution and one by minimal filtering, and an input."""
    plain = layers.Conv2DTranspose(filters, 4, 2, padding="same", dtype=dtype, **options)
    return twins(plain, WinogradConv2DTranspose(filters, dtype=dtype, **options), (2, *size, channels))


@pytest.fixture
def always(monkeypatch):
    """Narrow layers, too."""
    monkeypatch.setattr(winograd, "pays", lambda channels, filters: True)


@pytest.mark.parametrize("size", [(8, 6), (7, 6), (4, 5), (1, 1), (3, 2)])
def test_outputs_and_gradients_are_those_of_a_transposed_convolution(size, always):
    assert_same_in_training(*both(size, 5, 3, bias_initializer="ones", activation="tanh"))


def test_bfloat16_stays_within_its_rounding(always):
    """What is multiplied, the kernel's sums and the products are rounded to 8 bits once more each: below 1 %.

    That comes on top of a plain convolution's own error, which is a multiple where a CPU has no bfloat16 instructions.
    """
    plain, ours, inputs = both((8, 6), 64, 32, "mixed_bfloat16")
    kernel, bias = (tf.cast(tf.cast(weight, tf.bfloat16), tf.float64) for weight in (plain.kernel, plain.bias))
    wanted = tf.nn.conv2d_transpose(tf.cast(inputs, tf.float64), kernel, (2, 16, 12, 32), 2) + bias
    theirs, error = (
        np.sqrt(np.mean((tf.cast(found, tf.float64) - wanted) ** 2) / np.mean(wanted**2))
        for found in (plain(inputs), ours(inputs, training=True))
    )
    assert 0 < error**2 < theirs**2 + 0.01**2


@pytest.mark.parametrize(
    ("channels", "filters", "training", "gpu", "wanted"),
    [
        (256, 128, True, False, True),
        (255, 128, True, False, False),
        (256, 127, True, False, False),
        (256, 128, False, False, False),
        (256, 128, None, False, False),
        (256, 128, True, True, False),
    ],
)
def test_only_wide_layers_in_training_on_a_cpu(channels, filters, training, gpu, wanted, monkeypatch):
    devices = ["GPU"] if gpu else []
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: devices)
    calls = []
    real = winograd.convolve
    monkeypatch.setattr(winograd, "convolve", lambda *arguments: calls.append(0) or real(*arguments))
    _, ours, inputs = both((2, 2), channels, filters, "float32")
    ours(inputs, training=training)
    assert bool(calls) == wanted


def test_a_layer_is_saved_and_loaded(tmp_path, always):
    _, ours, inputs = both((4, 6), 5, 3, "float32")
    loaded = saved_and_loaded(ours, inputs, tmp_path / "network.keras")
    assert type(loaded) is WinogradConv2DTranspose


def wide_network(dtype):
    """Two transposed convolutions, one of 512 channels, with batch norm and ReLU, a plain one, and a float32 end."""
    image = keras.Input((6, 4, 512))
    x = WinogradConv2DTranspose(24, use_bias=False, dtype=dtype)(image)
    x = layers.ReLU(dtype=dtype)(layers.BatchNormalization(dtype=dtype)(x))
    x = layers.Conv2D(24, 1, dtype=dtype)(x)
    x = WinogradConv2DTranspose(8, dtype=dtype)(x)
    return keras.Model(image, layers.Conv2D(3, 1, dtype="float32")(x))


def test_wide_layers_predict_by_minimal_filtering(monkeypatch):
    """Float32 rounds sums of 2,048 products at 1e-6 of the largest value."""
    model = wide_network("float32")
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: [])
    fused = fuse._fused(model, "winograd")
    kinds = [type(layer) for layer in fused.layers]
    assert kinds.count(winograd.TransformedConv2DTranspose) == kinds.count(fuse.DepthToSpace) == 1
    assert not {layers.BatchNormalization, layers.ReLU, WinogradConv2DTranspose} & set(kinds)
    images = tf.random.stateless_normal((9, 6, 4, 512), (1, 2))
    wanted = model(images, training=False).numpy()
    for batches in (False, True):
        got = fuse.inference_function(model, batches)(images).numpy()
        assert abs(got - wanted).max() < 1e-5 * abs(wanted).max()


def test_a_network_in_bfloat16_predicts_in_bfloat16():
    model = wide_network("mixed_bfloat16")
    for kind in ("winograd", "depth_to_space"):
        fused = fuse._fused(model, kind, keep_precision=True)
        computes = {layer.compute_dtype for layer in fused.layers[1:-1]}
        assert computes == {"bfloat16"} and fused.layers[-1].compute_dtype == "float32"
        assert {weight.dtype for layer in fused.layers[:-1] for weight in layer.weights} == {"bfloat16"}
    assert {layer.compute_dtype for layer in fuse.fuse_for_inference(model).layers[1:]} == {"float32"}


def test_the_heads_train_by_it():
    model = build("simplebaseline", backbone="tiny_v1b", input_shape=(64, 64, 3))
    assert sum(isinstance(layer, WinogradConv2DTranspose) for layer in model.layers) == 3

"""The batch norm of the networks: both ways against float64, and the unbiased variance of the published code."""

import keras
import numpy as np
import pytest

import keras_mrpose
from keras_mrpose.models import normalization
from keras_mrpose.models.normalization import BatchNorm


def layer_and_batch():
    rng = np.random.default_rng(3)
    x = rng.normal(2.0, 3.0, (3, 5, 4, 6)).astype(np.float32)
    layer = BatchNorm(momentum=0.9, epsilon=1e-5)
    layer.build(x.shape)
    layer.set_weights([rng.uniform(0.5, 1.5, 6), rng.normal(size=6), rng.normal(size=6), rng.uniform(0.5, 1.5, 6)])
    return layer, x


@pytest.mark.parametrize("fused", (True, False))
def test_training_mode_equals_a_float64_reference(fused, monkeypatch):
    if not fused:
        monkeypatch.setattr(normalization, "fused_batch_norm", None)
    elif normalization.fused_batch_norm is None:
        pytest.skip("this backend has no fused kernel")
    layer, x = layer_and_batch()
    gamma, beta, old_mean, old_variance = (w.astype(np.float64) for w in layer.get_weights())
    flat = x.reshape(-1, 6).astype(np.float64)
    wanted = (x - flat.mean(0)) / np.sqrt(flat.var(0) + 1e-5) * gamma + beta
    # values of about 4, made by some ten float32 operations: 4 * 10 * 6e-8 is 2.4e-6
    np.testing.assert_allclose(keras.ops.convert_to_numpy(layer(x, training=True)), wanted, atol=5e-6)
    _, _, mean, variance = layer.get_weights()
    np.testing.assert_allclose(mean, 0.9 * old_mean + 0.1 * flat.mean(0), atol=1e-6)
    # the biased variance would be off by 1/60 of 9 * 0.1, thousands of times this tolerance
    np.testing.assert_allclose(variance, 0.9 * old_variance + 0.1 * flat.var(0, ddof=1), atol=1e-5)


def test_inference_and_frozen_layers_use_and_keep_the_averages():
    layer, x = layer_and_batch()
    gamma, beta, mean, variance = before = [w.astype(np.float64) for w in layer.get_weights()]
    wanted = (x - mean) / np.sqrt(variance + 1e-5) * gamma + beta
    for trainable, training in ((True, False), (False, True)):
        layer.trainable = trainable
        output = keras.ops.convert_to_numpy(layer(x, training=training))
        np.testing.assert_allclose(output, wanted, atol=2e-5)  # values up to 20
    for now, then in zip((w.numpy() for w in (layer.gamma, layer.beta)), before, strict=False):
        np.testing.assert_array_equal(now, then.astype(np.float32))
    np.testing.assert_array_equal(keras.ops.convert_to_numpy(layer.moving_variance), variance.astype(np.float32))


@pytest.mark.parametrize(
    "backbone", ["mobilenetv2", pytest.param("efficientnetv2b0", marks=pytest.mark.slow), "tiny_v1b"]
)
def test_every_batch_norm_of_every_backbone_is_ours(backbone):
    model = keras_mrpose.build("mrheatnet1", backbone, (64, 32, 3))
    norms = [layer for layer in model.layers if isinstance(layer, keras.layers.BatchNormalization)]
    assert norms and all(type(layer) is BatchNorm and layer.momentum == 0.9 for layer in norms)


def test_mixed_precision_keeps_float32_statistics():
    _, x = layer_and_batch()
    half = BatchNorm(dtype="mixed_bfloat16")
    half.build(x.shape)
    output = half(x, training=True)
    assert keras.backend.standardize_dtype(output.dtype) == "bfloat16"
    assert half.moving_variance.dtype == "float32"


@pytest.mark.parametrize("name", keras_mrpose.list_models())
def test_epsilon_is_the_published_one(name):
    """An import makes up for another epsilon (`tensor_names`), so that only training would show it."""
    model = keras_mrpose.build(name, "tiny_v1b", (64, 32, 3))
    assert {layer.epsilon for layer in model.layers if isinstance(layer, BatchNorm)} == {1e-5}

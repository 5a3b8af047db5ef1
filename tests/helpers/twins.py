"""Two layers of the same function: one of Keras, and ours, which trains faster."""

import keras
import numpy as np
import tensorflow as tf


def twins(plain, ours, shape: tuple[int, ...]):
    """Both built for inputs of this shape, with the same random weights, and such inputs."""
    rng = np.random.default_rng(0)
    inputs = rng.normal(size=shape)
    for layer in (plain, ours):
        layer.build(shape)
    ours.set_weights([rng.normal(size=weight.shape) for weight in plain.get_weights()])
    plain.set_weights(ours.get_weights())
    return plain, ours, tf.constant(inputs, plain.compute_dtype)


def assert_same_in_training(plain, ours, inputs) -> None:
    """Outputs and all gradients, in float64, where sums of some 100 products of numbers of about 1 round at 1e-14."""
    found = []
    for layer, how in ((plain, {}), (ours, {"training": True})):
        with tf.GradientTape() as tape:
            tape.watch(inputs)
            outputs = layer(inputs, **how)
            weights = tf.range(1.0, outputs.shape[-1] + 1.0, dtype=tf.float64)
            value = tf.reduce_sum(tf.square(outputs) * weights)
        variables = [weight.value for weight in layer.trainable_weights]
        found.append([outputs, *tape.gradient(value, [inputs, *variables])])
    for wanted, got in zip(*found, strict=True):
        assert got.shape == wanted.shape
        np.testing.assert_allclose(got, wanted, atol=1e-11, rtol=1e-11)


def saved_and_loaded(ours, inputs, path):
    """The layer out of a file of a network that has no other; both networks make the same of inputs in training."""
    image = keras.Input(inputs.shape[1:])
    model = keras.Model(image, ours(image))
    model.save(path)
    loaded = keras.saving.load_model(path)
    np.testing.assert_array_equal(loaded(inputs, training=True), model(inputs, training=True))
    return loaded.layers[1]

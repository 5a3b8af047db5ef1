"""Adam against its paper, in float64; the golden training step is in test_published_networks.py."""

import keras
import numpy as np

from keras_mrpose.optimizers import Adam


def reference(start, gradients, rate, epsilon, beta_1=0.9, beta_2=0.999):
    """Kingma and Ba, algorithm 1."""
    x, m, v = start.astype(np.float64), 0.0, 0.0
    for t, g in enumerate(gradients, 1):
        m, v = beta_1 * m + (1 - beta_1) * g, beta_2 * v + (1 - beta_2) * g**2
        x = x - rate * (m / (1 - beta_1**t)) / (np.sqrt(v / (1 - beta_2**t)) + epsilon)
    return x


def test_steps_are_those_of_the_paper():
    """Gradients as small as epsilon, where its place decides: Keras' own Adam first moves a sixteenth as far."""
    rng = np.random.default_rng(0)
    start = np.zeros(6, np.float32)
    gradients = [rng.normal(size=6) * 1e-8 for _ in range(5)]
    variable = keras.Variable(start)
    ours = Adam(1e-3, epsilon=1e-8)
    for gradient in gradients:
        ours.apply([keras.ops.convert_to_tensor(gradient, "float32")], [variable])
    wanted = reference(start, gradients, 1e-3, 1e-8)
    # 5 steps of at most 1e-3, each some ten float32 operations; 1 - 0.999**t in float32 is off by 6e-5 in the first
    np.testing.assert_allclose(variable.numpy(), wanted, atol=5 * 1e-3 * 1e-4)
    assert ours.epsilon == 1e-8

    other = keras.Variable(start)
    keras.optimizers.Adam(1e-3, epsilon=1e-8).apply([keras.ops.convert_to_tensor(gradients[0], "float32")], [other])
    first = reference(start, gradients[:1], 1e-3, 1e-8)
    assert np.abs(other.numpy() - first).max() > 0.2 * np.abs(first).max()


def test_it_is_saved_with_a_model():
    again = keras.optimizers.deserialize(keras.optimizers.serialize(Adam(2e-3, epsilon=1e-10)))
    assert type(again) is Adam and again.epsilon == 1e-10 and float(again.learning_rate) == np.float32(2e-3)

"""Adam, AdamW, gathered gradients and averaged weights against float64; all of it on JAX as well.

The golden training step is in test_published_networks.py.
"""

import keras
import numpy as np
import on_jax
import pytest

from keras_mrpose.models.networks import precision
from keras_mrpose.optimizers import Adam
from keras_mrpose.training.distributed import devices

RATE, HALVING = 1e-2, keras.optimizers.schedules.ExponentialDecay(1e-2, 1, 0.5)  # RATE * 0.5**step
CASES = {
    "adam": {},
    "adamw": {"weight_decay": 0.3},
    "ema": {"use_ema": True, "ema_momentum": 0.15},
    "gathered": {"gradient_accumulation_steps": 3},
    "all": {"weight_decay": 0.3, "use_ema": True, "ema_momentum": 0.15, "gradient_accumulation_steps": 3},
}


def reference(start, gradients, rates, epsilon, weight_decay=0.0, ema_momentum=0.0, gradient_accumulation_steps=1, **_):
    """Kingma and Ba, algorithm 1; Loshchilov and Hutter, algorithm 2; weights and average after each step."""
    x = average = start.astype(np.float64)
    m = v = gathered = 0.0
    for step, g in enumerate(gradients):
        gathered = gathered + g
        if (step + 1) % gradient_accumulation_steps == 0:
            t, g, gathered = (step + 1) // gradient_accumulation_steps, gathered / gradient_accumulation_steps, 0.0
            m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g**2
            deviation = np.sqrt(v / (1 - 0.999**t)) + epsilon
            x = x - rates[step] * (m / (1 - 0.9**t) / deviation + weight_decay * x)
            share = min(ema_momentum, (t - 1) / (t - 1 + 9))
            average = share * average + (1 - share) * x
        yield x, average


def given(steps, size=1e-8, seed=0):
    """A kernel and a bias, and gradients for both."""
    rng = np.random.default_rng(seed)
    starts = [rng.normal(size=shape).astype(np.float32) for shape in ((2, 3), (3,))]
    gradients = [[(rng.normal(size=start.shape) * size).astype(np.float32) for start in starts] for _ in range(steps)]
    return starts, gradients


def averages(optimizer):
    return [variable for variable in optimizer.variables if variable.path.endswith("_average")]


@pytest.mark.parametrize("case", CASES)
def test_step_by_step_in_float64(case):
    """Gradients as small as epsilon, where its place decides; a rate that changes; the bias does not decay.

    A step is at most 1e-2 + 0.3 * 1e-2 of weights of about 1, of some ten float32 operations; float32 weights and
    averages of at most 4 are rounded to 2.4e-7 in each of 8 steps.
    """
    starts, gradients = given(8)
    variables = [keras.Variable(start) for start in starts]
    optimizer = Adam(HALVING, epsilon=1e-8, **CASES[case])
    optimizer.build(variables)
    rates = [RATE * 0.5**step for step in range(8)]
    wanted = [
        reference(
            start, [g[i] for g in gradients], rates, 1e-8, **{**CASES[case], **({"weight_decay": 0.0} if i else {})}
        )
        for i, start in enumerate(starts)
    ]
    for both in gradients:
        optimizer.apply([keras.ops.convert_to_tensor(gradient) for gradient in both])
        for i, variable in enumerate(variables):
            weights, average = next(wanted[i])
            np.testing.assert_allclose(variable.numpy(), weights, rtol=0, atol=2e-6)
            if optimizer.use_ema:
                np.testing.assert_allclose(averages(optimizer)[i].numpy(), average, rtol=0, atol=2e-6)
    assert optimizer.epsilon == 1e-8 and int(optimizer.iterations) == 8


def test_epsilon_is_not_where_keras_has_it():
    """Keras' own Adam first moves a sixteenth as far."""
    starts, gradients = given(1)
    first, _ = next(reference(starts[0], [gradients[0][0]], [RATE], 1e-8))
    moved = {}
    for kind in (Adam, keras.optimizers.Adam):
        variable = keras.Variable(starts[0])
        kind(RATE, epsilon=1e-8).apply([keras.ops.convert_to_tensor(gradients[0][0])], [variable])
        moved[kind] = variable.numpy()
    np.testing.assert_allclose(moved[Adam], first, rtol=0, atol=1e-6)
    assert np.abs(moved[keras.optimizers.Adam] - first).max() > 0.2 * np.abs(first - starts[0]).max()


def test_steps_that_only_gather_change_nothing_but_the_sum():
    starts, gradients = given(2)
    variables = [keras.Variable(start) for start in starts]
    optimizer = Adam(RATE, **CASES["all"])
    optimizer.build(variables)
    before = {v.path: v.numpy() for v in optimizer.variables}
    for both in gradients:
        optimizer.apply([keras.ops.convert_to_tensor(gradient) for gradient in both])
    for start, variable in zip(starts, variables, strict=True):
        np.testing.assert_array_equal(variable.numpy(), start)
    changed = {v.path.rpartition("/")[2] for v in optimizer.variables if (v.numpy() != before[v.path]).any()}
    assert changed == {"iteration", *(f"{variable.path}_gradient_sum" for variable in variables)}


def test_until_the_first_update_the_average_is_the_weights():
    starts, _ = given(0)
    variables = [keras.Variable(start) for start in starts]
    optimizer = Adam(RATE, use_ema=True, ema_momentum=0.99)
    optimizer.build(variables)
    for start, average in zip(starts, averages(optimizer), strict=True):
        np.testing.assert_array_equal(average.numpy(), start)


def test_a_short_training_is_averaged_over_its_end():
    """Weights that go from 0 to 100 in 100 updates: their average lags by a tenth, not by all."""
    variable = keras.Variable(np.zeros((1, 1), np.float32))
    optimizer = Adam(1.0, use_ema=True, ema_momentum=0.9998)
    optimizer.build([variable])
    for _ in range(100):  # equal gradients: each update moves by the learning rate
        optimizer.apply([keras.ops.convert_to_tensor(np.full((1, 1), -1.0, np.float32))])
    assert variable.numpy() == pytest.approx(100, rel=1e-4)
    assert 88 < averages(optimizer)[0].numpy() < 92


def test_the_end_of_a_fit_leaves_the_weights():
    starts, gradients = given(2)
    variables = [keras.Variable(start) for start in starts]
    optimizer = Adam(RATE, use_ema=True)
    for both in gradients:
        optimizer.apply([keras.ops.convert_to_tensor(gradient) for gradient in both], variables)
    before = [variable.numpy() for variable in variables]
    assert all((average.numpy() != value).all() for average, value in zip(averages(optimizer), before, strict=True))
    optimizer.finalize_variable_values(variables)
    for variable, value in zip(variables, before, strict=True):
        np.testing.assert_array_equal(variable.numpy(), value)


def test_it_is_saved_with_a_model():
    optimizer = Adam(
        2e-3, gradient_accumulation_steps=4, epsilon=1e-10, weight_decay=0.1, use_ema=True, ema_momentum=0.9
    )
    again = keras.optimizers.deserialize(keras.optimizers.serialize(optimizer))
    assert type(again) is Adam and again.get_config() == optimizer.get_config()
    assert (again.steps_per_update, again.epsilon, again.weight_decay, again.use_ema, again.ema_momentum) == (
        *(4, 1e-10, 0.1, True, 0.9),
    )
    assert float(again.learning_rate) == np.float32(2e-3)


def one_layer(optimizer, **options):
    """Four inputs, two outputs, a squared error: under a precision and a strategy it is trained as any network."""
    image = keras.Input((4,))
    model = keras.Model(image, keras.layers.Dense(2, dtype="float32")(keras.layers.Dense(3)(image)))
    model.compile(optimizer, "mse", jit_compile=False, **options)
    model.optimizer.build(model.trainable_variables)
    for i, layer in enumerate(model.layers[1:]):
        layer.set_weights([np.random.default_rng(i).normal(size=value.shape) for value in layer.get_weights()])
    return model


@pytest.fixture
def float16():
    with precision("mixed_float16"):
        yield


def test_steps_that_overflow_are_left_out(float16):
    """At a loss scale of 2**15 an error of 100 is more than float16 holds; at 1 it is not.

    The step is left out whole: weights, moments, average, gathered gradients, count; and the scale is halved.
    """
    model = one_layer(Adam(RATE, **{**CASES["all"], "gradient_accumulation_steps": 2}))
    scaled, inner = model.optimizer, model.optimizer.inner_optimizer
    assert isinstance(scaled, keras.optimizers.LossScaleOptimizer) and type(inner) is Adam
    x = np.random.default_rng(2).normal(size=(8, 4)).astype(np.float32)
    y = np.full((8, 2), 100, np.float32)
    state = [*model.trainable_variables, *inner.variables]
    before = [variable.numpy() for variable in state]
    model.train_on_batch(x, y)
    for variable, value in zip(state, before, strict=True):
        np.testing.assert_array_equal(variable.numpy(), value, err_msg=variable.path)
    assert float(scaled.dynamic_scale) == 2**14
    scaled.dynamic_scale.assign(1.0)
    model.train_on_batch(x, y)
    assert int(scaled.iterations) == 1
    model.train_on_batch(x, y)
    changed = [(variable.numpy() != value).any() for variable, value in zip(state, before, strict=True)]
    gathered = [variable.path.endswith("_gradient_sum") for variable in state]
    rates = [variable.path.endswith("learning_rate") for variable in state]
    assert [not (g or r) for g, r in zip(gathered, rates, strict=True)] == changed


@pytest.mark.slow
def test_on_jax():
    on_jax.passed(__file__, "float64 and all or overflow", 2)


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="strategies are TensorFlow's")
def test_two_devices_give_what_one_gives():
    """Also in steps that only gather. Sums in another order: 7 updates of 1e-2, float32."""
    import tensorflow as tf

    rng = np.random.default_rng(3)
    batches = [(rng.normal(size=(6, 4)), rng.normal(size=(6, 2))) for _ in range(7)]
    trained = []
    for strategy in ("none", "mirrored"):
        with devices(strategy, batch_size=6).scope():
            model = one_layer(Adam(RATE, **{**CASES["all"], "gradient_accumulation_steps": 2}))
        data = tf.data.Dataset.from_generator(
            lambda: iter(batches), output_signature=(tf.TensorSpec((6, 4)), tf.TensorSpec((6, 2)))
        )
        model.fit(data, steps_per_epoch=7, shuffle=False, verbose=0)
        trained.append([*model.trainable_variables, *model.optimizer.variables])
    for one, two in zip(*trained, strict=True):
        np.testing.assert_allclose(one.numpy(), two.numpy(), rtol=1e-4, atol=1e-6, err_msg=one.path)
        for copy in two.value.values:
            np.testing.assert_array_equal(copy.numpy(), two.numpy(), err_msg=two.path)

"""Networks rewritten for prediction: the same heatmaps, from fewer and other layers."""

from collections import Counter

import keras
import numpy as np
import on_jax
import pytest
from keras import layers

from keras_mrpose.errors import InputError
from keras_mrpose.models import build, list_models
from keras_mrpose.models.fuse import DepthToSpace, fuse_for_inference
from keras_mrpose.models.networks import precision
from keras_mrpose.models.normalization import BatchNorm
from keras_mrpose.models.pointwise import PointwiseConv2D
from keras_mrpose.models.winograd import WinogradConv2DTranspose

SIZE = (64, 96, 3)
KERAS_SMALL = ("mobilenetv2", "efficientnetv2b0")
DEEP = ("resnet101", "resnet152", "resnet101_v1b", "resnet152_v1b", "small_v1b")
DECONVOLUTIONS_OF = {"simplebaseline": 3, "mrheatnet1": 5, "mrheatnet2": 6, "mrfeanet1": 6, "mrfeanet2": 6}


def slow(*values):
    return pytest.param(*values, marks=pytest.mark.slow)


def images(size=SIZE):
    return np.random.default_rng(0).uniform(0, 255, (2, *size)).astype(np.float32)


def randomize(model):
    """He-like kernels, biases, and batch norms whose four tensors all count."""
    rng = np.random.default_rng(0)
    for layer in model.layers:
        if isinstance(layer, layers.BatchNormalization):
            n = layer.moving_mean.shape[0]
            shift = [rng.normal(0, 0.3, n) for _ in range(layer.center)]
            scale = [rng.uniform(0.5, 1.5, n) for _ in range(layer.scale)]
            layer.set_weights([*scale, *shift, rng.normal(0, 0.3, n), rng.uniform(0.5, 1.5, n)])
        elif layer.weights:
            kernel = layer.weights[0].shape
            fan = np.prod(kernel) / max(kernel[-1], kernel[-2])
            values = [rng.normal(0, np.sqrt(1 / fan), kernel)]
            layer.set_weights(values + [rng.normal(0, 0.3, w.shape) for w in layer.weights[1:]])
    return model


def network(name="mrheatnet1", backbone="tiny_v1b"):
    return randomize(build(name, backbone, SIZE))


def in_float64(model):
    """The same layers, in float64."""

    def copied(layer):
        return type(layer).from_config({**layer.get_config(), "dtype": "float64"})

    copy = keras.models.clone_model(keras.Model(model.input, model.output), clone_function=copied)
    copy.set_weights(model.get_weights())
    return copy


def output(model, x):
    return keras.ops.convert_to_numpy(model(x, training=False))


def kinds(model):
    return Counter(type(layer) for layer in model.layers)


def check(name, backbone, deconvolution="depth_to_space"):
    """The same heatmaps, other layers.

    Both networks round in float32, 6e-8 an operation: through 30 to 200 layers 6e-7 of the largest value for tiny_v1b
    and 4e-6 for the others. EfficientNet's gates on random weights make 1e-4 of it.
    """
    model = network(name, backbone)
    new = fuse_for_inference(model, deconvolution)
    wanted, found = output(model, images()), output(new, images())
    assert found.dtype == np.float32 and wanted.std() > 0.1
    assert abs(found - wanted).max() < (4e-4 if backbone == "efficientnetv2b0" else 1e-5) * abs(wanted).max()
    before, after = kinds(model), kinds(new)
    split = DECONVOLUTIONS_OF[name] if deconvolution == "depth_to_space" else 0
    assert before[WinogradConv2DTranspose] == DECONVOLUTIONS_OF[name]
    assert after[BatchNorm] == after[layers.Dropout] == 0
    assert after[layers.Conv2DTranspose] == DECONVOLUTIONS_OF[name] - split
    assert after[DepthToSpace] == split
    assert after[layers.Conv2D] == before[layers.Conv2D] + before[PointwiseConv2D] + 4 * split
    assert after[PointwiseConv2D] == 0
    assert after[layers.DepthwiseConv2D] == before[layers.DepthwiseConv2D]


@pytest.mark.parametrize(
    ("name", "backbone"),
    [
        *((name, "tiny_v1b") for name in list_models()),
        slow("mrfeanet2", "mobilenetv2"),  # the network that reads all four feature maps
        slow("mrfeanet2", "efficientnetv2b0"),
        *(slow(name, backbone) for name in list_models()[:-1] for backbone in KERAS_SMALL),
        *(slow(name, backbone) for name in list_models() for backbone in ("resnet50", "resnet50_v1b")),
        *(slow("mrfeanet1", backbone) for backbone in DEEP),
    ],
)
def test_heatmaps_are_the_same(name, backbone):
    check(name, backbone)


@pytest.mark.slow
def test_heatmaps_are_the_same_with_transposed_convolutions():
    for name in list_models():
        check(name, "tiny_v1b", "transpose")


@pytest.mark.parametrize(
    ("backbone", "share"), [("tiny_v1b", 2e-7), slow("mobilenetv2", 2e-6), slow("efficientnetv2b0", 5e-5)]
)
def test_in_float64_they_are_the_same(backbone, share):
    """Nothing is left but the rounding of the new kernels and biases: 6e-8, 6e-7 and 2e-5 were found."""
    model = network("mrheatnet1", backbone)
    exact = output(in_float64(model), images())
    found = output(in_float64(fuse_for_inference(model)), images())
    assert 0 < abs(found - exact).max() < share * abs(exact).max()


# --- a transposed convolution -------------------------------------------------------------------------------------


def deconvolution_loop(x, kernel, bias):
    """Pixel by pixel in float64: input pixel i reaches output pixels 2 i - 1 to 2 i + 2. Kernel (4, 4, out, in)."""
    batch, height, width, _ = x.shape
    y = np.zeros((batch, 2 * height, 2 * width, kernel.shape[2])) + bias
    for n, i, j, a, b in np.ndindex(batch, height, width, 4, 4):
        row, column = 2 * i - 1 + a, 2 * j - 1 + b
        if 0 <= row < 2 * height and 0 <= column < 2 * width:
            y[n, row, column] += kernel[a, b] @ x[n, i, j]
    return y


def alone(*stack, size=(3, 5, 4)):
    """A stack of layers with random weights."""
    x = image = keras.Input(size)
    for layer in stack:
        x = layer(x)
    return randomize(keras.Model(image, x))


@pytest.mark.parametrize("use_bias", [False, True])
@pytest.mark.parametrize("activation", [None, "tanh"])
def test_a_deconvolution_pixel_by_pixel(use_bias, activation):
    """Sums of 16 products of about 1/4: 16 * 6e-8."""
    model = alone(layers.Conv2DTranspose(6, 4, 2, padding="same", use_bias=use_bias, activation=activation))
    x = np.random.default_rng(1).normal(size=(2, 3, 5, 4)).astype(np.float32)
    kernel, *bias = (w.astype(np.float64) for w in model.layers[1].get_weights())
    wanted = deconvolution_loop(x.astype(np.float64), kernel, bias[0] if bias else 0)
    new = fuse_for_inference(model)
    assert kinds(new)[DepthToSpace] == 1
    np.testing.assert_allclose(output(new, x), np.tanh(wanted) if activation else wanted, rtol=0, atol=2e-6)


def test_the_relu_behind_goes_into_the_four():
    for stack, left in (
        ([layers.Conv2DTranspose(6, 4, 2, padding="same"), BatchNorm(), layers.ReLU()], 0),
        ([layers.Conv2DTranspose(6, 4, 2, padding="same"), layers.ReLU()], 0),
        ([layers.Conv2DTranspose(6, 4, 2, padding="same"), layers.ReLU(max_value=0.5)], 1),
        ([layers.Conv2DTranspose(6, 4, 2, padding="same"), layers.ReLU(negative_slope=0.5)], 1),
        ([layers.Conv2DTranspose(6, 4, 2, padding="same"), layers.ReLU(threshold=0.5)], 1),
        ([layers.Conv2DTranspose(6, 4, 2, padding="same", activation="tanh"), layers.ReLU()], 1),
    ):
        model = alone(*stack)
        new = fuse_for_inference(model)
        assert kinds(new)[layers.ReLU] == left and kinds(new)[DepthToSpace] == 1
        x = np.random.default_rng(1).normal(size=(2, 3, 5, 4)).astype(np.float32)
        np.testing.assert_allclose(output(new, x), output(model, x), rtol=0, atol=2e-6)


@pytest.mark.parametrize(
    "deconvolution",
    [
        {"kernel_size": 4, "strides": 2, "padding": "valid"},
        {"kernel_size": 3, "strides": 2, "padding": "same"},
        {"kernel_size": (4, 2), "strides": 2, "padding": "same"},
        {"kernel_size": 4, "strides": 1, "padding": "same"},
        {"kernel_size": 4, "strides": (2, 1), "padding": "same"},
        {"kernel_size": 4, "strides": 2, "padding": "same", "output_padding": 1},
    ],
)
def test_other_deconvolutions_stay(deconvolution):
    """With the batch norm in them."""
    model = alone(layers.Conv2DTranspose(6, **deconvolution, use_bias=False), BatchNorm(), layers.ReLU())
    new = fuse_for_inference(model)
    assert [type(layer) for layer in new.layers[1:]] == [layers.Conv2DTranspose, layers.ReLU]
    x = np.random.default_rng(1).normal(size=(2, 3, 5, 4)).astype(np.float32)
    np.testing.assert_allclose(output(new, x), output(model, x), rtol=0, atol=2e-6)


def test_depth_to_space_is_row_by_row():
    x = np.arange(2 * 3 * 5 * 8, dtype=np.float32).reshape(2, 3, 5, 8)
    y = keras.ops.convert_to_numpy(DepthToSpace()(x))
    assert y.shape == (2, 6, 10, 2) == DepthToSpace().compute_output_shape(x.shape)
    for a, b in np.ndindex(2, 2):
        np.testing.assert_array_equal(y[:, a::2, b::2], x[..., 2 * (2 * a + b) :][..., :2])


# --- batch norms --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "convolution",
    [
        lambda: layers.Conv2D(6, 3, 2),
        lambda: layers.Conv2D(6, (1, 2), groups=2, use_bias=False),
        lambda: layers.DepthwiseConv2D(3, padding="same", use_bias=False),
        lambda: layers.DepthwiseConv2D(2, depth_multiplier=3),
        lambda: layers.Conv2DTranspose(6, 3, 2),
    ],
)
@pytest.mark.parametrize("norm", [{}, {"scale": False, "epsilon": 0.1}, {"center": False, "axis": 3}])
def test_every_convolution_takes_its_batch_norm_in(convolution, norm):
    model = alone(convolution(), layers.BatchNormalization(**norm))
    new = fuse_for_inference(model)
    assert len(new.layers) == 2
    x = np.random.default_rng(1).normal(size=(2, 3, 5, 4)).astype(np.float32)
    np.testing.assert_allclose(output(new, x), output(model, x), rtol=0, atol=5e-6)


def test_weights_are_rounded_once():
    """In float32 arithmetic, about every second would be a neighbour of the right number."""
    model = alone(layers.Conv2D(6, 3), layers.BatchNormalization(epsilon=0.01))
    kernel, bias, gamma, beta, mean, variance = (weight.astype(np.float64) for weight in model.get_weights())
    factor = gamma / np.sqrt(variance + 0.01)
    found_kernel, found_bias = fuse_for_inference(model).get_weights()
    np.testing.assert_array_equal(found_kernel, (kernel * factor).astype(np.float32))
    np.testing.assert_array_equal(found_bias, ((bias - mean) * factor + beta).astype(np.float32))


def bottleneck(*behind, twice=False):
    """A convolution, a batch norm with a large constant and no activation, what reads it, and that constant's place."""
    image = keras.Input(SIZE)
    x = y = BatchNorm(name="norm")(layers.Conv2D(8, 1, name="first")(image))
    for layer in behind:
        y = layer(y)
    model = randomize(keras.Model(image, [y, layers.ReLU()(x)] if twice else y))
    norm = model.get_layer("norm")
    norm.beta.assign(np.linspace(100, 200, 8))
    factor = norm.gamma / np.sqrt(norm.moving_variance + norm.epsilon)
    return model, (model.get_layer("first").bias - norm.moving_mean) * factor


@pytest.mark.parametrize(
    "behind",
    [
        [layers.Conv2D(5, 1, 2, activation="relu")],
        [layers.Conv2D(5, 1, use_bias=False), BatchNorm(), layers.ReLU()],
    ],
    ids=["bias", "batch norm"],
)
def test_a_mean_goes_on_to_the_next_convolution(behind):
    """What the first one puts out varies around zero then, and the outputs are the same."""
    model, around_zero = bottleneck(*behind)
    new = fuse_for_inference(model)
    # the constant was there for a moment: a float32 of 200 has steps of 1.5e-5
    np.testing.assert_allclose(new.get_layer("first").bias, around_zero, atol=2e-5)
    wanted = output(in_float64(model), images().astype(np.float64))
    np.testing.assert_allclose(output(new, images()), wanted, rtol=0, atol=2e-6 * np.abs(wanted).max())


@pytest.mark.parametrize(
    ("behind", "twice"),
    [
        ([layers.Conv2D(5, 3, padding="same")], False),  # whose border is zeros, not the mean
        ([layers.DepthwiseConv2D(1)], False),
        ([layers.Conv2D(5, 1, use_bias=False)], False),
        ([layers.Conv2D(4, 1, groups=2)], False),
        ([layers.ReLU(), layers.Conv2D(5, 1)], False),
        ([layers.Conv2D(5, 1)], True),
    ],
    ids=["3x3", "depthwise", "no bias", "groups", "relu", "two readers"],
)
def test_a_mean_that_cannot_go_on_stays(behind, twice):
    model, around_zero = bottleneck(*behind, twice=twice)
    new = fuse_for_inference(model)
    np.testing.assert_allclose(new.get_layer("first").bias, around_zero + np.linspace(100, 200, 8), rtol=1e-6)
    for wanted, found in zip(*(keras.tree.flatten(one(images())) for one in (model, new)), strict=True):
        np.testing.assert_allclose(found, wanted, rtol=0, atol=2e-6 * np.abs(wanted).max())


def test_no_mean_to_pass_on():
    image = keras.Input(SIZE)
    x = BatchNorm(center=False)(layers.Conv2D(8, 1)(image))
    model = randomize(keras.Model(image, layers.Conv2D(5, 1)(x)))
    wanted = output(model, images())
    np.testing.assert_allclose(
        output(fuse_for_inference(model), images()), wanted, rtol=0, atol=2e-6 * np.abs(wanted).max()
    )


def branches(kind):
    """Graphs whose batch norm cannot go into the convolution."""
    image = keras.Input((4, 6, 3))
    conv, norm = layers.Conv2D(3, 1), layers.BatchNormalization()
    if kind == "read twice":
        x = conv(image)
        return keras.Model(image, layers.Add()([norm(x), x]))
    if kind == "an output":
        x = conv(image)
        return keras.Model(image, [norm(x), x])
    if kind == "called twice":
        return keras.Model(image, layers.Add()([norm(conv(image)), conv(conv(image))]))
    if kind == "norm called twice":
        return keras.Model(image, norm(layers.ReLU()(norm(conv(image)))))
    if kind == "activation":
        return keras.Model(image, norm(layers.Conv2D(3, 1, activation="relu")(image)))
    if kind == "other axis":
        return keras.Model(image, layers.BatchNormalization(axis=1)(conv(image)))
    return keras.Model(image, norm(layers.ReLU()(conv(image))))


@pytest.mark.parametrize(
    "kind", ["read twice", "an output", "called twice", "norm called twice", "activation", "other axis", "relu between"]
)
def test_a_batch_norm_that_cannot_go_stays(kind):
    model = randomize(branches(kind))
    new = fuse_for_inference(model)
    assert kinds(new) == kinds(model)
    x = images((4, 6, 3)) / 255
    for found, wanted in zip(new(x), model(x), strict=True):
        np.testing.assert_allclose(found, wanted, rtol=0, atol=5e-6)


# --- the whole ----------------------------------------------------------------------------------------------------


def test_dropout_and_noise_are_gone():
    model = alone(layers.Dropout(0.5), layers.SpatialDropout2D(0.5), layers.GaussianNoise(1.0), layers.ReLU())
    assert [type(layer) for layer in fuse_for_inference(model).layers] == [layers.InputLayer, layers.ReLU]


def test_the_original_stays_as_it_is():
    model = network()
    model.compile("adam", "mse")
    before, described, kept = model.get_weights(), model.get_config(), kinds(model)
    new = fuse_for_inference(model)
    assert type(new) is type(keras.Model(model.input, model.output)) and not new.compiled
    assert (new.name, new.input_shape, new.output_shape) == (model.name, model.input_shape, model.output_shape)
    assert (new.input.name, new.output_names) == ("image", ["heatmaps"])
    for weight in new.weights:
        weight.assign(weight * 0)
    assert model.get_config() == described and kinds(model) == kept and model.compiled
    for now, then in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(now, then)


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "bfloat16"])
def test_float32_whatever_it_was_trained_in(policy):
    """As near to the same weights in float64 as in `check`, where bfloat16 would be off by a hundredth."""
    with precision(policy):
        model = network("mrfeanet2")
        new = fuse_for_inference(model)
    assert all(layer.dtype_policy.name == "float32" for layer in new.layers[1:])  # the input has a type only
    assert new.input.dtype == new.output.dtype == "float32"
    assert {weight.dtype for weight in new.weights} == {"float32"}
    exact = output(in_float64(model), images())
    assert abs(output(new, images()) - exact).max() < 1e-5 * abs(exact).max()


def test_an_unknown_form():
    with pytest.raises(InputError, match="deconvolution is 'pixels'; give one of depth_to_space, transpose"):
        fuse_for_inference(network(), "pixels")


@pytest.mark.slow
def test_on_jax():
    on_jax.passed(__file__, "pixel_by_pixel or row_by_row", 5)

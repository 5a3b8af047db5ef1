"""Fusion of a trained network for prediction: the same function with fewer and faster layers.

Training wants batch norms and transposed convolutions as they are written. A phone, and a CPU with one image, are
faster without: a batch norm that follows a convolution is part of its kernel and bias, and a transposed convolution
of stride 2 is four small convolutions, one for each of the four output pixels that an input pixel becomes.
"""

from __future__ import annotations

import zlib
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import islice, product

import keras
import numpy as np
from keras import layers, ops

from keras_mrpose.errors import InputError
from keras_mrpose.models import hardware, winograd
from keras_mrpose.models.pointwise import PointwiseConv2D

DECONVOLUTIONS = ("depth_to_space", "transpose")
WINOGRAD_INPUTS = 512  # channels from which on a prediction is faster by `winograd`

# Exact types: what a subclass does is not known. Each with the shape that brings a number per filter to its kernel.
_KERNELS: dict[type, Callable] = {
    layers.Conv2D: lambda kernel: (-1,),  # rows, columns, inputs, filters
    layers.Conv2DTranspose: lambda kernel: (-1, 1),  # rows, columns, filters, inputs
    layers.DepthwiseConv2D: lambda kernel: kernel.shape[2:],  # rows, columns, inputs, filters of each
}
# Ours, which differ in training alone, and the layers that predict in their place.
_PLAIN = {winograd.WinogradConv2DTranspose: layers.Conv2DTranspose, PointwiseConv2D: layers.Conv2D}
_PIXELS = tuple(product((0, 1), (0, 1)))  # row and column in a block of 2x2, in the order of `DepthToSpace`
_TRAINING_ONLY = (layers.Dropout, layers.GaussianDropout, layers.GaussianNoise)

# One operation, also in LiteRT, on TensorFlow; on any other backend TensorFlow is not imported.
_depth_to_space = None
if keras.backend.backend() == "tensorflow":
    import tensorflow as tf
    from tensorflow.raw_ops import DepthToSpace as _depth_to_space


@keras.saving.register_keras_serializable("keras_mrpose")
class DepthToSpace(layers.Layer):
    """(batch, H, W, 4 C) to (batch, 2 H, 2 W, C): the channels are the pixels of a 2x2 block, row by row."""

    def call(self, inputs):
        """Move channels to pixels."""
        if _depth_to_space:
            return _depth_to_space(input=inputs, block_size=2)
        height, width, depth = inputs.shape[1:]
        blocks = ops.reshape(inputs, (-1, height, width, 2, 2, depth // 4))
        return ops.reshape(ops.transpose(blocks, (0, 1, 3, 2, 4, 5)), (-1, 2 * height, 2 * width, depth // 4))

    def compute_output_shape(self, input_shape):
        """Twice the sides, a quarter of the channels."""
        batch, height, width, depth = input_shape
        return batch, 2 * height, 2 * width, depth // 4


def fuse_for_inference(model: keras.Model, deconvolution: str = "depth_to_space") -> keras.Model:
    """Fuse a network for prediction: batch norms folded, transposed convolutions split; float32 under every policy.

    - A batch norm after a convolution, a depthwise or a transposed one whose output nothing else reads goes into its
      kernel and bias (in float64, rounded once). Any other stays.
    - A 4x4 transposed convolution of stride 2 becomes four 2x2 convolutions and a `DepthToSpace` of its name. A ReLU
      behind it goes into the four, where LiteRT does it for nothing. Any other stays.
    - Where such a batch norm feeds one 1x1 convolution and nothing else (the linear bottlenecks of MobileNetV2), the
      constant that it adds goes on into the bias there. It is the mean of what it puts out: what is left varies around
      zero, and float16 and int8 spend their precision on that (Nagel et al. 2019, "bias absorption").
    - Dropout and noise are gone.

    Args:
        model: a Functional model, such as `build` makes; it stays as it is.
        deconvolution: "depth_to_space", or "transpose", which keeps transposed convolutions as they are.

    Returns:
        A plain Functional model with new weights and the old input and output, equal up to float32 rounding.

    Raises:
        InputError: an unknown `deconvolution`.
    """
    if deconvolution not in DECONVOLUTIONS:
        raise InputError(f"deconvolution is {deconvolution!r}; give one of {', '.join(DECONVOLUTIONS)}.")
    return _fused(model, deconvolution)


def _fused(model: keras.Model, deconvolution: str, keep_precision: bool = False) -> keras.Model:
    """`fuse_for_inference`; with "winograd" the wide transposed convolutions are computed by minimal filtering."""
    graph = keras.Model(model.input, model.output, name=model.name)  # not compiled: a clone would be, too
    weights = {layer.name: layer.get_weights() for layer in graph.layers}
    replacements: dict[str, Callable] = {}
    followers = _followers(graph)
    for layer in graph.layers:
        if isinstance(layer, _TRAINING_ONLY):
            replacements[layer.name] = _unchanged
        elif _kind(layer) in _KERNELS:
            of_layer, of_weights = _replacements(layer, followers, deconvolution, keep_precision)
            replacements |= of_layer
            weights |= of_weights
    for layer in graph.layers:
        _pass_on_mean(layer, followers, weights)

    def clone(layer):
        return replacements.get(layer.name) or _copied(layer, keep_precision)

    new = keras.models.clone_model(graph, clone_function=clone)
    for layer in new.layers:
        if layer.weights:
            layer.set_weights(weights[layer.name])
    return new


def inference_function(model: keras.Model, batches: bool = False) -> Callable:
    """The network as it predicts fastest, with its weights of now.

    In its own precision; where that is slow (`hardware.is_fast`), in float32. Fused (`fuse_for_inference`); in
    TensorFlow a graph with constant weights, which oneDNN lays out once and not at every call.

    Args:
        model: the network.
        batches: for many images at a time, beside which laying out the weights counts little: the graph has variables
            for them. It is there sooner and takes much less memory (before its first result the process of MRFeaNet2
            on ResNet-50 takes 3 GB in place of 11, SimpleBaseline's 1.6 in place of 4). On two cores 16 images take 1
            to 4 % longer, a single one takes 1.4 to 1.9 times as long.

    Returns:
        Function of images ``(n, height, width, 3)``, RGB 0..255, that returns heatmaps; on TensorFlow also inside a
        `tf.function`.
    """
    fast = all(map(hardware.is_fast, {layer.compute_dtype for layer in model.layers}))
    model = _fused(model, "winograd" if hardware.on_cpu() else "depth_to_space", keep_precision=fast)
    if keras.backend.backend() != "tensorflow":
        return partial(_in_few_batch_sizes, model)
    weights = () if batches else (model.trainable_variables, model.non_trainable_variables)
    constants = [[variable.value.numpy() for variable in variables] for variables in weights]

    def predict(images):
        if batches:
            return model(images, training=False)
        return model.stateless_call(*constants, images, training=False)[0]

    graph = tf.function(predict, autograph=False)
    frozen = graph.get_concrete_function(tf.TensorSpec((None, *model.input_shape[1:]), tf.float32))
    owner = model if batches else None  # a graph does not keep its variables: they go with their model
    return lambda images, _owner=owner: frozen(tf.cast(images, tf.float32))


def checksum(model: keras.Model, every_weight: bool = True) -> int:
    """CRC-32 of a network's weights: another one once they have changed.

    Args:
        model: a network with batch norms.
        every_weight: look at all, some 0.1 s for a ResNet-50. Otherwise at those that every training, every file of
            weights and every count of statistics changes, in 0.6 to 1.1 ms: the last layer's and the last batch norm's
            variance.
    """
    if every_weight:
        weights = model.weights
    else:  # from the end: to collect the weights of all layers takes longer than to look at these
        backwards = model.layers[::-1]
        last = next((layer.weights for layer in backwards if layer.weights), [])
        variances = (layer.moving_variance for layer in backwards if hasattr(layer, "moving_variance"))
        weights = [*last, *islice(variances, 1)]
    found = 0
    for weight in weights:
        found = zlib.crc32(np.ascontiguousarray(ops.convert_to_numpy(weight)), found)
    return found


def _in_few_batch_sizes(model: keras.Model, images: np.ndarray) -> np.ndarray:
    """What a network makes of images, filled up to a power of two: JAX compiles, for seconds, each size anew."""
    more = (1 << (len(images) - 1).bit_length()) - len(images)
    filled = np.concatenate([images, np.zeros((more, *images.shape[1:]), images.dtype)])
    return model.predict_on_batch(filled)[: len(images)]


def _replacements(
    layer, followers: dict[str, layers.Layer], deconvolution: str, keep_precision: bool
) -> tuple[dict, dict]:
    """Replacements, by name, of a convolution and of the layers that it absorbs, and the replacements' weights."""
    norm = followers.get(layer.name)
    if not _can_be_folded(norm, layer):
        norm = None
    faster = deconvolution != "transpose" and _doubles(layer)
    if norm is None and not faster:
        return {}, {}
    kernel, bias = _folded(layer, norm)
    replacements = {} if norm is None else {norm.name: _unchanged}
    if not faster:
        replacements[layer.name] = _copied(layer, keep_precision, use_bias=True)
        return replacements, {layer.name: [kernel, bias]}
    activation = layer.activation
    relu = followers.get(layer.name if norm is None else norm.name)
    if _is_plain_relu(relu) and activation is keras.activations.linear:
        replacements[relu.name], activation = _unchanged, "relu"
    dtype = layer.compute_dtype if keep_precision else "float32"
    if deconvolution == "winograd" and layer.input.shape[-1] >= WINOGRAD_INPUTS:
        new = winograd.TransformedConv2DTranspose(layer.filters, activation, name=layer.name, dtype=dtype)
        replacements[layer.name] = new
        return replacements, {layer.name: [ops.convert_to_numpy(winograd.transform(kernel)), bias]}
    replacements[layer.name] = _four_convolutions(layer, activation, dtype)
    return replacements, {
        part: [quarter, bias] for part, quarter in zip(parts(layer.name), quarters(kernel), strict=True)
    }


# --- the graph ----------------------------------------------------------------------------------------------------


def _followers(graph: keras.Model) -> dict[str, layers.Layer]:
    """The next layer, by name, of each layer whose output only that one reads; both are called once."""
    entries = graph.get_config()["layers"]
    readers = defaultdict(list)
    for entry in entries:
        for source in _sources(entry["inbound_nodes"]):
            readers[source].append(entry["name"])
    once = {entry["name"] for entry in entries if len(entry["inbound_nodes"]) <= 1}  # an input is called by none
    return {
        source: graph.get_layer(names[0])
        for source, names in readers.items()
        if len(names) == 1 and {source, *names} <= once and source not in graph.output_names
    }


def _sources(arguments) -> Iterator[str]:
    """Names of the layers whose outputs are among the (nested) arguments of a call, as a model's config has them."""
    if isinstance(arguments, dict):
        if arguments.get("class_name") == "__keras_tensor__":
            yield arguments["config"]["keras_history"][0]
            return
        arguments = list(arguments.values())
    if isinstance(arguments, (list, tuple)):
        for argument in arguments:
            yield from _sources(argument)


def _kind(layer) -> type:
    """The type of a layer, of ours that of Keras' layer of the same function."""
    return _PLAIN.get(type(layer), type(layer))


def _copied(layer, keep_precision: bool, **changes):
    """A layer of the same function and name, in float32 or in its own precision, without the weights."""
    config = layer.get_config()
    if not keep_precision and "dtype" in config:  # a nested model's has none
        config["dtype"] = "float32"
    if keep_precision and _kind(layer) in _KERNELS:  # it will not train: no weights in float32, and no random ones
        config["dtype"] = layer.compute_dtype
        config |= dict.fromkeys((key for key in config if key.endswith("_initializer")), "zeros")
    return _kind(layer).from_config({**config, **changes})


def _unchanged(inputs, **_):
    """Identity in the place of a removed layer."""
    return inputs


# --- batch norms --------------------------------------------------------------------------------------------------


def _can_be_folded(norm, layer) -> bool:
    """Whether `norm` is a batch norm over the filters of a convolution without activation."""
    if not isinstance(norm, layers.BatchNormalization):
        return False
    linear = layer.activation is keras.activations.linear
    return linear and layer.data_format == "channels_last" and norm.axis in (-1, 3)


def _folded(layer, norm) -> tuple[np.ndarray, np.ndarray]:
    """Kernel and bias, float32, of a convolution and the batch norm (or None) behind it."""
    kernel = _float64(layer.kernel)
    bias = _float64(layer.bias) if layer.use_bias else np.zeros(layer.output.shape[-1])
    if norm is not None:
        factor = _factor(norm)
        kernel *= factor.reshape(_KERNELS[_kind(layer)](kernel))
        bias = (bias - _float64(norm.moving_mean)) * factor
        if norm.center:
            bias += _float64(norm.beta)
    return kernel.astype(np.float32), bias.astype(np.float32)


def _factor(norm) -> np.ndarray:
    """What a batch norm, which is not training, multiplies each channel by: ``(channels,)`` float64."""
    factor = 1 / np.sqrt(_float64(norm.moving_variance) + norm.epsilon)
    return factor * _float64(norm.gamma) if norm.scale else factor


def norm_factors(model: keras.Model) -> dict[str, np.ndarray]:
    """What `fuse_for_inference` multiplies kernels by: layer name -> float64 that broadcasts against its kernel.

    Layers whose kernel stays as it is are not there.
    """
    graph = keras.Model(model.input, model.output)
    followers = _followers(graph)
    found = {}
    for layer in graph.layers:
        norm = followers.get(layer.name)
        if _kind(layer) in _KERNELS and _can_be_folded(norm, layer):
            found[layer.name] = _factor(norm).reshape(_KERNELS[_kind(layer)](layer.kernel))
    return found


def _pass_on_mean(layer, followers: dict[str, layers.Layer], weights: dict[str, list[np.ndarray]]) -> None:
    """Move the constant of a batch norm that has been folded from its convolution's bias to that of the next one."""
    norm = followers.get(layer.name)
    following = followers.get(norm.name) if _kind(layer) in _KERNELS and _can_be_folded(norm, layer) else None
    pointwise = _kind(following) is layers.Conv2D and following.kernel_size == (1, 1) and following.groups == 1
    if not (pointwise and norm.center and len(weights[following.name]) == 2):
        return
    kernel, bias = weights[following.name]
    constant = _float64(norm.beta)
    weights[following.name] = [kernel, (bias + constant @ kernel[0, 0].astype(np.float64)).astype(np.float32)]
    kernel, bias = weights[layer.name]
    weights[layer.name] = [kernel, (bias - constant).astype(np.float32)]


def _float64(variable) -> np.ndarray:
    return ops.convert_to_numpy(variable).astype(np.float64)


# --- transposed convolutions --------------------------------------------------------------------------------------


def _doubles(layer) -> bool:
    """Whether a layer is the 4x4 transposed convolution of `heads`, which doubles each side."""
    return (
        _kind(layer) is layers.Conv2DTranspose
        and layer.kernel_size == (4, 4)
        and layer.strides == (2, 2)
        and layer.padding == "same"
        and layer.output_padding is None
        and layer.data_format == "channels_last"
    )


def _is_plain_relu(layer) -> bool:
    return type(layer) is layers.ReLU and layer.max_value is None and not layer.negative_slope and not layer.threshold


def _four_convolutions(layer, activation, dtype) -> Callable:
    """Replacement of a transposed convolution: four 2x2 convolutions, each padded on two sides, and a `DepthToSpace`.

    Measured on two CPU cores against one convolution with four times the filters (its output has a border to cut off),
    one of 3x3 (more than half of its kernel is zero) and four on slices of one padded input: this one was the
    fastest or as fast, in TensorFlow and in LiteRT.
    """
    filters, name = layer.filters, layer.name
    pads, convolutions = [], []
    for (row, column), part in zip(_PIXELS, parts(name), strict=True):
        sides = ((1 - row, row), (1 - column, column))
        pads.append(layers.ZeroPadding2D(sides, name=f"{part}_pad", dtype=dtype))
        options = {"activation": activation, "kernel_initializer": "zeros", "name": part, "dtype": dtype}
        convolutions.append(layers.Conv2D(filters, 2, **options))
    joined = layers.Concatenate(name=f"{name}_parts", dtype=dtype)
    shuffle = DepthToSpace(name=name, dtype=dtype)
    return lambda x: shuffle(joined([conv(pad(x)) for pad, conv in zip(pads, convolutions, strict=True)]))


def parts(name: str) -> list[str]:
    """Names of the four convolutions that take the place of the transposed one of this name."""
    return [f"{name}_{row}{column}" for row, column in _PIXELS]


def quarters(kernel: np.ndarray) -> list[np.ndarray]:
    """The 2x2 kernels of the four: each computes the output's pixels 2 i + row, 2 j + column.

    Output row 2 i is kernel rows 3, 1 on inputs i - 1, i; row 2 i + 1 is rows 2, 0 on inputs i, i + 1; columns alike.
    """
    return [kernel[3 - row :: -2, 3 - column :: -2].swapaxes(2, 3) for row, column in _PIXELS]


def from_quarters(kernels: Sequence[np.ndarray]) -> np.ndarray:
    """The 4x4 kernel whose `quarters` these are."""
    *_, channels, filters = kernels[0].shape
    whole = np.empty((4, 4, filters, channels), kernels[0].dtype)
    for (row, column), kernel in zip(_PIXELS, kernels, strict=True):
        whole[3 - row :: -2, 3 - column :: -2] = kernel.swapaxes(2, 3)
    return whole

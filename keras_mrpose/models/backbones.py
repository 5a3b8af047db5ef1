"""Backbones: feature maps C2..C5, at strides 4, 8, 16 and 32, from an image.

Three families, one table (`BACKBONES`):

- `resnet50/101/152` are those of `keras.applications`: the stride of a stage is on the first 1x1 convolution
  ("caffe" layout), convolutions have a bias, batch-norm epsilon is 1.001e-5.
- `resnet50_v1b/101_v1b/152_v1b` are the variant of the published weights and of torchvision: stride on the 3x3, no
  bias, epsilon 1e-5. A layer is named as torchvision's module with underscores for dots: `layer1.0.conv1` is
  `layer1_0_conv1`. Tensor names do not tell the two layouts apart, so a weights file has to go to the right one.
  `small_v1b` (for two CPU cores) and `tiny_v1b` (for tests) are the same code with other numbers.
- `mobilenetv2` and `efficientnetv2b0`, for phones and CPUs, are again those of `keras.applications`. Where these
  halve the sides they pad on the right and below alone; `mobilenetv2_torch` is MobileNetV2 as torchvision and MMPose
  have it: padded on all sides, epsilon 1e-5, heads of 256 filters.

A Keras model of one's own can be a backbone as well (`attach`).

Batch norms average with momentum 0.9 (Keras' own networks come with 0.99 and 0.999, made for a million images).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import keras
from keras import layers

from keras_mrpose.errors import InputError
from keras_mrpose.models.normalization import BN_MOMENTUM, BatchNorm
from keras_mrpose.models.pointwise import PointwiseConv2D

LEVELS = ("C2", "C3", "C4", "C5")
STRIDES = (4, 8, 16, 32)
WIDTH = 256  # of a head on a backbone that says nothing else, as in the paper

# Scale and offset of `keras.layers.Rescaling` on RGB 0..255, per channel. Weights are trained for one of them.
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_SCALE, _OFFSET = [1 / (255 * s) for s in _STD], [-m / s for m, s in zip(_MEAN, _STD, strict=True)]
PREPROCESSING = {
    # (x / 255 - mean) / std. EfficientNetV2-B0 of Keras has the same numbers.
    "torchvision": (_SCALE, _OFFSET),
    # The published code reads BGR and applies the same list to it: blue gets the mean of red. Turned round for RGB.
    # (Its kernels want BGR as well; `checkpoints.tensor_names` turns the first one round.)
    "published": (_SCALE[::-1], _OFFSET[::-1]),
    # Keras' ResNets: only the mean is taken away. (Their kernels want BGR; `pretrained` turns the first one round.)
    "caffe": ([1.0, 1.0, 1.0], [-123.68, -116.779, -103.939]),
    # Keras' MobileNetV2: -1..1.
    "symmetric": ([1 / 127.5] * 3, [-1.0] * 3),
}


@dataclass(frozen=True)
class Backbone:
    """One row of the table.

    Args:
        build: takes the (normalised) image tensor, returns a Functional model that ends in C5.
        feature_layers: names of the layers whose outputs are C2..C5.
        width: number of filters of the heads on this backbone.
        application: its class in `keras.applications`, None for our own.
        keras_preprocessing: key of `PREPROCESSING` that Keras' own ImageNet weights want.
    """

    build: Callable
    feature_layers: tuple[str, str, str, str]
    width: int
    application: str | None = None
    keras_preprocessing: str | None = None


def application(name: str, *, weights: str | None = None, **kwargs) -> keras.Model:
    """The network `name` of `keras.applications` without its classifier and without its own preprocessing."""
    if name.startswith("EfficientNetV2"):
        kwargs["include_preprocessing"] = False
    return getattr(keras.applications, name)(include_top=False, weights=weights, **kwargs)


def _application_on(image, name: str, **norm) -> keras.Model:
    """A network of `keras.applications` with random weights on an image tensor, with this library's batch norms.

    Args:
        image: the tensor.
        name: of its class.
        norm: what else is different in its batch norms.
    """

    def own(layer):
        config = layer.get_config()
        if isinstance(layer, layers.BatchNormalization):
            return BatchNorm.from_config({**config, "momentum": BN_MOMENTUM, **norm})
        pointwise = type(layer) is layers.Conv2D and layer.kernel_size == (1, 1)
        return (PointwiseConv2D if pointwise else type(layer)).from_config(config)

    model = application(name, input_shape=tuple(image.shape[1:]))
    return keras.models.clone_model(model, input_tensors=image, clone_function=own)


def _mobilenetv2_torch_on(image) -> keras.Model:
    """Keras' MobileNetV2 with PyTorch's padding, one pixel on all sides, where it halves the sides; epsilon 1e-5."""

    def own(layer):
        config = layer.get_config()
        if isinstance(layer, layers.ZeroPadding2D):  # before the depthwise convolutions of stride 2
            config["padding"] = 1
        elif layer.name == "Conv1":
            config["padding"] = "valid"
        return type(layer).from_config(config)

    model = _application_on(image, "MobileNetV2", epsilon=1e-5)
    return keras.models.clone_model(
        model, input_tensors=layers.ZeroPadding2D(1, name="Conv1_pad")(image), clone_function=own
    )


def _keras_resnet(name: str, last_blocks: tuple[int, int, int, int]) -> Backbone:
    feature_layers = tuple(
        f"conv{stage}_block{block}_out" for stage, block in zip((2, 3, 4, 5), last_blocks, strict=True)
    )
    return Backbone(partial(_application_on, name=name), feature_layers, 256, name, "caffe")


def _v1b(blocks: tuple[int, int, int, int], base: int = 64, width: int = 256) -> Backbone:
    feature_layers = tuple(f"layer{stage}_{count - 1}_relu" for stage, count in enumerate(blocks, 1))
    return Backbone(partial(_v1b_on, blocks=blocks, base=base), feature_layers, width)


def _conv_bn(x, filters: int, size: int, stride: int, conv: str, bn: str):
    """Convolution without bias, padded as PyTorch does, and batch norm.

    With a stride, TensorFlow's "same" would pad on the right and below alone. Without one it is the same, and trains
    faster than a layer that pads, whose gradient is computed for the padding, too.
    """
    padding = "same"
    if size > 1 and stride > 1:
        x, padding = layers.ZeroPadding2D(size // 2, name=f"{conv}_pad")(x), "valid"
    init = keras.initializers.VarianceScaling(2.0, "fan_out", "untruncated_normal")
    kind = PointwiseConv2D if size == 1 else partial(layers.Conv2D, kernel_size=size)
    x = kind(filters, strides=stride, padding=padding, use_bias=False, kernel_initializer=init, name=conv)(x)
    return BatchNorm(momentum=BN_MOMENTUM, epsilon=1e-5, name=bn)(x)


def _bottleneck(x, filters: int, stride: int, name: str):
    """Residual block: 1x1, 3x3 (with the stride), 1x1 to four times the filters, added to the (projected) input."""
    shortcut = x
    if stride > 1 or x.shape[-1] != 4 * filters:
        shortcut = _conv_bn(x, 4 * filters, 1, stride, f"{name}_downsample_0", f"{name}_downsample_1")
    x = layers.ReLU(name=f"{name}_relu1")(_conv_bn(x, filters, 1, 1, f"{name}_conv1", f"{name}_bn1"))
    x = layers.ReLU(name=f"{name}_relu2")(_conv_bn(x, filters, 3, stride, f"{name}_conv2", f"{name}_bn2"))
    x = _conv_bn(x, 4 * filters, 1, 1, f"{name}_conv3", f"{name}_bn3")
    return layers.ReLU(name=f"{name}_relu")(layers.Add(name=f"{name}_add")([shortcut, x]))


def _v1b_on(image, blocks: tuple[int, int, int, int], base: int) -> keras.Model:
    """The published ResNet variant with `blocks` bottlenecks per stage and `base` filters in the first stage."""
    x = layers.ReLU(name="relu")(_conv_bn(image, base, 7, 2, "conv1", "bn1"))
    # The maximum must not be won by the padding. It never is: after a ReLU nothing is below the zeros.
    x = layers.ZeroPadding2D(1, name="maxpool_pad")(x)
    x = layers.MaxPooling2D(3, 2, name="maxpool")(x)
    for stage, count in enumerate(blocks):
        for block in range(count):
            stride = 2 if stage > 0 and block == 0 else 1
            x = _bottleneck(x, base * 2**stage, stride, f"layer{stage + 1}_{block}")
    return keras.Model(keras.utils.get_source_inputs(image), x)


BACKBONES = {
    "resnet50": _keras_resnet("ResNet50", (3, 4, 6, 3)),
    "resnet101": _keras_resnet("ResNet101", (3, 4, 23, 3)),
    "resnet152": _keras_resnet("ResNet152", (3, 8, 36, 3)),
    "resnet50_v1b": _v1b((3, 4, 6, 3)),
    "resnet101_v1b": _v1b((3, 4, 23, 3)),
    "resnet152_v1b": _v1b((3, 8, 36, 3)),
    "mobilenetv2": Backbone(
        partial(_application_on, name="MobileNetV2"),
        ("block_2_add", "block_5_add", "block_12_add", "out_relu"),
        96,
        "MobileNetV2",
        "symmetric",
    ),
    "mobilenetv2_torch": Backbone(
        _mobilenetv2_torch_on, ("block_2_add", "block_5_add", "block_12_add", "out_relu"), 256
    ),
    "efficientnetv2b0": Backbone(
        partial(_application_on, name="EfficientNetV2B0"),
        ("block2b_add", "block3b_add", "block5e_add", "top_activation"),
        96,
        "EfficientNetV2B0",
        "torchvision",
    ),
    "small_v1b": _v1b((1, 1, 1, 1), base=16, width=32),
    "tiny_v1b": _v1b((1, 1, 1, 1), base=8, width=16),
}


def freeze(model: keras.Model, backbone: str, stages: int) -> None:
    """Freeze the first stages of a network's backbone: weights and batch norm statistics stay as they are.

    Args:
        model: a network on that backbone, not compiled yet.
        backbone: its name.
        stages: 1 freezes all that C2 is computed from, 4 the whole backbone; 0 nothing.
    """
    if stages:
        for layer in stage_layers(model, backbone, stages):
            layer.trainable = False


def stage_layers(model: keras.Model, backbone: str, stages: int = len(LEVELS)) -> list[layers.Layer]:
    """All layers of a network that the output of a stage of its backbone is computed from, the input's too.

    Args:
        model: a network on that backbone.
        backbone: its name.
        stages: 1 is up to C2, 4 the whole backbone.
    """
    last = model.get_layer(feature_layers(backbone)[stages - 1])
    return keras.Model(model.inputs, last.output).layers


def feature_layers(backbone: str) -> tuple[str, ...]:
    """Names of the layers of a network whose outputs are C2..C5."""
    return BACKBONES[backbone].feature_layers if backbone in BACKBONES else LEVELS


def attach(backbone: keras.Model, image) -> dict:
    """A copy of a Keras model, with its weights, on an image tensor: {"C2", "C3", "C4", "C5"}, its feature maps.

    Args:
        backbone: a Functional model of one image input, with `pyramid_outputs` (as KerasHub's backbones have them) or
            several outputs; of each stride, 4, 8, 16 and 32, the last is taken.
        image: symbolic tensor (batch, H, W, 3), as the model takes it; H and W are multiples of 32.

    Raises:
        InputError: it has no feature map at one of the strides, or is no Functional model of one input.
    """
    try:
        maps = keras.tree.flatten(getattr(backbone, "pyramid_outputs", None) or backbone.outputs)
        inputs = backbone.inputs
    except AttributeError:
        inputs = []
    if len(inputs) != 1:
        raise InputError(f"The backbone {backbone.name!r} is no Functional keras.Model of one image input; give one.")
    graph = keras.Model(inputs[0], maps)
    copy = keras.models.clone_model(graph, input_tensors=image)
    for layer in graph.layers:
        if layer.weights:
            copy.get_layer(layer.name).set_weights(layer.get_weights())
    height, width = image.shape[1:3]
    found = {tuple(values.shape[1:3]): values for values in copy.outputs if len(values.shape) == 4}
    sizes = {stride: (height // stride, width // stride) for stride in STRIDES}
    if missing := [str(stride) for stride, size in sizes.items() if size not in found]:
        raise InputError(
            f"The backbone {backbone.name!r} has no feature map at stride {', '.join(missing)}; give a Functional "
            "keras.Model whose outputs (or pyramid_outputs) are feature maps at strides 4, 8, 16 and 32, channels last."
        )
    return {
        level: layers.Activation("linear", name=level)(found[size])
        for level, size in zip(LEVELS, sizes.values(), strict=True)
    }


def list_backbones() -> list[str]:
    """Names that `build(..., backbone=...)` takes."""
    return list(BACKBONES)


def build_backbone(name: str, image) -> tuple[keras.Model, dict]:
    """A backbone with random weights on an image tensor.

    Args:
        name: a key of `BACKBONES`.
        image: symbolic tensor (batch, H, W, 3), normalised; H and W are multiples of 32.

    Returns:
        The backbone as a Functional model that shares the tensor's graph, and {"C2", "C3", "C4", "C5"}: its
        feature maps, (batch, H/4, W/4, channels) to (batch, H/32, W/32, channels).
    """
    row = BACKBONES[name]
    model = row.build(image)
    feature_layers = zip(LEVELS, row.feature_layers, strict=True)
    return model, {level: model.get_layer(layer).output for level, layer in feature_layers}

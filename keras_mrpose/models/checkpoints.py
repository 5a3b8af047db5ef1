"""Weights files: everything in a file is checked against the network before anything is assigned.

Accepted are

- for a backbone: `.npz` with torchvision's tensor names (ResNet, MobileNetV2), Keras' `.h5` without the classifier, and
  `"imagenet"`, Keras' own download;
- for a whole network: `.keras` and `.weights.h5` written by this library.

A file that is missing, broken or made for another network is an `InputError` that names the file and the tensor.
"""

from __future__ import annotations

import re
import zipfile
import zlib
from pathlib import Path

import keras
import numpy as np
from keras import layers

from keras_mrpose.errors import InputError
from keras_mrpose.models.backbones import BACKBONES, application

_TORCH_EPSILON = 1e-5
_CLASSIFIER = ("fc.", "classifier.")  # the top of a classification network, which a pose network has no use for
_BATCH_NORM = {"weight": 0, "bias": 1, "running_mean": 2, "running_var": 3}  # in the order of `layer.weights`


def source_kind(source: str | Path | None) -> str | None:
    """What kind of `backbone_weights` this is: None, "npz", or "keras" (which has its own preprocessing).

    Raises:
        InputError: the file does not exist or has another suffix.
    """
    if source is None:
        return None
    if str(source) == "imagenet":
        return "keras"
    path = _existing(source)
    if path.suffix not in (".npz", ".h5"):
        raise InputError(
            f"{path}: backbone weights are a .npz file with torchvision's names, a Keras .h5 file, or 'imagenet'; "
            f"{path.suffix or 'a file without suffix'} is not known."
        )
    return "npz" if path.suffix == ".npz" else "keras"


def load_backbone(backbone: keras.Model, name: str, source: str | Path) -> None:
    """Gives a backbone its pretrained weights.

    Args:
        backbone: the model that `build_backbone` made.
        name: its key in `BACKBONES`.
        source: "imagenet" or a file, see `source_kind`.

    Raises:
        InputError: the weights cannot be read or are not those of this backbone. Nothing has been assigned then.
    """
    if source_kind(source) == "npz":
        plan = _plan_npz(backbone, name, Path(source))
    else:
        plan = _plan_keras(backbone, name, source)
    for layer, values in plan:
        layer.set_weights(values)


# --- torchvision names -----------------------------------------------------------------------------------------------


def _plan_npz(backbone: keras.Model, name: str, path: Path) -> list[tuple[layers.Layer, list[np.ndarray]]]:
    """Which layer gets which arrays; raises if any tensor is missing, unused, of wrong shape or not finite."""
    tensors = _read_npz(path)
    own = [layer for layer in backbone.layers if layer.weights]
    modules = _torch_modules(name, own, tensors, path)
    plan = [(layer, _layer_values(layer, module, tensors, path)) for layer, module in zip(own, modules, strict=True)]
    unused = [key for key in tensors if not key.startswith(_CLASSIFIER) and not key.endswith("num_batches_tracked")]
    if unused:
        raise InputError(f"{path}: {unused[0]} ({len(unused)} in all) has no place in the backbone {name}.")
    return plan


def _read_npz(path: Path) -> dict[str, np.ndarray]:
    """All arrays of the file; pickled objects are refused."""
    try:
        with path.open("rb") as file:
            archive = np.load(file, allow_pickle=False)
            if not isinstance(archive, np.lib.npyio.NpzFile):
                raise ValueError("it holds a single array")
            tensors = {key: archive[key] for key in archive.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise InputError(f"{path} is not a readable .npz file ({_first_line(error)}); fetch it again.") from error
    for key, value in tensors.items():
        if not isinstance(value, np.ndarray):  # NumPy hands out what is no array as bytes
            raise InputError(f"{path} is not a readable .npz file (its member {key} is no array); fetch it again.")
    return tensors


def _torch_modules(name: str, own: list, tensors: dict, path: Path) -> list[str]:
    """For each layer with weights, the module of torchvision's network that it is."""
    if name == "mobilenetv2":
        return _mobilenet_modules(nested="features.1.conv.0.0.weight" in tensors)
    if "v1b" in name or name.startswith("resnet"):
        return [torch_module(layer.name) for layer in own]
    raise InputError(f"{path}: the backbone {name} takes Keras .h5 weights or 'imagenet', not .npz.")


def torch_module(layer: str) -> str:
    """The PyTorch module that a layer of a ResNet or of a head is, from its name.

    Our own layers write underscores for dots (`layer1_0_conv1` -> `layer1.0.conv1`, `deconv1_0` -> `deconv1.0`). Those
    of Keras' ResNets have other words: `conv1_bn` -> `bn1`, `conv3_block2_1_conv` -> `layer2.1.conv1`,
    `conv3_block1_0_bn` -> `layer2.0.downsample.1`.
    """
    if layer in ("conv1_conv", "conv1_bn"):
        return {"conv1_conv": "conv1", "conv1_bn": "bn1"}[layer]
    if match := re.fullmatch(r"conv(\d)_block(\d+)_(\d)_(conv|bn)", layer):
        stage, block, index, kind = match.groups()
        part = f"downsample.{int(kind == 'bn')}" if index == "0" else f"{kind}{index}"
        return f"layer{int(stage) - 1}.{int(block) - 1}.{part}"
    return re.sub(r"\.(\d+)_", r".\1.", re.sub(r"_(\d+)(?=_|$)", r".\1", layer))


def _mobilenet_modules(nested: bool) -> list[str]:
    """MobileNetV2 in network order, convolution and batch norm alternating: Keras' graph has the same order.

    A block was published first as one flat list (`conv.3`); today's torchvision nests convolution, norm and ReLU6
    (`conv.1.0`). Keras pads stride-2 convolutions on the right and below, PyTorch on all sides: every feature is the
    one that PyTorch computes, but half a stride further on in the image, and only along the border another.
    """
    flat = {1: (0, 1, 3, 4), 2: (0, 1, 3, 4, 6, 7)}
    deep = {1: ("0.0", "0.1", 1, 2), 2: ("0.0", "0.1", "1.0", "1.1", 2, 3)}
    parts = deep if nested else flat
    blocks = [f"features.{block}.conv.{part}" for block in range(1, 18) for part in parts[min(block, 2)]]
    return ["features.0.0", "features.0.1", *blocks, "features.18.0", "features.18.1"]


def _layer_values(layer, module: str, tensors: dict, path: Path) -> list[np.ndarray]:
    """The arrays for one layer in Keras' layout, taken out of `tensors`."""

    def take(tensor: str, shape: tuple) -> np.ndarray:
        key = f"{module}.{tensor}"
        if key not in tensors:
            raise InputError(f"{path}: tensor {key} is missing; this is not a file for this backbone.")
        value = tensors.pop(key)
        if value.shape != tuple(shape):
            raise InputError(f"{path}: tensor {key} has shape {value.shape}, the network needs {tuple(shape)}.")
        if value.dtype.kind != "f" or not np.isfinite(value).all():
            raise InputError(f"{path}: tensor {key} has values that are not finite numbers; fetch the file again.")
        return value.astype(np.float32)

    if isinstance(layer, layers.BatchNormalization):
        shape = layer.gamma.shape
        gamma, beta, mean, variance = (take(tensor, shape) for tensor in _BATCH_NORM)
        if (variance < 0).any():
            raise InputError(f"{path}: tensor {module}.running_var has negative variances; fetch the file again.")
        # gamma / sqrt(variance + epsilon) stays what it was under PyTorch's epsilon, in float64 before rounding.
        ratio = (variance.astype(np.float64) + layer.epsilon) / (variance.astype(np.float64) + _TORCH_EPSILON)
        return [(gamma * np.sqrt(ratio)).astype(np.float32), beta, mean, variance]
    kernel = tuple(layer.kernel.shape)
    # PyTorch: (out, in, kh, kw), depthwise (channels, 1, kh, kw). Keras: (kh, kw, in, out) or (kh, kw, channels, 1).
    order = (2, 3, 0, 1) if isinstance(layer, layers.DepthwiseConv2D) else (2, 3, 1, 0)
    torch_shape = tuple(kernel[order.index(axis)] for axis in range(4))
    values = [take("weight", torch_shape).transpose(order)]
    if layer.use_bias:  # Keras' ResNets have biases before their batch norms, torchvision's have none
        values.append(np.zeros(layer.bias.shape, np.float32))
    return values


# --- Keras' own weights ----------------------------------------------------------------------------------------------


def _plan_keras(backbone: keras.Model, name: str, source: str | Path) -> list[tuple[layers.Layer, list[np.ndarray]]]:
    """Loads into a second network of the same kind, looks at it, and plans to copy it layer by layer."""
    row = BACKBONES[name]
    if row.application is None:
        having = ", ".join(key for key, value in BACKBONES.items() if value.application)
        raise InputError(f"Keras has no weights ({source}) for the backbone {name}; it has them for {having}.")
    try:
        donor = application(row.application, weights=str(source), input_shape=(224, 224, 3))
    except Exception as error:  # a failed download is a bare Exception, a bad file one of many
        if str(source) == "imagenet":
            raise InputError(
                f"Keras could not download its ImageNet weights for {name} ({_first_line(error)}); "
                "check the connection or give a file as backbone_weights."
            ) from error
        raise InputError(
            f"{source} does not hold Keras weights of {row.application} without its classifier ({_first_line(error)})."
        ) from error
    plan = [(layer, donor.get_layer(layer.name).get_weights()) for layer in backbone.layers if layer.weights]
    for layer, values in plan:
        if not all(np.isfinite(value).all() for value in values):
            raise InputError(f"{source}: layer {layer.name} has values that are not finite numbers.")
    if row.keras_preprocessing == "caffe":
        # These kernels were trained on blue, green, red. Turning their input channels round, once, gives the same
        # numbers for RGB, and no layer of the network ever has to change the colour order.
        first = next(values for layer, values in plan if layer.name == "conv1_conv")
        first[0] = np.ascontiguousarray(first[0][:, :, ::-1])
    return plan


# --- whole networks --------------------------------------------------------------------------------------------------


def check_pose_weights(source: str | Path) -> Path:
    """The path, if it exists and has a suffix that `weights=` takes; otherwise an InputError."""
    path = _existing(source)
    if path.suffix != ".keras" and not path.name.endswith(".weights.h5"):
        raise InputError(f"{path}: weights of a whole network are a .keras or a .weights.h5 file of this library.")
    return path


def read_keras(path: Path) -> keras.Model:
    """The model in a `.keras` file, uncompiled; an InputError if Keras cannot read it or a weight is not finite."""
    try:
        model = keras.models.load_model(path, compile=False)
    except Exception as error:  # a broken archive or config fails in as many ways as there are layers
        raise InputError(f"{path} is not a .keras file that can be loaded ({_first_line(error)}).") from error
    return _finite(model, path)


def load_weights_h5(model: keras.Model, path: Path) -> None:
    """Loads a `.weights.h5` file of the same network; after an InputError the model is to be thrown away."""
    try:
        model.load_weights(path)
    except Exception as error:  # as above
        raise InputError(f"{path} does not hold the weights of {model.name} ({_first_line(error)}).") from error
    _finite(model, path)


def _finite(model: keras.Model, path: Path) -> keras.Model:
    for variable in model.weights:
        if not np.isfinite(keras.ops.convert_to_numpy(variable)).all():
            raise InputError(f"{path}: {variable.path} has values that are not finite numbers.")
    return model


def _existing(source: str | Path) -> Path:
    path = Path(source)
    if not path.is_file():
        raise InputError(f"{path}: there is no such weights file.")
    return path


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__

"""Weights files: everything in a file is checked against the network before anything is assigned.

Accepted are

- for a backbone: a state dict with torchvision's tensor names (ResNet, MobileNetV2), a `.npz` with folded batch norms
  and the layer names of `keras.applications` (`folded_norms`), Keras' `.h5` without the classifier, and `"imagenet"`,
  Keras' own download;
- for a whole network: `.keras` and `.weights.h5` written by this library, and state dicts of the published networks.

A state dict is a PyTorch file (`.pth`, `.pth.tar`, `.pt`, `.tar`, `.bin`, read without PyTorch) or a `.npz` with the
same names. A file that is missing, broken or made for another network is an `InputError` that names file and tensor.
"""

from __future__ import annotations

from pathlib import Path

import keras
import numpy as np
from keras import layers

from keras_mrpose.checkpoints import folded_norms, state_dicts
from keras_mrpose.checkpoints.tensor_names import JointMap, WeightMap, torch_module
from keras_mrpose.errors import InputError, short_message
from keras_mrpose.models.backbones import BACKBONES, application


def source_kind(source: str | Path | None) -> str | None:
    """What kind of `backbone_weights` this is: None, "state dict", "keras" or "folded".

    The last two have the preprocessing of `keras.applications`. "folded" is told by the names in the file.

    Raises:
        InputError: the file does not exist or has another suffix.
    """
    if source is None:
        return None
    if str(source) == "imagenet":
        return "keras"
    path = _existing(source)
    if path.suffix == ".h5":
        return "keras"
    if path.suffix not in state_dicts.SUFFIXES:
        raise InputError(
            f"{path}: backbone weights are a .npz or PyTorch file with torchvision's names, a .npz with folded "
            f"batch norms, a Keras .h5 file, or 'imagenet'; {path.suffix or 'a file without suffix'} is not known."
        )
    return "folded" if folded_norms.is_folded(path) else "state dict"


def load_backbone(backbone: keras.Model, name: str, source: str | Path, preprocessing: str = "torchvision") -> None:
    """Gives a backbone its pretrained weights.

    Args:
        backbone: the model that `build_backbone` made.
        name: its key in `BACKBONES`.
        source: "imagenet" or a file, see `source_kind`.
        preprocessing: what comes before the backbone, key of `PREPROCESSING`. Before "published", torchvision's
            kernels meet blue, green, red, as in the published training; before "caffe", folded ones do, as Keras' own.

    Raises:
        InputError: the weights cannot be read or are not those of this backbone. Nothing has been assigned then.
    """
    kind = source_kind(source)
    if kind == "keras":
        for layer, values in _plan_keras(backbone, name, source):
            layer.set_weights(values)
        return
    tensors = state_dicts.read_state_dict(source).tensors
    if kind == "folded":
        plan = folded_norms.plan_folded(backbone, source, tensors, bgr=preprocessing in ("caffe", state_dicts.BGR))
    else:
        own = [layer for layer in backbone.layers if layer.weights]
        plan = WeightMap(source, tensors, bgr=preprocessing == state_dicts.BGR)
        for layer, module in zip(own, _backbone_modules(name, own, tensors, source), strict=True):
            plan.add(layer, module)
    plan.assign(f"the backbone {name}")


def _backbone_modules(name: str, own: list, tensors: dict, path) -> list[str]:
    """For each layer with weights, the module of torchvision's network that it is."""
    if name == "mobilenetv2":
        return _mobilenet_modules(nested="features.1.conv.0.0.weight" in tensors)
    if state_dicts.is_resnet(name):
        return [torch_module(layer.name) for layer in own]
    raise InputError(f"{path}: the backbone {name} takes Keras .h5 weights or 'imagenet', not a state dict.")


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


# --- Keras' own weights ----------------------------------------------------------------------------------------------


def _plan_keras(backbone: keras.Model, name: str, source: str | Path) -> list[tuple[layers.Layer, list[np.ndarray]]]:
    """Loads into a second network of the same kind, looks at it, and plans to copy it layer by layer."""
    row = BACKBONES[name]
    if row.application is None:
        having = ", ".join(key for key, value in BACKBONES.items() if value.application)
        raise InputError(f"Keras has no weights ({source}) for the backbone {name}; it has them for {having}.")
    try:
        source_model = application(row.application, weights=str(source), input_shape=(224, 224, 3))
    except Exception as error:  # a failed download is a bare Exception, a bad file one of many
        if str(source) == "imagenet":
            raise InputError(
                f"Keras could not download its ImageNet weights for {name} ({_first_line(error)}); "
                "check the connection or give a file as backbone_weights."
            ) from error
        raise InputError(
            f"{source} does not hold Keras weights of {row.application} without its classifier ({_first_line(error)})."
        ) from error
    plan = [(layer, source_model.get_layer(layer.name).get_weights()) for layer in backbone.layers if layer.weights]
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
    if path.suffix not in (".keras", *state_dicts.SUFFIXES) and not path.name.endswith(".weights.h5"):
        raise InputError(
            f"{path}: weights of a whole network are a .keras or a .weights.h5 file of this library, or a state dict "
            f"({', '.join(state_dicts.SUFFIXES)})."
        )
    return path


def read_keras(path: Path) -> keras.Model:
    """The model in a `.keras` file, uncompiled; an InputError if Keras cannot read it or a weight is not finite."""
    try:
        model = keras.models.load_model(path, compile=False)
    except Exception as error:  # a broken archive or config fails in as many ways as there are layers
        raise InputError(f"{path} is not a .keras file that can be loaded ({_first_line(error)}).") from error
    return _finite(model, path)


def copy_weights(source_model: keras.Model, model: keras.Model, map_joints: bool) -> None:
    """Gives a network the weights of another that differs in its joints (or input size) at most.

    Raises:
        InputError: the joints are others, and not to be mapped by name or without a name in common.
    """
    have, want = source_model.skeleton, model.skeleton
    if have.num_joints != want.num_joints and not map_joints:
        raise InputError(
            f"The weights file of {source_model.name} has {have.num_joints} joints, but {want.num_joints} are asked "
            "for; map_joints keeps those that both know."
        )
    joints = JointMap(have, want) if map_joints else None
    for layer in model.layers:
        if values := source_model.get_layer(layer.name).get_weights():
            layer.set_weights(joints.of_layer(layer, values) if joints else values)


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
    name, words = type(error).__name__, short_message(error)
    return words if words == name else f"{name}: {words}"

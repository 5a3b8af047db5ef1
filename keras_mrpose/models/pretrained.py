"""Pretrained weights for a backbone or a whole network, checked against it before anything is assigned.

Accepted are

- for a backbone: a state dict with torchvision's tensor names (ResNet, MobileNetV2), a `.npz` with folded batch norms
  and the layer names of `keras.applications` (`folded_norms`), Keras' `.h5` without the classifier, and `"imagenet"`,
  Keras' own download;
- for a whole network: the name of a preset, `.keras` and `.weights.h5` written by this library, and state dicts of the
  published networks and of MMPose.

`mobilenetv2_torch` computes what PyTorch computes from such a state dict. So does `mobilenetv2`, but half a stride
further on in the image, and along the border something else: Keras pads convolutions of stride 2 on one side alone.

A state dict is a PyTorch file (`.pth`, `.pth.tar`, `.pt`, `.tar`, `.bin`, read without PyTorch) or a `.npz` with the
same names. A file that is missing, broken or made for another network is an `InputError` that names file and tensor.
"""

from __future__ import annotations

import difflib
from pathlib import Path

import keras
import numpy as np
from keras import layers

from keras_mrpose import skeletons
from keras_mrpose.calibration import Calibration
from keras_mrpose.checkpoints import folded_norms, state_dicts, tensor_names
from keras_mrpose.checkpoints.tensor_names import JointMap, WeightMap, torch_module
from keras_mrpose.codecs import Codec, GaussianCodec
from keras_mrpose.errors import InputError, short_message
from keras_mrpose.models import fuse, preset_weights
from keras_mrpose.models.backbones import BACKBONES, application
from keras_mrpose.models.downloads import download
from keras_mrpose.presets import PRESETS
from keras_mrpose.skeletons import Skeleton


def source_kind(source: str | Path | None) -> str | None:
    """Kind of `backbone_weights`: None, "state dict", "keras" or "folded" (by the names in the file).

    The last two have the preprocessing of `keras.applications`.

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
    """Load pretrained weights into a backbone.

    Args:
        backbone: the model that `build_backbone` made.
        name: its key in `BACKBONES`.
        source: "imagenet" or a file, see `source_kind`.
        preprocessing: key of `PREPROCESSING`, what the network does before the backbone. With "published",
            torchvision's kernels see blue, green, red, as in the published training; with "caffe", folded ones do, as
            Keras' own.

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
        if name == "mobilenetv2_torch":
            raise InputError(f"{source} has Keras' layer names; its MobileNetV2, padded otherwise, is mobilenetv2.")
        plan = folded_norms.plan_folded(backbone, source, tensors, bgr=preprocessing in ("caffe", state_dicts.BGR))
    else:
        if not state_dicts.has_torch_names(name):
            raise InputError(f"{source}: the backbone {name} takes Keras .h5 weights or 'imagenet', not a state dict.")
        plan = WeightMap(source, tensors, bgr=preprocessing == state_dicts.BGR)
        for layer in backbone.layers:
            if layer.weights:
                plan.add(layer, torch_module(layer.name))
    plan.assign(f"the backbone {name}")


# --- Keras' own weights ----------------------------------------------------------------------------------------------


def _plan_keras(backbone: keras.Model, name: str, source: str | Path) -> list[tuple[layers.Layer, list[np.ndarray]]]:
    """Arrays for each layer, read through a second network of the same kind and checked."""
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


class PoseWeights:
    """Weights for a whole network, and what they determine of it. This base class is random weights: nothing.

    Each kind of file is a subclass. `build` asks for codec, skeleton and preprocessing first, builds the network, and
    then lets the weights be assigned.

    Attributes:
        codec: of the network that the weights are from; None if they do not tell.
        skeleton: its joints; None if they do not tell.
    """

    codec: Codec | None = None
    skeleton: Skeleton | None = None

    def preprocessing(self, asked: str | None) -> str | None:
        """Key of `PREPROCESSING` that the weights were trained with; None if they do not tell."""
        return None

    def assign(self, model: keras.Model, map_joints: bool) -> None:
        """Give a network these weights; after an InputError it is to be thrown away."""


class KerasWeights(PoseWeights):
    """The model in a `.keras` file: it brings its preprocessing, joints and codec.

    Args:
        path: the file.
        spec: what has to agree: name, backbone and include_preprocessing.

    Raises:
        InputError: the file cannot be loaded, or the model is another.
    """

    def __init__(self, path: Path, spec: dict):
        self.model = read_keras(path)
        if not hasattr(self.model, "spec"):  # of a `PoseModel`, which is defined above this module
            raise InputError(f"{path} holds a {type(self.model).__name__}, not a model that keras_mrpose.build made.")
        for key, value in spec.items():
            if self.model.spec[key] != value:
                raise InputError(f"{path} was built with {key}={self.model.spec[key]!r}, but {value!r} is asked for.")
        self.codec, self.skeleton = self.model.codec, self.model.skeleton

    def preprocessing(self, asked: str | None) -> str:
        """That of the model."""
        return self.model.spec["preprocessing"]

    def assign(self, model: keras.Model, map_joints: bool) -> None:
        """Copy the weights layer by layer; the networks differ in their joints (or input size) at most.

        Raises:
            InputError: the joints are others, and not to be mapped by name or without a name in common.
        """
        have, want = self.skeleton, model.skeleton
        if have.num_joints != want.num_joints and not map_joints:
            raise InputError(
                f"The weights file of {self.model.name} has {have.num_joints} joints, but {want.num_joints} are asked "
                "for; map_joints keeps those that both know."
            )
        joints = JointMap(have, want) if map_joints else None
        for layer in model.layers:
            if values := self.model.get_layer(layer.name).get_weights():
                layer.set_weights(joints.of_layer(layer, values) if joints else values)


class PresetWeights(PoseWeights):
    """A network that comes with the package: it brings its preprocessing, joints, codec and calibration.

    Args:
        name: a key of `PRESETS`.
        spec: what has to agree: name, backbone and include_preprocessing.

    Raises:
        InputError: it is another network.
    """

    def __init__(self, name: str, spec: dict):
        self.name = name
        about, self._tensors = preset_weights.read_preset(name)
        self._spec = about["spec"]
        _check_preset(name, self._spec, spec)
        self.codec = keras.saving.deserialize_keras_object(about["codec"])
        self.skeleton = Skeleton.from_dict(about["skeleton"])
        self.calibration = about["calibration"] and Calibration.from_dict(about["calibration"])

    def preprocessing(self, asked: str | None) -> str:
        """That of the network."""
        return self._spec["preprocessing"]

    def assign(self, model: keras.Model, map_joints: bool) -> None:
        """Give the network its weights; other joints are mapped by name if asked for.

        Raises:
            InputError: the joints are others, and not to be mapped by name or without a name in common.
        """
        _check_joints(self.name, self.skeleton, model.skeleton, map_joints)
        joints = JointMap(self.skeleton, model.skeleton) if map_joints else None
        for layer in model.layers:
            if layer.weights:
                values = [self._tensors[f"{layer.name}/{index}"] for index in range(len(layer.weights))]
                layer.set_weights(joints.of_layer(layer, values) if joints else values)
        for name, factor in fuse.norm_factors(model).items():
            kernel, *bias = model.get_layer(name).get_weights()
            kernel = np.divide(kernel, factor, out=np.zeros_like(kernel), where=factor != 0)  # 0 multiplies nothing
            model.get_layer(name).set_weights([kernel, *bias])
        if not map_joints:
            model.calibration = self.calibration


def _check_preset(name: str, has: dict, asked: dict) -> None:
    for key, value in asked.items():
        if has.get(key, value) != value:
            raise InputError(f"The preset {name!r} has {key}={has[key]!r}, but {value!r} is asked for.")


def _check_joints(name: str, has: Skeleton, asked: Skeleton, map_joints: bool) -> None:
    if has.joints != asked.joints and not map_joints:
        raise InputError(
            f"The preset {name!r} has the {has.num_joints} joints of {has.name}, but {asked.name} is asked for; "
            "map_joints=True keeps those that both know."
        )


class StateDictWeights(PoseWeights):
    """A state dict of a published network: its number of joints tells the skeleton, a note the preprocessing."""

    def __init__(self, path: Path):
        self.path, self.file = path, state_dicts.read_state_dict(path)
        _, _, count = tensor_names.describe(self.file.tensors)
        self.skeleton = skeletons.for_joint_count(count) if count else None

    def preprocessing(self, asked: str | None) -> str:
        """That of the file's note; without one what is asked for, by default the published training's."""
        return self.file.notes.get("preprocessing", asked or "published")

    def assign(self, model: keras.Model, map_joints: bool) -> None:
        """Load the tensors; an InputError if they are of another network."""
        state_dicts.assign(model, self.path, self.file, model.spec["preprocessing"], map_joints)


class DownloadedWeights(StateDictWeights):
    """A preset that is fetched from where it was published: the table tells its joints and its heatmaps' sigma.

    Args:
        name: a key of `PRESETS`.
        spec: what has to agree: name and backbone.

    Raises:
        InputError: it is another network, cannot be fetched or is spoilt.
    """

    def __init__(self, name: str, spec: dict):
        self.name, row = name, PRESETS[name]
        _check_preset(name, {"name": row.network, "backbone": row.backbone}, spec)
        super().__init__(download(name, row))
        self.skeleton, self.codec = skeletons.get(row.skeleton), GaussianCodec(row.sigma)

    def assign(self, model: keras.Model, map_joints: bool) -> None:
        """Load the tensors; an InputError if the joints are others and not to be mapped, or if they do not fit."""
        _check_joints(self.name, self.skeleton, model.skeleton, map_joints)
        super().assign(model, map_joints)


class H5Weights(PoseWeights):
    """A `.weights.h5` file of the same network: numbers only."""

    def __init__(self, path: Path):
        self.path = path

    def assign(self, model: keras.Model, map_joints: bool) -> None:
        """Load the numbers; an InputError if they are of another network or not finite."""
        try:
            model.load_weights(self.path)
        except Exception as error:  # a broken file fails in as many ways as there are layers
            raise InputError(
                f"{self.path} does not hold the weights of {model.name} ({_first_line(error)})."
            ) from error
        _check_finite(model, self.path)


def pose_weights(source: str | Path | None, spec: dict) -> PoseWeights:
    """The weights in a file, read as far as they tell about the network; random weights for None.

    Args:
        source: a preset's name, a `.keras` or `.weights.h5` file of this library, or a state dict of a published
            network.
        spec: name, backbone and include_preprocessing of the network that they are for.

    Raises:
        InputError: the file does not exist, has another suffix, cannot be read, or is of another network.
    """
    if source is None:
        return PoseWeights()
    if source in PRESETS:
        return (DownloadedWeights if PRESETS[source].address else PresetWeights)(str(source), spec)
    if str(source) == "imagenet":
        raise InputError(
            "weights='imagenet' would be of a whole network, and ImageNet's are of a backbone: give "
            "backbone_weights='imagenet', or weights='people' for a network that knows people."
        )
    path = _existing(source)
    if path.suffix == ".keras":
        return KerasWeights(path, spec)
    if path.suffix in state_dicts.SUFFIXES:
        return StateDictWeights(path)
    if path.name.endswith(".weights.h5"):
        return H5Weights(path)
    raise InputError(
        f"{path}: weights of a whole network are a .keras or a .weights.h5 file of this library, or a state dict "
        f"({', '.join(state_dicts.SUFFIXES)})."
    )


def read_keras(path: Path) -> keras.Model:
    """The model in a `.keras` file, uncompiled; an InputError if Keras cannot read it or a weight is not finite."""
    try:
        model = keras.models.load_model(path, compile=False)
    except Exception as error:  # a broken archive or config fails in as many ways as there are layers
        raise InputError(f"{path} is not a .keras file that can be loaded ({_first_line(error)}).") from error
    _check_finite(model, path)
    return model


def _check_finite(model: keras.Model, path: Path) -> None:
    for variable in model.weights:
        if not np.isfinite(keras.ops.convert_to_numpy(variable)).all():
            raise InputError(f"{path}: {variable.path} has values that are not finite numbers.")


def _existing(source: str | Path) -> Path:
    path = Path(source)
    if not path.is_file():
        near = difflib.get_close_matches(str(source), PRESETS, n=1, cutoff=0.5)
        hint = f"did you mean {near[0]}?" if near else "see keras_mrpose.list_presets()"
        raise InputError(f"{path}: there is no such weights file, nor a preset of that name ({hint}).")
    return path


def _first_line(error: Exception) -> str:
    name, words = type(error).__name__, short_message(error)
    return words if words == name else f"{name}: {words}"

"""PyTorch's tensor names and layouts for each of our layers, in both directions.

A layer of ours is called as the published module (`torch_module`), and what others call it is brought to that
(`respelled`), so nothing has to be guessed: each layer takes its tensors by name, and a tensor that is missing, left
over, of another shape or not finite stops the import before anything is assigned. Layouts differ: PyTorch keeps a
convolution as (out, in, kh, kw) and a transposed one as (in, out, kh, kw), Keras as (kh, kw, in, out) and
(kh, kw, out, in), so that the same transposition serves both.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from keras import layers

from keras_mrpose.errors import InputError
from keras_mrpose.skeletons import Skeleton

EPSILON = 1e-5  # of every published batch norm
LABELS = {"resnet50": "ResNet-50", "resnet101": "ResNet-101", "resnet152": "ResNet-152", "mobilenetv2": "MobileNetV2"}
_RESNETS = {(3, 4, 6, 3): "resnet50", (3, 4, 23, 3): "resnet101", (3, 8, 36, 3): "resnet152"}  # by the blocks of stages
_MOBILENET_BLOCKS = (1, 2, 3, 4, 3, 3, 1)  # of its stages
_MOBILENET_ENDS = {
    "Conv1": "features.0.0",
    "bn_Conv1": "features.0.1",
    "Conv_1": "features.18.0",
    "Conv_1_bn": "features.18.1",
}
_FIRST = ("conv1", "features.0.0")  # convolution of a backbone
_MMPOSE = ("backbone", "head", "keypoint_head")  # parts of a network there; the last in files of its version 0
_STATISTICS = ("weight", "bias", "running_mean", "running_var")  # of a batch norm, in the order of `layer.weights`
CLASSIFIER = ("fc.", "classifier.")  # the top of a classification network, which a pose network has no use for
_COUNTER = "num_batches_tracked"  # PyTorch's; a fixed momentum needs none
# In which order the published networks hold their modules; a network has some of them.
_MODULES = (
    *("conv1", "bn1", "layer1", "layer2", "layer3", "layer4"),
    *("deconv_layers", "deconv1", "deconv2"),
    *("deconv11", "deconv12", "deconv21", "deconv13", "deconv22", "deconv3"),
    *("s_conv1", "s_deconv1", "s_deconv12", "s_conv2", "s_deconv2", "final_layer"),
)


def torch_module(layer: str) -> str:
    """The PyTorch module that a layer of a backbone or of a head is, from its name.

    Our own layers write underscores for dots (`layer1_0_conv1` -> `layer1.0.conv1`, `deconv1_0` -> `deconv1.0`). Those
    of Keras' networks have other words. ResNets: `conv1_bn` -> `bn1`, `conv3_block2_1_conv` -> `layer2.1.conv1`,
    `conv3_block1_0_bn` -> `layer2.0.downsample.1`. MobileNetV2: `Conv1` -> `features.0.0`, `block_1_expand_BN` ->
    `features.2.conv.0.1`, `block_1_project` -> `features.2.conv.2`.
    """
    if layer in _MOBILENET_ENDS:
        return _MOBILENET_ENDS[layer]
    if layer in ("conv1_conv", "conv1_bn"):
        return {"conv1_conv": "conv1", "conv1_bn": "bn1"}[layer]
    if match := re.fullmatch(r"conv(\d)_block(\d+)_(\d)_(conv|bn)", layer):
        stage, block, index, kind = match.groups()
        part = f"downsample.{int(kind == 'bn')}" if index == "0" else f"{kind}{index}"
        return f"layer{int(stage) - 1}.{int(block) - 1}.{part}"
    if match := re.fullmatch(r"(?:block_(\d+)|expanded_conv)_(expand|depthwise|project)(_BN)?", layer):
        block = 1 + int(match[1] or 0)
        step = ("expand", "depthwise", "project").index(match[2]) - (block == 1)  # the first does not expand
        return _mobilenet_module(block, step, match[3] is not None)
    return re.sub(r"\.(\d+)_", r".\1.", re.sub(r"_(\d+)(?=_|$)", r".\1", layer))


def _mobilenet_module(block: int, step: int, norm: bool) -> str:
    """Convolution or batch norm of a step of a block, counted from 1, as torchvision has it today.

    A step is one module of convolution, norm and ReLU6, but for the last, which has no ReLU6.
    """
    last = 1 if block == 1 else 2
    return f"features.{block}.conv.{step + norm if step == last else f'{step}.{norm:d}'}"


def is_mmpose(tensors: Iterable[str]) -> bool:
    """Whether tensors have MMPose's names: of a backbone and a head."""
    parts = {name.split(".")[0] for name in tensors}
    return "backbone" in parts and len(parts) == 2 and parts <= set(_MMPOSE)


def respelled(tensors: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Tensors under the names of the published code and of today's torchvision.

    - MMPose has `backbone.`, `head.` or `keypoint_head.` before them; in its MobileNetV2 `features.0.1.weight` is
      `conv1.bn.weight`, and `features.4.conv.1.0.weight` is `layer3.0.conv.1.conv.weight`.
    - In torchvision's first MobileNetV2 a block was one flat list: that tensor was `features.4.conv.3.weight`.
    """
    flat = "features.1.conv.3.weight" in tensors
    return {_respelled(name, flat): value for name, value in tensors.items()}


def _respelled(name: str, flat: bool) -> str:
    part, _, rest = name.partition(".")
    name = rest if part in _MMPOSE else name
    if match := re.fullmatch(r"layer(\d)\.(\d)\.conv\.(\d)\.(conv|bn)\.(.+)", name):
        stage, block, step = (int(match[group]) for group in (1, 2, 3))
        module = _mobilenet_module(sum(_MOBILENET_BLOCKS[: stage - 1]) + block + 1, step, match[4] == "bn")
        return f"{module}.{match[5]}"
    if match := re.fullmatch(r"conv([12])\.(conv|bn)\.(.+)", name):
        return f"features.{'0' if match[1] == '1' else '18'}.{int(match[2] == 'bn')}.{match[3]}"
    if flat and (match := re.fullmatch(r"features\.(\d+)\.conv\.(\d)\.(.+)", name)):
        step, part = divmod(int(match[2]), 3)  # convolution, norm and ReLU6, which has no tensors
        return f"{_mobilenet_module(int(match[1]), step, part == 1)}.{match[3]}"
    return name


def describe(tensors: dict[str, np.ndarray]) -> tuple[str | None, str | None, int | None]:
    """Network (one of the five), backbone (a key of `LABELS`) and number of joints of a state dict; None if unknown."""
    network = next(
        (
            name
            for tensor, name in (
                ("deconv_layers.0.weight", "simplebaseline"),
                ("s_deconv12.weight", "mrheatnet2"),
                ("s_deconv2.weight", "mrheatnet1"),
                ("deconv11.0.weight", "mrfeanet1"),
            )
            if tensor in tensors
        ),
        None,
    )
    if network == "mrfeanet1":  # the same names in both; MRFeaNet2 starts wide
        first, last = (tensors.get(f"deconv1{i}.0.weight", np.empty((0, 0))) for i in (1, 3))
        network = "mrfeanet2" if first.shape[1:2] > last.shape[1:2] else network
    blocks = tuple(len({name.split(".")[1] for name in tensors if name.startswith(f"layer{k}.")}) for k in (1, 2, 3, 4))
    backbone = "mobilenetv2" if "features.18.0.weight" in tensors else _RESNETS.get(blocks)
    joints = tensors["final_layer.weight"].shape[:1] if "final_layer.weight" in tensors else ()
    return network, backbone, joints[0] if joints else None


def network_label(network: str | None, backbone: str | None) -> str:
    """Network and backbone for a message, such as "mrfeanet2 on ResNet-50"."""
    label = LABELS[backbone] if backbone else "a backbone of another kind"
    return f"{network} on {label}" if network else f"{label} without a head of this library"


class WeightMap:
    """Assignment of a file's tensors to layers: collected and checked first, assigned at once.

    Args:
        source: the file, for messages.
        tensors: its tensors, without a "module." in front of their names.
        bgr: the first kernel of the file is for blue, green, red; it is turned round, once, so that no layer of the
            network ever has to change the colour order.
    """

    def __init__(self, source: str | Path, tensors: dict[str, np.ndarray], *, bgr: bool = False):
        self.source, self.bgr = source, bgr
        self._left = dict(tensors)
        self._values: list[tuple[layers.Layer, list[np.ndarray]]] = []
        self.used: dict[str, tuple[int, ...]] = {}

    def add(self, layer: layers.Layer, module: str, joints: JointMap | None = None) -> None:
        """Add one layer; raises if a tensor is missing, of wrong shape or not finite."""
        shapes = torch_shapes(layer, module)
        if joints:
            shapes = {key: joints.file_shape(layer.name, shape) for key, shape in shapes.items()}
        values = [self.take(key, shape) for key, shape in shapes.items()]
        if isinstance(layer, layers.BatchNormalization):
            gamma, beta, mean, variance = values
            if (variance < 0).any():
                raise InputError(f"{self.source}: tensor {module}.running_var is negative; fetch the file again.")
            values = [(gamma * _epsilon_ratio(variance, layer.epsilon)).astype(np.float32), beta, mean, variance]
        else:
            values[0] = values[0].transpose(_axes(layer))
            if self.bgr and module in _FIRST:
                values[0] = values[0][:, :, ::-1]
            if layer.use_bias and len(values) == 1:  # Keras' ResNets have biases before their batch norms
                values.append(np.zeros(layer.bias.shape, np.float32))
        if joints:
            values = joints.of_layer(layer, values)
        self.put(layer, values)

    def assign(self, what: str) -> tuple[str, ...]:
        """Assign all layers; returns the names of the tensors that `what`, the network, has no use for.

        Raises:
            InputError: a tensor is left over that is neither a classifier's nor a counter. Nothing has been assigned.
        """
        known = [name for name in self._left if name.startswith(CLASSIFIER) or name.endswith(_COUNTER)]
        if unknown := [name for name in self._left if name not in known]:
            more = f" (and {len(unknown) - 1} more)" if len(unknown) > 1 else ""
            raise InputError(f"{self.source}: {unknown[0]}{more} has no place in {what}.")
        for layer, values in self._values:
            layer.set_weights(values)
        return tuple(known)

    def put(self, layer: layers.Layer, values: list[np.ndarray]) -> None:
        """Add a layer with its arrays, in the order of `layer.weights`."""
        self._values.append((layer, values))

    def take(self, key: str, shape: tuple[int, ...]) -> np.ndarray:
        """A tensor of the file as float32; raises if it is missing, of another shape or not finite."""
        if key not in self._left:
            raise InputError(f"{self.source}: tensor {key} is missing; this is not a file for this network.")
        value = self._left.pop(key)
        if value.shape != tuple(shape):
            raise InputError(f"{self.source}: tensor {key} has shape {value.shape}, the network needs {tuple(shape)}.")
        if value.dtype.kind != "f" or not np.isfinite(value).all():
            raise InputError(f"{self.source}: tensor {key} has values that are not finite numbers; fetch it again.")
        self.used[key] = value.shape
        return value.astype(np.float32, copy=False)


class JointMap:
    """Joints of a file matched by name with those of a network: which rows of the head's tensors are kept.

    Args:
        file: joints of the file.
        network: joints of the network; those that the file does not name keep their present (random) numbers.
    """

    def __init__(self, file: Skeleton, network: Skeleton):
        self.count = file.num_joints
        pairs = [(file.joints.index(name), i) for i, name in enumerate(network.joints) if name in file.joints]
        if not pairs:
            raise InputError(f"The skeletons {file.name!r} and {network.name!r} have no joint name in common to keep.")
        self._there, self._here = (list(side) for side in zip(*pairs, strict=True))
        self.new_joints = tuple(name for name in network.joints if name not in file.joints)

    @staticmethod
    def _is_head(layer: str) -> bool:
        return layer == "final_layer" or layer.startswith("s_")

    def file_shape(self, layer: str, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Shape of a layer's tensor in the file, from its shape in the network."""
        if not self._is_head(layer):
            return shape
        first = 2 if "deconv" in layer and len(shape) == 4 else 1  # a transposed convolution from joints to joints
        return (self.count,) * first + tuple(shape[first:])

    def of_layer(self, layer: layers.Layer, values: list[np.ndarray]) -> list[np.ndarray]:
        """The arrays for a layer (Keras' layout): the file's, in the head only for the joints that both know."""
        if not self._is_head(layer.name):
            return values
        merged = layer.get_weights()
        for now, new in zip(merged, values, strict=True):
            axes = 2 if "deconv" in layer.name and now.ndim == 4 else 1  # the last ones are joints
            rest = [slice(None)] * (now.ndim - axes)
            now[(*rest, *np.ix_(*[self._here] * axes))] = new[(*rest, *np.ix_(*[self._there] * axes))]
        return merged


def torch_shapes(layer: layers.Layer, module: str) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the tensors that PyTorch has for a layer, in the order of `layer.weights`."""
    if isinstance(layer, layers.BatchNormalization):
        return {f"{module}.{name}": tuple(layer.gamma.shape) for name in _STATISTICS}
    kernel = tuple(layer.kernel.shape)
    shapes = {f"{module}.weight": tuple(kernel[_axes(layer).index(axis)] for axis in range(4))}
    if layer.use_bias and not _norm_follows(module):
        shapes[f"{module}.bias"] = tuple(layer.bias.shape)
    return shapes


def tensors_of(named: list[tuple[str, layers.Layer]], *, bgr: bool = False) -> dict[str, np.ndarray]:
    """PyTorch's tensors of (module, layer) pairs, in the published order: the inverse of `WeightMap`.

    A bias before a batch norm, which only Keras' own ResNets have, moves into that norm's mean.

    Args:
        named: all layers with weights and the modules that they are.
        bgr: write the first kernel for blue, green, red.
    """
    tensors = {}
    for module, layer in sorted(named, key=lambda pair: _published_order(pair[0])):
        values = layer.get_weights()
        if isinstance(layer, layers.BatchNormalization):
            ratio = _epsilon_ratio(values[3], layer.epsilon)
            values[0] = (values[0] / ratio).astype(np.float32)
        else:
            if bgr and module in _FIRST:
                values[0] = values[0][:, :, ::-1]
            values[0] = np.ascontiguousarray(values[0].transpose(np.argsort(_axes(layer))))
        tensors.update(zip(torch_shapes(layer, module), values, strict=False))
        if isinstance(layer, layers.BatchNormalization):
            tensors[f"{module}.{_COUNTER}"] = np.zeros((), np.int64)
    for module, layer in named:
        if not isinstance(layer, layers.BatchNormalization) and layer.use_bias and _norm_follows(module):
            tensors[f"{_norm_after(module)}.running_mean"] -= layer.get_weights()[1]
    return tensors


def _axes(layer: layers.Layer) -> tuple[int, ...]:
    """Transposition from PyTorch's kernel to Keras'; depthwise kernels are (channels, 1, kh, kw) there."""
    return (2, 3, 0, 1) if isinstance(layer, layers.DepthwiseConv2D) else (2, 3, 1, 0)


def _epsilon_ratio(variance: np.ndarray, epsilon: float) -> np.ndarray:
    """Factor on gamma that makes up for another epsilon than PyTorch's; float64, exactly 1 if they are equal."""
    variance = variance.astype(np.float64)
    return np.sqrt((variance + epsilon) / (variance + EPSILON))


def _norm_follows(module: str) -> bool:
    """Convolutions of a backbone have no bias in PyTorch: a batch norm follows."""
    return module == "conv1" or module.startswith("layer")


def _norm_after(module: str) -> str:
    return module[:-1] + "1" if module.endswith("downsample.0") else module.replace("conv", "bn")


def _published_order(module: str) -> tuple:
    """Sort key of the published order: a block's norm follows its convolution, downsample is last."""
    first, *rest = module.split(".")
    within = [re.sub(r"(conv|bn)(\d)", lambda m: f"{m[2]}{m[1] == 'bn':d}", part) for part in rest]
    return _MODULES.index(first) if first in _MODULES else len(_MODULES), [
        int(part) if part.isdigit() else 99 for part in within
    ]

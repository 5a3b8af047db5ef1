"""The networks of the golden files: weights drawn from the tensors' own names (tests/golden/README.md)."""

import zlib

import numpy as np

from keras_mrpose.checkpoints import state_dicts, tensor_names
from keras_mrpose.checkpoints.torch_files import StateDict
from keras_mrpose.models import build

NAMES = {
    "pose_resnet": "simplebaseline",
    "mrheat1": "mrheatnet1",
    "mrheat2": "mrheatnet2",
    "mrfea1": "mrfeanet1",
    "mrfea2": "mrfeanet2",
}


def formula_weight(name, shape):
    rng = np.random.Generator(np.random.PCG64(zlib.crc32(name.encode())))
    if len(shape) == 4:
        fan = shape[0] * shape[2] * shape[3] / 4 if "deconv" in name else np.prod(shape[1:])
        return (rng.standard_normal(shape) * np.sqrt(2 / fan)).astype(np.float32)
    if name.endswith((".weight", "running_var")):
        return (rng.uniform(0.5, 1.5, shape) * (0.2 if name.endswith("bn3.weight") else 1)).astype(np.float32)
    return (0.1 * rng.standard_normal(shape)).astype(np.float32)


def formula_input(seed, shape):
    return np.random.Generator(np.random.PCG64(seed)).standard_normal(shape).astype(np.float32)


def named_layers(model):
    """(published module, layer) of every layer with weights."""
    return [(tensor_names.torch_module(layer.name), layer) for layer in model.layers if layer.weights]


def formula_network(net, layers, style, shape, joints=17):
    """A network of the golden files, without preprocessing, its weights put in through the import."""
    backbone = f"resnet{layers}" + ("_v1b" if style == "pytorch" else "")
    model = build(NAMES[net], backbone, shape, joints, include_preprocessing=False)
    shapes = {}
    for module, layer in named_layers(model):
        shapes |= tensor_names.torch_shapes(layer, module)
    tensors = {name: formula_weight(name, shape) for name, shape in shapes.items()}
    state_dicts.assign(model, "formula weights", StateDict(tensors, {}), "torchvision", map_joints=False)
    return model

"""The networks of the golden files: weights drawn from the tensors' own names (tests/golden/README.md)."""

import zlib

import keras
import numpy as np

from keras_mrpose.checkpoints import state_dicts, tensor_names
from keras_mrpose.checkpoints.torch_files import StateDict, write_torch_file
from keras_mrpose.models import build

SHAPE = (64, 32, 3)
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


def formula_tensors(model, skip=()):
    """All tensors of a checkpoint for this network, in no special order, counters included."""
    shapes = {}
    for module, layer in named_layers(model):
        shapes |= tensor_names.torch_shapes(layer, module)
        if isinstance(layer, keras.layers.BatchNormalization):
            shapes[f"{module}.num_batches_tracked"] = None
    return {
        name: np.zeros((), np.int64) if shape is None else formula_weight(name, shape)
        for name, shape in shapes.items()
        if name not in skip
    }


def published_file(path, name="mrfeanet2", joints=17, **changes):
    """A file with formula weights for that network on tiny_v1b; `changes` are put over them, None takes away."""
    tensors = formula_tensors(build(name, "tiny_v1b", SHAPE, joints)) | changes
    tensors = {key: value for key, value in tensors.items() if value is not None}
    if path.suffix == ".npz":
        np.savez(path, **tensors)
    else:
        write_torch_file(path, tensors)
    return path

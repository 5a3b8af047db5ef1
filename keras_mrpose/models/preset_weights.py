"""The trainable network of a preset, of which the package has the exported one.

``keras.npz`` has how `build` made it, its joints, codec and calibration, all variables that are no kernels (batch norms
and biases, which are few, in float32), and where in the `.tflite` file each kernel lies, in float16. There the batch
norms have been multiplied into them: dividing takes them out again.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import math
from dataclasses import asdict, dataclass
from pathlib import Path

import keras
import numpy as np

from keras_mrpose.errors import InputError
from keras_mrpose.models import fuse
from keras_mrpose.presets import LITERT, exported_file, tensors_of

KERAS = "keras.npz"
_ABOUT = "about"


def read_preset(name: str) -> tuple[dict, dict[str, np.ndarray]]:
    """What a preset says of itself, and its variables, float32: layer name / index -> value.

    Kernels are as they are in the `.tflite` file: multiplied by `fuse.norm_factors`.

    Raises:
        InputError: there is no such preset, or its files are damaged.
    """
    path = exported_file(name)
    with tensors_of(path.with_name(KERAS)) as tensors:
        about = json.loads(tensors.pop(_ABOUT).tobytes())
        content = path.read_bytes()
        if hashlib.sha256(content).hexdigest() != about["sha256"]:
            raise ValueError(f"{path} is another file")
        for key, rows in about["kernels"].items():
            kernels = [_Kernel(**row).read(content) for row in rows]
            tensors[key] = kernels[0] if len(kernels) == 1 else fuse.from_quarters(kernels)
    return about, {key: value.astype(np.float32) for key, value in tensors.items()}


@dataclass(frozen=True)
class _Kernel:
    """Where a kernel lies in a `.tflite` file.

    Args:
        offset: of its first byte.
        dtype: NumPy's name of its number type.
        shape: as it lies there.
        axes: those of Keras' kernel, in the order in which they lie there.
    """

    offset: int
    dtype: str
    shape: list[int]
    axes: list[int]

    def read(self, content: bytes) -> np.ndarray:
        """The kernel as Keras has it."""
        numbers = np.frombuffer(content, self.dtype, math.prod(self.shape), self.offset)
        return numbers.reshape(self.shape).transpose(np.argsort(self.axes))


_AXES = ((3, 0, 1, 2), (0, 1, 2, 3))  # the orders in which LiteRT keeps those of convolutions and of depthwise ones


def write_preset(model: keras.Model, folder: str | Path) -> None:
    """Add what the trainable network needs, ``keras.npz``, to the folder of its export.

    Args:
        model: a `PoseModel`.
        folder: made of it by `export_litert(model, folder, ["float16"], ...)`.

    Raises:
        InputError: the `.tflite` file in the folder is not of this network.
    """
    path = Path(folder) / LITERT
    content = path.read_bytes()
    folded = {layer.name: layer.get_weights() for layer in fuse.fuse_for_inference(model).layers}
    tensors, kernels, elsewhere = {}, {}, []
    for layer in model.layers:
        for index, value in enumerate(layer.get_weights()):
            key = f"{layer.name}/{index}"
            if value.ndim < 2:
                tensors[key] = value
                continue
            names = [name for name in fuse.parts(layer.name) if name in folded] or [layer.name]
            values = [folded[name][index] for name in names]
            located = [_located(value, content) for value in values]
            if None not in located:
                kernels[key] = [asdict(kernel) for kernel in located]
            else:  # one that the converter changed further, as it makes the mean of four maps a part of the last layer
                tensors[key] = values[0] if len(values) == 1 else fuse.from_quarters(values)
                elsewhere.append(key)
    if len(elsewhere) > 1:
        raise InputError(f"{path} has no kernels of {' or '.join(elsewhere[:3])}; export this network again.")
    about = {
        "spec": {**model.spec, "input_shape": list(model.spec["input_shape"])},
        "skeleton": model.skeleton.to_dict(),
        "codec": keras.saving.serialize_keras_object(model.codec),
        "calibration": None if model.calibration is None else model.calibration.to_dict(),
        "sha256": hashlib.sha256(content).hexdigest(),
        "kernels": kernels,
    }
    tensors[_ABOUT] = np.frombuffer(json.dumps(about).encode(), np.uint8)
    np.savez_compressed(path.with_name(KERAS), **tensors)


def _located(kernel: np.ndarray, content: bytes) -> _Kernel | None:
    """Where a kernel lies in a file, if it does; small ones are float32 there."""
    for dtype, axes in itertools.product(("<f2", "<f4"), _AXES):
        with np.errstate(over="ignore"):  # an infinite one is not in the file
            stored = np.ascontiguousarray(kernel.astype(dtype).transpose(axes))
        if (offset := content.find(stored.tobytes())) >= 0:
            return _Kernel(offset, dtype, list(stored.shape), list(axes))
    return None

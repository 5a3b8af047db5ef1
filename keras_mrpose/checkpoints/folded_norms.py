"""Backbone weights with folded batch norms: a `.npz` of `LAYER.kernel` and `LAYER.bias` in Keras' layouts.

Networks are shipped so: in prediction a batch norm is a factor and a constant per channel, which go into the
convolution before it. LAYER is that convolution's name in `keras.applications` (`Conv1`, `block_1_expand`, ...). Our
backbones keep their batch norms, for training; they start as the identity with the file's bias as beta. What the
activations' mean and variance were is lost with the folding, so that in training mode, where a batch norm divides by
them, the network is another function until `normalization.match_statistics` has counted them anew.
"""

from __future__ import annotations

import zipfile
from pathlib import Path

import keras
import numpy as np
from keras import layers

from keras_mrpose.checkpoints.tensor_names import WeightMap


def is_folded(path: Path) -> bool:
    """Whether a file is of this kind, by the names in it alone; False if it cannot be read."""
    if path.suffix != ".npz":
        return False
    try:
        with zipfile.ZipFile(path) as archive:
            return any(name.removesuffix(".npy").endswith(".kernel") for name in archive.namelist())
    except Exception:  # zipfile raises many kinds for damage; whoever reads the file says what is wrong with it
        return False


def plan_folded(
    backbone: keras.Model, source: str | Path, tensors: dict[str, np.ndarray], *, bgr: bool = False
) -> WeightMap:
    """Map a file's arrays to the layers of a backbone; nothing is assigned yet.

    A convolution without a batch norm behind it (squeeze and excitation in EfficientNet) has its bias itself.

    Args:
        backbone: the model that `build_backbone` made.
        source: the file, for messages.
        tensors: its tensors.
        bgr: the first kernel of the file is for blue, green, red, and is turned round.

    Raises:
        InputError: a tensor is missing, of wrong shape or not finite.
    """
    own = [layer for layer in backbone.layers if layer.weights]
    norms = {id(layer.input): layer for layer in own if isinstance(layer, layers.BatchNormalization)}
    plan = WeightMap(source, tensors)
    for layer in own:
        if isinstance(layer, layers.BatchNormalization):
            continue
        channels = layer.output.shape[-1]
        kernel = plan.take(f"{layer.name}.kernel", layer.kernel.shape)
        bias = plan.take(f"{layer.name}.bias", (channels,))
        if bgr and layer is own[0]:
            kernel = kernel[:, :, ::-1]
        norm = norms.get(id(layer.output))
        if norm is None:
            plan.put(layer, [kernel, bias])
            continue
        none, one = np.zeros(channels, np.float32), np.ones(channels, np.float32)
        # Their sum, variance + epsilon, is exactly 1 in float32: the norm only adds beta.
        plan.put(norm, [one, bias, none, one - np.float32(norm.epsilon)])
        plan.put(layer, [kernel, none] if layer.use_bias else [kernel])  # Keras' ResNets have a bias there, too
    return plan

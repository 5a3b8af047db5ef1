"""The work of a network: multiply-accumulate operations (MACs) of one image."""

from __future__ import annotations

import math

import keras
from keras import layers

from keras_mrpose.errors import InputError


def count_macs(model: keras.Model) -> int:
    """Multiply-accumulate operations of one image's forward pass: those of convolutions and dense layers.

    A transposed convolution multiplies every input pixel with its whole kernel, also where the border is cut off.
    Biases, batch norms, activations and additions are not counted; after `fuse.fuse_for_inference` they are few.

    Args:
        model: Functional, with an input of known size.

    Raises:
        InputError: a layer with a kernel of a kind that is not known here.
    """
    return sum(count_macs(layer) if isinstance(layer, keras.Model) else _macs(layer) for layer in model.layers)


def _macs(layer: layers.Layer) -> int:
    kernel = getattr(layer, "kernel", None)
    if kernel is None:
        return 0
    if isinstance(layer, layers.Conv2DTranspose):  # rows, columns, filters, inputs
        return _values(layer.input) * math.prod(kernel.shape[:3])
    if isinstance(layer, layers.DepthwiseConv2D):  # rows, columns, inputs, filters of each
        return _values(layer.output) * math.prod(kernel.shape[:2])
    if isinstance(layer, layers.Conv2D):  # rows, columns, inputs (of a group), filters
        return _values(layer.output) * math.prod(kernel.shape[:3])
    if isinstance(layer, layers.Dense):  # inputs, outputs
        return _values(layer.output) * kernel.shape[0]
    raise InputError(f"Layer {layer.name} is a {type(layer).__name__}, whose operations cannot be counted.")


def _values(tensor) -> int:
    """Numbers in a tensor, of one image."""
    return math.prod(tensor.shape[1:])

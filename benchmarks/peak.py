"""What a time is held against: the rate of a matrix product on this machine, and the work of a network."""

from __future__ import annotations

import math

import keras
import tensorflow as tf
from timing import seconds


def measure_peak(precision: str, side: int, repetitions: int = 5) -> float:
    """The best rate, in FLOP/s, of a product of two square matrices of this side in the precision's compute type."""
    dtype = keras.DTypePolicy(precision).compute_dtype
    left, right = (tf.cast(tf.random.normal((side, side)), dtype) for _ in range(2))
    product = tf.function(lambda: tf.matmul(left, right)[0, 0])
    return 2 * side**3 / min(seconds(lambda: product().numpy(), max(repetitions, 5), warm_up=2))


def flop(model: keras.Model) -> int:
    """Floating point operations of one image's forward pass: two for each multiplication of the convolutions.

    A transposed convolution multiplies every input pixel with the whole kernel, also where the border is cut off.
    """
    total = 0
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            total += flop(layer)
        elif isinstance(layer, keras.layers.Conv2DTranspose):
            total += 2 * math.prod(layer.input.shape[1:3]) * math.prod(layer.kernel.shape)
        elif isinstance(layer, (keras.layers.Conv2D, keras.layers.DepthwiseConv2D)):
            total += 2 * math.prod(layer.output.shape[1:3]) * math.prod(layer.kernel.shape)
        elif isinstance(layer, keras.layers.Dense):
            total += 2 * math.prod(layer.kernel.shape)
    return total

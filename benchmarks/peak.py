"""What a time is held against: the rate of a matrix product on this machine, and the work of a network."""

from __future__ import annotations

import keras
import tensorflow as tf
from timing import seconds

from keras_mrpose.models.macs import count_macs


def measure_peak(precision: str, side: int, repetitions: int = 5) -> float:
    """The best rate, in FLOP/s, of a product of two square matrices of this side in the precision's compute type."""
    dtype = keras.DTypePolicy(precision).compute_dtype
    left, right = (tf.cast(tf.random.normal((side, side)), dtype) for _ in range(2))
    product = tf.function(lambda: tf.matmul(left, right)[0, 0])
    return 2 * side**3 / min(seconds(lambda: product().numpy(), max(repetitions, 5), warm_up=2))


def flop(model: keras.Model) -> int:
    """Floating point operations of one image's forward pass: two for each multiplication."""
    return 2 * count_macs(model)

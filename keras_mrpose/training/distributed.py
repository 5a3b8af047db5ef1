"""One machine, several devices: TensorFlow's `MirroredStrategy`, and what Keras needs to be right under it.

Each device holds the whole network and takes an equal share of each batch; the gradients are added up, so that a step
is that of one device with the whole batch. Batch sizes are over all devices and the learning rate is left as it is:
nothing else about a training changes, but for batch norm (`keras_mrpose.models.normalization.BatchNorm`).
"""

from __future__ import annotations

import functools

import keras
import numpy as np
import tensorflow as tf

from keras_mrpose.errors import InputError

STRATEGIES = ("auto", "none", "mirrored")


def devices(name: str, batch_size: int) -> tf.distribute.Strategy:
    """On which devices to train; build, load, compile and fit a model inside its ``scope()``.

    Args:
        name: ``"none"`` is one device; ``"mirrored"`` is all GPUs that TensorFlow sees, or all logical CPU devices
            where there is no GPU; ``"auto"`` is mirrored on several GPUs and none otherwise.
        batch_size: over all devices, a multiple of their number.

    Raises:
        InputError: another name, a batch that cannot be shared equally, or ``"mirrored"`` on the JAX backend.
    """
    if name not in STRATEGIES:
        raise InputError(f"The strategy is {name!r}; give {', '.join(STRATEGIES)}.")
    on_tensorflow = keras.backend.backend() == "tensorflow"
    if name == "mirrored" and not on_tensorflow:
        raise InputError(
            f"The strategy 'mirrored' needs Keras on TensorFlow, this is Keras on {keras.backend.backend()}; "
            "give none, or set KERAS_BACKEND=tensorflow."
        )
    one_device = tf.distribute.get_strategy()
    if name == "none" or not on_tensorflow:
        return one_device
    found = tf.config.list_logical_devices("GPU")
    if name == "auto" and len(found) < 2:
        return one_device
    names = tuple(device.name for device in found or tf.config.list_logical_devices("CPU"))
    if batch_size % len(names):
        raise InputError(
            f"The recipe's batch_size is {batch_size}, which {len(names)} devices cannot share equally; give a "
            f"multiple of {len(names)}, or the strategy none."
        )
    return _mirrored(names)


@functools.cache
def _mirrored(devices: tuple[str, ...]) -> tf.distribute.Strategy:
    """One per process: two would number their sums alike, and TensorFlow would mix them up, fail or wait for ever."""
    return tf.distribute.MirroredStrategy(devices)


def assign(variable: keras.Variable, value: np.ndarray) -> None:
    """Give a variable a value, on all devices.

    Of a metric's counter, which each device keeps and which is added up when it is read, the first device gets all:
    TensorFlow would deal it out in equal parts, and round whole numbers down.
    """
    copies = getattr(variable.value, "values", ()) if variable.aggregation == "sum" else ()
    for copy, part in zip(copies, (value, *[np.zeros_like(value)] * len(copies)), strict=False):
        copy.assign(part)
    if not copies:
        variable.assign(value)


def per_sample(loss: keras.losses.Loss, model: keras.Model) -> keras.losses.Loss:
    """The loss, if it gives one value per person and takes their mean: it can then be shared out to devices.

    Keras adds up what the replicas make of their shares. That is the mean over the whole batch where each takes the
    mean over its people; a loss that returns a scalar would count once per device.

    Args:
        loss: for ``compile``.
        model: whose output it judges.

    Raises:
        InputError: it returns something else than ``(batch,)``, or its reduction is not a mean.
    """
    people, *_, joints = 2, *model.output_shape
    target, heatmaps = keras.ops.zeros((people, joints, 4)), keras.ops.zeros((people, *model.output_shape[1:]))
    name, shape = getattr(loss, "name", loss), tuple(keras.ops.shape(loss.call(target, heatmaps)))
    if shape != (people,):
        raise InputError(
            f"The loss {name!r} returns shape {shape} for {people} people; give one value per person, (batch,)."
        )
    if loss.reduction not in ("sum_over_batch_size", "mean"):
        raise InputError(f"The loss {name!r} has the reduction {loss.reduction!r}; give 'sum_over_batch_size'.")
    return loss

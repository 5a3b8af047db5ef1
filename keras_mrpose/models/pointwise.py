"""1x1 convolutions that train as matrix products, on CPUs in TensorFlow, in bfloat16."""

from __future__ import annotations

import keras
from keras import layers, ops

from keras_mrpose.models.hardware import on_cpu

if keras.backend.backend() == "tensorflow":  # on any other it is not imported
    import tensorflow as tf


def pays(dtype: str) -> bool:
    """Whether a training step of a 1x1 convolution in this type is faster as matrix products.

    Measured on two cores with AMX, 16 images, all gradients, the shapes of ResNet-50 and MobileNetV2: in bfloat16 1.0
    to 2.0 times as fast, with a stride of 2 2.5 to 4 times; in float32 0.7 to 1.5 times.
    """
    return dtype == "bfloat16" and on_cpu()


@keras.saving.register_keras_serializable("keras_mrpose")
class PointwiseConv2D(layers.Conv2D):
    """1x1 convolution whose training step is one of matrix products where that pays: in bfloat16 on a CPU.

    The same function with the same weights as `keras.layers.Conv2D`, up to rounding; what it does outside of training
    is left to that. Forwards the two take the same time; the gradient of the kernel takes a matrix product half the
    time of a convolution.

    Args:
        filters: channels of the output.
        kwargs: others of `keras.layers.Conv2D`; the kernel is 1x1, padding makes no difference.
    """

    def __init__(self, filters: int, **kwargs):
        super().__init__(filters, **{**kwargs, "kernel_size": (1, 1)})

    def call(self, inputs, training: bool | None = None):
        """(batch, H, W, channels) to (batch, H / stride, W / stride, filters), sides rounded up."""
        known = None not in inputs.shape[1:] and self.data_format == "channels_last" and self.groups == 1
        if not (training and known and pays(self.compute_dtype)):
            return super().call(inputs)
        inputs = _every(inputs, *self.strides)
        _, height, width, channels = inputs.shape
        outputs = ops.matmul(ops.reshape(inputs, (-1, channels)), ops.reshape(self.kernel, (channels, self.filters)))
        if self.use_bias:
            outputs = tf.nn.bias_add(outputs, self.bias)  # becomes a part of the product; a sum would not
        return self.activation(ops.reshape(outputs, (-1, height, width, self.filters)))


def _every(images, rows: int, columns: int):
    """Every so many rows and columns of images (batch, H, W, channels), the first ones included."""
    _, height, width, channels = images.shape
    if height % rows or width % columns:
        return images[:, ::rows, ::columns]
    if rows == columns == 1:
        return images
    # `rows` rows behind each other in one, `columns` pixels as one: a slice with steps is five to ten times as slow
    images = ops.reshape(images, (-1, rows * width // columns, columns * channels))
    images = ops.slice(images, (0, 0, 0), (-1, width // columns, channels))
    return ops.reshape(images, (-1, height // rows, width // columns, channels))

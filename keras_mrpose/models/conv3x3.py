"""3x3 convolutions whose kernel gradient is nine matrix products, on CPUs in TensorFlow, in bfloat16."""

from __future__ import annotations

import keras
from keras import layers

from keras_mrpose.models.hardware import on_cpu

if keras.backend.backend() == "tensorflow":  # on any other it is not imported
    import tensorflow as tf

MIN_CHANNELS = 256  # below, oneDNN's own is faster


def pays(channels: int, filters: int, dtype: str) -> bool:
    """Whether the kernel's gradient is faster as matrix products: in bfloat16 on a CPU, if the kernel is wide.

    Measured on two cores with bfloat16, 16 images of 256x192, the shapes of ResNet-50, against oneDNN's own: 0.7 times
    as fast from 64 to 64 channels, 1.2 times from 256 to 256, 1.6 from 512 to 512, and with a stride of 2 0.7 times
    (128), 1.6 (256) and 2.7 (512).
    """
    return dtype == "bfloat16" and min(channels, filters) >= MIN_CHANNELS and on_cpu()


@keras.saving.register_keras_serializable("keras_mrpose")
class Conv3x3(layers.Conv2D):
    """3x3 convolution that computes its kernel's gradient as nine matrix products where that pays.

    The same function with the same weights as `keras.layers.Conv2D`; the gradient of the kernel is the same up to
    rounding.

    Args:
        filters: channels of the output.
        kwargs: others of `keras.layers.Conv2D`; the kernel is 3x3.
    """

    def __init__(self, filters: int, **kwargs):
        super().__init__(filters, **{**kwargs, "kernel_size": (3, 3)})

    def call(self, inputs, training: bool | None = None):
        """(batch, H, W, channels) to (batch, H', W', filters), as `keras.layers.Conv2D`."""
        _, height, width, channels = inputs.shape
        if not (training and self._divides(height, width) and pays(channels, self.filters, self.compute_dtype)):
            return super().call(inputs)
        outputs = _convolve(inputs, tf.convert_to_tensor(self.kernel), self.strides[0], self.padding.upper())
        if self.use_bias:
            outputs = tf.nn.bias_add(outputs, self.bias)
        return self.activation(outputs)

    def _divides(self, height: int | None, width: int | None) -> bool:
        """Whether `_windows` can cut images of this size up."""
        plain = self.data_format == "channels_last" and self.groups == 1 and self.dilation_rate == (1, 1)
        stride = self.strides[0]
        if not plain or None in (height, width) or min(height, width) < 3 or self.strides != (stride, stride):
            return False
        return stride == 1 or (self.padding == "valid" and stride == 2 and height % 2 == width % 2 == 0)


def _convolve(images, kernel, stride: int, padding: str):
    """`tf.nn.conv2d`, its kernel's gradient by matrix products."""

    @tf.custom_gradient
    def convolve(images, kernel):
        def gradients(upstream):
            strides = [1, stride, stride, 1]
            of_images = tf.raw_ops.Conv2DBackpropInput(
                input_sizes=tf.shape(images), filter=kernel, out_backprop=upstream, strides=strides, padding=padding
            )
            return of_images, _kernel_gradient(images, upstream, stride, padding)

        return tf.nn.conv2d(images, kernel, stride, padding), gradients

    return convolve(images, kernel)


def _kernel_gradient(images, upstream, stride: int, padding: str):
    """Gradient (3, 3, channels, filters) of the kernel: for each of its places, the pixels that it saw times theirs."""
    channels, filters = images.shape[-1], upstream.shape[-1]
    if padding == "SAME":
        images = tf.pad(images, [[0, 0], [1, 1], [1, 1], [0, 0]])
    rows = tf.reshape(upstream, (-1, filters))
    products = [
        tf.matmul(tf.reshape(window, (-1, channels)), rows, transpose_a=True) for window in _windows(images, stride)
    ]
    return tf.reshape(tf.stack(products), (3, 3, channels, filters))


def _windows(images, stride: int) -> list:
    """What each of the nine places of a kernel sees of images (batch, H, W, channels), without padding."""
    _, height, width, channels = images.shape
    # The pixels of a square of `stride` become one, row by row, so that no slice has steps, which are slow.
    tiles = tf.reshape(images, (-1, height // stride, stride * width // stride, stride * channels))
    size = (-1, (height - 3) // stride + 1, (width - 3) // stride + 1, channels)
    return [
        tf.slice(
            tiles,
            (0, row // stride, row % stride * (width // stride) + column // stride, column % stride * channels),
            size,
        )
        for row in range(3)
        for column in range(3)
    ]

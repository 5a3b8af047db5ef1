"""The heads' transposed convolution by Winograd's minimal filtering: 9 products for 16, on CPUs in TensorFlow.

In one dimension the 4x4 transposed convolution of stride 2 makes two outputs of an input pixel i and its neighbours:

    y[2 i] = k[3] x[i - 1] + k[1] x[i]        y[2 i + 1] = k[2] x[i] + k[0] x[i + 1]

Two input pixels side by side, a tile, see a, b, c, d = x[2 j - 1 .. 2 j + 2] and make four outputs of eight products.
Three products do for two outputs of the same kind, F(2, 2):

    k[3] (a - b),  (k[3] + k[1]) b,  k[1] (b - c)    their sums are y[4 j] and y[4 j + 2]
    k[2] (b - c),  (k[2] + k[0]) c,  k[0] (c - d)    and y[4 j + 1] and y[4 j + 3]

In two dimensions 36 products take the place of 64. Each is one of matrices, (tiles x channels) x (channels x filters),
and these are what a CPU does best: the gradient of the kernel, too, is one. What is summed up before and after
(`INPUT`, `KERNEL`, `OUTPUT`) is linear, so that gradients need no code. Rounding to bfloat16 in between makes the
result 3.5 times as inexact as rounding it once (0.6 % for 0.17 %); in float32 it is as exact.

Sources: Winograd 1980; Lavin and Gray, CVPR 2016, *Fast Algorithms for Convolutional Neural Networks*. (F(2, 3) for the
3x3 convolutions of a ResNet was measured, too: faster for two layers of fifty, by 2 % of a training step in all.)
"""

from __future__ import annotations

from functools import cache

import keras
import numpy as np
from keras import layers, ops

from keras_mrpose.models.hardware import on_cpu

# a row for each of the six products; columns: the pixels a, b, c, d; the rows of the kernel; the four outputs
INPUT = np.float32([[1, -1, 0, 0], [0, 1, 0, 0], [0, 1, -1, 0], [0, 1, -1, 0], [0, 0, 1, 0], [0, 0, 1, -1]])
KERNEL = np.float32([[0, 0, 0, 1], [0, 1, 0, 1], [0, 1, 0, 0], [0, 0, 1, 0], [1, 0, 1, 0], [1, 0, 0, 0]])
OUTPUT = np.float32([[1, 0, 0, 0], [1, 0, 1, 0], [0, 0, -1, 0], [0, 1, 0, 0], [0, 1, 0, 1], [0, 0, 0, -1]])
PRODUCTS = len(INPUT)
MIN_INPUTS, MIN_FILTERS = 256, 128  # below, the sums around the products take longer than it saves


def pays(channels: int, filters: int) -> bool:
    """Whether a training step of a transposed convolution is faster this way: on a CPU, in TensorFlow, if it is wide.

    Measured on two cores with bfloat16, 16 images, against oneDNN's own: 1.2 to 1.5 times as fast from 256 to 256
    channels, 2.9 times from 2048 to 1024.
    """
    return channels >= MIN_INPUTS and filters >= MIN_FILTERS and on_cpu()


@keras.saving.register_keras_serializable("keras_mrpose")
class WinogradConv2DTranspose(layers.Conv2DTranspose):
    """4x4 transposed convolution of stride 2 that trains by minimal filtering where that pays.

    The same function with the same weights as `keras.layers.Conv2DTranspose`, up to rounding; what it does outside of
    training is left to that.

    Args:
        filters: channels of the output.
        kwargs: others of `keras.layers.Conv2DTranspose`, except kernel size, strides and padding.
    """

    def __init__(self, filters: int, **kwargs):
        fixed = {"kernel_size": (4, 4), "strides": (2, 2), "padding": "same"}
        super().__init__(filters, **{**kwargs, **fixed})

    def call(self, inputs, training: bool | None = None):
        """(batch, H, W, channels) to (batch, 2 H, 2 W, filters)."""
        if not (training and pays(inputs.shape[-1], self.filters)):
            return super().call(inputs)
        outputs = convolve(inputs, transform(self.kernel))
        return self.activation(outputs + self.bias if self.use_bias else outputs)


@keras.saving.register_keras_serializable("keras_mrpose")
class TransformedConv2DTranspose(layers.Layer):
    """The same for prediction, with a kernel that is transformed already (`transform`), and a bias.

    Args:
        filters: channels of the output.
        activation: name of a Keras activation, or None.
    """

    def __init__(self, filters: int, activation=None, **kwargs):
        super().__init__(**kwargs)
        self.filters, self.activation = filters, keras.activations.get(activation)

    def build(self, input_shape):
        """Kernel (36, filters, channels) and bias (filters,)."""
        shape = (PRODUCTS**2, self.filters, input_shape[-1])
        self.kernel = self.add_weight(name="kernel", shape=shape, initializer="zeros")
        self.bias = self.add_weight(name="bias", shape=(self.filters,), initializer="zeros")

    def call(self, inputs):
        """(batch, H, W, channels) to (batch, 2 H, 2 W, filters)."""
        return self.activation(convolve(inputs, self.kernel) + self.bias)

    def compute_output_shape(self, input_shape):
        """Twice the sides."""
        batch, height, width, _ = input_shape
        return batch, 2 * height, 2 * width, self.filters

    def get_config(self):
        """Arguments of the constructor."""
        activation = keras.activations.serialize(self.activation)
        return {**super().get_config(), "filters": self.filters, "activation": activation}


def transform(kernel):
    """Kernel (4, 4, filters, channels) as it is multiplied: (36, filters, channels)."""
    filters, channels = kernel.shape[2:]
    # the products of the columns are the outer ones, those of the rows the inner ones, as in `convolve`
    both = np.einsum("qi,pj->qpji", KERNEL, KERNEL).reshape(PRODUCTS**2, 16)
    sums = ops.matmul(ops.cast(both, kernel.dtype), ops.reshape(kernel, (16, filters * channels)))
    return ops.reshape(sums, (PRODUCTS**2, filters, channels))


def convolve(images, kernel):
    """Transposed convolution of images (batch, H, W, channels) with a transformed kernel: (batch, 2 H, 2 W, filters).

    Every sum is a product with a matrix of 0, 1 and -1, since these are faster than TensorFlow's additions and slices.
    """
    _, height, width, channels = images.shape
    filters = kernel.shape[1]
    rows, columns = (height + 1) // 2, (width + 1) // 2  # of tiles

    def matrix(values):
        return ops.cast(values, images.dtype)

    x = ops.matmul(matrix(_tiles(height)), ops.reshape(images, (-1, height, width * channels)))
    x = ops.matmul(matrix(_tiles(width)), ops.reshape(x, (-1, width, channels)))
    x = ops.reshape(x, (-1, PRODUCTS, rows, PRODUCTS, columns, channels))
    x = ops.reshape(ops.transpose(x, (3, 1, 0, 2, 4, 5)), (PRODUCTS**2, -1, channels))
    products = ops.reshape(ops.matmul(x, ops.swapaxes(kernel, 1, 2)), (PRODUCTS**2, -1))
    both = np.einsum("qc,pr->rcqp", OUTPUT, OUTPUT).reshape(16, PRODUCTS**2)
    y = ops.reshape(ops.matmul(matrix(both), products), (4, 4, -1, rows, columns, filters))
    y = ops.reshape(ops.transpose(y, (2, 3, 0, 4, 1, 5)), (-1, 4 * rows, 4 * columns, filters))
    return y if height % 2 == width % 2 == 0 else y[:, : 2 * height, : 2 * width]


@cache
def _tiles(size: int) -> np.ndarray:
    """Matrix (1, 6 x tiles, size) from the pixels of a side to what is multiplied; what is outside is 0."""
    tiles = (size + 1) // 2
    padded = np.zeros((PRODUCTS, tiles, 2 * tiles + 2), np.float32)
    for tile in range(tiles):
        padded[:, tile, 2 * tile : 2 * tile + 4] = INPUT
    return padded[:, :, 1 : size + 1].reshape(1, PRODUCTS * tiles, size)

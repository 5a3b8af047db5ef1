"""Networks small enough to be converted in a second, with weights as after a training."""

import keras
import numpy as np

from keras_mrpose.models import networks

SIZE = (64, 96)


def trained(name="mrfeanet1", seed=0, **kwargs):
    """A network whose batch norms and kernels are those of no initialisation, with maps of about 1."""
    model = networks.build(name, "tiny_v1b", (*SIZE, 3), **kwargs)
    draw = np.random.default_rng(seed)
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            count = layer.gamma.shape
            gamma, beta = draw.uniform(0.5, 1.5, count), draw.normal(0, 0.1, count)
            layer.set_weights([gamma, beta, draw.normal(0, 0.1, count), draw.uniform(0.5, 1.5, count)])
        elif isinstance(layer, keras.layers.Conv2D | keras.layers.Conv2DTranspose):
            transposed = isinstance(layer, keras.layers.Conv2DTranspose)
            rows, columns, *channels = layer.kernel.shape
            taken = rows * columns * channels[1] / 4 if transposed else rows * columns * channels[0]
            bias = [draw.normal(0, 0.1, layer.bias.shape)] if layer.use_bias else []
            layer.set_weights([draw.normal(0, np.sqrt(2 / taken), layer.kernel.shape), *bias])
    return model


def crops(count, size=SIZE, seed=1):
    return np.random.default_rng(seed).uniform(0, 255, (count, *size, 3)).astype("float32")


def each(output, images):
    """An exported network takes one at a time."""
    return np.concatenate([np.asarray(output(image[None])) for image in images])

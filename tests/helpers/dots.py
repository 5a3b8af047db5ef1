"""A network that finds coloured dots by arithmetic, and images of such dots: predictions whose truth is known."""

import keras
import numpy as np

from keras_mrpose.codecs import GaussianCodec
from keras_mrpose.models import networks
from keras_mrpose.skeletons import Skeleton

# No pairs: a colour stays what it is in a mirror. PCK's torso goes from the red dot to the green one.
DOTS = Skeleton("dots", ("right_hip", "left_shoulder", "nose"), (), edges=((0, 1), (1, 2)))
PUBLISHED = GaussianCodec(1.0)
SIGMA = 4.0  # of a dot, in image pixels


def network(size=(96, 64), skeleton=DOTS, codec=PUBLISHED):
    """Heatmap pixel i is the mean around crop pixel i / scale, weighted by a Gaussian: exact, with nothing to learn."""
    height, width = size
    image = keras.Input((*size, 3), name="image")
    rows = keras.layers.EinsumDense("bhwc,hi->biwc", (height // 4, width, 3))
    columns = keras.layers.EinsumDense("bhwc,wi->bhic", (height // 4, width // 4, 3))
    maps = columns(rows(keras.layers.Rescaling(1 / 255)(image)))
    model = networks.PoseModel(image, maps, skeleton=skeleton, codec=codec, spec={"input_shape": size}, name="dots")
    for layer, side, scale in zip((columns, rows), (width, height), codec.scale(size), strict=True):
        offset = np.arange(side)[:, None] - np.arange(side // 4) / scale
        profile = np.exp(-(offset**2) / 8) * (abs(offset) <= 6)
        layer.set_weights([profile / np.sqrt(8 * np.pi)])
    return model


def picture(size, people):
    """(h, w, 3) uint8 with a red, a green and a blue dot for each of the people, ``(n, 3, 2)`` x, y."""
    rows, columns = np.mgrid[: size[0], : size[1]]
    x, y = np.moveaxis(np.asarray(people, float)[..., None, None], 2, 0)
    dots = np.exp(-((columns - x) ** 2 + (rows - y) ** 2) / (2 * SIGMA**2)).max(axis=0)
    return (250 * np.moveaxis(dots, 0, -1)).round().astype(np.uint8)

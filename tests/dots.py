"""A network that finds coloured dots by arithmetic, and pictures of such dots: predictions whose truth is known."""

import keras
import numpy as np

from keras_mrpose.heatmaps import GaussianCodec
from keras_mrpose.models import zoo
from keras_mrpose.skeletons import Skeleton

# No pairs: a colour stays what it is in a mirror. PCK's torso goes from the red dot to the green one.
DOTS = Skeleton("dots", ("right_hip", "left_shoulder", "nose"), limbs=((0, 1), (1, 2)))
SIGMA = 4.0  # of a dot, in picture pixels


def network(size=(96, 64), skeleton=DOTS):
    """Heatmap pixel i is the mean around crop pixel 4 i, weighted by a 9x9 Gaussian: exact, with nothing to learn."""
    image = keras.Input((*size, 3), name="image")
    x = keras.layers.Rescaling(1 / 255)(keras.layers.ZeroPadding2D(4)(image))
    blur = keras.layers.DepthwiseConv2D(9, 4, use_bias=False)
    model = zoo.PoseModel(
        image, blur(x), skeleton=skeleton, codec=GaussianCodec(1.0), spec={"input_shape": size}, name="dots"
    )
    profile = np.exp(-(np.arange(-4, 5) ** 2) / 8)
    kernel = np.outer(profile, profile)
    blur.set_weights([np.repeat((kernel / kernel.sum())[..., None, None], 3, axis=2)])
    return model


def picture(size, people):
    """(h, w, 3) uint8 with a red, a green and a blue dot for each of the people, ``(n, 3, 2)`` x, y."""
    rows, columns = np.mgrid[: size[0], : size[1]]
    x, y = np.moveaxis(np.asarray(people, float)[..., None, None], 2, 0)
    dots = np.exp(-((columns - x) ** 2 + (rows - y) ** 2) / (2 * SIGMA**2)).max(axis=0)
    return (250 * np.moveaxis(dots, 0, -1)).round().astype(np.uint8)

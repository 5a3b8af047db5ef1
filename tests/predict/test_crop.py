"""The predictor's crop is the training's: bilinear, exact, black outside the image."""

import numpy as np
import pytest
import tensorflow as tf

from keras_mrpose.data import augmentation
from keras_mrpose.geometry import crop_matrices
from keras_mrpose.predict.predictor import crop

SIZE = (96, 64)
IMAGE = np.random.default_rng(0).integers(0, 256, (100, 140, 3), np.uint8)
BOXES = {
    "inside": (30.3, 20.7, 50, 60),
    "small": (70.25, 50.5, 3, 4.5),
    "left and top": (-40, -30, 70, 90),
    "right and bottom": (120, 80, 60.5, 70),
    "far larger": (-900, -700, 2000, 1500),
    "a corner of it": (139.2, 99.1, 40, 40),
    "wide": (10, 40, 120, 5),
}


def reference(image, matrix, size):
    """In float64: at each crop pixel the four image pixels around it, by their distances; 0 outside."""
    rows, columns = np.mgrid[: size[0], : size[1]].astype(np.float64)
    x, y = (columns - matrix[0, 2]) / matrix[0, 0], (rows - matrix[1, 2]) / matrix[1, 1]
    total = np.zeros((*size, 3))
    for row in (np.floor(y).astype(int), np.floor(y).astype(int) + 1):
        for column in (np.floor(x).astype(int), np.floor(x).astype(int) + 1):
            inside = (row >= 0) & (row < image.shape[0]) & (column >= 0) & (column < image.shape[1])
            pixels = image[row.clip(0, image.shape[0] - 1), column.clip(0, image.shape[1] - 1)] * inside[..., None]
            total += pixels * ((1 - abs(y - row)) * (1 - abs(x - column)))[..., None]
    return total


@pytest.mark.parametrize("name", BOXES)
def test_crops_are_exact(name):
    """Grey levels. A position of up to 2,000 pixels has an error of 2e-4 in float32, and a step is 255 at most in x and
    in y; positions in the image itself, below 150, have 10 times less.

    OpenCV 4 rounds positions to 1/32 pixel: an error of 1/64 at most in x and in y, and 255 / 32 = 8 levels in noise
    such as this one (in photographs, whose steps are of 10 levels, 0.3). That is the most that it may be off here.
    """
    matrix = crop_matrices(np.array([BOXES[name]], float), SIZE)[0]
    wanted, found = reference(IMAGE, matrix, SIZE), crop(IMAGE, matrix, SIZE)
    assert found.shape == (*SIZE, 3) and found.dtype == np.float32
    assert wanted.any()
    off = np.abs(found - wanted)
    assert off.max() <= (0.1 if exact() else 255 / 32), off.max()
    of_training = augmentation.warp(tf.constant(IMAGE), tf.constant(matrix, tf.float32), SIZE).numpy()
    assert np.abs(found - of_training).max() <= (0.2 if exact() else 255 / 32)
    assert np.abs(found - of_training).mean() < 0.25


def exact():
    """Whether this OpenCV interpolates at exact positions: version 5 does."""
    import cv2

    return int(cv2.__version__.partition(".")[0]) >= 5


def test_only_what_the_crop_sees_is_looked_at():
    """Of a huge image the window alone becomes float32."""
    image = np.broadcast_to(np.uint8(7), (30000, 40000, 3))  # 3.6 GB, had it memory of its own
    matrix = crop_matrices(np.array([[20000.0, 15000, 50, 60]]), SIZE)[0]
    np.testing.assert_allclose(crop(image, matrix, SIZE), 7, atol=1e-4)

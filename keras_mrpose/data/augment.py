"""Augmentation in two steps: draw the random numbers, then make a crop from them, with nothing random left.

TensorFlow ops only: this runs inside `tf.data`.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import tensorflow as tf
import tensorflow.experimental.numpy as tnp

from keras_mrpose import geometry
from keras_mrpose.config import Augmentation


class Draw(NamedTuple):
    """One outcome: factor on the crop window's size, angle in radians, whether the image is mirrored."""

    scale: tf.Tensor
    rotation: tf.Tensor
    flip: tf.Tensor


# NumPy, not tensors: those would start TensorFlow's devices on import, after which nobody can configure them.
STILL = Draw(np.float32(1), np.float32(0), np.bool_(False))


def draw(seed: tf.Tensor, augmentation: Augmentation) -> Draw:
    """The outcome that belongs to a seed of two integers."""
    seeds = tf.random.split(seed, 2)
    normal = tf.random.stateless_normal((2,), seeds[0])
    uniform = tf.random.stateless_uniform((2,), seeds[1])
    return outcome_of(normal[0], normal[1], uniform[0], uniform[1], augmentation)


def outcome_of(scale_normal, rotation_normal, rotation_uniform, flip_uniform, augmentation: Augmentation) -> Draw:
    """What comes of given random numbers: two standard normal ones and two from [0, 1).

    The distribution is the published one (`Augmentation`). A number of exactly a probability still counts, as
    published; but never does what has the probability 0.
    """
    limit, most, degrees = augmentation.scale, 2 * augmentation.rotation, augmentation.rotation * rotation_normal
    rotated = _happens(rotation_uniform, augmentation.rotation_probability)
    return Draw(
        scale=tf.clip_by_value(1 + limit * scale_normal, 1 - limit, 1 + limit),
        rotation=tf.where(rotated, tf.clip_by_value(degrees, -most, most) * (np.pi / 180), 0.0),
        flip=_happens(flip_uniform, augmentation.flip_probability),
    )


def _happens(uniform, probability: float) -> tf.Tensor:
    return (uniform <= probability) & (probability > 0)


def crop_matrix(box: tf.Tensor, outcome: Draw, image_width: tf.Tensor, size: tuple[int, int]) -> tf.Tensor:
    """The one matrix that crops, scales, rotates and mirrors: ``(2, 3)``, image pixels to crop pixels.

    The window's centre is mirrored with the image; the angle is not negated (as published).
    """
    centre, width = geometry.crop_window(box, size, xp=tnp)
    last = tf.cast(image_width, box.dtype) - 1
    centre = tf.where(outcome.flip, tf.stack([last - centre[0], centre[1]]), centre)
    matrix = geometry.crop_matrix(centre, width * outcome.scale, size, outcome.rotation, xp=tnp)
    return tf.where(outcome.flip, geometry.mirror(matrix, last + 1, xp=tnp), matrix)


def move_joints(keypoints: tf.Tensor, matrix: tf.Tensor, flip: tf.Tensor, mirrored: tuple[int, ...]) -> tf.Tensor:
    """Joints ``(joints, 3)`` through the matrix; in a mirrored image left and right change places."""
    keypoints = tf.where(flip, tf.gather(keypoints, mirrored), keypoints)
    return tf.concat([geometry.transform(matrix, keypoints[:, :2]), keypoints[:, 2:]], axis=1)


def warp(image: tf.Tensor, matrix: tf.Tensor, size: tuple[int, int]) -> tf.Tensor:
    """The crop: each pixel p takes the image bilinearly at the place that `matrix` sends to p; 0 outside.

    Only the window that the crop sees is turned to float (feeding uint8 would truncate the result).

    Args:
        image: ``(h, w, 3)`` uint8.
        matrix: ``(2, 3)`` float32, image pixels to crop pixels.
        size: ``(height, width)`` of the crop.

    Returns:
        ``size + (3,)`` float32, 0..255.
    """
    height, width = size
    back = geometry.inverse(matrix, xp=tnp)
    corners = tf.constant([[0, 0], [width - 1, 0], [0, height - 1], [width - 1, height - 1]], tf.float32)
    corners = geometry.transform(back, corners)
    sides = tf.shape(image)[1::-1]  # width, height
    low = tf.clip_by_value(tf.cast(tf.floor(tf.reduce_min(corners, 0)), tf.int32) - 1, 0, sides - 1)
    high = tf.clip_by_value(tf.cast(tf.math.ceil(tf.reduce_max(corners, 0)), tf.int32) + 2, low + 1, sides)
    window = image[low[1] : high[1], low[0] : high[0]]
    back = tf.concat([back[:, :2], back[:, 2:] - tf.cast(low, tf.float32)[:, None]], axis=1)
    return tf.raw_ops.ImageProjectiveTransformV3(
        images=tf.cast(window, tf.float32)[None],
        transforms=tf.concat([tf.reshape(back, (1, 6)), tf.zeros((1, 2))], axis=1),
        output_shape=tf.constant(size),
        fill_value=0.0,
        interpolation="BILINEAR",
        fill_mode="CONSTANT",
    )[0]

"""Augmentation in two steps: draw the random numbers, then make a crop from them, with nothing random left.

Here is where the crop lies; `appearance` has what its pixels look like. TensorFlow ops only: this runs in `tf.data`.

The published numbers are always drawn. Each later kind has a seed of its own, so that turning it on changes no other's
outcome; while its probability is 0 it is None and adds no op.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import tensorflow as tf
import tensorflow.experimental.numpy as tnp

from keras_mrpose import geometry
from keras_mrpose.config import Augmentation
from keras_mrpose.data import appearance

HALF_BODY, SHIFT = 0, 1  # whose seed is which; `appearance` has 2 and 3
HALF_BODY_PADDING = 1.5  # HRNet's, in place of the usual one
HALF_BODY_JOINTS = 3  # that a half must have to be a crop


class AugmentParams(NamedTuple):
    """One outcome: where the crop lies and what it looks like.

    Args:
        scale: factor on the crop window's size.
        rotation: angle in radians.
        flip: whether the image is mirrored.
        half: 1 for the upper half of the body, -1 for the lower, 0 for all of it.
        shift: ``(2,)`` in widths and heights of the box.
        look: of the pixels.
    """

    scale: tf.Tensor
    rotation: tf.Tensor
    flip: tf.Tensor
    half: tf.Tensor | None = None
    shift: tf.Tensor | None = None
    look: appearance.PhotometricParams = appearance.PhotometricParams()


# NumPy, not tensors: those would start TensorFlow's devices on import, after which nobody can configure them.
IDENTITY = AugmentParams(np.float32(1), np.float32(0), np.bool_(False))


def draw(seed: tf.Tensor, augmentation: Augmentation) -> AugmentParams:
    """The outcome that belongs to a seed of two integers."""
    seeds = tf.random.split(seed, 2)
    normal = tf.random.stateless_normal((2,), seeds[0])
    uniform = tf.random.stateless_uniform((2,), seeds[1])
    published = params_of(normal[0], normal[1], uniform[0], uniform[1], augmentation)
    return published._replace(
        half=_draw_half(seed, augmentation) if augmentation.half_body_probability else None,
        shift=_draw_shift(seed, augmentation) if augmentation.shift_probability else None,
        look=appearance.draw(seed, augmentation),
    )


def params_of(
    scale_normal, rotation_normal, rotation_uniform, flip_uniform, augmentation: Augmentation
) -> AugmentParams:
    """What comes of given random numbers: two standard normal ones and two from [0, 1).

    The distribution is the published one (`Augmentation`). A number of exactly a probability still counts, as
    published; but never does what has the probability 0.
    """
    limit, most, degrees = augmentation.scale, 2 * augmentation.rotation, augmentation.rotation * rotation_normal
    rotated = _happens(rotation_uniform, augmentation.rotation_probability)
    return AugmentParams(
        scale=tf.clip_by_value(1 + limit * scale_normal, 1 - limit, 1 + limit),
        rotation=tf.where(rotated, tf.clip_by_value(degrees, -most, most) * (np.pi / 180), 0.0),
        flip=_happens(flip_uniform, augmentation.flip_probability),
    )


def _happens(uniform, probability: float) -> tf.Tensor:
    return (uniform <= probability) & (probability > 0)


def _draw_half(seed: tf.Tensor, augmentation: Augmentation) -> tf.Tensor:
    uniform = tf.random.stateless_uniform((2,), tf.random.fold_in(seed, HALF_BODY))
    return tf.where(uniform[0] < augmentation.half_body_probability, tf.where(uniform[1] < 0.5, 1, -1), 0)


def _draw_shift(seed: tf.Tensor, augmentation: Augmentation) -> tf.Tensor:
    uniform = tf.random.stateless_uniform((3,), tf.random.fold_in(seed, SHIFT))
    return tf.where(uniform[0] < augmentation.shift_probability, augmentation.shift * (2 * uniform[1:] - 1), 0.0)


def moved_box(
    box: tf.Tensor,
    keypoints: tf.Tensor,
    outcome: AugmentParams,
    augmentation: Augmentation,
    upper_body: tuple[int, ...],
) -> tf.Tensor:
    """The box ``(4,)`` that is cropped for a person: that of half the body if so drawn, then shifted.

    Args:
        box: ``(4,)`` x, y, w, h in image pixels.
        keypoints: ``(joints, 3)`` of the image as it is.
        outcome: what was drawn.
        augmentation: what it was drawn for.
        upper_body: the skeleton's; empty, as for a skeleton whose halves are unknown, leaves all people whole.
    """
    if outcome.half is not None and upper_body:
        box = half_body_box(box, keypoints, outcome.half, upper_body, augmentation.half_body_labelled)
    if outcome.shift is not None:
        box = tf.concat([box[:2] + outcome.shift * box[2:], box[2:]], axis=0)
    return box


def half_body_box(
    box: tf.Tensor, keypoints: tf.Tensor, half: tf.Tensor, upper_body: tuple[int, ...], labelled: float
) -> tf.Tensor:
    """A box around half a person's labelled joints whose crop window has `HALF_BODY_PADDING` in all.

    After HRNet (Sun et al., CVPR 2019). A half with less than `HALF_BODY_JOINTS` labelled joints gives way to the other
    one; a person without such a half, or with no more than the share `labelled` of all joints labelled, stays whole.
    The window is centred on the joints' bounding box, so that all of them are inside (HRNet's: on their mean).
    """
    seen, points = keypoints[:, 2] > 0, keypoints[:, :2]
    upper = tf.constant([joint in upper_body for joint in range(keypoints.shape[0])])
    halves = tf.stack([seen & upper, seen & ~upper])
    count = tf.math.count_nonzero(halves, axis=1)
    enough = count >= HALF_BODY_JOINTS
    wanted = tf.where(half > 0, 0, 1)
    wanted = tf.where(enough[wanted], wanted, 1 - wanted)
    chosen = halves[wanted][:, None]
    low = tf.reduce_min(tf.where(chosen, points, points.dtype.max), axis=0)
    high = tf.reduce_max(tf.where(chosen, points, points.dtype.min), axis=0)
    sides = (high - low) * (HALF_BODY_PADDING / geometry.PADDING)
    many = tf.cast(tf.reduce_sum(count), tf.float32) > labelled * keypoints.shape[0]
    taken = (half != 0) & many & enough[wanted] & (tf.reduce_max(sides) > 0)  # joints may all lie on one point
    return tf.where(taken, tf.concat([(low + high - sides) / 2, sides], axis=0), box)


def crop_matrix(box: tf.Tensor, outcome: AugmentParams, image_width: tf.Tensor, size: tuple[int, int]) -> tf.Tensor:
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
    sides = tf.gather(tf.shape(image), (1, 0))  # width, height
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

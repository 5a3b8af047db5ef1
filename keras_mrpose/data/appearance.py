"""What the pixels of a training crop may look like: colours jittered, rectangles erased; joints stay where they are.

Draw, then apply, as in `augment`. What has the probability 0 is None and adds no op. TensorFlow ops only.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import tensorflow as tf

from keras_mrpose.config import Augmentation

COLOUR, ERASING = 2, 3  # whose seed is which; `augment` has 0 and 1
LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601: how bright red, green and blue look
RATIO = 2.0  # a rectangle's height over its width, relative to the crop's: 1/2 to 2


class PhotometricParams(NamedTuple):
    """One outcome: how colours change, and what is covered.

    `colours` is ``(6,)``: factors on brightness, contrast and saturation, then gains of red, green and blue.
    `rectangles` is ``(k, 7)``: top, left, height and width as shares of the crop's sides, then red, green and blue.
    """

    colours: tf.Tensor | None = None
    rectangles: tf.Tensor | None = None


def draw(seed: tf.Tensor, augmentation: Augmentation) -> PhotometricParams:
    """The outcome that belongs to a seed of two integers."""
    return PhotometricParams(
        colours=_draw_colours(seed, augmentation) if augmentation.colour_probability else None,
        rectangles=_draw_rectangles(seed, augmentation) if augmentation.erasing_probability else None,
    )


def apply(crop: tf.Tensor, look: PhotometricParams) -> tf.Tensor:
    """The crop ``(height, width, 3)`` float32, 0..255, as it looks then: colours first, so that fills stay as drawn."""
    if look.colours is not None:
        crop = _recoloured(crop, look.colours)
    if look.rectangles is not None:
        crop = _erased(crop, look.rectangles)
    return crop


def _draw_colours(seed: tf.Tensor, augmentation: Augmentation) -> tf.Tensor:
    """Each factor from a uniform distribution around 1; all are 1 if it does not happen."""
    uniform = tf.random.stateless_uniform((7,), tf.random.fold_in(seed, COLOUR))
    reach = [augmentation.brightness, augmentation.contrast, augmentation.saturation, *3 * [augmentation.channel_gain]]
    return tf.where(
        uniform[0] < augmentation.colour_probability, 1 + tf.constant(reach, tf.float32) * (2 * uniform[1:] - 1), 1.0
    )


def _draw_rectangles(seed: tf.Tensor, augmentation: Augmentation) -> tf.Tensor:
    """Area uniform, ratio log-uniform, place uniform inside the crop; all are empty if it does not happen."""
    seeds = tf.random.split(tf.random.fold_in(seed, ERASING), 2)
    happens = tf.random.stateless_uniform((), seeds[0]) < augmentation.erasing_probability
    uniform = tf.random.stateless_uniform((7, augmentation.erasing_rectangles), seeds[1])
    area, ratio, top, left, *colour = tf.unstack(uniform)
    area *= augmentation.erasing_area * tf.cast(happens, tf.float32)
    ratio = tf.exp(math.log(RATIO) * (2 * ratio - 1))
    height, width = tf.sqrt(area * ratio), tf.sqrt(area / ratio)
    return tf.stack([top * (1 - height), left * (1 - width), height, width, *(255 * c for c in colour)], axis=1)


def _recoloured(crop: tf.Tensor, colours: tf.Tensor) -> tf.Tensor:
    """Gains and brightness, then contrast around the crop's mean grey, then saturation around each pixel's; clipped.

    All three are linear, so they are one matrix and one offset (grey: a saturation leaves it as it is).
    """
    brightness, contrast, saturation = colours[0], colours[1], colours[2]
    luma = tf.constant(LUMA)
    gains = brightness * colours[3:]
    grey = tf.tensordot(tf.reduce_mean(crop, axis=(0, 1)) * gains, luma, 1)
    mixing = saturation * tf.eye(3) + (1 - saturation) * luma[:, None]  # from the row, red green blue, to the column
    changed = tf.reshape(crop, (-1, 3)) @ (contrast * gains[:, None] * mixing) + (1 - contrast) * grey
    return tf.reshape(tf.clip_by_value(changed, 0.0, 255.0), tf.shape(crop))


def _erased(crop: tf.Tensor, rectangles: tf.Tensor) -> tf.Tensor:
    """Each rectangle in its colour, later ones over earlier ones; a pixel belongs to it if its centre does."""
    corners = tf.stack([rectangles[:, :2], rectangles[:, :2] + rectangles[:, 2:4]], axis=1)
    corners = tf.cast(tf.math.ceil(corners * tf.cast(tf.shape(crop)[:2], tf.float32) - 0.5), tf.int32)
    for number in range(rectangles.shape[0]):
        (top, left), (bottom, right) = map(tf.unstack, tf.unstack(corners[number]))
        # joined from pieces: to choose for every pixel takes several times as long
        patch = tf.broadcast_to(rectangles[number, 4:], (bottom - top, right - left, 3))
        band = tf.concat([crop[top:bottom, :left], patch, crop[top:bottom, right:]], axis=1)
        crop = tf.ensure_shape(tf.concat([crop[:top], band, crop[bottom:]], axis=0), crop.shape)
    return crop

"""Augmentation in two steps: draw random parameters, then apply them deterministically.

The geometric half says where the crop lies, the photometric half changes its pixels: colours are jittered, rectangles
erased. TensorFlow ops only: this runs in `tf.data`.

The parameters of the published recipe are always drawn. Each later kind has a seed of its own, so that turning it on
does not change the others; while its probability is 0 it is None and adds no op.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import cv2
import numpy as np
import tensorflow as tf
import tensorflow.experimental.numpy as tnp

from keras_mrpose import geometry
from keras_mrpose.data.image_tensors import LEVELS, OpenedImage, awaited_at_exit, decoded_image
from keras_mrpose.errors import require

HALF_BODY, SHIFT, COLOUR, ERASING = range(4)  # whose seed is which
HALF_BODY_PADDING = 1.5  # HRNet's, in place of the usual one
HALF_BODY_JOINTS = 3  # that a half must have to be a crop
LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601: how bright red, green and blue look
FINER = 2.0  # decoded pixels in a row of a crop's pixel that are left where an image is decoded smaller than it is
OPENCV_IS_EXACT = int(cv2.__version__.partition(".")[0]) >= 5  # within 0.02 grey levels; before, coordinates had 5 bits
RATIO = 2.0  # a rectangle's height over its width, relative to the crop's: 1/2 to 2


@dataclass(frozen=True)
class Augmentation:
    """Ranges and probabilities of the random changes to a training crop (defaults: published, COCO).

    Half bodies, shifts, colours and erasing are not part of the published recipe: off until given a probability.

    Args:
        scale: the crop window is scaled by clip(1 + scale * normal, 1 - scale, 1 + scale).
        rotation: degrees; the angle is clip(rotation * normal, -2 * rotation, 2 * rotation).
        rotation_probability: share of the crops that are rotated at all.
        flip_probability: share of the crops that are mirrored.
        half_body_probability: share of the crops that show the upper or, as often, the lower half of the body; of
            people with enough labelled joints, if the joint names say which half each belongs to.
        half_body_labelled: which share of all joints must be exceeded by the labelled ones for that.
        shift_probability: share of the crops that are shifted.
        shift: most that a box moves, in its widths and heights, each by a uniform number (before scale and rotation).
        colour_probability: share of the crops whose colours change, each of the following by its own uniform factor.
        brightness: factor of 1 - brightness to 1 + brightness.
        contrast: the same, around the crop's mean grey.
        saturation: the same, around each pixel's grey.
        channel_gain: the same, for red, green and blue by themselves.
        erasing_probability: share of the crops in which rectangles of one random colour each are filled; the joints
            under them stay labelled.
        erasing_rectangles: how many.
        erasing_area: most that one covers of the crop; uniform from 0.
    """

    scale: float = 0.3
    rotation: float = 40.0
    rotation_probability: float = 0.6
    flip_probability: float = 0.5
    half_body_probability: float = 0.0
    half_body_labelled: float = 0.5
    shift_probability: float = 0.0
    shift: float = 0.16
    colour_probability: float = 0.0
    brightness: float = 0.3
    contrast: float = 0.3
    saturation: float = 0.3
    channel_gain: float = 0.1
    erasing_probability: float = 0.0
    erasing_rectangles: int = 1
    erasing_area: float = 0.1

    def __post_init__(self) -> None:
        for name, low, high in (
            ("scale", 0, 0.99),  # at 1 the crop window could shrink to nothing
            ("rotation", 0, 180),
            ("rotation_probability", 0, 1),
            ("flip_probability", 0, 1),
            ("half_body_probability", 0, 1),
            ("half_body_labelled", 0, 1),
            ("shift_probability", 0, 1),
            ("shift", 0, 1),
            ("colour_probability", 0, 1),
            ("brightness", 0, 1),
            ("contrast", 0, 1),
            ("saturation", 0, 1),
            ("channel_gain", 0, 1),
            ("erasing_probability", 0, 1),
            ("erasing_area", 0, 0.5),  # a rectangle twice as high as wide still fits
        ):
            require(low <= getattr(self, name) <= high, "augmentation", name, getattr(self, name), f"{low} to {high}")
        count = self.erasing_rectangles
        whole = isinstance(count, int) and 1 <= count <= 16
        require(whole, "augmentation", "erasing_rectangles", count, "a whole number from 1 to 16")


class PhotometricParams(NamedTuple):
    """Photometric parameters of one crop: how colours change, and which rectangles are covered.

    `colours` is ``(6,)``: factors on brightness, contrast and saturation, then gains of red, green and blue.
    `rectangles` is ``(k, 7)``: top, left, height and width as shares of the crop's sides, then red, green and blue.
    """

    colours: tf.Tensor | None = None
    rectangles: tf.Tensor | None = None


class AugmentParams(NamedTuple):
    """Parameters of one crop, as drawn.

    Args:
        scale: factor on the crop window's size.
        rotation: angle in radians.
        flip: whether the image is mirrored.
        half_body: 1 for the upper half of the body, -1 for the lower, 0 for all of it.
        shift: ``(2,)`` in widths and heights of the box.
        photometric: colours and rectangles.
    """

    scale: tf.Tensor
    rotation: tf.Tensor
    flip: tf.Tensor
    half_body: tf.Tensor | None = None
    shift: tf.Tensor | None = None
    photometric: PhotometricParams = PhotometricParams()


# NumPy, not tensors: those would start TensorFlow's devices on import, after which nobody can configure them.
IDENTITY = AugmentParams(np.float32(1), np.float32(0), np.bool_(False))


def draw(seed: tf.Tensor, augmentation: Augmentation) -> AugmentParams:
    """Random parameters of one crop, determined by a seed ``(2,)``."""
    seeds = tf.random.split(seed, 2)
    normal = tf.random.stateless_normal((2,), seeds[0])
    uniform = tf.random.stateless_uniform((2,), seeds[1])
    published = params_of(normal[0], normal[1], uniform[0], uniform[1], augmentation)
    return published._replace(
        half_body=_draw_half(seed, augmentation) if augmentation.half_body_probability else None,
        shift=_draw_shift(seed, augmentation) if augmentation.shift_probability else None,
        photometric=draw_photometric(seed, augmentation),
    )


def params_of(
    scale_normal, rotation_normal, rotation_uniform, flip_uniform, augmentation: Augmentation
) -> AugmentParams:
    """Geometric parameters from given random numbers: two standard normal ones and two from [0, 1).

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
    params: AugmentParams,
    augmentation: Augmentation,
    upper_body: tuple[int, ...],
) -> tf.Tensor:
    """The box ``(4,)`` to crop for a person: reduced to half the body if drawn so, then shifted.

    Args:
        box: ``(4,)`` x, y, w, h in image pixels.
        keypoints: ``(joints, 3)`` of the image as it is.
        params: what was drawn.
        augmentation: what it was drawn for.
        upper_body: the skeleton's; empty, as for a skeleton whose halves are unknown, leaves all people whole.
    """
    if params.half_body is not None and upper_body:
        box = half_body_box(box, keypoints, params.half_body, upper_body, augmentation.half_body_labelled)
    if params.shift is not None:
        box = tf.concat([box[:2] + params.shift * box[2:], box[2:]], axis=0)
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


def crop_matrix(box: tf.Tensor, params: AugmentParams, image_width: tf.Tensor, size: tuple[int, int]) -> tf.Tensor:
    """Matrix ``(2, 3)`` from image pixels to crop pixels that crops, scales, rotates and mirrors at once.

    The window's centre is mirrored with the image; the angle is not negated (as published).
    """
    centre, width = geometry.crop_window(box, size, xp=tnp)
    last = tf.cast(image_width, box.dtype) - 1
    centre = tf.where(params.flip, tf.stack([last - centre[0], centre[1]]), centre)
    matrix = geometry.crop_matrix(centre, width * params.scale, size, params.rotation, xp=tnp)
    return tf.where(params.flip, geometry.mirror(matrix, last + 1, xp=tnp), matrix)


def move_joints(keypoints: tf.Tensor, matrix: tf.Tensor, flip: tf.Tensor, flip_indices: tuple[int, ...]) -> tf.Tensor:
    """Joints ``(joints, 3)`` in crop pixels; in a mirrored image left and right change places."""
    keypoints = tf.where(flip, tf.gather(keypoints, flip_indices), keypoints)
    return tf.concat([geometry.transform(matrix, keypoints[:, :2]), keypoints[:, 2:]], axis=1)


def warp(image: tf.Tensor, matrix: tf.Tensor, size: tuple[int, int]) -> tf.Tensor:
    """The crop of an image by a matrix, with bilinear interpolation; black outside the image.

    Args:
        image: ``(h, w, 3)`` uint8.
        matrix: ``(2, 3)`` float32, image pixels to crop pixels.
        size: ``(height, width)`` of the crop.

    Returns:
        ``size + (3,)`` float32, 0..255.
    """
    return warp_opened(decoded_image(image), matrix, size)


def warp_opened(image: OpenedImage, matrix: tf.Tensor, size: tuple[int, int]) -> tf.Tensor:
    """`warp` of an image file: only the window that the crop sees is decoded.

    Where the crop is so much smaller than its window that a pixel of it stands for 2 x `FINER` or more pixels of the
    image in a row, a JPEG file is decoded at a half, a quarter or an eighth of its sides, with `FINER` or more left.
    """
    height, width = size
    back = geometry.inverse(matrix, xp=tnp)
    level = tf.math.log(tf.norm(back[:, 0]) / FINER) / math.log(2)
    level = tf.where(image.reducible, tf.clip_by_value(tf.cast(tf.floor(level), tf.int32), 0, LEVELS - 1), 0)
    # pixel i of the reduced image has its centre where that of the ones it stands for is
    scale = 1 / tf.cast(tf.bitwise.left_shift(1, level), tf.float32)
    back = tf.concat([scale * back[:, :2], scale * back[:, 2:] + (scale - 1) / 2], axis=1)
    corners = tf.constant([[0, 0], [width - 1, 0], [0, height - 1], [width - 1, height - 1]], tf.float32)
    corners = geometry.transform(back, corners)
    sides = image.reduced_sides(level)
    low = tf.clip_by_value(tf.cast(tf.floor(tf.reduce_min(corners, 0)), tf.int32) - 1, 0, sides - 1)
    high = tf.clip_by_value(tf.cast(tf.math.ceil(tf.reduce_max(corners, 0)), tf.int32) + 2, low + 1, sides)
    window = image.part(low, high, level)
    back = tf.concat([back[:, :2], back[:, 2:] - tf.cast(low, tf.float32)[:, None]], axis=1)
    if OPENCV_IS_EXACT:
        crop = tf.numpy_function(_warp_by_opencv, [window, back, tf.constant(size)], tf.float32)
        return tf.ensure_shape(crop, (*size, 3))
    return tf.raw_ops.ImageProjectiveTransformV3(
        images=tf.cast(window, tf.float32)[None],  # of uint8 the result would be truncated
        transforms=tf.concat([tf.reshape(back, (1, 6)), tf.zeros((1, 2))], axis=1),
        output_shape=tf.constant(size),
        fill_value=0.0,
        interpolation="BILINEAR",
        fill_mode="CONSTANT",
    )[0]


@awaited_at_exit
def _warp_by_opencv(window: np.ndarray, back: np.ndarray, size: np.ndarray) -> np.ndarray:
    """The crop of size (height, width) by the matrix from its pixels to those of the window: a tenth of the time of
    TensorFlow's operation.
    """
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    return cv2.warpAffine(window.astype(np.float32), back.astype(np.float64), size[::-1].tolist(), flags=flags)


# --- photometric ------------------------------------------------------------------------------------------------------


def draw_photometric(seed: tf.Tensor, augmentation: Augmentation) -> PhotometricParams:
    """Random photometric parameters of one crop, determined by a seed ``(2,)``."""
    return PhotometricParams(
        colours=_draw_colours(seed, augmentation) if augmentation.colour_probability else None,
        rectangles=_draw_rectangles(seed, augmentation) if augmentation.erasing_probability else None,
    )


def apply_photometric(crop: tf.Tensor, photometric: PhotometricParams) -> tf.Tensor:
    """The changed crop ``(height, width, 3)`` float32, 0..255: colours first, so that they do not change the fills."""
    if photometric.colours is not None:
        crop = _recoloured(crop, photometric.colours)
    if photometric.rectangles is not None:
        crop = _erased(crop, photometric.rectangles)
    return crop


def _draw_colours(seed: tf.Tensor, augmentation: Augmentation) -> tf.Tensor:
    """Each factor from a uniform distribution around 1; all are 1 in crops whose colours stay."""
    uniform = tf.random.stateless_uniform((7,), tf.random.fold_in(seed, COLOUR))
    reach = [augmentation.brightness, augmentation.contrast, augmentation.saturation, *3 * [augmentation.channel_gain]]
    return tf.where(
        uniform[0] < augmentation.colour_probability, 1 + tf.constant(reach, tf.float32) * (2 * uniform[1:] - 1), 1.0
    )


def _draw_rectangles(seed: tf.Tensor, augmentation: Augmentation) -> tf.Tensor:
    """Area uniform, ratio log-uniform, place uniform inside the crop; all are empty in crops without erasing."""
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

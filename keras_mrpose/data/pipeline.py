"""From the `People` table to batches of crops and targets: one short `tf.data` graph, no Python in the hot path."""

from __future__ import annotations

import numpy as np
import tensorflow as tf
import tensorflow.experimental.numpy as tnp

from keras_mrpose import geometry
from keras_mrpose.config import Augmentation
from keras_mrpose.data import augment
from keras_mrpose.data.people import People
from keras_mrpose.errors import InputError
from keras_mrpose.heatmaps import Codec, GaussianCodec


def batches(
    people: People,
    input_size: tuple[int, int],
    batch_size: int,
    *,
    codec: Codec | None = None,
    augmentation: Augmentation | None = None,
    seed: int = 0,
    first_epoch: int = 0,
) -> tf.data.Dataset:
    """Batches of ``(images, targets)``.

    Without `augmentation`: everybody once, in order, the last batch as it falls. With it: endless epochs, each in an
    order and with an augmentation of its own that depend only on (seed, epoch, person), so that training can go on
    from any epoch; people that do not fill a batch sit this epoch out (take ``len(people) // batch_size`` steps).

    Args:
        people: whose image files exist.
        input_size: ``(height, width)`` of the crops, multiples of 4.
        batch_size: people per batch.
        codec: says where in the heatmaps a point of the crop lies; `GaussianCodec()` if None.
        augmentation: how far crops may vary; None leaves them still.
        seed: of order and augmentation.
        first_epoch: where an endless pipeline begins.

    Returns:
        Dataset of images ``(batch, height, width, 3)`` float32 RGB 0..255, and targets ``(batch, joints, 4)``
        float32: x, y (heatmap pixels), weight (1 labelled, 0 not), normalizer (heatmap pixels).
    """
    if len(people) == 0:
        raise InputError(f"{people.source} has no people to make batches of; choose another file or split.")
    if augmentation is None:
        order = tf.data.Dataset.range(len(people)).map(lambda person: (tf.constant(0, tf.int64), person))
    else:
        steps = len(people) // batch_size
        if steps == 0:
            raise InputError(
                f"{people.source} has {len(people)} people, less than one batch of {batch_size}; make batches smaller."
            )
        order = _endless_order(len(people), steps * batch_size, seed, first_epoch)

    paths = tf.constant(people.paths())
    boxes = tf.constant(people.boxes, tf.float32)
    keypoints = tf.constant(people.keypoints, tf.float32)
    normalizer = tf.constant(people.normalizer, tf.float32)
    mirrored = people.skeleton.mirrored
    scale = (codec or GaussianCodec()).scale(input_size)

    def sample(epoch, person):
        outcome = augment.STILL
        if augmentation is not None:
            outcome = augment.draw(_fold(seed, epoch, person), augmentation)
        image = read_image(paths[person])
        matrix = augment.crop_matrix(boxes[person], outcome, tf.shape(image)[1], input_size)
        joints = augment.move_joints(keypoints[person], matrix, outcome.flip, mirrored)
        length = geometry.scale_of(matrix, xp=tnp) * normalizer[person]
        return augment.warp(image, matrix, input_size), target(joints, length, scale)

    data = order.map(sample, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
    return data.batch(batch_size, drop_remainder=augmentation is not None).prefetch(tf.data.AUTOTUNE)


def target(joints: tf.Tensor, normalizer: tf.Tensor, scale=(0.25, 0.25)) -> tf.Tensor:
    """The target tensor of one person: joints ``(joints, 3)`` and a length, both in crop pixels -> ``(joints, 4)``.

    Unlabelled joints become zeros; labelled ones keep their place even outside the crop (the codec knows what to do).
    `scale` is the codec's, ``(2,)`` heatmap pixels per crop pixel; a length has no direction: it takes the geometric
    mean of the two.
    """
    labelled = tf.cast(joints[:, 2:] > 0, tf.float32)
    length = tf.fill(tf.shape(labelled), normalizer * float(np.sqrt(np.prod(scale))))
    return tf.concat([joints[:, :2] * tf.constant(scale, joints.dtype) * labelled, labelled, length], axis=1)


def read_image(path: tf.Tensor) -> tf.Tensor:
    """A JPEG or PNG file as ``(h, w, 3)`` uint8 RGB, JPEG bit for bit as OpenCV and Pillow have it; EXIF unused."""
    data = tf.io.read_file(path)
    image = tf.cond(
        tf.io.is_jpeg(data),
        lambda: tf.io.decode_jpeg(data, channels=3, dct_method="INTEGER_ACCURATE"),
        lambda: tf.io.decode_png(data, channels=3),
    )
    return tf.ensure_shape(image, (None, None, 3))


def explain_failure(people: People, error: tf.errors.OpError) -> Exception:
    """Which image file stopped the pipeline: called when a batch failed, since TensorFlow's message names no file.

    Returns:
        An `InputError` that names the first unreadable image, or `error` itself when all can be read: that is a bug.
    """
    for path in np.unique(people.paths()):
        try:
            read_image(tf.constant(path))
        except tf.errors.OpError as bad:
            reason = bad.message.splitlines()[0]
            return InputError(f"The image {path} cannot be read ({reason}); replace it by a whole JPEG or PNG file.")
    return error


def _endless_order(people: int, per_epoch: int, seed: int, first_epoch: int) -> tf.data.Dataset:
    """``(epoch, person)`` pairs, shuffled anew in every epoch."""

    def epoch_order(epoch):
        order = tf.random.experimental.stateless_shuffle(tf.range(people, dtype=tf.int64), seed=_fold(seed, epoch))
        return tf.data.Dataset.from_tensor_slices(order[:per_epoch]).map(lambda person: (epoch, person))

    return tf.data.Dataset.range(first_epoch, np.iinfo(np.int64).max).flat_map(epoch_order)


def _fold(seed: int, *numbers: tf.Tensor) -> tf.Tensor:
    """A stateless seed that depends on all of these."""
    folded = tf.constant([seed, 0], tf.int64)
    for number in numbers:
        folded = tf.random.fold_in(folded, number)
    return folded

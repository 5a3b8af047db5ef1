"""The golden case: one person all the way from the image to the joints, for whoever ports the decoder."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from keras_mrpose.data import augmentation
from keras_mrpose.data.images import read_image_tensor
from keras_mrpose.data.people import People
from keras_mrpose.export.verify import Reference
from keras_mrpose.geometry import PADDING
from keras_mrpose.predict.predictor import Predictor, crop_matrices, to_image

LARGE = 2.0  # image pixels per crop pixel: people who are larger make a large file


def reference_case(
    predictor: Predictor, subjects: People | np.ndarray, keras_model: Reference
) -> dict[str, np.ndarray]:
    """What `decoder.check` reads, as the library computes it.

    The person is the one whose least confident joint has the highest score, of those who are not large. Of crops
    without an image around them, the crop is the image.

    Args:
        predictor: the Keras model, without flip test.
        subjects: people or crops that `keras_model` has seen.
        keras_model: what it made of them.

    Returns:
        ``image`` ``(h, w, 3)`` uint8, ``box`` ``(4,)`` x, y, w, h in it, ``crop`` ``(H, W, 3)`` float32, ``heatmaps``
        ``(H / 4, W / 4, joints)`` float32, and ``joints`` ``(joints, 3)``: x, y in image pixels, score.
    """
    size, sureness = predictor.input_size, keras_model.scores.min(axis=1)
    if isinstance(subjects, People):
        large = 1 / crop_matrices(subjects.boxes, size)[:, 0, 0] > LARGE
        person = np.where(large & ~large.all(), -np.inf, sureness).argmax()
        image, box = _cut(subjects, person, size)
    else:
        image = np.rint(keras_model.crops[sureness.argmax()]).astype(np.uint8)
        sides = np.array(size[::-1])
        box = np.concatenate([sides / 2 * (1 - 1 / PADDING), sides / PADDING])  # whose padded window is the image
    matrices = crop_matrices(box[None], size)
    crop = augmentation.warp(tf.constant(image), tf.constant(matrices[0], tf.float32), size).numpy()
    heatmaps = keras_model.heatmaps_of(crop[None])
    points, scores = keras_model.decode(heatmaps)
    joints = np.concatenate([to_image(points, matrices), scores[..., None]], axis=-1)
    return {"image": image, "box": box, "crop": crop, "heatmaps": heatmaps[0], "joints": joints[0]}


def _cut(people: People, person: int, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """The piece of a person's image that the crop shows, with a pixel around it, and the box in that piece."""
    image, box = read_image_tensor(tf.constant(people.paths()[person])).numpy(), people.boxes[person]
    corners = to_image(np.array([[[0, 0], [size[1] - 1, size[0] - 1]]], float), crop_matrices(box[None], size))[0]
    left, top = np.maximum(np.floor(corners[0]) - 1, 0).astype(int)
    right, bottom = np.ceil(corners[1]).astype(int) + 2
    return image[top:bottom, left:right], box - (left, top, 0, 0)

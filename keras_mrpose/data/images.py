"""Image files: the one place that reads them.

Two readers, since two callers want different things. Training and evaluation read JPEG and PNG inside `tf.data`, with
the pixels as they are stored, since annotations are of those. Prediction reads whatever Pillow can, turned as a viewer
shows it.
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import tensorflow as tf
from PIL import Image, ImageOps

from keras_mrpose.errors import InputError


def read_image(path: str | Path) -> np.ndarray:
    """An image file of any kind as viewers show it: ``(h, w, 3)`` uint8 RGB, turned upright by its EXIF tag.

    Raises:
        InputError: missing, truncated, or not an image.
    """
    try:
        with Image.open(path) as file:
            return np.asarray(ImageOps.exif_transpose(file).convert("RGB"))
    except FileNotFoundError:
        raise InputError(f"The image {path} is not there.") from None
    except Exception as error:  # Pillow raises many kinds for a file that it cannot read
        raise InputError(f"The image {path} cannot be read ({error}); it is damaged or not an image.") from error


def read_image_tensor(path: tf.Tensor) -> tf.Tensor:
    """A JPEG or PNG file as stored, as a graph op: ``(h, w, 3)`` uint8 RGB; the EXIF orientation is ignored.

    JPEG files are decoded to the same pixels as by OpenCV and Pillow, bit for bit.
    """
    return decode_image_tensor(tf.io.read_file(path))


def decode_image_tensor(data: tf.Tensor) -> tf.Tensor:
    """The image in a file's bytes, see `read_image_tensor`."""
    image = tf.cond(
        tf.io.is_jpeg(data),
        lambda: tf.io.decode_jpeg(data, channels=3, dct_method="INTEGER_ACCURATE"),
        lambda: tf.io.decode_png(data, channels=3),
    )
    return tf.ensure_shape(image, (None, None, 3))


def why_unreadable(path: str) -> str | None:
    """TensorFlow's message about a file that `read_image_tensor` cannot read; None if it can."""
    try:
        read_image_tensor(tf.constant(path))
    except tf.errors.OpError as error:
        return decode_error(error)
    return None


def decode_error(error: tf.errors.OpError) -> str:
    """The first line of TensorFlow's message about an image, without the names of graph nodes."""
    return re.sub(r"^\{\{.*?\}\} | \[Op:.*$", "", error.message.splitlines()[0])

"""Image files inside a `tf.data` graph: the pixels and the rules of `images`.

TensorFlow decodes plain JPEG and PNG files (8 bits, not turned by EXIF, of the annotated size), Pillow everything else.
"""

from __future__ import annotations

import atexit
import functools
import io
import itertools
import logging
import os
import threading
import time
from collections.abc import Callable, Sequence

import numpy as np
import tensorflow as tf
from PIL import Image

from keras_mrpose.data.images import MAX_PIXELS, decode_with_header
from keras_mrpose.errors import InputError

# For TensorFlow's regular expressions, in which \C is any byte. A PNG file of 8 bits a channel:
PLAIN_PNG = r"\CPNG\r\n\x1a\n\C{4}IHDR\C{8}\x08\C"
# The name of EXIF data in JPEG and PNG files, and an entry in them that turns, in either byte order. Both may stand
# elsewhere by chance: Pillow knows. (Two expressions, since the first is quick, and many files have none.)
EXIF = "(?i)exif"
TURNS_IT = (
    r"\C*(\x12\x01[\x01-\x0d]\x00\x01\x00\x00\x00[\x02-\x08]|\x01\x12\x00[\x01-\x0d]\x00\x00\x00\x01\x00{0,3}[\x02-\x08])"
    r"\C*"
)

_logger = logging.getLogger(__name__)
_either_way = itertools.count()  # images that are read turned although the annotated size does not tell


def read_image_tensor(path: tf.Tensor, size: tf.Tensor | Sequence[int] = (0, 0)) -> tf.Tensor:
    """What `read_image` returns, as a graph op: ``(h, w, 3)`` uint8 RGB.

    JPEG files are decoded to the same pixels as by OpenCV and Pillow, bit for bit.

    Args:
        path: of the file.
        size: ``(2,)`` int32, width and height as annotated, zeros if the annotations do not say.
    """
    data, size = tf.io.read_file(path), tf.convert_to_tensor(size, tf.int32)
    image = tf.cond(
        _is_plain(data, size),
        lambda: _decode_plain(data),
        lambda: tf.numpy_function(_decode_named, [path, data, size], tf.uint8),
    )
    return tf.ensure_shape(image, (None, None, 3))


def _is_plain(data: tf.Tensor, size: tf.Tensor) -> tf.Tensor:
    """Whether TensorFlow reads a file right: a gray or three-coloured JPEG, or a PNG of 8 bits, of the annotated size
    and not to be turned. (No conditions: a graph spends more time on them.)
    """
    is_jpeg, start = tf.io.is_jpeg(data), tf.strings.substr(data, 0, 26)
    is_png = tf.strings.regex_full_match(start, PLAIN_PNG)
    jpeg_height, jpeg_width, channels = tf.unstack(tf.image.extract_jpeg_shape(tf.where(is_jpeg, data, _small_jpeg())))
    png_size = tf.strings.substr(tf.where(is_png, start, bytes(26)), 16, 8)
    png_width, png_height = tf.unstack(tf.io.decode_raw(png_size, tf.int32, little_endian=False), 2)
    width, height = tf.where(is_png, png_width, jpeg_width), tf.where(is_png, png_height, jpeg_height)
    right = ((size[0] == width) | (size[0] == 0)) & ((size[1] == height) | (size[1] == 0))
    right &= tf.cast(width, tf.int64) * tf.cast(height, tf.int64) <= MAX_PIXELS
    length = tf.strings.length(data)
    without = tf.strings.regex_replace(data, EXIF, "", replace_global=False)
    to_search = tf.strings.substr(data, 0, tf.where(tf.strings.length(without) < length, length, 0))
    return (is_png | (is_jpeg & (channels < 4))) & right & ~tf.strings.regex_full_match(to_search, TURNS_IT)


@functools.cache
def _small_jpeg() -> bytes:
    """What stands for a file that is no JPEG where one is needed."""
    file = io.BytesIO()
    Image.new("L", (1, 1)).save(file, "JPEG")
    return file.getvalue()


def _decode_plain(data: tf.Tensor) -> tf.Tensor:
    return tf.io.decode_jpeg(data, channels=3, dct_method="INTEGER_ACCURATE")  # PNG, too


# --- Python inside a graph --------------------------------------------------------------------------------------------

_inside: set[int] = set()  # threads that run Python for a graph
_last_inside = float("-inf")
SETTLED, PATIENCE = 0.2, 20.0  # seconds


def awaited_at_exit(function: Callable) -> Callable:
    """The function for `tf.numpy_function`, such that a process whose pipeline is still reading can end.

    TensorFlow waits for its threads when a process ends, and a thread that calls Python then waits for ever. So the end
    waits here, while Python still runs, until pipelines that nobody takes from have filled their buffers.
    """

    @functools.wraps(function)
    def call(*arguments):
        global _last_inside
        thread = threading.get_ident()
        _inside.add(thread)
        try:
            return function(*arguments)
        finally:
            _last_inside = time.monotonic()
            _inside.discard(thread)

    return call


@atexit.register
def _settle() -> None:
    begin = time.monotonic()
    while _inside or time.monotonic() - _last_inside < SETTLED:
        if time.monotonic() - begin > PATIENCE:
            return
        time.sleep(SETTLED / 10)


@awaited_at_exit
def _decode_named(path: bytes, data: bytes, size: np.ndarray) -> np.ndarray:
    name, size = os.fsdecode(path), tuple(size.tolist())
    try:
        image, header = decode_with_header(data, size)
    except InputError as error:
        raise InputError(f"The image {name} {error}.") from error
    if header.orientation != 1 and all(header.fits(size)) and next(_either_way) == 0:
        _logger.warning(
            "%s is turned by EXIF (orientation %d), and its annotated size does not tell whether its labels are: such "
            "images are read turned, as viewers show them; the doctor lists all of them.",
            name,
            header.orientation,
        )
    return image

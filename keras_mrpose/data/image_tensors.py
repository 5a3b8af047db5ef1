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
from typing import NamedTuple

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

EXACT = "INTEGER_ACCURATE"  # the DCT that OpenCV and Pillow take
END_OF_JPEG = b"\xff\xd9"
JPEG_HEAD = 2**20  # bytes in which a JPEG file's EXIF data begin and end
LEVELS = 4  # libjpeg decodes at 1, 1/2, 1/4 and 1/8 of the sides
BESIDE = 2  # pixels at the left and right edge of a part for which libjpeg has no neighbours to mix colours with

_logger = logging.getLogger(__name__)
_either_way = itertools.count()  # images that are read turned although the annotated size does not tell


class OpenedImage(NamedTuple):
    """An image file of which the sides are known; the pixels of a plain JPEG file are not decoded yet.

    Args:
        file: () string, all bytes of the file.
        reducible: () bool, whether it is a plain JPEG file, which `part` can decode smaller than it is.
        pixels: ``(h, w, 3)`` uint8 RGB of any other file; ``(0, 0, 3)`` of such a one.
        sides: ``(2,)`` int32 width and height.
    """

    file: tf.Tensor
    reducible: tf.Tensor
    pixels: tf.Tensor
    sides: tf.Tensor

    def reduced_sides(self, level: tf.Tensor | int) -> tf.Tensor:
        """``(2,)`` int32 width and height at 1 / 2^level of the sides, rounded up."""
        return (self.sides - 1) // tf.bitwise.left_shift(1, level) + 1

    def part(self, low: tf.Tensor, high: tf.Tensor, level: tf.Tensor | int = 0) -> tf.Tensor:
        """A rectangle of the image, decoded by itself: the same pixels as when all of it is decoded.

        Args:
            low: ``(2,)`` int32 x, y of the first pixel.
            high: ``(2,)`` int32 x, y behind the last one.
            level: 0 to 3: of the image with `reduced_sides`, of which `low` and `high` are pixels, each the mean of
                those it stands for; not 0 only for a `reducible` image.

        Returns:
            ``(high[1] - low[1], high[0] - low[0], 3)`` uint8 RGB.
        """

        (left, top), (right, bottom) = tf.unstack(low), tf.unstack(high)
        first, last = tf.maximum(left - BESIDE, 0), tf.minimum(right + BESIDE, self.reduced_sides(level)[0])
        window = tf.stack([top, first, bottom - top, last - first])

        def decoded(ratio: int) -> tf.Tensor:
            return tf.image.decode_and_crop_jpeg(self.file, window, channels=3, ratio=ratio, dct_method=EXACT)

        branches = [functools.partial(decoded, 2**power) for power in range(LEVELS)]
        branches.append(lambda: self.pixels[top:bottom, first:last])
        return tf.switch_case(tf.where(self.reducible, level, LEVELS), branches)[:, left - first : right - first]


def decoded_image(pixels: tf.Tensor) -> OpenedImage:
    """An image ``(h, w, 3)`` uint8 RGB that is decoded already."""
    return OpenedImage(tf.constant(""), tf.constant(False), pixels, tf.gather(tf.shape(pixels), (1, 0)))


def open_image(path: tf.Tensor, size: tf.Tensor | Sequence[int] = (0, 0)) -> OpenedImage:
    """Open an image file: what can be decoded in parts is not decoded yet.

    Args:
        path: of the file.
        size: ``(2,)`` int32, width and height as annotated, zeros if the annotations do not say.
    """
    data, size = tf.io.read_file(path), tf.convert_to_tensor(size, tf.int32)
    plain, header_sides = _is_plain(data, size)
    # A file that was cut off, which a part of it would not show, does not end as a JPEG file does.
    in_parts = plain & (tf.strings.substr(data, tf.maximum(tf.strings.length(data) - 2, 0), 2) == END_OF_JPEG)
    pixels = tf.switch_case(
        tf.where(in_parts, 0, tf.where(plain, 1, 2)),
        [
            lambda: tf.zeros((0, 0, 3), tf.uint8),
            lambda: tf.io.decode_jpeg(data, channels=3, dct_method=EXACT),  # PNG, too
            lambda: tf.numpy_function(_decode_named, [path, data, size], tf.uint8),
        ],
    )
    pixels = tf.ensure_shape(pixels, (None, None, 3))
    sides = tf.where(in_parts, header_sides, tf.gather(tf.shape(pixels), (1, 0)))
    return OpenedImage(data, in_parts, pixels, sides)


def read_image_tensor(path: tf.Tensor, size: tf.Tensor | Sequence[int] = (0, 0)) -> tf.Tensor:
    """What `read_image` returns, as a graph op: ``(h, w, 3)`` uint8 RGB.

    JPEG files are decoded to the same pixels as by OpenCV and Pillow, bit for bit. Arguments are those of `open_image`.
    """
    image = open_image(path, size)
    return image.part(tf.zeros(2, tf.int32), image.sides)


def _is_plain(data: tf.Tensor, size: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Whether TensorFlow reads a file right: a gray or three-coloured JPEG, or a PNG of 8 bits, of the annotated size
    and not to be turned; and its width and height. (No conditions: a graph spends more time on them.)
    """
    is_jpeg, start = tf.io.is_jpeg(data), tf.strings.substr(data, 0, 26)
    is_png = tf.strings.regex_full_match(start, PLAIN_PNG)
    jpeg_height, jpeg_width, channels = tf.unstack(tf.image.extract_jpeg_shape(tf.where(is_jpeg, data, _small_jpeg())))
    png_size = tf.strings.substr(tf.where(is_png, start, bytes(26)), 16, 8)
    png_width, png_height = tf.unstack(tf.io.decode_raw(png_size, tf.int32, little_endian=False), 2)
    width, height = tf.where(is_png, png_width, jpeg_width), tf.where(is_png, png_height, jpeg_height)
    right = ((size[0] == width) | (size[0] == 0)) & ((size[1] == height) | (size[1] == 0))
    right &= tf.cast(width, tf.int64) * tf.cast(height, tf.int64) <= MAX_PIXELS
    # in a JPEG file EXIF data are the first segment, or come after those of a colour profile
    first = tf.strings.substr(data, 0, tf.where(is_png, tf.strings.length(data), JPEG_HEAD))
    length = tf.strings.length(first)
    without = tf.strings.regex_replace(first, EXIF, "", replace_global=False)
    to_search = tf.strings.substr(first, 0, tf.where(tf.strings.length(without) < length, length, 0))
    plain = (is_png | (is_jpeg & (channels < 4))) & right & ~tf.strings.regex_full_match(to_search, TURNS_IT)
    return plain, tf.stack([width, height])


@functools.cache
def _small_jpeg() -> bytes:
    """What stands for a file that is no JPEG where one is needed."""
    file = io.BytesIO()
    Image.new("L", (1, 1)).save(file, "JPEG")
    return file.getvalue()


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

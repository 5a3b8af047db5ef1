"""Image files: the one place that reads them, for prediction, training, evaluation, export and the doctor.

TensorFlow decodes plain JPEG and PNG files (8 bits, not turned by EXIF, of the annotated size) inside the graph; Pillow
decodes everything else, and both give the same pixels. The rules:

- **Turned photographs.** Without annotations an image is read as viewers show it, turned by its EXIF tag. With an
  annotated size it is read in the way that has this size: turned, or as stored. Where both have it (a square, an upside
  down image, no annotated size) it is turned, too, and the first such image is named in a warning.
- **Size.** An image that has another size than the annotated one is refused, whichever way it is turned, and so is one
  of more than `MAX_PIXELS`; the file's header tells, before anything is decoded.
- **Channels.** 16 bits (12 in some TIFF files) become 8 by their high byte, as in OpenCV and TensorFlow. Transparency,
  colour profiles and gamma are ignored. Of several frames or pages the first is read.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import io
import itertools
import logging
import os
import re
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tensorflow as tf
from PIL import Image

from keras_mrpose.errors import InputError, install_command, short_message

with contextlib.suppress(ImportError):
    import pillow_avif  # noqa: F401  registers itself; Pillow 11.3 and later have AVIF
with contextlib.suppress(ImportError):
    import pillow_heif

    pillow_heif.register_heif_opener()

MAX_PIXELS = 178_956_970  # of an image; Pillow's own limit
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "DIB", "GIF", "TIFF", "AVIF", "HEIF", "JPEG2000", "PPM")
ORIENTATION = 0x0112  # EXIF and TIFF tag; 1 is upright
TIFF_WIDTH, TIFF_HEIGHT, TIFF_BITS, TIFF_PHOTOMETRIC = 256, 257, 258, 262
TURNS: dict[int, Callable[[np.ndarray], np.ndarray]] = {  # EXIF orientation -> from stored pixels to upright ones
    2: lambda image: image[:, ::-1],
    3: lambda image: image[::-1, ::-1],
    4: lambda image: image[::-1],
    5: lambda image: image.swapaxes(0, 1),
    6: lambda image: np.rot90(image, -1),
    7: lambda image: image[::-1, ::-1].swapaxes(0, 1),
    8: np.rot90,
}
BACK = {6: 8, 8: 6}  # the orientation that undoes another; the others undo themselves
HEIF = re.compile(rb".{4}ftyp(heic|heix|hevc|hevx|heim|heis|mif1|msf1)", re.DOTALL)

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


def read_image(path: str | Path, size: Sequence[int] | None = None) -> np.ndarray:
    """An image file: ``(h, w, 3)`` uint8 RGB; see the module for formats and rules.

    Args:
        path: of the file.
        size: ``(width, height)`` as annotated, zeros if the annotations do not say; None for an image without any.

    Raises:
        InputError: missing, damaged, no image, of too many pixels or of another size, each named.
    """
    try:
        return decode_image(Path(path).read_bytes(), size)
    except FileNotFoundError:
        raise InputError(f"The image {path} is not there.") from None
    except OSError as error:
        raise InputError(f"The image {path} cannot be read ({error.strerror}).") from error
    except InputError as error:
        raise InputError(f"The image {path} {error}.") from error


def decode_image(data: bytes, size: Sequence[int] | None = None) -> np.ndarray:
    """The image in a file's bytes, see `read_image`.

    Raises:
        InputError: its message lacks the beginning that names the image, and the full stop.
    """
    content = tf.constant(data)
    try:
        plain = _is_plain_now(content, tf.constant((0, 0) if size is None else size, tf.int32))
    except tf.errors.OpError as error:
        raise _damaged("its header is damaged") from error
    if not plain:
        return _decode_by_pillow(data, size)[0]
    try:
        return _decode_plain(content).numpy()
    except tf.errors.OpError as error:
        raise _damaged(re.sub(r"^\{\{.*?\}\} | \[Op:.*$", "", short_message(error))) from error


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


def why_unreadable(path: str, size: Sequence[int] | None = None) -> str | None:
    """What is wrong with an image file, as the end of a sentence; None if `read_image` can read it."""
    try:
        decode_image(Path(path).read_bytes(), size)
    except OSError as error:
        return f"cannot be read ({error.strerror})"
    except InputError as error:
        return str(error)
    return None


@dataclass(frozen=True)
class Header:
    """What a file says of its image.

    Attributes:
        size: ``(width, height)`` as stored.
        orientation: of the EXIF data, 1..8; 1 is upright, or not known.
        mode: Pillow's, such as ``"RGB"``.
    """

    size: tuple[int, int]
    orientation: int = 1
    mode: str = "RGB"

    @property
    def upright(self) -> tuple[int, int]:
        """``(width, height)`` as viewers show it."""
        return self.size[::-1] if self.orientation > 4 else self.size

    def fits(self, size: Sequence[int] | None) -> tuple[bool, bool]:
        """Whether the image turned upright, and as stored, can be one of this annotated size."""
        known = size is not None and all(size)
        return not known or self.upright == tuple(size), not known or self.size == tuple(size)


def read_header(data: bytes) -> Header:
    """The header in a file's bytes; errors as in `decode_image`."""
    with _opened(data) as file:
        return Header(_stored_size(file), _orientation(file), file.mode)


# --- by TensorFlow ----------------------------------------------------------------------------------------------------


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


# Outside of graphs.
_is_plain_now = tf.function(
    _is_plain, input_signature=(tf.TensorSpec((), tf.string), tf.TensorSpec((2,), tf.int32)), autograph=False
)


# --- by Pillow --------------------------------------------------------------------------------------------------------


def _decode_by_pillow(data: bytes, size: Sequence[int] | None) -> tuple[np.ndarray, Header]:
    with _opened(data) as file:
        stored = _stored_size(file)
        if size is not None and all(size) and tuple(size) not in (stored, stored[::-1]):
            raise _another_size(Header(stored), size)  # at once: PNG files may have EXIF data behind their pixels
        header = Header(stored, _orientation(file), file.mode)
        upright, as_stored = header.fits(size)
        if not (upright or as_stored):
            raise _another_size(header, size)
        try:
            image = _to_rgb(file)
            turned = _orientation(file) != header.orientation  # Pillow turns TIFF files while it loads them
        except Exception as error:  # Pillow raises many kinds for a file that it cannot read
            raise _damaged(short_message(error)) from error
    if upright and not turned:
        image = TURNS.get(header.orientation, lambda image: image)(image)
    elif turned and not upright:
        image = TURNS[BACK.get(header.orientation, header.orientation)](image)
    return np.ascontiguousarray(image), header


@contextlib.contextmanager
def _opened(data: bytes):
    """The file as Pillow sees it, nothing decoded yet."""
    try:
        file = Image.open(io.BytesIO(data), formats=_formats())
    except Image.DecompressionBombError as error:
        raise InputError(f"has more than {MAX_PIXELS} pixels; make it smaller") from error
    except Exception as error:  # Pillow raises many kinds for a file that it cannot read
        if HEIF.match(data) and "HEIF" not in _formats():
            raise InputError(f"is a HEIC file; install what reads it: {install_command('heic')}") from error
        what = "it is empty" if not data else "it is no image of a known kind"
        raise _damaged(what if isinstance(error, Image.UnidentifiedImageError) else short_message(error)) from error
    with file:
        if file.width * file.height > MAX_PIXELS:
            raise InputError(f"has {file.width}x{file.height} pixels, more than {MAX_PIXELS}; make it smaller")
        yield file


@functools.cache
def _formats() -> tuple[str, ...]:
    """Those of `FORMATS` that can be read here: not all that Pillow knows, of which some start other programs."""
    Image.init()
    return tuple(name for name in FORMATS if name in Image.OPEN)


def _stored_size(file: Image.Image) -> tuple[int, int]:
    """``(width, height)`` before any turn; Pillow tells that of a TIFF file after it."""
    tags = getattr(file, "tag_v2", {})
    return int(tags.get(TIFF_WIDTH, file.width)), int(tags.get(TIFF_HEIGHT, file.height))


def _orientation(file: Image.Image) -> int:
    """1..8 of the EXIF data; data that are damaged or say nothing known turn nothing, as in viewers."""
    try:
        if file.format == "PNG":
            file.load()  # the data may stand behind the pixels
        exif = Image.Exif()  # `file.getexif` takes XMP, too, which no viewer does
        exif.load(file.info.get("exif", b""))
        found = getattr(file, "tag_v2", exif).get(ORIENTATION)
        return found if found in TURNS else 1
    except Exception:  # Pillow raises many kinds; if the pixels are damaged as well, their decoder says so
        return 1


def _to_rgb(file: Image.Image) -> np.ndarray:
    """Pixels ``(h, w, 3)`` uint8; this decodes them."""
    file.load()
    if file.mode.startswith("I;16") or (file.mode == "I" and file.format != "TIFF"):
        tags = getattr(file, "tag_v2", {})
        levels = np.asarray(file).astype(np.int32)
        if tags.get(TIFF_PHOTOMETRIC) == 0:  # white is 0
            levels = 65535 - levels
        grey = levels >> (tags.get(TIFF_BITS, (16,))[0] - 8)
        return np.repeat(grey.astype(np.uint8)[..., None], 3, axis=2)
    if file.mode in ("I", "F"):
        raise ValueError("it has 32 bits a pixel and no known range; save it with 8 or 16")
    file.info.pop("transparency", None)  # Pillow would warn of losing it
    return np.asarray(file.convert("RGB"))


def _damaged(why: str) -> InputError:
    return InputError(f"cannot be read ({why}); replace it by a whole image file")


def _another_size(header: Header, size: Sequence[int]) -> InputError:
    width, height = header.upright
    stored = "" if header.upright == header.size else f" (stored {header.size[0]}x{header.size[1]} and turned by EXIF)"
    return InputError(
        f"has {width}x{height} pixels{stored}, its annotations say {size[0]}x{size[1]}; get the one that was annotated"
    )


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
        image, header = _decode_by_pillow(data, size)
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

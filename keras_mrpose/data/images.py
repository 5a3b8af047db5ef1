"""Image files: the one place that reads them, for prediction, training, evaluation, export and the doctor.

Pillow decodes, and inside `tf.data` TensorFlow where it gives the same pixels (`image_tensors`). The rules:

- **Turned photographs.** Without annotations an image is read as viewers show it, turned by its EXIF tag. With an
  annotated size it is read in the way that has this size: turned, or as stored. Where both have it (a square, an upside
  down image, no annotated size) it is turned, too, and the first such image is named in a warning.
- **Size.** An image that has another size than the annotated one is refused, whichever way it is turned, and so is one
  of more than `MAX_PIXELS`; the file's header tells, before anything is decoded.
- **Channels.** 16 bits (12 in some TIFF files) become 8 by their high byte, as in OpenCV and TensorFlow. Transparency,
  colour profiles and gamma are ignored. Of several frames or pages the first is read.
"""

from __future__ import annotations

import contextlib
import functools
import io
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
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
PNG_END = re.compile(rb"IEND.{4}", re.DOTALL)  # and its check sum
HEIF = re.compile(rb".{4}ftyp(heic|heix|hevc|hevx|heim|heis|mif1|msf1)", re.DOTALL)


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
    return decode_with_header(data, size)[0]


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


# --- by Pillow --------------------------------------------------------------------------------------------------------


def decode_with_header(data: bytes, size: Sequence[int] | None = None) -> tuple[np.ndarray, Header]:
    """What `decode_image` returns, and the file's header."""
    with _opened(data) as file:
        stored = _stored_size(file)
        if size is not None and all(size) and tuple(size) not in (stored, stored[::-1]):
            raise _another_size(Header(stored), size)  # at once: PNG files may have EXIF data behind their pixels
        header = Header(stored, _orientation(file), file.mode)
        upright, as_stored = header.fits(size)
        if not (upright or as_stored):
            raise _another_size(header, size)
        if file.format == "PNG" and not PNG_END.search(data):  # Pillow takes files that are cut behind the pixels
            raise _damaged("it is cut")
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

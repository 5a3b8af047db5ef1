"""Checks of every image file: each is read once, by the decoder that training uses."""

from __future__ import annotations

import hashlib
import io
import os
from collections import defaultdict
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import PIL.Image
import tensorflow as tf

from keras_mrpose.data.images import decode_error, decode_image_tensor
from keras_mrpose.doctor.findings import IssueCollector
from keras_mrpose.doctor.records import Split

PLAIN = {"L", "RGB", "P", "1"}  # modes that the pipeline turns to RGB as everybody does
ORIENTATION = 0x0112  # EXIF tag; 1 is upright


@dataclass(frozen=True)
class ImageInfo:
    """Facts about an image file.

    Attributes:
        size: ``(width, height)``; None if training cannot read it.
        digest: of the file's bytes; None if there is no file.
        fault: why training cannot read it.
        mode: Pillow's, such as ``"RGB"``.
        orientation: of the EXIF data; 1 is upright.
    """

    size: tuple[int, int] | None = None
    digest: bytes | None = None
    fault: str | None = None
    mode: str = "RGB"
    orientation: int = 1


def inspect_image(path: str) -> ImageInfo:
    """Read a file once: its bytes, its header, and its pixels exactly as training does."""
    try:
        data = Path(path).read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return ImageInfo()
    except OSError as error:
        return ImageInfo(digest=b"", fault=str(error.strerror))
    digest = hashlib.sha256(data).digest()
    try:
        height, width, _ = decode_image_tensor(tf.constant(data)).shape
    except tf.errors.OpError as error:
        return ImageInfo(digest=digest, fault=decode_error(error))
    try:
        with PIL.Image.open(io.BytesIO(data)) as header:
            return ImageInfo((width, height), digest, None, header.mode, header.getexif().get(ORIENTATION, 1))
    except Exception:  # Pillow raises many kinds; training has no need of this header
        return ImageInfo((width, height), digest)


def inspect_images(splits: Iterable[Split], watch: Callable[[Iterable, int], Iterable]) -> dict[str, ImageInfo]:
    """Facts about each image file of these splits, by path; in threads, since TensorFlow releases the interpreter lock.

    Args:
        splits: of a data set.
        watch: wraps an iterable of so many items and yields them: a progress bar.
    """
    paths = list(dict.fromkeys(image.path for split in splits for image in split.images))
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return dict(zip(paths, watch(pool.map(inspect_image, paths), len(paths)), strict=True))


def check_images(split: Split, inspected: dict[str, ImageInfo], issues: IssueCollector) -> None:
    """Report what is wrong with the images of a split."""
    for image in split.images:
        seen = inspected[image.path]
        if seen.digest is None:
            issues.add("missing image", split.file, image.record, "file", image.path)
        elif seen.size is None:
            issues.add("unreadable image", image.path, image.record, "-", seen.fault)
        elif image.size not in (None, seen.size):
            wanted = "{}x{}".format(*image.size)
            issues.add(
                "image size", image.path, image.record, "width, height", "{}x{}, not ".format(*seen.size) + wanted
            )
        if seen.mode not in PLAIN:
            issues.add("colours", image.path, image.record, "-", seen.mode)
        if seen.orientation not in (0, 1):  # 0 is not defined, and means the same to viewers
            issues.add("rotated by EXIF", image.path, image.record, "orientation", seen.orientation)


def check_duplicates(splits: list[Split], inspected: dict[str, ImageInfo], issues: IssueCollector) -> None:
    """Report files of equal bytes: in training and validation, and within a split."""
    holders = {split.name: _by_digest(split, inspected) for split in splits}
    for split in splits:
        for first, *others in holders[split.name].values():
            for image in others:
                issues.add("image twice", image.path, image.record, "the same as", first.path)
    for train in (name for name in holders if name.startswith("train") and not name.startswith("trainval")):
        for val in (name for name in holders if name.startswith("val")):
            for digest, (image, *_) in holders[train].items():
                for same in holders[val].get(digest, ())[:1]:
                    issues.add("image in train and val", image.path, image.record, "the same as", same.path)


def _by_digest(split: Split, inspected: dict[str, ImageInfo]) -> dict[bytes, list]:
    holders = defaultdict(list)
    for image in split.images:
        if inspected[image.path].digest:
            holders[inspected[image.path].digest].append(image)
    return holders

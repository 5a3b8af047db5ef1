"""Checks of every image file: each is read once, by the reader that training uses."""

from __future__ import annotations

import hashlib
import os
from collections import defaultdict
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from keras_mrpose.data.images import Header, decode_image, read_header
from keras_mrpose.doctor.findings import IssueCollector
from keras_mrpose.doctor.records import ImageRecord, Split
from keras_mrpose.errors import InputError

PLAIN = {"L", "RGB", "P", "1", "I", "I;16", "I;16B", "I;16L"}  # modes that become RGB as everybody expects


@dataclass(frozen=True)
class ImageInfo:
    """Facts about an image file.

    Attributes:
        header: size, orientation and mode; None if it cannot be read.
        digest: of the file's bytes; None if there is no file.
        fault: why it cannot be read.
    """

    header: Header | None = None
    digest: bytes | None = None
    fault: str | None = None

    @property
    def size(self) -> tuple[int, int] | None:
        """``(width, height)`` as viewers show it; None if it cannot be read."""
        return self.header and self.header.upright


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
        height, width, _ = decode_image(data).shape
    except InputError as error:
        return ImageInfo(digest=digest, fault=str(error).partition(";")[0])
    try:
        return ImageInfo(read_header(data), digest)
    except InputError:  # Pillow refuses what TensorFlow has read; training has no need of this header
        return ImageInfo(Header((width, height)), digest)


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
        elif seen.header is None:
            issues.add("unreadable image", image.path, image.record, "-", seen.fault)
        else:
            _check_header(image, seen.header, issues)


def _check_header(image: ImageRecord, header: Header, issues: IssueCollector) -> None:
    upright, as_stored = header.fits(image.size)
    if not (upright or as_stored):
        found, wanted = ("{}x{}".format(*size) for size in (header.upright, image.size))
        issues.add("image size", image.path, image.record, "width, height", f"{found}, not {wanted}")
    elif header.orientation != 1 and as_stored:
        labels = "the size does not tell" if upright else "labelled as stored"
        issues.add("rotated by EXIF", image.path, image.record, "orientation", f"{header.orientation}, {labels}")
    if header.mode not in PLAIN:
        issues.add("colours", image.path, image.record, "-", header.mode)


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

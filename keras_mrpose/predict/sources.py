"""What `mrpose predict` is given: files, folders, patterns, URLs, standard input, videos, cameras; read in order."""

from __future__ import annotations

import glob
import http.client
import sys
import urllib.error
import urllib.request
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import numpy as np

from keras_mrpose.data.images import decode_image, read_image
from keras_mrpose.errors import InputError, short_message
from keras_mrpose.predict.video import SUFFIXES as VIDEO_SUFFIXES

IMAGE_SUFFIXES = (
    ".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".heic", ".heif", ".avif", ".jfif",
)  # fmt: skip
MAX_BYTES = 100_000_000  # of what a URL may send
TIMEOUT = 20  # seconds without an answer

Given = TypeVar("Given")
Made = TypeVar("Made")


def expand(given: Iterable[str]) -> list[str]:
    """Images and videos in the order in which they are given.

    Args:
        given: files; folders and patterns such as ``photos/*.jpg``, whose images and videos are taken by name, hidden
            files left out; URLs; ``-`` for an image on standard input; a number for a camera.

    Raises:
        InputError: a folder or a pattern without an image or a video.
    """
    found = []
    for name in given:
        if is_url(name) or not (Path(name).is_dir() or (glob.has_magic(name) and not Path(name).exists())):
            found.append(name)
            continue
        files = Path(name).iterdir() if Path(name).is_dir() else map(Path, glob.glob(name, recursive=True))
        of_name = [str(file) for file in files if _is_taken(file)]
        if not of_name:
            kind = "folder" if Path(name).is_dir() else "pattern"
            raise InputError(f"The {kind} {name} has no images ({' '.join(IMAGE_SUFFIXES)}) and no videos.")
        found += sorted(of_name)
    return found


def _is_taken(file: Path) -> bool:
    """Whether a file of a folder is an image or a video by its name; systems hide files of these names, too."""
    known = is_image(file.name) or file.suffix.lower() in VIDEO_SUFFIXES
    return known and not file.name.startswith(".") and file.is_file()


def is_image(name: str) -> bool:
    """Whether a file's name ends like an image's."""
    return Path(name).suffix.lower() in IMAGE_SUFFIXES


def is_video(name: str) -> bool:
    """Whether a source is a video by the end of its name, or a camera's number."""
    return Path(name).suffix.lower() in VIDEO_SUFFIXES or is_camera(name)


def is_camera(name: str) -> bool:
    """Whether a source is the number of a camera; a file of that name goes first."""
    return name.isdecimal() and not Path(name).exists()


def is_url(name: str) -> bool:
    """Whether a source is fetched by HTTP."""
    return name.lower().startswith(("http://", "https://"))


def read_source(name: str) -> np.ndarray:
    """The image ``(h, w, 3)`` uint8 RGB of a file, a URL, or standard input (``-``).

    Raises:
        InputError: it is not there, not an image, damaged, or of more than 100 MB.
    """
    if is_url(name):
        return _decoded(_fetch(name), name)
    if name == "-":
        return _decoded(sys.stdin.buffer.read(), "on standard input")
    return read_image(name)


def _decoded(content: bytes, name: str) -> np.ndarray:
    try:
        return decode_image(content)
    except InputError as error:
        raise InputError(f"The image {name} {error}.") from None


def _fetch(url: str) -> bytes:
    """What a URL sends."""
    try:
        request = urllib.request.Request(url, headers={"User-Agent": "keras-mrpose"})
        with urllib.request.urlopen(request, timeout=TIMEOUT) as answer:
            content, missing = answer.read(MAX_BYTES + 1), answer.length
    except (urllib.error.URLError, http.client.HTTPException, OSError, ValueError) as error:
        if isinstance(error, urllib.error.HTTPError):
            error.close()
        reason = getattr(error, "reason", error)
        why = short_message(reason) if isinstance(reason, Exception) else reason
        raise InputError(f"{url} cannot be fetched ({why}).") from None
    if len(content) > MAX_BYTES:
        raise InputError(f"{url} sends more than {MAX_BYTES // 10**6} MB; fetch it yourself and give the file.")
    if missing:
        raise InputError(f"{url} cannot be fetched (it broke off after {len(content)} bytes); try again.")
    return content


def one_ahead(items: Iterable[Made]) -> Iterator[Made]:
    """The items, each of which a thread makes while its predecessor is used."""
    iterator, end = iter(items), object()
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(next, iterator, end)
        while (item := future.result()) is not end:
            future = pool.submit(next, iterator, end)
            yield item


def ahead(
    function: Callable[[Given], Made], items: Iterable[Given], workers: int = 2
) -> Iterator[tuple[Given, Made | InputError]]:
    """Each item and what a function makes of it, in order; threads work a few items ahead, whatever their number.

    A user's mistake (`InputError`) is given in the place of a result, so that one does not stop the others.
    """

    def work(item: Given) -> Made | InputError:
        try:
            return function(item)
        except InputError as mistake:
            return mistake

    waiting: deque = deque()
    with ThreadPoolExecutor(workers) as pool:
        for item in items:
            waiting.append((item, pool.submit(work, item)))
            if len(waiting) > workers:
                first, future = waiting.popleft()
                yield first, future.result()
        while waiting:
            first, future = waiting.popleft()
            yield first, future.result()

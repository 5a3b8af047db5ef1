"""Training past records whose image cannot be read: what takes their place, and the list of them."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import tensorflow as tf

from keras_mrpose.data.people import People

SKIPPED = "skipped.json"


class Skipped:
    """People whose image could not be read, each once however often a training met it."""

    def __init__(self):
        self._reasons: dict[tuple[str, int], str] = {}
        self._lock = threading.Lock()  # the pipeline reads in several threads

    def __len__(self) -> int:
        return len(self._reasons)

    def add(self, image: str, person: int, reason: str) -> None:
        """List a person: image file, record number, what was wrong with the file."""
        with self._lock:
            self._reasons.setdefault((image, person), reason)

    def records(self) -> list[dict]:
        """``image``, ``person`` and ``reason`` of each, by image and person: the same whatever the order of reading."""
        with self._lock:
            found = sorted(self._reasons.items())
        return [{"image": image, "person": person, "reason": reason} for (image, person), reason in found]

    def sentence(self) -> str:
        """What a training says at its end; nothing if all could be read."""
        if not self._reasons:
            return ""
        images = {image for image, _ in self._reasons}
        return f"skipped {len(self)} people: {len(images)} images cannot be read, the first is {min(images)}"

    def write(self, folder: Path) -> None:
        """``skipped.json`` in a run folder, with those whom an earlier part of the run listed."""
        file = folder / SKIPPED
        if file.exists():
            for record in json.loads(file.read_text()):
                self.add(**record)
        part = folder / f"part-{SKIPPED}"
        part.write_text(json.dumps(self.records(), indent=1) + "\n")
        part.replace(file)


def reader(
    people: People, read: Callable[[tf.Tensor], tf.Tensor], reason: Callable[[str], str | None], skipped: Skipped
) -> Callable[[tf.Tensor], tuple[tf.Tensor, tf.Tensor]]:
    """A graph function from a row of `people` to the image and to 1.0, or to a black pixel and 0.0 if `read` fails.

    TensorFlow has no "try" for a single operation, but a data set has: one of a single element that leaves errors out,
    followed by the substitute, and of both the first that is there. Only the substitute calls Python, to list the
    person, so a good image costs the set-up of a small data set and no more.

    Args:
        people: the table.
        read: a path to ``(h, w, 3)`` uint8, as a graph.
        reason: what is wrong with a file, None if (by now) nothing is.
        skipped: gets the people.
    """
    paths, image_of = tf.constant(people.image_paths), tf.constant(people.image_index)

    def note(person: np.ndarray) -> np.ndarray:
        path = str(people.image_paths[people.image_index[person]])
        skipped.add(path, int(people.ids[person]), reason(path) or "could not be read at that moment")
        return np.float32(0)

    def image(person):
        return tf.ensure_shape(read(paths[image_of[person]]), (None, None, 3)), tf.constant(1.0)

    def nothing(person):
        return tf.zeros((1, 1, 3), tf.uint8), tf.ensure_shape(tf.numpy_function(note, [person], tf.float32), ())

    def first(person):
        one = tf.data.Dataset.from_tensors(person)
        return one.map(image).ignore_errors().concatenate(one.map(nothing)).take(1).get_single_element()

    return first

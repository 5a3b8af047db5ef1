"""The records of COCO's formats, checked field by field; what is wrong is named with file, record and field."""

from __future__ import annotations

import math
from array import array
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from keras_mrpose.errors import InputError
from keras_mrpose.skeletons import COCO, Skeleton, flip_pairs_of

PERSON = 1


class Images:
    """The images that a file lists.

    Args:
        records: with id, file_name, width and height.
        source: the file's name, for messages.

    Attributes:
        ids, names, sizes: of each image; a size is ``(width, height)``.
        row_of: the row of each image by its id.
    """

    def __init__(self, records: Iterable, source: str):
        self.ids, self.names, self.sizes = [], [], []
        for place, image in enumerate(records):
            require_fields(
                image, {"id": int, "file_name": str, "width": int, "height": int}, f"{source}: image {place}"
            )
            self.ids.append(image["id"])
            self.names.append(image["file_name"])
            self.sizes.append((image["width"], image["height"]))
        self.row_of = {number: row for row, number in enumerate(self.ids)}

    def row(self, image_id: int, name: str, where: str) -> int:
        """The row of an image; an `InputError` of the record `name` if there is none."""
        if image_id not in self.row_of:
            raise InputError(f"{name} has image_id {image_id}, which is not among {where}.")
        return self.row_of[image_id]

    def paths(self, folder: str | Path) -> list[str]:
        """The images' files in a folder."""
        return [str(Path(folder, name)) for name in self.names]


@dataclass
class Annotations:
    """The annotated people of a file that may count: in flat arrays, since there are hundreds of thousands.

    Attributes:
        ids, image_ids: of all people, without crowds.
        counts: whether each of them has an area and a keypoint, which is what the others arrays hold.
        boxes, areas, keypoints: four, one and three for each joint.
        lengths: number of keypoint numbers (-1: no finite numbers) -> what to say if that is wrong.
    """

    ids: list[int] = field(default_factory=list)
    image_ids: list[int] = field(default_factory=list)
    counts: list[bool] = field(default_factory=list)
    boxes: array = field(default_factory=lambda: array("d"))
    areas: array = field(default_factory=lambda: array("d"))
    keypoints: array = field(default_factory=lambda: array("d"))
    lengths: dict[int, str] = field(default_factory=dict)

    def add(self, annotation, place: int, source: str) -> None:
        """Check an annotation, and keep what is needed of it."""
        name = annotation_name(annotation, place, source)
        require_fields(annotation, {"id": int, "image_id": int, "category_id": int, "iscrowd": int}, name)
        if annotation["category_id"] != PERSON or annotation["iscrowd"]:
            return
        keypoints = _flat(annotation.get("keypoints"))
        if keypoints.size not in self.lengths:
            self.lengths[keypoints.size] = f"{name} has keypoints {annotation.get('keypoints')!r:.80}"
        box = read_floats(annotation, "bbox", 4, name)
        (area,) = read_floats(annotation, "area", 1, name)
        counts = bool(area > 0 and keypoints.size and keypoints.max() > 0)
        self.ids.append(annotation["id"])
        self.image_ids.append(annotation["image_id"])
        self.counts.append(counts)
        if counts:
            self.boxes.frombytes(box.tobytes())
            self.areas.append(area)
            self.keypoints.frombytes(keypoints.tobytes())

    def require_joints(self, count: int) -> None:
        """An `InputError` that names the first annotation with another number of joints."""
        for length, said in self.lengths.items():
            if length != 3 * count:
                raise InputError(f"{said}, expected {_wanted(count)}.")


def skeleton_of(categories, source: str, skeleton: Skeleton | None = None, strict: bool = True) -> Skeleton:
    """The joints of a COCO-format file.

    Args:
        categories: the file's list; that of people (id 1) may name ``keypoints``, and edges as ``skeleton``, which
            counts joints from 1.
        source: the file's name, for messages.
        skeleton: which it should be; None takes COCO's where the file names these joints or none, else the file's own:
            with the pairs that the names tell, and the default sigmas.
        strict: False: it is that of a file that names no joints only; a file that names others keeps its own.

    Raises:
        InputError: a file that names other joints than the skeleton, or joints or edges that cannot be.
    """
    categories = [category for category in categories or () if isinstance(category, dict)]
    category = next((each for each in categories if each.get("id") == PERSON), {})
    named = [each.get("id") for each in categories if each.get("keypoints")]
    if named and PERSON not in named:
        raise InputError(f"{source}: category {named[0]!r} has the keypoints; give people the category_id {PERSON}.")
    joints = category.get("keypoints")
    if joints is None:
        return skeleton or COCO
    if not isinstance(joints, list) or not joints or not all(isinstance(joint, str) for joint in joints):
        raise InputError(f"{source}: category {PERSON} has keypoints {joints!r:.80}, expected a list of names.")
    for wanted in (skeleton, COCO):
        if wanted and tuple(joints) == wanted.joints and (wanted is skeleton or skeleton is None or not strict):
            return wanted
    if skeleton is not None and strict:
        raise InputError(
            f"{source} has the joints {', '.join(joints)}, but the skeleton {skeleton.name} has "
            f"{', '.join(skeleton.joints)}; give the file's, in its order."
        )
    edges = category.get("skeleton") or ()
    try:
        edges = [(a - 1, b - 1) for a, b in edges]
        name = category.get("name")
        return Skeleton(name if isinstance(name, str) else "own", joints, flip_pairs_of(joints), edges)
    except (TypeError, ValueError) as error:
        raise InputError(
            f"{source}: category {PERSON} has keypoints or a skeleton that cannot be ({error}); fix it, or give a "
            "skeleton file."
        ) from error


def annotation_name(annotation, place: int, source: str) -> str:
    """What messages call an annotation: by its id, or by its place."""
    return f"{source}: annotation {annotation.get('id', place) if isinstance(annotation, dict) else place!s:.40}"


def require_fields(record, fields: dict[str, type], name: str) -> None:
    """An `InputError` unless a record has these fields, whole numbers of 64 bits."""
    for label, kind in fields.items():
        value = record.get(label) if isinstance(record, dict) else None
        if not isinstance(value, kind) or (kind is int and not -(2**63) <= value < 2**63):
            raise InputError(f"{name} has {label} {value!r:.80}, expected {kind.__name__}; see the COCO data format.")


def read_floats(record: dict, label: str, count: int, name: str) -> np.ndarray:
    """A field of so many finite numbers, flat."""
    values = _flat(record.get(label))
    if values.size != count:
        wanted = _wanted(count // 3) if label == "keypoints" else f"{count} finite number(s)"
        raise InputError(f"{name} has {label} {record.get(label)!r:.80}, expected {wanted}.")
    return values


def _wanted(joints: int) -> str:
    return f"{joints} joints of x, y, v: {3 * joints} finite numbers"


def _flat(values) -> np.ndarray:
    """Float64; empty if these are no finite numbers."""
    try:
        flat = np.asarray(values, np.float64).ravel()
    except (TypeError, ValueError, OverflowError):
        return np.array(())
    return flat if all(map(math.isfinite, flat.tolist())) else np.array(())

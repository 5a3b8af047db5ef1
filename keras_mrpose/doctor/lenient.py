"""Data folders read past their mistakes, for the doctor: each mistake is noted, the record left out, and it goes on."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np

from keras_mrpose.data import coco, mpii, mpii_release
from keras_mrpose.data.coco_records import PERSON, skeleton_of
from keras_mrpose.data.formats import matlab
from keras_mrpose.data.people import People
from keras_mrpose.doctor.findings import Notes
from keras_mrpose.doctor.noted import content_of, first, flagged, has_fields, numbers
from keras_mrpose.errors import InputError
from keras_mrpose.skeletons import COCO, LSP, MPII, Skeleton

FLAGS = (0, 1, 2)
COCO_PREFIX = "person_keypoints_"


class ImageRecord(NamedTuple):
    """A image of a split: its file, its record's name, and ``(width, height)`` as annotated, None if they are not."""

    path: str
    record: str
    size: tuple[int, int] | None = None


class PersonRecord(NamedTuple):
    """A readable record: its name, the row of its image, ``(joints, 3)``; x, y, w, h and area where annotated."""

    record: str
    image: int
    keypoints: np.ndarray
    box: np.ndarray | None = None
    area: float | None = None


@dataclass
class Split:
    """What could be read of one split.

    Attributes:
        name: that `data.load` knows it by.
        file: the annotation file.
        skeleton: the joints.
        images: all that are listed.
        people: records of people that are whole.
    """

    name: str
    file: str
    skeleton: Skeleton
    images: list[ImageRecord] = field(default_factory=list)
    people: list[PersonRecord] = field(default_factory=list)


def read(folder: Path, skeleton: Skeleton | None, notes: Notes) -> list[Split]:
    """All splits of a folder of any kind that `data.load` knows.

    Args:
        folder: the data set.
        skeleton: of a COCO-format folder; None takes the file's.
        notes: gets the mistakes.

    Raises:
        InputError: no such folder, or nothing in it that could be a data set.
    """
    if (folder / "joints.mat").exists():
        return _lsp(folder, notes)
    if files := sorted(folder.glob("annot/*.json")):
        return [_mpii(file, folder, notes) for file in files]
    if file := mpii_release.find(folder):
        return _mpii_release(file, folder, notes)
    if files := sorted(folder.glob(f"annotations/{COCO_PREFIX}*.json")):
        return [_coco(file, folder, skeleton, notes) for file in files]
    known = f"joints.mat, annot/*.json, {mpii_release.NAME} or annotations/{COCO_PREFIX}*.json"
    what = f"holds none of {known}" if folder.is_dir() else "is not there"
    raise InputError(f"The data folder {folder} {what}; give the folder that holds the data set.")


# --- COCO's format ------------------------------------------------------------------------------------------------


def _coco(file: Path, root: Path, skeleton: Skeleton | None, notes: Notes) -> Split:
    split = Split(file.stem.removeprefix(COCO_PREFIX), str(file), skeleton or COCO)
    content = content_of(file, dict, notes)
    for name in ("images", "annotations"):
        if content is not None and not isinstance(content.get(name), list):
            notes.add("annotations", file, "-", name, "no such list")
            content = None
    if content is None:
        return split
    categories = content.get("categories")
    try:
        split.skeleton = skeleton_of(categories if isinstance(categories, list) else (), str(file), skeleton)
    except InputError as error:
        notes.add("joint count", file, "categories", "keypoints", str(error).removeprefix(f"{file}"))
    rows = _coco_images(content["images"], split, root, notes)
    seen = set()
    for place, record in enumerate(content["annotations"]):
        name = f"annotation {record.get('id', place) if isinstance(record, dict) else place}"
        if not has_fields(record, {"id": int, "image_id": int, "category_id": int, "iscrowd": int}, file, name, notes):
            continue
        if record["id"] in seen:
            notes.add("duplicate id", file, name, "id", record["id"])
        seen.add(record["id"])
        if record["category_id"] == PERSON and not record["iscrowd"]:
            person = _coco_person(record, name, rows, split, notes)
            split.people += [] if person is None else [person]
    return split


def _coco_images(images: list, split: Split, root: Path, notes: Notes) -> dict[int, int]:
    """The row of each image by its id."""
    folder = coco.places(root, split.name, "person_keypoints")[1]
    rows = {}
    for place, image in enumerate(images):
        name = f"image {image.get('id', place) if isinstance(image, dict) else place}"
        if has_fields(image, {"id": int, "file_name": str, "width": int, "height": int}, split.file, name, notes):
            if image["id"] in rows:
                notes.add("duplicate id", split.file, name, "id", image["id"])
            rows[image["id"]] = len(split.images)
            split.images.append(ImageRecord(str(folder / image["file_name"]), name, (image["width"], image["height"])))
    return rows


def _coco_person(record: dict, name: str, rows: dict[int, int], split: Split, notes: Notes) -> PersonRecord | None:
    if record["image_id"] not in rows:
        notes.add("unknown image", split.file, name, "image_id", record["image_id"])
        return None
    joints = split.skeleton.num_joints
    shapes = (("keypoints", (joints * 3,)), ("bbox", (4,)), ("area", ()))
    values = [numbers(record, key, shape, split.file, name, notes) for key, shape in shapes]
    if any(value is None for value in values):
        return None
    keypoints, box, area = values
    keypoints = keypoints.reshape(joints, 3)
    if not flagged(keypoints[:, 2], FLAGS, split.file, name, "keypoints", notes):
        return None
    labelled = int((keypoints[:, 2] > 0).sum())
    if record.get("num_keypoints", labelled) != labelled:
        notes.add("joint number", split.file, name, "num_keypoints", f"{record['num_keypoints']}, labelled {labelled}")
    return PersonRecord(name, rows[record["image_id"]], keypoints, box, float(area))


# --- MPII ---------------------------------------------------------------------------------------------------------


def _mpii(file: Path, root: Path, notes: Notes) -> Split:
    split = Split({"valid": "val"}.get(file.stem, file.stem), str(file), MPII)
    rows = {}
    for place, record in enumerate(content_of(file, list, notes) or ()):
        name = f"record {place}"
        if not has_fields(record, {"image": str}, file, name, notes):
            continue
        shapes = {"center": (2,), "scale": (), "joints": (MPII.num_joints, 2), "joints_vis": (MPII.num_joints,)}
        values = [numbers(record, key, shape, file, name, notes) for key, shape in shapes.items()]
        if any(value is None for value in values):
            continue
        _, scale, joints, visible = values
        if not flagged(visible, (0, 1), file, name, "joints_vis", notes):
            continue
        if scale <= 0:
            notes.add("no scale" if scale == mpii.MISSING else "empty box", file, name, "scale", float(scale))
            continue
        if record["image"] not in rows:
            rows[record["image"]] = len(split.images)
            split.images.append(ImageRecord(str(root / "images" / record["image"]), name))
        split.people.append(PersonRecord(name, rows[record["image"]], np.column_stack([joints - 1, 2 * visible])))
    return split


def _mpii_release(file: Path, root: Path, notes: Notes) -> list[Split]:
    """What the loader makes of it: nested as this file is, its first mistake is all that can be told."""
    try:
        people = mpii_release.load(root, "train", require_images=False)
    except InputError as error:
        notes.add("annotations", file, "-", "-", str(error))
        return []
    return [_split_of(people, "train")]


def _split_of(people: People, name: str) -> Split:
    split = Split(name, people.source, people.skeleton)
    split.images = [
        ImageRecord(path, f"image {i}") for path, i in zip(people.image_paths, people.image_ids, strict=True)
    ]
    columns = zip(people.ids, people.image_index, people.keypoints, strict=True)
    split.people = [PersonRecord(f"record {number}", int(row), keypoints) for number, row, keypoints in columns]
    return split


# --- LSP ----------------------------------------------------------------------------------------------------------


def _lsp(folder: Path, notes: Notes) -> list[Split]:
    file = folder / "joints.mat"
    try:
        joints = np.asarray(matlab.read(file, "an LSP folder has joints.mat", "joints").get("joints"), np.float64)
    except InputError as error:
        notes.add("annotations", file, "-", "-", str(error))
        return []
    except (TypeError, ValueError):
        notes.add("annotations", file, "-", "joints", "no table of numbers")
        return []
    original = joints.shape[:2] == (3, LSP.num_joints)
    if joints.ndim != 3 or not (original or joints.shape[:2] == (LSP.num_joints, 3)):
        notes.add("joint count", file, "-", "joints", f"shape {joints.shape}")
        return []
    joints = joints.transpose(2, 1, 0) if original else joints.transpose(2, 0, 1)
    border = len(joints) // 2 if original else len(joints) * 4 // 5
    splits = [Split("train", str(file), LSP), Split("val", str(file), LSP)]
    for row, person in enumerate(joints):
        split, name = splits[row >= border], f"person {row + 1}"
        split.images.append(ImageRecord(str(folder / "images" / f"im{row + 1:0{4 if original else 5}d}.jpg"), name))
        if not np.isfinite(person).all():
            notes.add(
                "not finite", file, name, "joints", f"joint {LSP.joints[first(~np.isfinite(person).all(axis=1))]}"
            )
        elif flagged(person[:, 2], (0, 1), file, name, "joints", notes):
            flags = 2 - person[:, 2] if original else 2 * person[:, 2]
            keypoints = np.column_stack([person[:, :2] - 1, flags])
            split.people.append(PersonRecord(name, len(split.images) - 1, keypoints))
    return splits

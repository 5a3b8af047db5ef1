"""The splits of a data folder as its loaders read them, wrong records reported and left out instead of refused."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np

from keras_mrpose.data import coco_records, json_stream, layout, lsp, mpii
from keras_mrpose.doctor.findings import IssueCollector
from keras_mrpose.errors import InputError
from keras_mrpose.skeletons import COCO, LSP, MPII, Skeleton


class ImageRecord(NamedTuple):
    """An image of a split: its file, its record's name, and ``(width, height)`` as annotated, None if they are not."""

    path: str
    record: str
    size: tuple[int, int] | None = None


class PersonRecord(NamedTuple):
    """A readable record: name, row of its image, ``(joints, 3)``; x, y, w, h where annotated; whether it counts."""

    record: str
    image: int
    keypoints: np.ndarray
    box: np.ndarray | None = None
    kept: bool = True


@dataclass
class Split:
    """What could be read of one split.

    Attributes:
        name: that `data.load` knows it by.
        file: the annotation file.
        skeleton: the joints.
        images: all that are listed.
        people: records of people that are whole.
        left_out: why others, or some of them, are not trained and measured -> how many.
    """

    name: str
    file: str
    skeleton: Skeleton
    images: list[ImageRecord] = field(default_factory=list)
    people: list[PersonRecord] = field(default_factory=list)
    left_out: Counter = field(default_factory=Counter)


def read_splits(folder: Path, skeleton: Skeleton | None, issues: IssueCollector) -> list[Split]:
    """All splits of a folder of any kind that `data.load` knows.

    Args:
        folder: the data set.
        skeleton: of a COCO-format folder; None takes the file's.
        issues: gets what is wrong with records.

    Raises:
        InputError: no such folder, or nothing in it that could be a data set.
    """
    if (folder / "joints.mat").exists():
        return _lsp(folder, issues)
    if files := sorted(folder.glob("annot/*.json")):
        return [_mpii(file, folder, issues) for file in files]
    if file := mpii.find_release(folder):
        return _mpii_release(file, folder, issues)
    if files := layout.annotation_files(folder):
        return [_coco(name, file, folder, skeleton, issues) for name, file in sorted(files.items())]
    known = f"joints.mat, annot/*.json, {mpii.RELEASE_FILE} or annotations/{layout.PREFIX}*.json"
    what = f"holds none of {known}" if folder.is_dir() else "is not there"
    raise InputError(f"The data folder {folder} {what}; give the folder that holds the data set.")


def _coco(name: str, file: Path, root: Path, skeleton: Skeleton | None, issues: IssueCollector) -> Split:
    split = Split(name, str(file), skeleton or COCO)
    fields = json_stream.iter_fields(file, "it was there a moment ago")
    try:
        found = coco_records.read_records(fields, str(file), skeleton, report=issues.report)
    except InputError as error:  # the file as a whole
        issues.add("annotations", file, "-", "-", str(error).removeprefix(f"{file} "))
        return split
    split.skeleton, split.left_out, images = found.skeleton, Counter(found.left_out), found.images
    for number, count in Counter(images.ids).items():
        for _ in range(count - 1):
            issues.add("duplicate id", file, f"image {number}", "id", number)
    for number, count in Counter(found.all_ids).items():
        for _ in range(count if number <= 0 else count - 1):
            issues.add("record id", file, f"annotation {number}", "id", number)
    for kind, what, value in found.suspicions:
        issues.add(kind, file, "-", what, value)
    columns = zip(images.paths(layout.image_folders(root, name, file)), images.ids, images.sizes, strict=True)
    split.images = [ImageRecord(path, f"image {number}", size) for path, number, size in columns]
    columns = zip(found.ids, found.rows, found.keypoints, found.boxes, found.kept, strict=True)
    for number, row, points, box, kept in columns:
        record = f"annotation {number}"
        if _known_flags(points[:, 2], (0, 1, 2), split, record, "keypoints", issues):
            split.people.append(PersonRecord(record, int(row), points, box, bool(kept)))
    return split


def _mpii(file: Path, root: Path, issues: IssueCollector) -> Split:
    split = Split({"valid": "val"}.get(file.stem, file.stem), str(file), MPII)
    try:
        content = mpii.read_file(file)
    except InputError as error:
        issues.add("annotations", file, "-", "-", str(error).removeprefix(f"{file} "))
        return split
    rows = {}
    for record in mpii.read_records(content, str(file), issues.report):
        name = f"record {record.place}"
        if record.scale == mpii.MISSING:
            issues.add("no scale", file, name, "scale", record.scale)
            split.left_out[mpii.NO_SCALE] += 1
            continue
        if record.image not in rows:
            rows[record.image] = len(split.images)
            split.images.append(ImageRecord(str(root / "images" / record.image), name))
        split.people.append(PersonRecord(name, rows[record.image], record.keypoints))
    return split


def _mpii_release(file: Path, root: Path, issues: IssueCollector) -> list[Split]:
    """What the loader makes of it: nested as this file is, only its first mistake can be reported."""
    try:
        people = mpii.load_release(root, "train", require_images=False)
    except InputError as error:
        issues.add("annotations", file, "-", "-", str(error))
        return []
    split = Split("train", people.source, people.skeleton, left_out=Counter(people.left_out))
    split.images = [
        ImageRecord(path, f"image {i}") for path, i in zip(people.image_paths, people.image_ids, strict=True)
    ]
    columns = zip(people.ids, people.image_index, people.keypoints, strict=True)
    split.people = [PersonRecord(f"record {number}", int(row), keypoints) for number, row, keypoints in columns]
    return [split]


def _lsp(folder: Path, issues: IssueCollector) -> list[Split]:
    file = folder / "joints.mat"
    try:
        joints, original = lsp.read_joints(file, issues.report)
    except InputError as error:
        issues.add("annotations", file, "-", "-", str(error))
        return []
    keypoints = lsp.keypoints_of(joints, original)
    splits = []
    for split_name in lsp.SPLITS if len(joints) else ():
        split = Split(split_name, str(file), LSP)
        for row in lsp.split_rows(len(joints), original, split_name):
            name = f"person {row + 1}"
            split.images.append(ImageRecord(lsp.image_path(folder, row + 1, original), name))
            finite = np.isfinite(joints[row]).all(axis=1)
            if not finite.all():
                issues.add("not finite", file, name, "joints", f"joint {LSP.joints[np.argmin(finite)]}")
            elif _known_flags(joints[row, :, 2], (0, 1), split, name, "joints", issues):
                seen = bool((keypoints[row, :, 2] > 0).any())
                split.people.append(PersonRecord(name, len(split.images) - 1, keypoints[row], kept=seen))
                split.left_out[lsp.NO_LABEL] += not seen
        splits.append(split)
    return splits


def _known_flags(
    flags: np.ndarray, known: tuple[int, ...], split: Split, name: str, field: str, issues: IssueCollector
) -> bool:
    """Whether all joint flags of a person are known; an unknown one is reported."""
    wrong = ~np.isin(flags, known)
    if wrong.any():
        joint = int(np.argmax(wrong))
        issues.add("joint flag", split.file, name, field, f"flag {flags[joint]:g} of joint {joint}")
    return not wrong.any()

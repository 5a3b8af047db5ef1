"""COCO keypoints: ``annotations/person_keypoints_*.json`` beside the image folders, and boxes of a person detector."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np

from keras_mrpose.data.coco_records import (
    PERSON,
    Annotations,
    Images,
    annotation_name,
    read_floats,
    require_fields,
    skeleton_of,
)
from keras_mrpose.data.formats import json_fields
from keras_mrpose.data.people import People
from keras_mrpose.errors import InputError
from keras_mrpose.skeletons import COCO, Skeleton

SPLITS = {"train": "train2017", "val": "val2017"}


def load(
    root: str | Path,
    split: str = "val",
    require_images: bool = True,
    skeleton: Skeleton | None = None,
    strict: bool = True,
) -> People:
    """People with keypoint annotations of a COCO folder (`parse` says which).

    The file is read piece by piece: next to the table itself, this needs little memory.

    Args:
        root: holds ``annotations/person_keypoints_SPLIT.json`` and the images in ``SPLIT/`` or ``images/SPLIT/``.
        split: ``"train"``, ``"val"`` (of 2017), or the split's full name.
        require_images: False does without the image files, where the annotations alone are needed.
        skeleton: of the people, see `coco_records.skeleton_of`, like strict; None takes the file's.
        strict: a file that names other joints is an error.

    Raises:
        InputError: a missing or unreadable file, or an annotation with a wrong field, each named.
    """
    file, folder = places(Path(root), SPLITS.get(split, split), "person_keypoints")
    people = parse(json_fields.fields(file, _advice(file)), str(file), folder, skeleton, strict)
    return people.require_images() if require_images else people


def load_detections(
    boxes_file: str | Path,
    root: str | Path,
    split: str = "val",
    score_threshold: float = 0.0,
    require_images: bool = True,
    skeleton: Skeleton | None = None,
    strict: bool = True,
) -> People:
    """People that a detector found in the images of a COCO folder (`parse_detections` says which).

    Args:
        boxes_file: the detector's boxes in the COCO results format, such as
            ``COCO_val2017_detections_AP_H_56_person.json``.
        root: holds the images, as in `load`, and ``annotations/person_keypoints_SPLIT.json``, which lists them; for
            ``"test2017"`` and ``"test-dev2017"``, which have no annotations, ``annotations/image_info_SPLIT.json`` and
            ``test2017/``.
        split: as in `load`.
        score_threshold: boxes of a lower score are left out.
        require_images: as in `load`, like skeleton.

    Raises:
        InputError: a missing or unreadable file, or a record with a wrong field, each named.
    """
    split = SPLITS.get(split, split)
    file, folder = places(Path(root), split, "image_info" if split.startswith("test") else "person_keypoints")
    images = _read(file, lists=("images",))
    skeleton = skeleton_of(images.get("categories"), str(file), skeleton, strict)
    boxes = json_fields.whole(Path(boxes_file), "give the file of a person detector's boxes")
    people = parse_detections(boxes, str(boxes_file), images["images"], str(file), folder, score_threshold, skeleton)
    return people.require_images() if require_images else people


def parse(
    content: dict | Iterable[tuple[str, object]],
    source: str,
    folder: str | Path,
    skeleton: Skeleton | None = None,
    strict: bool = True,
) -> People:
    """People of a COCO annotation file, selected and cleaned as the published loader does; looks at no image.

    Crowds and people without a keypoint are left out. A box is cut at the image's border and measured from pixel
    centre to pixel centre (one less than annotated); one that has no size left cannot be cropped and is left out
    (where one side only is zero, the other still sets the crop). A joint's ``v`` stays 0, 1 or 2.

    Args:
        content: of the file, with lists ``images`` and ``annotations``; or its fields as `json_fields.fields` has them.
        source: the file's name, for messages.
        folder: where the images are.
        skeleton: as in `load`, like strict.
        strict: as in `load`.

    Returns:
        The people in the order of the images, and inside an image in the order of the annotations.

    Raises:
        InputError: a field that is missing or wrong; names the file, the annotation and the field.
    """
    images, annotations, categories = None, None, None
    for label, value in content.items() if isinstance(content, dict) else content:
        if label in ("images", "annotations") and not isinstance(value, list | Iterator):
            raise _no_list(source, label)
        if label == "images":
            images = Images(value, source)
        elif label == "annotations":
            annotations = Annotations()
            for place, annotation in enumerate(value):
                annotations.add(annotation, place, source)
        elif label == "categories":
            categories = list(value) if isinstance(value, list | Iterator) else None
    for label, found in (("images", images), ("annotations", annotations)):
        if found is None:
            raise _no_list(source, label)
    return _table(images, annotations, skeleton_of(categories, source, skeleton, strict), source, folder)


def _table(images: Images, annotations: Annotations, skeleton: Skeleton, source: str, folder: str | Path) -> People:
    """The people to keep, cleaned and in order."""
    rows = [
        images.row(image_id, f"{source}: annotation {number}", "the file's images")
        for number, image_id in zip(annotations.ids, annotations.image_ids, strict=True)
    ]
    annotations.require_joints(skeleton.num_joints)
    counts = np.array(annotations.counts, bool)
    rows, ids = np.array(rows, np.int64)[counts], np.array(annotations.ids, np.int64)[counts]
    boxes, has_size = _clean(np.reshape(annotations.boxes, (-1, 4)), np.reshape(images.sizes, (-1, 2))[rows])
    kept = np.argsort(rows, kind="stable")
    kept = kept[has_size[kept]]
    areas = np.array(annotations.areas)[kept]
    return People(
        source=source,
        skeleton=skeleton,
        image_paths=images.paths(folder),
        image_ids=images.ids,
        image_index=rows[kept],
        ids=ids[kept],
        boxes=boxes[kept],
        keypoints=np.reshape(annotations.keypoints, (-1, skeleton.num_joints, 3))[kept],
        reference_length=np.sqrt(areas),
        areas=areas,
        protocol="ap",
    )


def parse_detections(
    content: list,
    source: str,
    images: list[dict],
    images_source: str,
    folder: str | Path,
    score_threshold: float = 0.0,
    skeleton: Skeleton = COCO,
) -> People:
    """People of a detector's boxes, selected as the published loader does; looks at no image.

    Other categories and scores below the threshold are left out. A box stays as it was found, also outside the image.

    Args:
        content: of the boxes' file, a list of records with image_id, category_id, bbox and score.
        source: its name, for messages.
        images: list ``images`` of a COCO annotation file.
        images_source: that file's name, for messages.
        folder: where the images are.
        score_threshold: a box of exactly this score is kept.
        skeleton: of the people.

    Returns:
        The people in the order of the boxes, their number in the file (from 0) as ids, their box's area as areas. No
        joint is labelled; nothing can be measured with the reference_length, which is 1.

    Raises:
        InputError: a field that is missing or wrong; names the file, the record and the field.
    """
    if not isinstance(content, list):
        raise InputError(f"{source} holds no list; give a person detector's boxes in the COCO results format.")
    listed = Images(images, images_source)
    kept = []
    for place, record in enumerate(content):
        name = f"{source}: record {place}"
        require_fields(record, {"image_id": int, "category_id": int}, name)
        (score,) = read_floats(record, "score", 1, name)
        if record["category_id"] == PERSON and score >= score_threshold:
            box = read_floats(record, "bbox", 4, name)
            row = listed.row(record["image_id"], name, f"the images of {images_source}")
            kept.append((row, place, box, score))
    rows, ids, boxes, scores = zip(*kept, strict=True) if kept else ((),) * 4
    return People(
        source=source,
        skeleton=skeleton,
        image_paths=listed.paths(folder),
        image_ids=listed.ids,
        image_index=rows,
        ids=ids,
        boxes=boxes,
        keypoints=np.zeros((len(ids), skeleton.num_joints, 3)),
        reference_length=np.ones(len(ids)),
        areas=[w * h for _, _, w, h in boxes],
        scores=scores,
        protocol="ap",
    )


def ground_truth(file: str | Path, skeleton: Skeleton | None = None, hidden: Sequence[int] = ()) -> dict:
    """The annotations of people in a file, all of them and as they are, for pycocotools.

    Args:
        file: as in `annotation_file`.
        skeleton: of the people, see `coco_records.skeleton_of`; None takes the file's.
        hidden: joints that are taken for unlabelled, since the network that is evaluated does not have them.

    Returns:
        ``images``, ``annotations`` (crowds and people without a keypoint too) and ``categories`` of a COCO data set.

    Raises:
        InputError: what pycocotools would stumble over or get wrong without a word, named with file and annotation.
    """
    content = _read(Path(file))
    joints = skeleton_of(content.get("categories"), str(file), skeleton).num_joints
    images = Images(content["images"], str(file))
    people = {}
    for place, annotation in enumerate(content["annotations"]):
        name = annotation_name(annotation, place, str(file))
        require_fields(annotation, {"id": int, "image_id": int, "category_id": int}, name)
        if annotation["category_id"] != PERSON:
            continue
        require_fields(annotation, {"iscrowd": int, "num_keypoints": int}, name)
        images.row(annotation["image_id"], name, "the file's images")
        for field, count in (("keypoints", joints * 3), ("bbox", 4), ("area", 1)):
            read_floats(annotation, field, count, name)
        if annotation["id"] <= 0 or annotation["id"] in people:  # pycocotools takes 0 for "matched with nobody"
            raise InputError(f"{name} has an id that is not positive or not its own; give each annotation another.")
        people[annotation["id"]] = _without(dict(annotation), hidden)
    return {
        "images": content["images"],
        "annotations": list(people.values()),
        "categories": [{"id": PERSON, "name": "person"}],
    }


def _without(annotation: dict, hidden: Sequence[int]) -> dict:
    """The annotation without the labels of some joints."""
    if not len(hidden):
        return annotation
    keypoints = np.reshape(annotation["keypoints"], (-1, 3))
    keypoints[hidden] = 0
    counted = int((keypoints[:, 2] > 0).sum())
    return {**annotation, "keypoints": keypoints.ravel().tolist(), "num_keypoints": counted}


def skeleton_in(file: str | Path, skeleton: Skeleton | None = None) -> Skeleton:
    """The joints of a file, see `coco_records.skeleton_of`."""
    return skeleton_of(_read(Path(file)).get("categories"), str(file), skeleton)


def annotation_file(root: str | Path, split: str = "val") -> Path:
    """Where the annotations of a split are in a COCO folder."""
    return places(Path(root), SPLITS.get(split, split), "person_keypoints")[0]


def places(root: Path, split: str, prefix: str) -> tuple[Path, Path]:
    """The annotation file of a split, and the folder of its images."""
    images = split.replace("test-dev", "test")  # a part of the test images
    folder = next((f for f in (root / images, root / "images" / images) if f.is_dir()), root / images)
    return root / "annotations" / f"{prefix}_{split}.json", folder


def _clean(boxes: np.ndarray, sizes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The parts of boxes inside their images, as the published loader measures them; and which have a size left."""
    corner = np.maximum(boxes[:, :2], 0)
    end = np.minimum(sizes - 1.0, corner + np.maximum(boxes[:, 2:] - 1, 0))
    sides = end - corner
    return np.concatenate([corner, sides], axis=1), (sides >= 0).all(axis=1) & (sides.sum(axis=1) > 0)


def _read(file: Path, lists: tuple[str, ...] = ("images", "annotations")) -> dict:
    """An annotation file that has these lists."""
    content = json_fields.whole(file, _advice(file))
    for label in lists:
        if not isinstance(content, dict) or not isinstance(content.get(label), list):
            raise _no_list(file, label)
    return content


def _advice(file: Path) -> str:
    return f"a COCO folder has annotations/{file.name} and its images beside that folder"


def _no_list(source: str | Path, label: str) -> InputError:
    return InputError(f"{source} has no list {label!r}; give a COCO keypoint annotation file.")

"""COCO keypoints and everything in their format: annotation files (`layout` finds them), and boxes of a detector.

`coco_records` reads the records.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from keras_mrpose.data import json_stream, layout
from keras_mrpose.data.coco_records import (
    CATEGORY,
    PERSON,
    ImageColumns,
    no_list,
    person_category,
    read_floats,
    read_records,
    require_fields,
    skeleton_of,
)
from keras_mrpose.data.issues import float_array
from keras_mrpose.data.people import People
from keras_mrpose.errors import InputError
from keras_mrpose.skeletons import COCO, Skeleton


def load(
    root: str | Path,
    split: str = "val",
    require_images: bool = True,
    skeleton: Skeleton | None = None,
    strict: bool = True,
) -> People:
    """People with keypoint annotations of a folder in COCO's format (`parse` says which).

    The file is read piece by piece: next to the table itself, this needs little memory.

    Args:
        root: holds ``annotations/person_keypoints_SPLIT.json`` and the images in ``SPLIT/`` or ``images/SPLIT/``, or
            what annotation tools write (`layout`).
        split: ``"train"``, ``"val"`` (of 2017 or without a year), or the split's full name.
        require_images: False does without the image files, where the annotations alone are needed.
        skeleton: of the people, see `skeleton_of`, like strict; None takes the file's.
        strict: a file that names other joints is an error.

    Raises:
        InputError: a missing or unreadable file, or an annotation with a wrong field, each named.
    """
    name, file = layout.split_file(root, split)
    fields = json_stream.iter_fields(file, "" if file.exists() else layout.missing_split(root, file))
    people = parse(fields, str(file), layout.image_folders(root, name, file), skeleton, strict)
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
    name, file = layout.split_file(root, split)
    listed = Path(root, "annotations", f"image_info_{split}.json")
    if split.startswith("test") and (listed.exists() or not file.exists()):
        file = listed
    images = _read(file, lists=("images",))
    skeleton = skeleton_of(images.get("categories"), str(file), skeleton, strict)
    folders = layout.image_folders(root, name, file)
    boxes = json_stream.read(Path(boxes_file), "give the file of a person detector's boxes")
    people = parse_detections(boxes, str(boxes_file), images["images"], str(file), folders, score_threshold, skeleton)
    return people.require_images() if require_images else people


def parse(
    content: dict | Iterable[tuple[str, object]],
    source: str,
    folder: str | Path | Sequence[Path],
    skeleton: Skeleton | None = None,
    strict: bool = True,
) -> People:
    """People of a COCO annotation file, selected and cleaned as the published loader does; reads no image.

    Records of other categories (`person_category`), crowds and people without a labelled joint are left out. A box is
    cut at the image's border and measured from pixel centre to pixel centre (one less than annotated); one that has no
    size left cannot be cropped and is left out (where one side only is zero, the other still sets the crop). A joint's
    ``v`` stays 0, 1 or 2.

    The published loader also leaves out people whose area is 0, as annotation tools write it. Here they, and those
    without an area, get the area of their box, for AP too. COCO has no such people.

    Args:
        content: of the file, with lists ``images`` and ``annotations``; or its fields, see `json_stream.iter_fields`.
        source: the file's name, for messages.
        folder: where the images are; of several the first that has them (`layout.image_paths`).
        skeleton: as in `load`, like strict.
        strict: as in `load`.

    Returns:
        The people in the order of the images, and inside an image in the order of the annotations. `left_out` counts
        all other records, `remarks` says what is odd about the file.

    Raises:
        InputError: a field that is missing or wrong; names the file, the annotation and the field.
    """
    records = read_records(content, source, skeleton, strict)
    kept = np.argsort(records.rows, kind="stable")
    kept = kept[records.kept[kept]]
    areas = records.areas[kept]
    return People(
        source=source,
        skeleton=records.skeleton,
        image_paths=records.images.paths(folder),
        image_ids=records.images.ids,
        image_sizes=records.images.sizes,
        image_index=records.rows[kept],
        ids=records.ids[kept],
        boxes=records.clean_boxes[kept],
        keypoints=records.keypoints[kept],
        reference_length=np.sqrt(areas),
        areas=areas,
        protocol="ap",
        left_out=records.left_out,
        remarks=records.remarks,
    )


def parse_detections(
    content: list,
    source: str,
    images: list[dict],
    images_source: str,
    folder: str | Path | Sequence[Path],
    score_threshold: float = 0.0,
    skeleton: Skeleton = COCO,
) -> People:
    """People of a detector's boxes, selected as the published loader does; reads no image.

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
    listed = ImageColumns(images, images_source)
    kept, left_out = [], Counter()
    for place, record in enumerate(content):
        name = f"record {place}"
        require_fields(record, {"image_id": int, "category_id": int}, source, name)
        (score,) = read_floats(record, "score", 1, source, name)
        if record["category_id"] != PERSON:
            left_out[CATEGORY] += 1
        elif score < score_threshold:
            left_out[f"score below {score_threshold:g}"] += 1
        else:
            box = read_floats(record, "bbox", 4, source, name)
            row = listed.row(record["image_id"], source, name, f"the images of {images_source}")
            kept.append((row, place, box, score))
    rows, ids, boxes, scores = zip(*kept, strict=True) if kept else ((),) * 4
    return People(
        source=source,
        skeleton=skeleton,
        image_paths=listed.paths(folder),
        image_ids=listed.ids,
        image_sizes=listed.sizes,
        image_index=rows,
        ids=ids,
        boxes=boxes,
        keypoints=np.zeros((len(ids), skeleton.num_joints, 3)),
        reference_length=np.ones(len(ids)),
        areas=[w * h for _, _, w, h in boxes],
        scores=scores,
        protocol="ap",
        left_out=dict(left_out),
    )


def ground_truth(file: str | Path, skeleton: Skeleton | None = None, hidden: Sequence[int] = ()) -> dict:
    """All annotations of people in a file, for pycocotools; those that `load` leaves out are ignored there.

    The records of COCO itself stay as they are. Of others ``num_keypoints`` is counted, an area that is missing or not
    positive is the box's (`parse`), and all are numbered anew where an id is not positive, which pycocotools takes for
    "matched with nobody", or not unique.

    Args:
        file: as in `annotation_file`.
        skeleton: of the people, see `skeleton_of`; None takes the file's.
        hidden: joints to treat as unlabelled, since the evaluated network does not have them.

    Returns:
        ``images``, ``annotations`` (crowds and people without a keypoint too) and ``categories`` of a COCO data set.

    Raises:
        InputError: what `parse` refuses, named with file and annotation.
    """
    content = _read(Path(file))
    records = read_records(content, str(file), skeleton)
    row_of = {place: row for row, place in enumerate(records.places.tolist()) if records.kept[row]}
    people = []
    for place, annotation in enumerate(content["annotations"]):
        if annotation["category_id"] == records.category:
            person = {**annotation, "category_id": PERSON, "iscrowd": int(bool(annotation.get("iscrowd")))}
            if place in row_of:
                row = row_of[place]
                keypoints = records.keypoints[row]
                if len(hidden):
                    keypoints = keypoints.copy()
                    keypoints[hidden] = 0
                person |= {"keypoints": keypoints.ravel().tolist(), "bbox": records.boxes[row].tolist()}
                person |= {"num_keypoints": int((keypoints[:, 2] > 0).sum()), "area": float(records.areas[row])}
            else:
                person = _ignored(person, records.skeleton.num_joints)
            people.append(person)
    ids = [person["id"] for person in people]
    if ids and (min(ids) <= 0 or len(set(ids)) < len(ids)):
        people = [{**person, "id": number} for number, person in enumerate(people, 1)]
    return {
        "images": content["images"],
        "annotations": people,
        "categories": [{"id": PERSON, "name": "person"}],
    }


def annotated_boxes(file: str | Path) -> dict[int, tuple[np.ndarray, np.ndarray]]:
    """Size ``(2,)`` width, height and boxes ``(n, 4)`` of everybody, crowds too, of each image of a file, by its id."""
    content = _read(Path(file))
    person, boxes = person_category(content.get("categories"), str(file)), {}
    for annotation in content["annotations"]:
        if annotation.get("category_id") == person and (box := float_array(annotation.get("bbox"))[0]) is not None:
            boxes.setdefault(annotation.get("image_id"), []).append(box)
    images = ImageColumns(content["images"], str(file))
    sizes = zip(images.ids, np.array(images.sizes, np.float64), strict=True)
    return {number: (size, np.reshape(boxes.get(number, ()), (-1, 4))) for number, size in sizes}


def _ignored(person: dict, joints: int) -> dict:
    """A record that pycocotools ignores, with all that it reads: 0 where there is no number."""
    values = {label: float_array(person.get(label))[0] for label in ("keypoints", "bbox", "area")}
    for label, count in (("keypoints", 3 * joints), ("bbox", 4), ("area", 1)):
        if values[label] is None or values[label].size != count:
            person[label] = 0.0 if count == 1 else [0.0] * count
    return person if person["iscrowd"] and "num_keypoints" in person else {**person, "num_keypoints": 0}


def skeleton_in(file: str | Path, skeleton: Skeleton | None = None) -> Skeleton:
    """The skeleton of an annotation file, see `skeleton_of`."""
    return skeleton_of(_read(Path(file)).get("categories"), str(file), skeleton)


def annotation_file(root: str | Path, split: str = "val") -> Path:
    """The annotation file of a split in a COCO folder."""
    return layout.split_file(root, split)[1]


def _read(file: Path, lists: tuple[str, ...] = ("images", "annotations")) -> dict:
    """An annotation file that has these lists."""
    content = json_stream.read(file, f"a COCO folder has annotations/{file.name} and its images beside that folder")
    for label in lists:
        if not isinstance(content, dict) or not isinstance(content.get(label), list):
            raise no_list(file, label)
    return content

"""COCO keypoints: ``annotations/person_keypoints_*.json`` beside the image folders, and boxes of a person detector."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from keras_mrpose.data.people import People
from keras_mrpose.errors import InputError
from keras_mrpose.skeletons import COCO

PERSON = 1
SPLITS = {"train": "train2017", "val": "val2017"}


def load(root: str | Path, split: str = "val", require_images: bool = True) -> People:
    """People with keypoint annotations of a COCO folder (`parse` says which).

    Args:
        root: holds ``annotations/person_keypoints_SPLIT.json`` and the images in ``SPLIT/`` or ``images/SPLIT/``.
        split: ``"train"``, ``"val"`` (of 2017), or the split's full name.
        require_images: False does without the image files, where the annotations alone are needed.

    Raises:
        InputError: a missing or unreadable file, or an annotation with a wrong field, each named.
    """
    file, folder = _places(Path(root), SPLITS.get(split, split), "person_keypoints")
    people = parse(_read(file), str(file), folder)
    return people.require_images() if require_images else people


def load_detections(
    boxes_file: str | Path,
    root: str | Path,
    split: str = "val",
    score_threshold: float = 0.0,
    require_images: bool = True,
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
        require_images: as in `load`.

    Raises:
        InputError: a missing or unreadable file, or a record with a wrong field, each named.
    """
    split = SPLITS.get(split, split)
    file, folder = _places(Path(root), split, "image_info" if split.startswith("test") else "person_keypoints")
    images = _read(file, lists=("images",))["images"]
    boxes = read_json(Path(boxes_file), "give the file of a person detector's boxes")
    people = parse_detections(boxes, str(boxes_file), images, str(file), folder, score_threshold)
    return people.require_images() if require_images else people


def parse(content: dict, source: str, folder: str | Path) -> People:
    """People of a COCO annotation file, selected and cleaned as the published loader does; looks at no image.

    Crowds and people without a keypoint are left out. A box is cut at the image's border and measured from pixel
    centre to pixel centre (one less than annotated); one that has no size left cannot be cropped and is left out
    (where one side only is zero, the other still sets the crop). A joint's ``v`` stays 0, 1 or 2.

    Args:
        content: of the file, with lists ``images`` and ``annotations``.
        source: the file's name, for messages.
        folder: where the images are.

    Returns:
        The people in the order of the images, and inside an image in the order of the annotations.

    Raises:
        InputError: a field that is missing or wrong; names the file, the annotation and the field.
    """
    images = content["images"]
    row_of = _image_rows(images, source)
    kept = []
    for place, annotation in enumerate(content["annotations"]):
        name = f"{source}: annotation {annotation.get('id', place) if isinstance(annotation, dict) else place}"
        _require_fields(annotation, {"id": int, "image_id": int, "category_id": int, "iscrowd": int}, name)
        if annotation["category_id"] != PERSON or annotation["iscrowd"]:
            continue
        row = _row(annotation, row_of, name, "the file's images")
        keypoints = _numbers(annotation, "keypoints", COCO.num_joints * 3, name)
        box = _clean(_numbers(annotation, "bbox", 4, name), images[row])
        (area,) = _numbers(annotation, "area", 1, name)
        if area > 0 and box is not None and keypoints.max() > 0:
            kept.append((row, annotation["id"], box, keypoints.reshape(-1, 3), area))
    kept.sort(key=lambda record: record[0])
    rows, ids, boxes, keypoints, areas = zip(*kept, strict=True) if kept else ((),) * 5
    return People(
        source=source,
        skeleton=COCO,
        image_paths=[str(Path(folder, image["file_name"])) for image in images],
        image_ids=[image["id"] for image in images],
        image_index=rows,
        ids=ids,
        boxes=boxes,
        keypoints=keypoints,
        normalizer=np.sqrt(areas),
        areas=areas,
    )


def parse_detections(
    content: list,
    source: str,
    images: list[dict],
    images_source: str,
    folder: str | Path,
    score_threshold: float = 0.0,
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

    Returns:
        The people in the order of the boxes, their number in the file (from 0) as ids, their box's area as areas. No
        joint is labelled; nothing can be measured with the normalizer, which is 1.

    Raises:
        InputError: a field that is missing or wrong; names the file, the record and the field.
    """
    if not isinstance(content, list):
        raise InputError(f"{source} holds no list; give a person detector's boxes in the COCO results format.")
    row_of = _image_rows(images, images_source)
    kept = []
    for place, record in enumerate(content):
        name = f"{source}: record {place}"
        _require_fields(record, {"image_id": int, "category_id": int}, name)
        (score,) = _numbers(record, "score", 1, name)
        if record["category_id"] == PERSON and score >= score_threshold:
            box = _numbers(record, "bbox", 4, name)
            kept.append((_row(record, row_of, name, f"the images of {images_source}"), place, box, score))
    rows, ids, boxes, scores = zip(*kept, strict=True) if kept else ((),) * 4
    return People(
        source=source,
        skeleton=COCO,
        image_paths=[str(Path(folder, image["file_name"])) for image in images],
        image_ids=[image["id"] for image in images],
        image_index=rows,
        ids=ids,
        boxes=boxes,
        keypoints=np.zeros((len(ids), COCO.num_joints, 3)),
        normalizer=np.ones(len(ids)),
        areas=[w * h for _, _, w, h in boxes],
        scores=scores,
    )


def ground_truth(file: str | Path) -> dict:
    """The annotations of people in a file, all of them and as they are, for pycocotools.

    Returns:
        ``images``, ``annotations`` (crowds and people without a keypoint too) and ``categories`` of a COCO data set.

    Raises:
        InputError: what pycocotools would stumble over or get wrong without a word, named with file and annotation.
    """
    content = _read(Path(file))
    row_of = _image_rows(content["images"], str(file))
    people = {}
    for place, annotation in enumerate(content["annotations"]):
        name = f"{file}: annotation {annotation.get('id', place) if isinstance(annotation, dict) else place}"
        _require_fields(annotation, {"id": int, "image_id": int, "category_id": int}, name)
        if annotation["category_id"] != PERSON:
            continue
        _require_fields(annotation, {"iscrowd": int, "num_keypoints": int}, name)
        _row(annotation, row_of, name, "the file's images")
        for field, count in (("keypoints", COCO.num_joints * 3), ("bbox", 4), ("area", 1)):
            _numbers(annotation, field, count, name)
        if annotation["id"] <= 0 or annotation["id"] in people:  # pycocotools takes 0 for "matched with nobody"
            raise InputError(f"{name} has an id that is not positive or not its own; give each annotation another.")
        people[annotation["id"]] = dict(annotation)
    return {
        "images": content["images"],
        "annotations": list(people.values()),
        "categories": [{"id": PERSON, "name": "person"}],
    }


def annotation_file(root: str | Path, split: str = "val") -> Path:
    """Where the annotations of a split are in a COCO folder."""
    return _places(Path(root), SPLITS.get(split, split), "person_keypoints")[0]


def _places(root: Path, split: str, prefix: str) -> tuple[Path, Path]:
    """The annotation file of a split, and the folder of its images."""
    images = split.replace("test-dev", "test")  # a part of the test images
    folder = next((f for f in (root / images, root / "images" / images) if f.is_dir()), root / images)
    return root / "annotations" / f"{prefix}_{split}.json", folder


def _image_rows(images: list, source: str) -> dict[int, int]:
    """The row of each image by its id."""
    for place, image in enumerate(images):
        _require_fields(image, {"id": int, "file_name": str, "width": int, "height": int}, f"{source}: image {place}")
    return {image["id"]: row for row, image in enumerate(images)}


def _row(record: dict, row_of: dict[int, int], name: str, where: str) -> int:
    if record["image_id"] not in row_of:
        raise InputError(f"{name} has image_id {record['image_id']}, which is not among {where}.")
    return row_of[record["image_id"]]


def _require_fields(record, fields: dict[str, type], name: str) -> None:
    for field, kind in fields.items():
        value = record.get(field) if isinstance(record, dict) else None
        if not isinstance(value, kind):
            raise InputError(f"{name} has {field} {value!r}, expected {kind.__name__}; see the COCO data format.")


def _numbers(annotation: dict, field: str, count: int, name: str) -> np.ndarray:
    """A field of so many finite numbers, flat."""
    try:
        values = np.asarray(annotation.get(field), np.float64).ravel()
    except (TypeError, ValueError):
        values = np.array(())
    if values.size != count or not np.isfinite(values).all():
        wanted = "17 joints of x, y, v: 51 finite numbers" if field == "keypoints" else f"{count} finite number(s)"
        raise InputError(f"{name} has {field} {annotation.get(field)!r:.80}, expected {wanted}.")
    return values


def _clean(box: np.ndarray, image: dict) -> list[float] | None:
    """The part of a box inside the image, as the published loader measures it; None if no size is left."""
    x, y, w, h = box.tolist()
    left, top = max(0.0, x), max(0.0, y)
    right = min(image["width"] - 1.0, left + max(0.0, w - 1))
    bottom = min(image["height"] - 1.0, top + max(0.0, h - 1))
    if right < left or bottom < top or right - left + bottom - top == 0:
        return None
    return [left, top, right - left, bottom - top]


def _read(file: Path, lists: tuple[str, ...] = ("images", "annotations")) -> dict:
    """An annotation file that has these lists."""
    content = read_json(file, f"a COCO folder has annotations/{file.name} and its images beside that folder")
    for field in lists:
        if not isinstance(content, dict) or not isinstance(content.get(field), list):
            raise InputError(f"{file} has no list {field!r}; give a COCO keypoint annotation file.")
    return content


def read_json(file: str | Path, advice: str):
    """What is in a JSON file; an `InputError` with the advice if it is missing, another if it is none."""
    try:
        return json.loads(Path(file).read_bytes())
    except FileNotFoundError:
        raise InputError(f"{file} is not there; {advice}.") from None
    except (OSError, ValueError) as error:
        raise InputError(f"{file} cannot be read as JSON ({error}); download it again.") from error

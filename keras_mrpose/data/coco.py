"""COCO keypoints: ``annotations/person_keypoints_*.json`` beside the image folders."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from keras_mrpose.data.people import People
from keras_mrpose.errors import InputError
from keras_mrpose.skeletons import COCO

PERSON = 1
SPLITS = {"train": "train2017", "val": "val2017"}


def load(root: str | Path, split: str = "val") -> People:
    """People with keypoint annotations of a COCO folder (`parse` says which), all of whose images exist.

    Args:
        root: holds ``annotations/person_keypoints_SPLIT.json`` and the images in ``SPLIT/`` or ``images/SPLIT/``.
        split: ``"train"``, ``"val"`` (of 2017), or the split's full name.

    Raises:
        InputError: a missing or unreadable file, or an annotation with a wrong field, each named.
    """
    root = Path(root)
    split = SPLITS.get(split, split)
    file = root / "annotations" / f"person_keypoints_{split}.json"
    folder = next((f for f in (root / split, root / "images" / split) if f.is_dir()), root / split)
    return parse(_read(file), str(file), folder).require_images()


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
    for place, image in enumerate(images):
        _require_fields(image, {"id": int, "file_name": str, "width": int, "height": int}, f"{source}: image {place}")
    row_of = {image["id"]: row for row, image in enumerate(images)}
    kept = []
    for place, annotation in enumerate(content["annotations"]):
        name = f"{source}: annotation {annotation.get('id', place) if isinstance(annotation, dict) else place}"
        _require_fields(annotation, {"id": int, "image_id": int, "category_id": int, "iscrowd": int}, name)
        if annotation["category_id"] != PERSON or annotation["iscrowd"]:
            continue
        if annotation["image_id"] not in row_of:
            raise InputError(f"{name} has image_id {annotation['image_id']}, which is not among the file's images.")
        row = row_of[annotation["image_id"]]
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


def _read(file: Path) -> dict:
    try:
        content = json.loads(file.read_bytes())
    except FileNotFoundError:
        raise InputError(
            f"{file} is not there; a COCO folder has annotations/person_keypoints_SPLIT.json and images in SPLIT/."
        ) from None
    except (OSError, ValueError) as error:
        raise InputError(f"{file} cannot be read as JSON ({error}); download it again.") from error
    for field in ("images", "annotations"):
        if not isinstance(content, dict) or not isinstance(content.get(field), list):
            raise InputError(f"{file} has no list {field!r}; give a COCO keypoint annotation file.")
    return content

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
    """People with keypoint annotations, selected and cleaned as the published loader does.

    Crowds and people without a keypoint are left out. A box is cut at the image's border and measured from pixel
    centre to pixel centre (one less than annotated). A joint's ``v`` stays 0, 1 or 2.

    Args:
        root: holds ``annotations/person_keypoints_SPLIT.json`` and the images in ``SPLIT/`` or ``images/SPLIT/``.
        split: ``"train"``, ``"val"`` (of 2017), or the split's full name.

    Raises:
        InputError: a missing or unreadable file, or an annotation with a wrong field, each named.
    """
    root = Path(root)
    split = SPLITS.get(split, split)
    file = root / "annotations" / f"person_keypoints_{split}.json"
    content = _read(file)
    images = {image["id"]: row for row, image in enumerate(content["images"])}
    kept = []
    for annotation in content["annotations"]:
        name = f"{file}: annotation {annotation.get('id', '?')}"
        try:
            if annotation["category_id"] != PERSON or annotation["iscrowd"]:
                continue
            row = images[annotation["image_id"]]
            keypoints = np.asarray(annotation["keypoints"], np.float64)
            if keypoints.size != COCO.num_joints * 3:
                raise InputError(f"{name} has {keypoints.size} keypoint numbers, expected 51 (17 joints of x, y, v).")
            box = _clean(annotation["bbox"], content["images"][row])
            if annotation["area"] > 0 and box is not None and keypoints.max() > 0:
                kept.append((row, annotation["id"], box, keypoints.reshape(-1, 3), annotation["area"]))
        except (KeyError, TypeError) as error:
            raise InputError(f"{name} lacks or garbles the field {error}; see the COCO data format.") from error
        except InputError:
            raise
        except ValueError as error:
            raise InputError(f"{name} has a field that is not a number ({error}).") from error
    # in the order of the images, inside an image in the order of the annotations
    kept.sort(key=lambda record: record[0])
    folder = next((f for f in (root / split, root / "images" / split) if f.is_dir()), root / split)
    areas = np.array([area for *_, area in kept], np.float64)
    return People(
        source=str(file),
        skeleton=COCO,
        image_paths=np.array([str(folder / image["file_name"]) for image in content["images"]]),
        image_ids=np.array([image["id"] for image in content["images"]]),
        image_index=np.array([row for row, *_ in kept]),
        ids=np.array([identity for _, identity, *_ in kept]),
        boxes=np.array([box for _, _, box, *_ in kept]),
        keypoints=np.array([keypoints for *_, keypoints, _ in kept]),
        normalizer=np.sqrt(areas),
        areas=areas,
    ).require_images()


def _clean(bbox: list[float], image: dict) -> list[float] | None:
    """The part of a box inside the image, as the published loader measures it; None if nothing is left."""
    x, y, w, h = (float(value) for value in bbox)
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
            f"{file} is not there; a COCO folder has annotations/person_keypoints_SPLIT.json and SPLIT/ with the images."
        ) from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{file} is not JSON ({error}); download it again.") from error
    for field in ("images", "annotations"):
        if not isinstance(content, dict) or not isinstance(content.get(field), list):
            raise InputError(f"{file} has no list {field!r}; give a COCO keypoint annotation file.")
    return content

"""Synthetic data set: drawn images of posed people whose joints and visibility are known exactly, made from a seed.

`draw` makes one image, `write` a folder in COCO's layout. `pose` samples bodies, `render` paints them, `background` is
what stands behind and in front of them.
"""

from __future__ import annotations

import json
import os
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from keras_mrpose.errors import InputError
from keras_mrpose.skeletons import COCO
from keras_mrpose.synthetic import background, pose
from keras_mrpose.synthetic.render import PARTS, Canvas, DrawnPerson, sample_clothing

VERSION = 1  # of the images: raise it when the same seed starts to give others
MIN_SIDE = 64
MAX_PEOPLE = 3
JPEG_QUALITY = 95


@dataclass(frozen=True)
class Drawing:
    """A drawn image with its ground truth.

    Args:
        image: (h, w, 3) uint8 RGB.
        keypoints: (people, 17, 3) float64, x, y in pixels and COCO visibility of the COCO joints: 2 visible, 1 inside
            the image but hidden by the own body, by another person or by a thing, 0 (then x = y = 0) outside.
        boxes: (people, 4) float64, x, y, w, h of a person's visible pixels, as COCO boxes a mask (one pixel: w = 1).
        areas: (people,) float64, the number of these pixels.
    """

    image: np.ndarray
    keypoints: np.ndarray
    boxes: np.ndarray
    areas: np.ndarray


def draw(seed: int, index: int, size: tuple[int, int] = (240, 320)) -> Drawing:
    """Image number `index` of the data set `seed`: one to three people, the same for the same three arguments.

    The largest person has a stature of 0.6 to 1 of the image's height, the others at least 0.3 (in an image less
    wide than 0.625 of its height: of 1.6 times the width). People are listed
    from the farthest to the nearest; one whom others hide completely is not listed.

    Raises:
        InputError: a negative or fractional seed or index, or a size below 64 pixels.
    """
    _check(size, seed=seed, index=index)
    rng = np.random.default_rng([seed, index])
    image = background.background(rng, size)
    angle = rng.uniform(-np.pi, 0)
    canvas = Canvas(image, light=np.array((np.cos(angle), np.sin(angle))))
    people = _crowd(rng, image)
    for person in people:
        if person.figure.sits:
            hips = person.joints[[COCO.joints.index("left_hip"), COCO.joints.index("right_hip")]].mean(axis=0)
            seat = hips + np.array((0, 0.17 * person.stature))
            background.draw_box(canvas, seat, 0.3 * person.stature, 0.24 * person.stature, rng.uniform(20, 230, 3))
        person.paint(canvas)
        if rng.random() < 0.15:
            middle = person.joints[rng.integers(5, 17)] + rng.normal(0, 0.05, 2) * person.stature
            background.add_occluder(rng, canvas, middle, rng.uniform(0.3, 0.6) * person.stature)
    truth = [_annotate(person, canvas.surface) for person in people]
    keypoints, boxes, areas = zip(*(one for one in truth if one[2]), strict=True)
    return Drawing(
        background.camera_effects(rng, canvas.image),
        np.stack(keypoints),
        np.array(boxes, np.float64),
        np.array(areas, np.float64),
    )


def write(
    folder: str | Path,
    count: int,
    seed: int = 0,
    split: str = "train2017",
    first_index: int = 0,
    size: tuple[int, int] = (240, 320),
    threads: int | None = None,
) -> Path:
    """Write the images `first_index` .. `first_index` + `count` - 1 of `seed` as one split of a COCO-format folder.

    Makes ``annotations/person_keypoints_SPLIT.json`` and ``SPLIT/000000000001.jpg``... (the number is the index + 1).
    Both appear at the end and complete, the annotations last; a write that was killed leaves only a hidden folder
    beside them. A split that is already there with the same settings is kept as it is.

    Threads, not processes: OpenCV gives the interpreter lock away while it paints, and a new process would first have
    to import TensorFlow, or to fork under TensorFlow's threads.

    Args:
        folder: made if missing; may hold other splits.
        threads: default one per core.

    Returns:
        The folder.

    Raises:
        InputError: the split is there with other settings or from elsewhere, or an argument is out of range.
    """
    _check(size, seed=seed, first_index=first_index, count=count)
    if count < 1:
        raise InputError(f"count is {count}; ask for at least one drawn image.")
    folder = Path(folder)
    images, annotations = folder / split, folder / "annotations" / f"person_keypoints_{split}.json"
    settings = {"seed": seed, "count": count, "first_index": first_index, "size": list(size), "version": VERSION}
    if _is_there(images, annotations, settings):
        return folder
    annotations.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{split}-", dir=folder) as temporary:
        stage = Path(temporary, split)  # inside, because the temporary folder itself is private to the user
        stage.mkdir()
        with ThreadPoolExecutor(threads or os.cpu_count()) as pool:
            indices = range(first_index, first_index + count)
            records = list(pool.map(lambda index: _write_one(stage, seed, index, size), indices))
        content = Path(temporary, annotations.name)
        content.write_text(json.dumps(_coco_file(records, settings)))
        stage.rename(images)
        content.rename(annotations)
    return folder


def _check(size: tuple[int, int], **numbers: int) -> None:
    for name, value in numbers.items():
        if not isinstance(value, int) or value < 0:
            raise InputError(f"{name} is {value!r}; drawn people need a whole number, 0 or more.")
    if len(size) != 2 or any(not isinstance(side, int) or side < MIN_SIDE for side in size):
        raise InputError(f"size is {size!r}; give (height, width) in whole pixels, each at least {MIN_SIDE}.")


def _is_there(images: Path, annotations: Path, settings: dict) -> bool:
    """Whether this split was written before with these settings; False if nothing is in the way."""
    if not images.exists() and not annotations.exists():
        return False
    try:
        found = json.loads(annotations.read_bytes())["info"]["drawn"]
    except (OSError, ValueError, KeyError, TypeError):
        found = None
    if found != settings:
        made = f"was drawn with {found}, not {settings}" if found else "was not written by this function"
        raise InputError(
            f"{images} with {annotations} is already there and {made}; delete both or choose another folder."
        )
    if not images.is_dir() or sum(1 for _ in images.glob("*.jpg")) < settings["count"]:
        raise InputError(f"{images} lacks images that {annotations} lists; delete both to draw them again.")
    return True


def _crowd(rng: np.random.Generator, image: np.ndarray) -> list[DrawnPerson]:
    """People with their places in the image, the farthest (smallest) first."""
    height, width = image.shape[:2]
    others = int(np.searchsorted((0.45, 0.8), rng.random()))
    statures = np.append(rng.uniform(0.4, 0.8, others), rng.uniform(0.6, 1.0)) * min(height, 1.6 * width)
    people, taken = [], []
    for number, stature in reversed(list(enumerate(np.sort(statures)))):
        body = pose.sample(rng)
        reach = body.project(stature)
        low, high = reach.min(axis=0) - 0.06 * stature, reach.max(axis=0) + 0.06 * stature
        tries = [_place(rng, high - low, (width, height)) for _ in range(8)]
        box = min(tries, key=lambda box: sum(_covered(box, nearer) for nearer in taken))
        taken.append(box)
        x0, y0, x1, y1 = np.clip(box, 0, (width - 1, height - 1) * 2).astype(int)
        ground = np.array(cv2.mean(image[y0 : y1 + 1, x0 : x1 + 1])[:3])
        people.append(DrawnPerson(body, sample_clothing(rng, ground), stature, box[:2] - low, number))
    return people[::-1]


def _place(rng: np.random.Generator, extent: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """(4,) x0, y0, x1, y1 for a box of (w, h) = extent: inside if it fits, rather low, some cut by an edge."""
    corner = rng.uniform(0, 1, 2) ** (1, 0.5) * np.maximum(size - extent, 0)
    if rng.random() < 0.15:
        corner += rng.uniform(-0.3, 0.3, 2) * extent
    return np.concatenate([corner, corner + extent])


def _covered(box: np.ndarray, nearer: np.ndarray) -> float:
    """The share of a box that another one covers."""
    overlap = np.maximum(np.minimum(box[2:], nearer[2:]) - np.maximum(box[:2], nearer[:2]), 0)
    return float(overlap.prod() / (box[2:] - box[:2]).prod())


def _annotate(person: DrawnPerson, surface: np.ndarray) -> tuple[np.ndarray, tuple[int, ...], int]:
    """Keypoints (17, 3), box and area of one person, read from the finished map of surfaces."""
    mask = cv2.inRange(surface, person.first_surface, person.first_surface + len(PARTS) - 1)
    v = person.visibility(surface)
    keypoints = np.where(v[:, None] > 0, np.column_stack([person.joints, v]), 0.0)
    return keypoints, cv2.boundingRect(mask), cv2.countNonZero(mask)


def _write_one(folder: Path, seed: int, index: int, size: tuple[int, int]) -> tuple[dict, list[dict]]:
    """Draws one image into the folder; its COCO image record and annotations."""
    drawing = draw(seed, index, size)
    image = {"id": index + 1, "file_name": f"{index + 1:012d}.jpg", "height": size[0], "width": size[1], "license": 1}
    jpeg = cv2.imencode(".jpg", drawing.image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])[1]
    (folder / image["file_name"]).write_bytes(jpeg.tobytes())
    annotations = [
        {
            "id": MAX_PEOPLE * index + number + 1,
            "image_id": index + 1,
            "category_id": 1,
            "iscrowd": 0,
            "area": area,
            "bbox": box.tolist(),
            "num_keypoints": int((keypoints[:, 2] > 0).sum()),
            "keypoints": [n for x, y, v in keypoints.tolist() for n in (round(x, 3), round(y, 3), int(v))],
        }
        for number, (keypoints, box, area) in enumerate(
            zip(drawing.keypoints, drawing.boxes, drawing.areas.tolist(), strict=True)
        )
    ]
    return image, annotations


def _coco_file(records: list[tuple[dict, list[dict]]], settings: dict) -> dict:
    category = {
        "id": 1,
        "name": "person",
        "supercategory": "person",
        "keypoints": list(COCO.joints),
        "skeleton": [[a + 1, b + 1] for a, b in COCO.edges],  # COCO counts joints from 1 here
    }
    return {
        "info": {"description": "people drawn by keras_mrpose", "version": str(VERSION), "drawn": settings},
        "licenses": [{"id": 1, "name": "made by a program; free for any use", "url": ""}],
        "images": [image for image, _ in records],
        "annotations": [annotation for _, annotations in records for annotation in annotations],
        "categories": [category],
    }

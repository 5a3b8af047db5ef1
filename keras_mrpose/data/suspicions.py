"""What is likely wrong with an annotation file as a whole, seen from all its people together.

Each suspicion needs most of the people, so that a few odd ones raise none. How a box should be read is seen from the
joints: the reading whose boxes fit them far better is the likely one.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

SLACK = 2.0  # pixels that annotations of good data sets reach beyond a border by rounding
NORMALISED, PERCENT = "normalised coordinates", "coordinates in percent"
CORNERS, EXCHANGED, CENTRES, ROW_FIRST = "boxes as corners", "box sides exchanged", "boxes by centre", "boxes y first"
TINY, IMAGE_SIDES = "boxes of one pixel", "image sides exchanged"
# What each means and what to do.
MEANINGS = {
    NORMALISED: "Coordinates are shares of the image, 0..1: multiply them by its width and height.",
    PERCENT: "Coordinates look like percent of the image: multiply them by its width and height, divide by 100.",
    CORNERS: "Boxes look like corners x1, y1, x2, y2: give x, y, width, height.",
    EXCHANGED: "Boxes look like x, y, height, width: give x, y, width, height.",
    CENTRES: "Boxes look like centre x, centre y, width, height: give the left upper corner instead of the centre.",
    ROW_FIRST: "Boxes look as if y came before x: give x, y, width, height.",
    TINY: "Boxes measure one pixel or less: give their width and height in pixels.",
    IMAGE_SIDES: "Width and height of the images look exchanged in the file: exchange them.",
}


class Suspicion(NamedTuple):
    """A kind, key of `MEANINGS`, the field, and the numbers that speak for it."""

    kind: str
    field: str
    found: str

    def __str__(self) -> str:
        return f"{self.found}. {MEANINGS[self.kind]}"


def suspicions(boxes: np.ndarray, keypoints: np.ndarray, sizes: np.ndarray) -> list[Suspicion]:
    """What is likely wrong with all these people, as they are annotated.

    Args:
        boxes: ``(people, 4)`` x, y, w, h.
        keypoints: ``(people, joints, 3)`` x, y, v; each has a labelled joint.
        sizes: ``(people, 2)`` width and height of each one's image.
    """
    if not len(boxes):
        return []
    labelled = keypoints[..., 2] > 0
    axes = (keypoints[..., 0], keypoints[..., 1])  # one at a time, since there are hundreds of thousands
    low = np.stack([np.where(labelled, axis, np.inf).min(axis=1) for axis in axes], axis=1)
    high = np.stack([np.where(labelled, axis, -np.inf).max(axis=1) for axis in axes], axis=1)
    with np.errstate(all="ignore"):  # numbers may be huge
        if scale := _scale(boxes, low, high, sizes):
            return scale
        tiny = (boxes[:, 2:] <= 1).all(axis=1)
        if _most(tiny):
            return [Suspicion(TINY, "bbox", f"{_of(tiny)} boxes measure one pixel or less")]
        reading = _reading(boxes, low, high, sizes)
        return [reading] if reading else _image_sides(high, sizes)


def _scale(boxes, low, high, sizes) -> list[Suspicion]:
    """Coordinates that are no pixels."""
    large = (sizes >= 8).all(axis=1)
    in_boxes = large & (boxes[:, :2] >= -0.5).all(axis=1) & (boxes <= 1.5).all(axis=1)
    in_joints = large & (low >= -0.5).all(axis=1) & (high <= 1.5).all(axis=1)
    if _most(in_boxes) or _most(in_joints):
        what = f"{_of(in_boxes)} boxes and the joints of {_of(in_joints)} people lie inside 0..1"
        return [Suspicion(NORMALISED, "bbox, keypoints", what)]
    ends = np.maximum(boxes[:, :2] + boxes[:, 2:], high)
    inside = (sizes >= 200).all(axis=1) & (ends <= 101).all(axis=1)
    if inside.all() and len(boxes) >= 5 and (ends.max(axis=0) > 60).all():
        return [Suspicion(PERCENT, "bbox, keypoints", f"{_of(inside)} people lie inside 0..100 of larger images")]
    return []


def _reading(boxes, low, high, sizes) -> Suspicion | None:
    """Another way to read the boxes that fits the joints far better."""
    if _are_corners(boxes, low, high, sizes):
        return Suspicion(CORNERS, "bbox", f"As x, y, width, height {_of(_leaving(boxes, sizes))} boxes leave the image")
    seen = (high > low).all(axis=1)  # joints that span an area
    if seen.sum() < 3:
        return None
    boxes, low, high, sizes = boxes[seen], low[seen], high[seen], sizes[seen]
    first, second = boxes[:, :2], boxes[:, 2:]
    as_given = _overlap(first, first + second, low, high)
    readings = (
        (EXCHANGED, first, first + second[:, ::-1]),
        (CENTRES, first - second / 2, first + second / 2),
        (ROW_FIRST, first[:, ::-1], (first + second)[:, ::-1]),
        (ROW_FIRST, first[:, ::-1], second[:, ::-1]),
    )
    for kind, begin, end in readings:
        overlap = _overlap(begin, end, low, high)
        better, worse = overlap > 1.5 * as_given + 0.05, as_given > overlap + 0.05
        fits = (begin >= -SLACK).all(axis=1) & (end <= sizes + SLACK).all(axis=1)
        if better.mean() >= 0.4 and worse.mean() <= 0.1 and fits.mean() >= 0.9:
            return Suspicion(kind, "bbox", f"{_of(better)} boxes fit the joints far better if read otherwise")
    return None


def _are_corners(boxes, low, high, sizes) -> bool:
    """Whether boxes that leave the image as x, y, w, h are inside as corners, much smaller, and still hold the joints.

    In COCO's 317 people of the tests 0.31 are inside as corners, and 0.08 hold the joints; with corners written 1 and
    0.9 do. That they get smaller tells corners from close-ups whose boxes begin near 0 and are too large.
    """
    first, second = boxes[:, :2], boxes[:, 2:]
    sides = np.maximum(second - first, 0)
    inside = (second > first).all(axis=1) & (first >= -SLACK).all(axis=1) & (second <= sizes + SLACK).all(axis=1)
    slack = 0.1 * sides.max(axis=1, keepdims=True)
    hold = ((low >= first - slack) & (high <= second + slack)).all(axis=1)
    smaller = np.prod(sides, axis=1) < 0.5 * np.prod(second, axis=1)
    return bool(
        len(boxes) > 1
        and inside.mean() >= 0.95
        and hold.mean() >= 0.75
        and smaller.mean() >= 0.4
        and _leaving(boxes, sizes).mean() >= 0.25
    )


def _leaving(boxes, sizes) -> np.ndarray:
    return (boxes[:, :2] + boxes[:, 2:] > sizes + SLACK).any(axis=1)


def _overlap(begin, end, low, high) -> np.ndarray:
    """Intersection over union of boxes and joints; 0 for a box without area."""
    common = np.prod(np.maximum(np.minimum(end, high) - np.maximum(begin, low), 0), axis=1)
    area = np.prod(np.maximum(end - begin, 0), axis=1)
    return np.where(area > 0, common / (area + np.prod(high - low, axis=1) - common), 0)


def _image_sides(high, sizes) -> list[Suspicion]:
    """Joints beyond the border of images, nearly all of which would be inside if width and height were exchanged."""
    beyond = (high > sizes + SLACK).any(axis=1)
    inside_exchanged = (high <= sizes[:, ::-1] + SLACK).all(axis=1)
    if beyond.sum() < 2 or beyond.mean() < 0.15 or inside_exchanged.mean() < 0.95:
        return []
    return [Suspicion(IMAGE_SIDES, "width, height", f"{_of(beyond)} people have joints beyond the border")]


def _most(mask: np.ndarray) -> bool:
    return bool(mask.mean() > 0.5)


def _of(mask: np.ndarray) -> str:
    return f"{int(mask.sum())} of {len(mask)}"

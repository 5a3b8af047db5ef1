"""Drawn people: pictures of posed figures whose joints and visibility are known exactly, from a seed, without a download.

`draw` makes one picture, `write` a folder in COCO's layout.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from keras_mrpose.data import figure, scenery
from keras_mrpose.data.painting import PARTS, Canvas, Person, sample_looks
from keras_mrpose.errors import InputError
from keras_mrpose import skeletons


@dataclass(frozen=True)
class Drawing:
    image: np.ndarray
    keypoints: np.ndarray
    boxes: np.ndarray
    areas: np.ndarray


def draw(seed: int, index: int, size: tuple[int, int] = (240, 320)) -> Drawing:
    rng = np.random.default_rng([seed, index])
    return _annotate(*_paint(rng, size))


def _paint(rng, size):
    image = scenery.background(rng, size)
    angle = rng.uniform(-np.pi, 0)
    canvas = Canvas(image, np.array((np.cos(angle), np.sin(angle))))
    people = _crowd(rng, image)
    thing = int(rng.integers(len(people) + 1)) if rng.random() < 0.45 else None
    for number, person in enumerate(people):
        if person.figure.sits:
            seat = person.points[[11, 12]].mean(axis=0) + (0, 0.17 * person.stature)
            scenery.block(canvas, seat, 0.3 * person.stature, 0.24 * person.stature, rng.uniform(20, 230, 3))
        person.paint(canvas)
        if rng.random() < 0.3:
            middle = person.points[rng.integers(5, 17)] + rng.normal(0, 0.05, 2) * person.stature
            scenery.stand_before(rng, canvas, middle, rng.uniform(0.3, 0.6) * person.stature)
    return scenery.film(rng, canvas.image), canvas.surface, people


def _crowd(rng, image):
    height, width = image.shape[:2]
    count = 1 + int(np.searchsorted((0.45, 0.8), rng.random()))
    statures = np.sort(np.append(rng.uniform(0.3, 0.8, count - 1), rng.uniform(0.6, 1.0))) * height
    people, taken = [], []
    for number, stature in reversed(list(enumerate(statures))):
        body = figure.sample(rng)
        spread = body.project(stature)
        low, high = spread.min(axis=0) - 0.06 * stature, spread.max(axis=0) + 0.06 * stature
        slack = np.maximum((width, height) - (high - low), 0)
        tries = []
        for _ in range(4):
            corner = rng.uniform(0, 1, 2) ** (1, 0.5) * slack
            if rng.random() < 0.2:
                corner += rng.uniform(-0.3, 0.3, 2) * (high - low)
            box = np.concatenate([corner, corner + high - low])
            tries.append((sum(_covered(box, other) for other in taken), tuple(box)))
        box = np.array(min(tries)[1])
        taken.append(box)
        x0, y0, x1, y1 = np.clip(box, 0, (width, height, width, height)).astype(int)
        ground = image[y0 : y1 + 1, x0 : x1 + 1].mean(axis=(0, 1))
        people.append(Person(body, sample_looks(rng, ground), stature, box[:2] - low, number))
    return people[::-1]


def _covered(box, other):
    overlap = np.maximum(np.minimum(box[2:], other[2:]) - np.maximum(box[:2], other[:2]), 0).prod()
    return overlap / (box[2:] - box[:2]).prod()


def _annotate(image, surface, people):
    keypoints, boxes, areas = [], [], []
    for person in people:
        first = person.first_surface
        mask = cv2.inRange(surface, first, first + len(PARTS) - 1)
        area = cv2.countNonZero(mask)
        if not area:
            continue
        v = person.visibility(surface)
        keypoints.append(np.where(v[:, None] > 0, np.column_stack([person.points[:17], v]), 0.0))
        boxes.append(cv2.boundingRect(mask))
        areas.append(area)
    return Drawing(image, np.array(keypoints).reshape(-1, 17, 3), np.array(boxes, float).reshape(-1, 4), np.array(areas, float))
import cv2

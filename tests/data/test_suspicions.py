"""Files that are wrong as a whole are named; real people, close-ups and boxes that are too large are not."""

import json

import numpy as np
import pytest

from keras_mrpose.data import suspicions
from keras_mrpose.data.suspicions import CENTRES, CORNERS, EXCHANGED, IMAGE_SIDES, NORMALISED, PERCENT, ROW_FIRST, TINY

SIZE = np.array([640.0, 480.0])


def people(count=40, seed=0):
    """Boxes of 60..120 x 120..240 pixels anywhere in images of 640x480, joints all over them."""
    rng = np.random.default_rng(seed)
    sides = rng.uniform((60, 120), (120, 240), (count, 2))
    corner = rng.uniform(0, 1, (count, 2)) * (SIZE - sides)
    joints = corner[:, None] + rng.uniform(0.03, 0.97, (count, 17, 2)) * sides[:, None]
    return np.hstack([corner, sides]), np.dstack([joints, np.full((count, 17), 2.0)]), np.tile(SIZE, (count, 1))


def as_corners(boxes, joints, sizes):
    return np.hstack([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]]), joints, sizes


def shares(boxes, joints, sizes, by=1.0):
    points = joints.copy()
    points[..., :2] *= by / sizes[:, None]
    return boxes * by / np.tile(sizes, 2), points, sizes


def close_ups(boxes, joints, sizes, larger=1.0):
    """Images cut to 1.06 of the boxes; then boxes made larger, so that they leave them."""
    origin, sides = boxes[:, :2] - 0.03 * boxes[:, 2:], boxes[:, 2:]
    points = joints.copy()
    points[..., :2] -= origin[:, None]
    return np.hstack([0.03 * sides, larger * sides]), points, 1.06 * sides


CASES = {
    "right": (lambda *a: a, None),
    "larger boxes": (lambda b, j, s: (np.hstack([b[:, :2] - 0.3 * b[:, 2:], 1.6 * b[:, 2:]]), j, s), None),
    "close-ups": (close_ups, None),
    "close-ups over the border": (lambda *a: close_ups(*a, larger=1.1), None),
    "a few outside": (lambda b, j, s: (np.where(np.arange(len(b))[:, None] < 4, b + 1000, b), j, s), None),
    "boxes of images": (lambda b, j, s: (np.hstack([0 * s, s]), j, s), None),
    "corners": (as_corners, CORNERS),
    "shares": (shares, NORMALISED),
    "shares of boxes": (lambda b, j, s: (shares(b, j, s)[0], j, s), NORMALISED),
    "shares of joints": (lambda b, j, s: (b, shares(b, j, s)[1], s), NORMALISED),
    "corners in shares": (lambda *a: shares(*as_corners(*a)), NORMALISED),
    "percent": (lambda *a: shares(*a, by=100), PERCENT),
    "height first": (lambda b, j, s: (b[:, [0, 1, 3, 2]], j, s), EXCHANGED),
    "centres": (lambda b, j, s: (np.hstack([b[:, :2] + b[:, 2:] / 2, b[:, 2:]]), j, s), CENTRES),
    "y first": (lambda b, j, s: (b[:, [1, 0, 3, 2]], j, s), ROW_FIRST),
    "one pixel": (lambda b, j, s: (np.hstack([b[:, :2], np.ones((len(b), 2))]), j, s), TINY),
    "images turned": (lambda b, j, s: (b, j, s[:, ::-1]), IMAGE_SIDES),
}


@pytest.mark.parametrize("name", CASES)
def test_cases(name):
    change, kind = CASES[name]
    for count in (40, 12):
        found = suspicions.suspicions(*change(*people(count)))
        assert [one.kind for one in found] == ([kind] if kind else [])
    for one in found:
        assert " of 12 " in one.found and str(one) == f"{one.found}. {suspicions.MEANINGS[kind]}"


def test_nobody_and_one_person():
    nobody = np.zeros((0, 4)), np.zeros((0, 17, 3)), np.zeros((0, 2))
    assert suspicions.suspicions(*nobody) == []
    assert suspicions.suspicions(*people(1)) == suspicions.suspicions(*as_corners(*people(1))) == []


@pytest.mark.parametrize("split", ["train2017", "val2017"])
def test_real_people(split, shared):
    """As they are, and some of them, no alarm; with corners, the right one."""
    file = shared / "data" / "coco" / "annotations" / f"person_keypoints_{split}.json"
    content = json.loads(file.read_text())
    sides = {image["id"]: (image["width"], image["height"]) for image in content["images"]}
    seen = [one for one in content["annotations"] if one["num_keypoints"] and not one["iscrowd"]]
    boxes, sizes = np.array([one["bbox"] for one in seen]), np.array([sides[one["image_id"]] for one in seen], float)
    joints = np.reshape([one["keypoints"] for one in seen], (-1, 17, 3)).astype(float)
    assert suspicions.suspicions(boxes, joints, sizes) == []
    assert [one.kind for one in suspicions.suspicions(*as_corners(boxes, joints, sizes))] == [CORNERS]
    rng = np.random.default_rng(0)
    for count in (1, 3, 10):
        for _ in range(50):
            some = rng.choice(len(seen), count, replace=False)
            assert suspicions.suspicions(boxes[some], joints[some], sizes[some]) == []

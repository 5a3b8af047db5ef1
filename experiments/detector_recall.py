"""How many labelled people a detector finds, at which precision.

    python experiments/detector_recall.py FILE.tflite ../data/coco

A labelled person (with keypoints) is found by the surest box whose IoU with theirs is 0.5 or more, if that has found
nobody else. Precision is the share of boxes that are on somebody: on those, or on a person without keypoints or in a
crowd. All images count, those without people too.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np

from keras_mrpose.data.images import read_image
from keras_mrpose.predict.detectors import LiteRTDetector
from keras_mrpose.predict.predictor import overlap

RIGHT, PRECISION = 0.5, 0.75


def judged(boxes: np.ndarray, scores: np.ndarray, people: np.ndarray, others: np.ndarray) -> list[tuple]:
    """Score of each box ``(n, 4)`` x, y, w, h, whether it finds a labelled person, and whether it is on anybody."""
    free, found = np.ones(len(people), bool), []
    for row in np.argsort(-scores):
        with_people = np.where(free, overlap(boxes[row], people), 0)
        finds = len(people) > 0 and with_people.max() >= RIGHT
        if finds:
            free[with_people.argmax()] = False
        on_others = len(others) and max(overlap(boxes[row], others).max(), inside(boxes[row], others).max()) >= RIGHT
        found.append((scores[row], finds, bool(finds or on_others)))
    return found


def inside(box: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Share ``(n,)`` of a box that lies in each of others: a crowd is larger than one who stands in it."""
    low = np.maximum(box[:2], others[:, :2])
    high = np.minimum(box[:2] + box[2:], others[:, :2] + others[:, 2:])
    return np.prod(np.maximum(high - low, 0), axis=1) / np.prod(box[2:])


def main() -> None:
    """Print recall and precision at a few scores, and the recall at the wanted precision."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("detector")
    parser.add_argument("data", type=Path, help="COCO folder, with val2017")
    args = parser.parse_args()
    about = json.loads((args.data / "annotations" / "person_keypoints_val2017.json").read_text())
    detector = LiteRTDetector(args.detector, 0.05)
    all_found, labelled = [], 0
    for image in about["images"]:
        here = [record for record in about["annotations"] if record["image_id"] == image["id"]]
        kinds = [record["num_keypoints"] > 0 and not record["iscrowd"] for record in here]
        people, others = (
            np.reshape([r["bbox"] for r, kind in zip(here, kinds, strict=True) if kind == wanted], (-1, 4))
            for wanted in (True, False)
        )
        labelled += len(people)
        all_found += judged(*detector(read_image(args.data / "val2017" / image["file_name"])), people, others)
    scores, finds, right = (np.array(column) for column in zip(*sorted(all_found, reverse=True), strict=True))
    recall, precision = np.cumsum(finds) / labelled, np.cumsum(right) / np.arange(1, len(right) + 1)
    for least in (0.2, 0.3, 0.4, 0.5):
        last = np.flatnonzero(scores >= least)
        if len(last):
            print(f"score {least}: recall {recall[last[-1]]:.3f}, precision {precision[last[-1]]:.3f}")
    enough = np.flatnonzero(precision >= PRECISION)
    best = enough[-1] if len(enough) else 0
    print(f"{labelled} people; at precision {PRECISION}: recall {recall[best]:.3f}, score {scores[best]:.2f}")


if __name__ == "__main__":
    main()

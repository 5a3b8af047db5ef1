"""Confidence of a network's keypoints on annotated people: fitted to them, or compared with what is right.

Right is a keypoint that the data set's protocol calls so: a similarity of at least 0.5 on COCO (OKS of that keypoint
alone), within 0.2 of the torso on LSP, within half of the head size on MPII.

Whether somebody is in a box is fitted too, where the data says where nobody is: COCO files have a box for everybody in
their images, those without keypoints and crowds included, so that what none of them touches is background.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from keras_mrpose.calibration import Calibration, Reliability, fit, reliability
from keras_mrpose.data import coco
from keras_mrpose.data.people import People, protocol_of
from keras_mrpose.errors import InputError
from keras_mrpose.evaluation.evaluate import settings_of
from keras_mrpose.evaluation.pck import torsos
from keras_mrpose.evaluation.predictions import check_tables, predict
from keras_mrpose.predict.predictor import Predictor
from keras_mrpose.skeletons import joint_map

CRITERIA = {
    "ap": "OKS of the keypoint at least 0.5",
    "pck": "within 0.2 of the torso",
    "pckh": "within 0.5 of the head size",
}
MIN_OKS, PCK_THRESHOLD, PCKH_THRESHOLD = 0.5, 0.2, 0.5
MIN_BACKGROUND = 50  # boxes without anybody, to fit whether somebody is there
TRIES, SMALLEST = 40, 0.4  # places looked at for each of them; of the size of somebody


@dataclass(frozen=True, eq=False)
class LabelledKeypoints:
    """The labelled keypoints of people, as a network found them.

    Attributes:
        scores: ``(keypoints,)`` heights of peaks.
        right: ``(keypoints,)`` bool, by the protocol.
        visible: ``(keypoints,)`` bool, as annotated; False is hidden.
        criterion: what right means, for people.
        people: ``(people,)`` mean height of the peaks of each person's crop.
        background: ``(boxes,)`` the same of boxes without anybody; empty if the data does not say where those are.
    """

    scores: np.ndarray
    right: np.ndarray
    visible: np.ndarray
    criterion: str
    people: np.ndarray
    background: np.ndarray


def find_labelled(predictor: Predictor, people: People) -> LabelledKeypoints:
    """Run a network on annotated boxes and tell which of the labelled keypoints it finds.

    Raises:
        InputError: no joint has a name in both, nobody is there, an unreadable image, or a network that ends in
            keypoints and has no scores to fit to.
    """
    check_tables(predictor, people, people)
    protocol = protocol_of(people)
    found, heights = _find(predictor, people)
    index = np.array(joint_map(predictor.skeleton, people.skeleton))
    tolerance = _tolerances(people, protocol)
    labelled = (people.keypoints[..., 2] > 0) & (index >= 0) & (tolerance > 0)
    if not labelled.any():
        raise InputError(f"{people.source} has no labelled keypoint that the network knows; give another data set.")
    error = np.linalg.norm(found[:, index, :2] - people.keypoints[..., :2], axis=-1)
    empty = background_boxes(people) if Path(people.source).is_file() and protocol == "ap" else people.take([])
    return LabelledKeypoints(
        scores=found[:, index, 2][labelled],
        right=(error <= tolerance)[labelled],
        visible=(people.keypoints[..., 2] == 2)[labelled],
        criterion=CRITERIA[protocol],
        people=heights,
        background=_find(predictor, empty)[1] if len(empty) else np.zeros(0),
    )


def _find(predictor: Predictor, people: People) -> tuple[np.ndarray, np.ndarray]:
    """Keypoints ``(people, joints, 3)`` in the network's order, and the mean height ``(people,)`` of their peaks."""
    boxes = replace(
        people, skeleton=predictor.skeleton, keypoints=np.zeros((len(people), predictor.skeleton.num_joints, 3))
    )
    found = predict(predictor, boxes).read(settings_of(predictor))
    return found, found[..., 2].mean(axis=1)


def background_boxes(people: People, seed: int = 0) -> People:
    """Boxes without anybody in the images of a COCO file, as a table without labelled joints.

    Each has the size of somebody in the table, as a share of the image, or down to 0.4 of it, and lies anywhere in an
    image where it touches no annotated box of anybody. About as many as there are people; fewer, or none, where the
    images are full.
    """
    random = np.random.default_rng(seed)
    images = coco.annotated_boxes(people.source)
    ids = people.image_ids[np.unique(people.image_index)]
    rows = {number: row for row, number in enumerate(people.image_ids)}
    shares = people.boxes[:, 2:] / np.array([images[people.image_ids[row]][0] for row in people.image_index])
    found = []
    for _ in range(TRIES * len(people)):
        image = random.choice(ids)
        size, taken = images[image]
        sides = np.minimum(random.choice(shares), 1) * size * random.uniform(SMALLEST, 1)
        corner = random.uniform(0, 1, 2) * (size - sides)
        apart = (corner + sides <= taken[:, :2]) | (taken[:, :2] + taken[:, 2:] <= corner)
        if apart.any(axis=1).all():
            found.append((rows[image], [*corner, *sides]))
        if len(found) == len(people):
            break
    return replace(
        people.take(np.zeros(len(found), int)),
        image_index=[row for row, _ in found],
        ids=range(len(found)),
        boxes=[box for _, box in found],
        keypoints=np.zeros((len(found), people.skeleton.num_joints, 3)),
    )


def fit_calibration(found: Sequence[LabelledKeypoints]) -> Calibration:
    """The calibration of a network, fitted on people whom it was not trained on.

    Args:
        found: of each data set, see `find_labelled`; each counts as much. Whether somebody is there is fitted if they
            have at least 50 boxes without anybody.

    Raises:
        InputError: too few keypoints.
    """
    scores, right = _alike([(one.scores, one.right) for one in found])
    criterion = "; ".join(dict.fromkeys(one.criterion for one in found))
    # As many boxes without a person as with one, whatever the data has.
    people = np.concatenate([one.people for one in found])
    background = np.concatenate([one.background for one in found])
    person = None
    if len(background) >= MIN_BACKGROUND:
        heights, there = _alike([(people, np.ones(len(people))), (background, np.zeros(len(background)))])
        person = fit(heights, there, "a person in the box")
    return replace(fit(scores, right, criterion), person=person)


def _alike(parts: list[tuple[np.ndarray, np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
    """Scores and labels put together; each part counts as much: the smaller ones are repeated."""
    most = max(len(scores) for scores, _ in parts)
    rows = [np.arange(most) % len(scores) for scores, _ in parts]
    return tuple(
        np.concatenate([values[some] for values, some in zip(column, rows, strict=True)])
        for column in zip(*parts, strict=True)
    )


def check_calibration(found: LabelledKeypoints, calibration: Calibration) -> dict:
    """How well probabilities fit these keypoints.

    Returns:
        ``error`` (expected calibration error), ``keypoints``, ``bins`` (mean probability, share right and count of
        each), and for ``visible`` and ``hidden`` keypoints their count, mean probability and share right; None where
        there are none. ``person``: of the boxes with and without a person, how many there are and how many get a
        probability of at least 0.5; None if that was not fitted, or if the data does not say where nobody is.
    """
    probabilities = calibration(found.scores)
    shares: Reliability = reliability(probabilities, found.right)
    bins = zip(shares.confidence, shares.accuracy, shares.counts, strict=True)
    return {
        "error": shares.error,
        "keypoints": len(found.right),
        "criterion": found.criterion,
        "bins": [
            {"confidence": float(confidence), "right": float(right), "count": int(count)}
            for confidence, right, count in bins
            if count
        ],
        "visible": _summary(probabilities, found.right, found.visible),
        "hidden": _summary(probabilities, found.right, ~found.visible),
        "person": _person_summary(found, calibration.person),
    }


def _person_summary(found: LabelledKeypoints, person: Calibration | None) -> dict | None:
    if person is None or not len(found.background):
        return None
    boxes = {"people": person(found.people), "background": person(found.background)}
    return {name: {"boxes": len(those), "called a person": int((those >= 0.5).sum())} for name, those in boxes.items()}


def _summary(probabilities: np.ndarray, right: np.ndarray, rows: np.ndarray) -> dict | None:
    if not rows.any():
        return None
    return {
        "keypoints": int(rows.sum()),
        "confidence": float(probabilities[rows].mean()),
        "right": float(right[rows].mean()),
    }


def _tolerances(people: People, protocol: str) -> np.ndarray:
    """``(people, joints)`` image pixels within which a keypoint is right; 0 for people who do not count."""
    joints = people.skeleton.num_joints
    if protocol == "ap":
        lengths = np.sqrt(people.areas)[:, None]
        return lengths * 2 * np.array(people.skeleton.sigmas) * math.sqrt(-2 * math.log(MIN_OKS))
    lengths = PCK_THRESHOLD * torsos(people) if protocol == "pck" else PCKH_THRESHOLD * people.reference_length
    return np.repeat(lengths[:, None], joints, axis=1)

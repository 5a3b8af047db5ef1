"""Confidence of a network's keypoints on annotated people: fitted to them, or compared with what is right.

Right is a keypoint that the data set's protocol calls so: a similarity of at least 0.5 on COCO (OKS of that keypoint
alone), within 0.2 of the torso on LSP, within half of the head size on MPII.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from keras_mrpose.calibration import Calibration, Reliability, fit, reliability
from keras_mrpose.data.people import People, protocol_of
from keras_mrpose.errors import InputError
from keras_mrpose.evaluation.evaluate import settings_of
from keras_mrpose.evaluation.pck import torsos
from keras_mrpose.evaluation.predictions import check_tables, predict
from keras_mrpose.predict.predictor import Predictor

CRITERIA = {
    "ap": "OKS of the keypoint at least 0.5",
    "pck": "within 0.2 of the torso",
    "pckh": "within 0.5 of the head size",
}
MIN_OKS, PCK_THRESHOLD, PCKH_THRESHOLD = 0.5, 0.2, 0.5


@dataclass(frozen=True, eq=False)
class LabelledKeypoints:
    """The labelled keypoints of people, as a network found them.

    Attributes:
        scores: ``(keypoints,)`` heights of peaks.
        right: ``(keypoints,)`` bool, by the protocol.
        visible: ``(keypoints,)`` bool, as annotated; False is hidden.
        criterion: what right means, for people.
    """

    scores: np.ndarray
    right: np.ndarray
    visible: np.ndarray
    criterion: str


def find_labelled(predictor: Predictor, people: People) -> LabelledKeypoints:
    """Run a network on annotated boxes and tell which of the labelled keypoints it finds.

    Raises:
        InputError: no joint has a name in both, nobody is there, an unreadable image, or a network that ends in
            keypoints and has no scores to fit to.
    """
    check_tables(predictor, people, people)
    protocol = protocol_of(people)
    predictions = predict(predictor, people)
    found = predictions.read(settings_of(predictor))
    tolerance = _tolerances(people, protocol)
    labelled = (people.keypoints[..., 2] > 0) & predictions.known & (tolerance > 0)
    if not labelled.any():
        raise InputError(f"{people.source} has no labelled keypoint that the network knows; give another data set.")
    error = np.linalg.norm(found[..., :2] - people.keypoints[..., :2], axis=-1)
    return LabelledKeypoints(
        found[..., 2][labelled],
        (error <= tolerance)[labelled],
        (people.keypoints[..., 2] == 2)[labelled],
        CRITERIA[protocol],
    )


def fit_calibration(found: Sequence[LabelledKeypoints]) -> Calibration:
    """The calibration of a network, fitted on people whom it was not trained on.

    Args:
        found: of each data set, see `find_labelled`; each counts as much.

    Raises:
        InputError: too few keypoints.
    """
    # As many keypoints of each data set: the smaller ones are repeated.
    most = max(len(one.scores) for one in found)
    rows = [np.arange(most) % len(one.scores) for one in found]
    scores = np.concatenate([one.scores[some] for one, some in zip(found, rows, strict=True)])
    right = np.concatenate([one.right[some] for one, some in zip(found, rows, strict=True)])
    return fit(scores, right, "; ".join(dict.fromkeys(one.criterion for one in found)))


def check_calibration(found: LabelledKeypoints, calibration: Calibration) -> dict:
    """How well probabilities fit these keypoints.

    Returns:
        ``error`` (expected calibration error), ``keypoints``, ``bins`` (mean probability, share right and count of
        each), and for ``visible`` and ``hidden`` keypoints their count, mean probability and share right; None where
        there are none.
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
    }


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

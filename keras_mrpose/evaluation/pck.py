"""PCK of LSP: a joint is right if it is off by at most a share of the torso, right hip to left shoulder.

A skeleton of one's own says which joints its torso is between (`Skeleton.torso`).
"""

from __future__ import annotations

import numpy as np

from keras_mrpose.data.people import People
from keras_mrpose.errors import InputError

STEPS = 50  # of the curve


def torsos(people: People) -> np.ndarray:
    """Torso lengths ``(people,)``: distance of its two joints in image pixels; 0 where one of them is not labelled.

    Raises:
        InputError: a skeleton without a torso, or nobody with both joints.
    """
    skeleton = people.skeleton
    if skeleton.torso is None:
        raise InputError(
            f"Skeleton {skeleton.name} has no right hip and left shoulder, which PCK's torso needs; name two other "
            "joints as its torso."
        )
    one, other = (people.keypoints[:, joint] for joint in skeleton.torso)
    labelled = (one[:, 2] > 0) & (other[:, 2] > 0)
    lengths = np.linalg.norm(one[:, :2] - other[:, :2], axis=-1) * labelled
    if not lengths.any():
        names = " and ".join(skeleton.joints[joint].replace("_", " ") for joint in skeleton.torso)
        raise InputError(f"{people.source} has nobody with {names} labelled, PCK's torso.")
    return lengths


def pck(keypoints: np.ndarray, people: People, threshold: float = 0.2) -> dict:
    """PCK over all joints, by joint and as a curve, in double precision; people without a torso are not counted.

    Args:
        keypoints: ``(people, joints, 2 or 3)`` x, y in image pixels; a third number, such as a score, is not read.
        people: their annotations.
        threshold: share of the torso, itself included (Tran et al. 2021: 0.2).

    Returns:
        ``mean`` over all labelled joints; ``joints``, by name, None where none is labelled; ``curve``, the mean at
        ``thresholds`` 0 to `threshold` in 50 steps, and the ``area`` under it as a share of a perfect network's;
        ``people``, ``people_without_torso``. All shares are 0..1.
    """
    lengths = torsos(people)
    labelled = (people.keypoints[..., 2] > 0) & (lengths > 0)[:, None]
    error = np.linalg.norm(np.asarray(keypoints, np.float64)[..., :2] - people.keypoints[..., :2], axis=-1)
    thresholds = np.linspace(0, threshold, STEPS + 1)
    right = np.array([(labelled & (error <= share * lengths[:, None])).sum(axis=0) for share in thresholds])
    labels = labelled.sum(axis=0)
    curve = right.sum(axis=1) / labels.sum()
    names = people.skeleton.joints
    return {
        "mean": float(curve[-1]),
        "joints": {name: float(right[-1, j] / labels[j]) if labels[j] else None for j, name in enumerate(names)},
        "area": float(np.trapezoid(curve) / STEPS),
        "thresholds": thresholds.tolist(),
        "curve": curve.tolist(),
        "people": len(people),
        "people_without_torso": int((lengths == 0).sum()),
    }

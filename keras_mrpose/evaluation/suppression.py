"""Suppression of duplicate people found in detected boxes: the published rescoring and OKS-NMS.

Plain NumPy in float64.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from keras_mrpose.errors import InputError
from keras_mrpose.geometry import crop_window
from keras_mrpose.nms import by_falling_score, oks_nms, soft_oks_nms
from keras_mrpose.skeletons import COCO

SUPPRESSIONS = ("hard", "soft", "none")


def window_areas(boxes, size: tuple[int, int]) -> np.ndarray:
    """Areas ``(people,)`` in square image pixels of the windows cropped for boxes, as the published NMS takes them.

    Args:
        boxes: ``(people, 4)`` x, y, w, h in image pixels.
        size: ``(height, width)`` of the crop.
    """
    return np.square(crop_window(np.asarray(boxes, np.float64), size)[1]) * size[0] / size[1]


def rescore(keypoints, box_scores, joint_threshold: float = 0.2) -> np.ndarray:
    """Scores of people: box score times the mean score of the joints above a threshold.

    Args:
        keypoints: ``(people, joints, 3)`` x, y, score.
        box_scores: ``(people,)``.
        joint_threshold: a joint of exactly this score is not counted (published: 0.2).

    Returns:
        ``(people,)`` float64; 0 for people without a joint above the threshold.
    """
    keypoints, box_scores = columns(keypoints, None, box_scores=box_scores)
    counted = keypoints[..., 2] > joint_threshold
    sums = np.where(counted, keypoints[..., 2], 0).sum(axis=1)
    return box_scores * sums / np.maximum(counted.sum(axis=1), 1)


def rescore_and_nms(
    keypoints,
    image_ids,
    areas,
    box_scores,
    suppression: str = "hard",
    oks_threshold: float = 0.9,
    joint_threshold: float = 0.2,
    sigmas: Sequence[float] = COCO.sigmas,
) -> tuple[np.ndarray, np.ndarray]:
    """People to report and their scores: `rescore`, then OKS-NMS in each image, over all joints.

    Args:
        keypoints: ``(people, joints, 3)`` x, y in image pixels, score.
        image_ids: ``(people,)`` integers.
        areas: ``(people,)`` in square image pixels; published: `window_areas`.
        box_scores: ``(people,)``.
        suppression: ``"hard"`` (published) drops people, ``"soft"`` lowers their scores, ``"none"`` does neither.
        oks_threshold: of the suppression, see `keras_mrpose.nms`.
        joint_threshold: of `rescore`.
        sigmas: ``(joints,)`` of the skeleton (`Skeleton.sigmas`).

    Returns:
        Rows of the people that stay, in the published order (`keras_mrpose.nms.by_falling_score`), and their scores.

    Raises:
        InputError: an unknown suppression, arrays that do not fit each other, or a value that is not finite.
    """
    if suppression not in SUPPRESSIONS:
        raise InputError(f"Unknown suppression {suppression!r}; give one of {', '.join(SUPPRESSIONS)}.")
    keypoints, image_ids, areas, box_scores = columns(
        keypoints, len(sigmas), image_ids=image_ids, areas=areas, box_scores=box_scores
    )
    scores = rescore(keypoints, box_scores, joint_threshold)
    if suppression == "soft":
        return soft_oks_nms(keypoints, areas, scores, sigmas, oks_threshold, image_ids=image_ids)
    if suppression == "hard":
        rows = oks_nms(keypoints, areas, scores, sigmas, oks_threshold, image_ids=image_ids)
    else:
        rows = by_falling_score(scores, image_ids)
    return rows, scores[rows]


def columns(keypoints, joints: int | None = COCO.num_joints, **others) -> list[np.ndarray]:
    """Checked arrays: keypoints with so many joints (None: any), and of all others one finite number per person."""
    keypoints = np.asarray(keypoints, np.float64)
    if keypoints.ndim != 3 or keypoints.shape[2] != 3 or joints not in (None, keypoints.shape[1]):
        wanted = f"(people, {joints or 'joints'}, 3)"
        raise InputError(f"COCO got keypoints of shape {keypoints.shape}; give {wanted}: x, y, score.")
    arrays = {"keypoints": keypoints}
    for name, values in others.items():
        arrays[name] = np.asarray(values, np.int64 if name == "image_ids" else np.float64)
    for name, values in arrays.items():
        if name != "keypoints" and values.shape != keypoints.shape[:1]:
            raise InputError(f"COCO got {name} of shape {values.shape} for {len(keypoints)} people; give one for each.")
        if not np.isfinite(values).all():
            row = int(np.argwhere(~np.isfinite(values))[0][0])
            raise InputError(f"COCO got {name} of person {row} that are not finite numbers; leave such people out.")
    return list(arrays.values())

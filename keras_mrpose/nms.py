"""Non-maximum suppression of poses: of several detections of one person, the best is kept.

Plain NumPy in float64, for the people found in one image. How much two of them are the same is their object keypoint
similarity (OKS), with the mean of their two areas and all joints counting alike, as in the published code.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from keras_mrpose.errors import InputError


def oks_matrix(
    keypoints,
    areas,
    sigmas: Sequence[float],
    joint_threshold: float | None = None,
    candidate_only: bool = False,
) -> np.ndarray:
    """OKS between all people of an image: the mean over joints of exp(-d^2 / (2 (2 sigma)^2 area)).

    Args:
        keypoints: ``(n, joints, 3)`` x, y, confidence.
        areas: ``(n,)`` in square units of x and y; of two people the mean is taken. (Published: of the padded box.)
        sigmas: ``(joints,)`` the skeleton's constants (`Skeleton.sigmas`).
        joint_threshold: only joints whose confidence is above it in both people are averaged; None, as in the published
            evaluation, takes all.
        candidate_only: `joint_threshold` looks at the second person alone, whose confidences decide then for both, so
            that the matrix is not symmetric. This is what the published code does when it is given a threshold, most
            likely by mistake.

    Returns:
        ``(n, n)`` float64 in 0..1: row i the person that stays, column j the one that might be dropped; 0 where no
        joint is above the threshold.

    Raises:
        InputError: shapes that do not fit each other, or a value that is not finite.
    """
    keypoints, areas, sigmas = _checked(keypoints=keypoints, areas=areas, sigmas=sigmas)
    squared = np.square(keypoints[:, None, :, :2] - keypoints[None, :, :, :2]).sum(axis=-1)
    area = (areas[:, None] + areas[None, :])[..., None] / 2
    tolerance = 2 * np.square(2 * sigmas) * area
    similarity = np.exp(-squared / np.maximum(tolerance, 1e-12))  # areas of 0 accept the exact joint
    if joint_threshold is None:
        return similarity.mean(axis=-1)
    sure = keypoints[..., 2] > joint_threshold
    averaged = np.broadcast_to(sure[None], similarity.shape) if candidate_only else sure[:, None] & sure[None]
    return (similarity * averaged).sum(axis=-1) / np.maximum(averaged.sum(axis=-1), 1)


def oks_nms(
    keypoints,
    areas,
    scores,
    sigmas: Sequence[float],
    threshold: float = 0.9,
    joint_threshold: float | None = None,
    candidate_only: bool = False,
) -> np.ndarray:
    """Keep the person of the highest score, drop all whose OKS with it is above a threshold, go on with the rest.

    Args:
        keypoints: as in `oks_matrix`, like areas, sigmas, joint_threshold and candidate_only.
        areas: ``(n,)``.
        scores: ``(n,)`` of the people; of equal ones the first comes first.
        sigmas: ``(joints,)``.
        threshold: an OKS of exactly this much does not drop anybody (published: 0.9).
        joint_threshold: see `oks_matrix`.
        candidate_only: see `oks_matrix`.

    Returns:
        Indices of the kept people in order of falling score.
    """
    similarity = oks_matrix(keypoints, areas, sigmas, joint_threshold, candidate_only)
    (scores,) = _checked(keypoints=keypoints, scores=scores)[1:]
    left, kept = np.argsort(-scores, kind="stable"), []
    while left.size:
        best, left = left[0], left[1:]
        kept.append(best)
        left = left[similarity[best, left] <= threshold]
    return np.array(kept, np.intp)


def soft_oks_nms(
    keypoints,
    areas,
    scores,
    sigmas: Sequence[float],
    threshold: float = 0.9,
    joint_threshold: float | None = None,
    candidate_only: bool = False,
) -> tuple[np.ndarray, np.ndarray]:
    """Drop nobody: lower the scores of those who resemble a better person, by the factor exp(-OKS^2 / threshold).

    The person of the highest score goes first and lowers the scores of all others; then the highest of those, and so
    on. Cut the result off at as many people as the evaluation takes (COCO: 20).

    Args:
        keypoints: as in `oks_nms`, like all others but `threshold`.
        areas: ``(n,)``.
        scores: ``(n,)``, not negative.
        sigmas: ``(joints,)``.
        threshold: positive; the smaller, the more resemblance costs. It cuts nothing off.
        joint_threshold: see `oks_matrix`.
        candidate_only: see `oks_matrix`.

    Returns:
        Indices of all people in order of falling new score, and their new scores in that order.

    Source: Bodla et al. 2017 (Soft-NMS, Gaussian), with OKS for the overlap and `threshold` for its sigma, as the code
    family of the published implementation has it beside the hard rule.
    """
    if not threshold > 0:
        raise InputError(f"The threshold of soft OKS-NMS is {threshold}; give a positive number, for example 0.9.")
    similarity = oks_matrix(keypoints, areas, sigmas, joint_threshold, candidate_only)
    scores = _checked(keypoints=keypoints, scores=scores)[1].copy()
    left, order = np.arange(len(scores)), []
    while left.size:
        best = left[np.argmax(scores[left])]
        order.append(best)
        left = left[left != best]
        scores[left] *= np.exp(-np.square(similarity[best, left]) / threshold)
    order = np.array(order, np.intp)
    return order, scores[order]


def _checked(keypoints, **others) -> list[np.ndarray]:
    """All of these as float64 arrays that fit the keypoints: as many sigmas as joints, one of the rest per person."""
    keypoints = np.asarray(keypoints, np.float64)
    if keypoints.ndim != 3 or keypoints.shape[2] != 3:
        raise InputError(f"OKS-NMS got keypoints of shape {keypoints.shape}; give (people, joints, 3): x, y, score.")
    arrays = {"keypoints": keypoints}
    for name, values in others.items():
        arrays[name] = np.asarray(values, np.float64)
        wanted = keypoints.shape[1:2] if name == "sigmas" else keypoints.shape[:1]
        if arrays[name].shape != wanted:
            raise InputError(
                f"OKS-NMS got {name} of shape {arrays[name].shape} with keypoints of shape {keypoints.shape}; "
                f"give one number for each {'joint' if name == 'sigmas' else 'person'}."
            )
    for name, values in arrays.items():
        if not np.isfinite(values).all():
            raise InputError(f"OKS-NMS got {name} that are not finite numbers; leave such people out.")
    return list(arrays.values())

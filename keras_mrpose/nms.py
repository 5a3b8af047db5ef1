"""Non-maximum suppression of poses: of several detections of one person, the best is kept.

Plain NumPy in float64, for the people of any number of images at once. Two people are compared by their object
keypoint similarity (OKS), with the mean of their two areas and all joints counting alike, as in the published code.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from keras_mrpose.errors import InputError


def oks_nms(
    keypoints,
    areas,
    scores,
    sigmas: Sequence[float],
    threshold: float = 0.9,
    image_ids=None,
) -> np.ndarray:
    """Keep the person of the highest score, drop all whose OKS with it is above a threshold, go on with the rest.

    The OKS of two people is the mean over all joints of exp(-d^2 / (2 (2 sigma)^2 area)), as in the published
    evaluation.

    Args:
        keypoints: ``(n, joints, 3)`` x, y, confidence, which is not looked at.
        areas: ``(n,)`` in square units of x and y; of two people the mean is taken. (Published: of the padded box.)
        scores: ``(n,)`` of the people; of equal ones the later row comes first, as published.
        sigmas: ``(joints,)`` the skeleton's constants (`Skeleton.sigmas`).
        threshold: an OKS of exactly this much does not drop anybody (published: 0.9).
        image_ids: ``(n,)`` integers; only people of one image drop each other. None: there is one image.

    Returns:
        Indices of the kept people in the order of `by_falling_score`.
    """
    keypoints, areas, scores, sigmas, image_ids = _checked(
        keypoints=keypoints, areas=areas, scores=scores, sigmas=sigmas, image_ids=image_ids
    )
    order = left = by_falling_score(scores, image_ids)
    kept = np.zeros(len(scores), bool)
    while left.size:
        best, left, similarity = _take_best(left, image_ids, keypoints, areas, sigmas)
        kept[best] = True
        left = left[similarity <= threshold]
    return order[kept[order]]


def soft_oks_nms(
    keypoints,
    areas,
    scores,
    sigmas: Sequence[float],
    threshold: float = 0.9,
    image_ids=None,
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
        image_ids: ``(n,)`` integers; only people of one image lower each other's scores. None: there is one image.

    Returns:
        Indices of all people in the order of `by_falling_score` of their new scores, and these in that order.

    Source: Bodla et al. 2017 (Soft-NMS, Gaussian), with OKS for the overlap and `threshold` for its sigma, as the code
    family of the published implementation has it beside the hard rule.
    """
    if not threshold > 0:
        raise InputError(f"The threshold of soft OKS-NMS is {threshold}; give a positive number, for example 0.9.")
    keypoints, areas, scores, sigmas, image_ids = _checked(
        keypoints=keypoints, areas=areas, scores=scores, sigmas=sigmas, image_ids=image_ids
    )
    scores, left = scores.copy(), np.arange(len(scores))
    while left.size:
        left = np.sort(left)  # of equal scores the later row goes first
        left = left[by_falling_score(scores[left], image_ids[left])]
        _, left, similarity = _take_best(left, image_ids, keypoints, areas, sigmas)
        scores[left] *= np.exp(-np.square(similarity) / threshold)
    order = by_falling_score(scores, image_ids)
    return order, scores[order]


def by_falling_score(scores, image_ids) -> np.ndarray:
    """Rows in the published order: images as they first appear, in each by falling score, of equal ones the later.

    Args:
        scores: ``(n,)``.
        image_ids: ``(n,)`` integers.
    """
    _, first, image = np.unique(image_ids, return_index=True, return_inverse=True)
    return np.lexsort((scores, -first[image]))[::-1]


def _checked(keypoints, **others) -> list[np.ndarray]:
    """Checked float64 arrays that fit the keypoints: as many sigmas as joints, one of the rest per person."""
    keypoints = np.asarray(keypoints, np.float64)
    if keypoints.ndim != 3 or keypoints.shape[2] != 3:
        raise InputError(f"OKS-NMS got keypoints of shape {keypoints.shape}; give (people, joints, 3): x, y, score.")
    arrays = {"keypoints": keypoints}
    for name, values in others.items():
        if name == "image_ids" and values is None:
            values = np.zeros(len(keypoints))
        arrays[name] = np.asarray(values, np.int64 if name == "image_ids" else np.float64)
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


def _take_best(left, image_ids, keypoints, areas, sigmas) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of rows `by_falling_score`: the first of each image, the others, and their OKS with the first of their image."""
    first = np.append(True, image_ids[left[1:]] != image_ids[left[:-1]])
    best, rest = left[first], left[~first]
    theirs = best[np.cumsum(first) - 1][~first]
    return best, rest, pair_oks(keypoints[theirs], keypoints[rest], (areas[theirs] + areas[rest]) / 2, sigmas)


def pair_oks(kept, candidate, area, sigmas) -> np.ndarray:
    """OKS ``(...)`` of pairs of people, both ``(..., joints, 2 or 3)``, with their mean areas ``(...)``."""
    squared = np.square(kept[..., 0] - candidate[..., 0]) + np.square(kept[..., 1] - candidate[..., 1])
    tolerance = 2 * np.square(2 * np.asarray(sigmas)) * area[..., None]
    return np.exp(-squared / np.maximum(tolerance, 1e-12)).mean(axis=-1)  # areas of 0 accept the exact joint

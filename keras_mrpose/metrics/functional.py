"""PCK, PCKh, OKS and average precision as pure functions. A joint is labelled where its weight is positive.

Every number here is a share of counted things, and 0.0 where nothing was counted, as for `keras.metrics.Mean`.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from keras import ops

from keras_mrpose.codecs import peaks

OKS_THRESHOLDS = tuple(np.linspace(0.5, 0.95, 10))  # cocodataset.org, keypoint evaluation
RECALL_STEPS = 100  # precision is read at recall 0, 0.01 .. 1
JOINT_SCORE_THRESHOLD = 0.2  # published: joints below it do not take part in a person's score
PELVIS_AND_THORAX = (6, 7)  # the two MPII joints that are not part of the published mean


def distances(points, target_points):
    """Euclidean distances ``(...)`` of points ``(..., 2)`` and target points ``(..., 2)``, in their own unit."""
    offset = ops.cast(points, "float32") - ops.cast(target_points, "float32")
    return ops.sqrt(ops.sum(ops.square(offset), axis=-1))


def torso_length(target_points, weights, torso: tuple[int, int]):
    """Torso length: the distance of two joints, as a rule right hip and left shoulder (`Skeleton.torso`).

    Args:
        target_points: ``(..., joints, 2)``.
        weights: ``(..., joints)``, positive where a joint is labelled.
        torso: the indices of the two joints.

    Returns:
        ``(...)`` float32 in the points' unit; 0 where one of the two joints is not labelled, whom PCK leaves out.
    """
    first, second = torso
    labelled = (weights[..., first] > 0) & (weights[..., second] > 0)
    return ops.where(labelled, distances(target_points[..., first, :], target_points[..., second, :]), 0.0)


def correct_joints(points, target_points, weights, lengths, threshold: float, exclude: Sequence[int] = ()):
    """Masks of the joints that are off by at most a share of a length, and of those that count at all.

    Args:
        points: ``(batch, joints, 2)`` predictions. NaN is a miss.
        target_points: ``(batch, joints, 2)`` in the same unit. Values of unlabelled joints have no influence.
        weights: ``(batch, joints)``, positive where a joint is labelled.
        lengths: ``(batch,)``, a person's torso or head size in the same unit. People without one (0) do not count.
        threshold: the share of the length that a joint may be off, itself included.
        exclude: indices of joints that do not count.

    Returns:
        correct and counted, both ``(batch, joints)`` bool; a correct joint is a counted one.
    """
    lengths = ops.cast(lengths, "float32")[..., None]
    counted = (ops.convert_to_tensor(weights) > 0) & (lengths > 0)
    if exclude:
        included = np.isin(np.arange(counted.shape[-1]), exclude, invert=True)
        counted = counted & ops.convert_to_tensor(included)
    return counted & (distances(points, target_points) <= threshold * lengths), counted


def published_accuracy(target_heatmaps, heatmaps):
    """Accuracy that the published code logs while it trains: a rough PCK between two heatmaps' highest cells.

    A joint is correct within half a tenth of the heatmap's size. The published habits, all kept: heights divide
    distances in x and widths those in y; joints whose target lies in the first two columns or rows (x <= 1 or y <= 1)
    do not count, which leaves out undrawn ones, at (0, 0), and some that are drawn; whether a joint is labelled is not
    asked. Use it to compare logs; `PCK` with the target tensor is the sound measure.

    Args:
        target_heatmaps: ``(batch, height, width, joints)``.
        heatmaps: ``(batch, height, width, joints)``, predicted.

    Returns:
        The mean over the joints that have instances (0 if none has), and ``(joints,)`` the share of correct instances
        of each joint, -1 for a joint without any; float32.
    """
    _, height, width, _ = target_heatmaps.shape
    target, found = peaks(target_heatmaps)[0], peaks(heatmaps)[0]
    tenth = ops.convert_to_tensor([height / 10, width / 10], "float32")
    counted = ops.all(target > 1, axis=-1)
    hits = counted & (distances(found / tenth, target / tenth) < 0.5)
    instances = count(counted, axis=0)
    shares = share(count(hits, axis=0), instances)
    joints = ops.cast(count(instances > 0), "float32")
    return ops.sum(shares) / ops.maximum(joints, 1.0), ops.where(instances > 0, shares, -1.0)


def oks(points, target_points, weights, sqrt_areas, sigmas):
    """Object keypoint similarity of COCO: the mean of exp(-d^2 / (2 (2 sigma)^2 area)) over a person's labelled joints.

    Args:
        points: ``(..., joints, 2)`` predictions.
        target_points: ``(..., joints, 2)`` in the same unit. Values of unlabelled joints have no influence.
        weights: ``(..., joints)``, positive where a joint is labelled.
        sqrt_areas: ``(...)`` square root of each person's (segment) area in the same unit.
        sigmas: ``(joints,)`` the skeleton's constants.

    Returns:
        ``(...)`` float32 in 0..1; 0.0 for a person without labelled joints; NaN if a prediction is.

    Source: cocodataset.org, keypoint evaluation, and `pycocotools`.
    """
    labelled = ops.cast(ops.convert_to_tensor(weights) > 0, "float32")
    tolerance = 2 * ops.convert_to_tensor(sigmas, "float32") * ops.cast(sqrt_areas, "float32")[..., None]
    error = distances(points, target_points) / ops.maximum(tolerance, 1e-12)  # an area of 0 accepts the exact joint
    similarity = ops.where(labelled > 0, ops.exp(-0.5 * ops.square(error)), 0.0)
    return ops.sum(similarity, axis=-1) / ops.maximum(ops.sum(labelled, axis=-1), 1.0)


def person_score(joint_scores, threshold: float = JOINT_SCORE_THRESHOLD):
    """Score of a detection ``(...)``: the mean of the joint scores ``(..., joints)`` above the threshold, 0 if none is.

    This is the published rescoring with a box score of 1.
    """
    joint_scores = ops.cast(joint_scores, "float32")
    confident = ops.cast(joint_scores > threshold, "float32")
    total = ops.sum(ops.where(confident > 0, joint_scores, 0.0), axis=-1)
    return total / ops.maximum(ops.sum(confident, axis=-1), 1.0)


def average_precision(true_positives, detections):
    """Average precision, interpolated at 101 recalls as in `pycocotools`, of detections counted in bins of their score.

    Every detection has one ground truth and every ground truth one detection, so their numbers are the same. People in
    one bin enter together; with at most one in each bin the result is that of sorting them.

    Args:
        true_positives: ``(..., bins)`` integers, lowest scores first.
        detections: ``(bins,)`` integers, true positives or not.

    Returns:
        ``(...)`` float32 in 0..1; 0.0 without detections.
    """
    found = ops.cumsum(ops.flip(ops.convert_to_tensor(true_positives), axis=-1), axis=-1)
    seen = ops.cumsum(ops.flip(ops.convert_to_tensor(detections), axis=-1), axis=-1)
    people = ops.maximum(seen[-1], 1)
    envelope = _maximum_from_here_on(share(found, seen))  # the best precision at this recall or a higher one
    # Each of the 101 recalls reads the envelope at the first bin that reaches it: count the recalls per bin, in whole
    # numbers, where floats would decide 0.29 <= 29 / 100 by their last digit. Recall 0 is reached by the first bin.
    reached = (RECALL_STEPS * found) // people + 1
    newly = ops.concatenate([reached[..., :1], reached[..., 1:] - reached[..., :-1]], axis=-1)
    return ops.sum(envelope * ops.cast(newly, "float32"), axis=-1) / (RECALL_STEPS + 1)


def count(mask, axis=None):
    """Number of true values, as an integer of the backend's widest kind."""
    return ops.sum(ops.cast(mask, "int"), axis=axis)


def _maximum_from_here_on(values):
    """Maximum of each element of the last axis and all later ones; values are not negative."""
    # ops.associative_scan would do, but takes seconds to trace into a training step
    step = 1
    while step < values.shape[-1]:
        padding = [(0, 0)] * (len(values.shape) - 1) + [(0, step)]
        values = ops.maximum(values, ops.pad(values[..., step:], padding))
        step *= 2
    return values


def share(part, whole):
    """Quotient part / whole in float32, 0 where whole is 0."""
    return ops.cast(part, "float32") / ops.cast(ops.maximum(whole, 1), "float32")

"""How good predicted joints are: PCK, PCKh and OKS-AP, as pure functions and as Keras metrics that only count.

Every number here is a share of counted things, so the Keras metrics keep integer counters (exact far beyond the 2^24
where float32 starts to swallow ones) of a fixed size, which add up over batches and replicas in any order. When nothing
was counted the result is 0.0, as for `keras.metrics.Mean`.

The metrics are called as ``metric(target, heatmaps)`` with the target tensor ``(batch, joints, 4)``: x, y, weight and
normalizer in heatmap pixels; a joint is labelled where its weight is positive, also when it lies outside the heatmap.
A sample counts where its ``sample_weight`` is positive and is left out where it is 0: it is never counted in part.
"""

from __future__ import annotations

from collections.abc import Sequence

import keras
import numpy as np
from keras import ops

from keras_mrpose.errors import InputError
from keras_mrpose.heatmaps import GaussianCodec, peaks

OKS_THRESHOLDS = tuple(np.linspace(0.5, 0.95, 10))  # cocodataset.org, keypoint evaluation
RECALL_STEPS = 100  # precision is read at recall 0, 0.01 .. 1
JOINT_SCORE_THRESHOLD = 0.2  # published: joints below it do not take part in a person's score
PELVIS_AND_THORAX = (6, 7)  # the two MPII joints that are not part of the published mean


# --- pure functions -----------------------------------------------------------------------------------------------


def distances(points, target_points):
    """Euclidean distances ``(...)`` of points ``(..., 2)`` and target points ``(..., 2)``, in their own unit."""
    offset = ops.cast(points, "float32") - ops.cast(target_points, "float32")
    return ops.sqrt(ops.sum(ops.square(offset), axis=-1))


def torso_length(target_points, weights, torso: tuple[int, int]):
    """Distance of two of a person's joints, as a rule right hip and left shoulder (`Skeleton.torso`).

    Args:
        target_points: ``(..., joints, 2)``.
        weights: ``(..., joints)``, positive where a joint is labelled.
        torso: the indices of the two joints.

    Returns:
        ``(...)`` float32 in the points' unit; 0 where one of the two joints is not labelled, which `pck` leaves out.
    """
    first, second = torso
    labelled = (weights[..., first] > 0) & (weights[..., second] > 0)
    return ops.where(labelled, distances(target_points[..., first, :], target_points[..., second, :]), 0.0)


def correct_joints(points, target_points, weights, lengths, threshold: float, exclude: Sequence[int] = ()):
    """Which joints are closer to the truth than a share of a length, and which count at all.

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


def pck(
    points,
    target_points,
    weights,
    lengths,
    threshold: float = 0.2,
    exclude: Sequence[int] = (),
    axis: int | None = None,
):
    """PCK: the share of labelled joints whose error is at most ``threshold`` of the person's torso.

    Arguments as in `correct_joints`; ``lengths`` are torsos, see `torso_length`.

    Args:
        axis: None for one number over all joints (as published: every joint has the same weight), 0 for one per
            joint, 1 for one per person.

    Returns:
        float32 in 0..1, 0.0 where nothing was counted.

    Source: Tran et al. 2021 (right hip to left shoulder); the measure is Yang and Ramanan's.
    """
    correct, counted = correct_joints(points, target_points, weights, lengths, threshold, exclude)
    return _share(_count(correct, axis), _count(counted, axis))


def pckh(
    points,
    target_points,
    weights,
    head_sizes,
    threshold: float = 0.5,
    exclude: Sequence[int] = PELVIS_AND_THORAX,
    axis: int | None = None,
):
    """PCKh of MPII: `pck` with the head size (0.6 x diagonal of the head box) in place of the torso.

    The published mean leaves pelvis and thorax out, joints 6 and 7 in MPII's order; give ``exclude=()`` for another
    skeleton or to see them with ``axis=0``. Published means weight every joint alike, as ``axis=None`` does.
    """
    return pck(points, target_points, weights, head_sizes, threshold, exclude, axis)


def published_accuracy(target_heatmaps, heatmaps):
    """The accuracy that the published code logs while it trains: a rough PCK between two heatmaps' highest cells.

    A joint is correct within half a tenth of the heatmap's size. The published habits, all kept: heights divide
    distances in x and widths those in y; joints whose target lies in the first two columns or rows (x <= 1 or y <= 1)
    do not count, which leaves out undrawn ones, at (0, 0), and some that are drawn; whether a joint is labelled is not
    asked. Use it to compare logs; `pck` with the target tensor is the sound measure.

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
    instances = _count(counted, axis=0)
    shares = _share(_count(hits, axis=0), instances)
    joints = ops.cast(_count(instances > 0), "float32")
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
    """A detection's score ``(...)``: the mean of the joint scores ``(..., joints)`` above the threshold, 0 if none is.

    This is the published rescoring with a box score of 1.
    """
    joint_scores = ops.cast(joint_scores, "float32")
    sure = ops.cast(joint_scores > threshold, "float32")
    total = ops.sum(ops.where(sure > 0, joint_scores, 0.0), axis=-1)
    return total / ops.maximum(ops.sum(sure, axis=-1), 1.0)


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
    envelope = _maximum_from_here_on(_share(found, seen))  # the best precision at this recall or a higher one
    # Each of the 101 recalls reads the envelope at the first bin that reaches it: count the recalls per bin, in whole
    # numbers, where floats would decide 0.29 <= 29 / 100 by their last digit. Recall 0 is reached by the first bin.
    reached = (RECALL_STEPS * found) // people + 1
    newly = ops.concatenate([reached[..., :1], reached[..., 1:] - reached[..., :-1]], axis=-1)
    return ops.sum(envelope * ops.cast(newly, "float32"), axis=-1) / (RECALL_STEPS + 1)


def _count(mask, axis=None):
    """How many are true, as an integer of the backend's widest kind."""
    return ops.sum(ops.cast(mask, "int"), axis=axis)


def _maximum_from_here_on(values):
    """For each element of the last axis, the maximum of it and all later ones; values are not negative."""
    # ops.associative_scan would do, but takes seconds to trace into a training step
    reach = 1
    while reach < values.shape[-1]:
        padding = [(0, 0)] * (len(values.shape) - 1) + [(0, reach)]
        values = ops.maximum(values, ops.pad(values[..., reach:], padding))
        reach *= 2
    return values


def _share(part, whole):
    """part / whole in float32, 0 where whole is 0."""
    return ops.cast(part, "float32") / ops.cast(ops.maximum(whole, 1), "float32")


# --- Keras metrics ------------------------------------------------------------------------------------------------


class _PoseMetric(keras.metrics.Metric):
    """What the metrics share: a codec that finds the joints in the heatmaps, and integer counters.

    ``dtype`` is fixed: positions are float32 and counters integers under every precision policy.
    """

    def __init__(self, codec, name: str):
        super().__init__(name=name, dtype="float32")
        self.codec = GaussianCodec() if codec is None else codec

    def _counter(self, name, shape=()):
        # "int" is int64 on TensorFlow and int32 on JAX. On a GPU TensorFlow keeps int32 variables on the host.
        return self.add_variable(shape, "zeros", dtype="int", aggregation="sum", name=name)

    def _people(self, target, heatmaps, sample_weight):
        """Points, joint scores, target points, weights (0 where a sample does not count), normalizers ``(batch,)``."""
        if len(target.shape) != 3 or target.shape[-1] != 4 or len(heatmaps.shape) != 4:
            raise InputError(
                f"Metric {self.name!r} got a target of shape {tuple(target.shape)} and heatmaps of shape "
                f"{tuple(heatmaps.shape)}; give (batch, joints, 4) and (batch, height, width, joints)."
            )
        joints, maps = target.shape[1], heatmaps.shape[-1]
        if joints != maps:
            raise InputError(
                f"Metric {self.name!r} got a target of {joints} joints and {maps} heatmaps; build the network with "
                f"num_joints={joints}."
            )
        target = ops.cast(target, "float32")
        weights = target[..., 2]
        if sample_weight is not None:
            counts = ops.reshape(ops.cast(sample_weight, "float32"), (-1, 1)) > 0
            weights = ops.where(counts, weights, 0.0)
        points, scores = self.codec.decode(ops.cast(heatmaps, "float32"))
        return points, scores, target[..., :2], weights, ops.max(target[..., 3], axis=-1)

    def get_config(self) -> dict:
        """The arguments that make this metric again."""
        return {"codec": keras.saving.serialize_keras_object(self.codec), "name": self.name}

    @classmethod
    def from_config(cls, config: dict):
        """The inverse of `get_config`."""
        return cls(**{**config, "codec": keras.saving.deserialize_keras_object(config["codec"])})


@keras.saving.register_keras_serializable("keras_mrpose")
class PCK(_PoseMetric):
    """Share of labelled joints whose error is at most ``threshold`` of the person's torso, see `pck`.

    Args:
        codec: reads joints from heatmaps; `GaussianCodec()` if None.
        threshold: share of the torso.
        torso: indices of right hip and left shoulder (`Skeleton.torso`): the torso is measured on the target, and
            people without both joints are left out. None: the torso is the target's normalizer column.
        exclude: indices of joints that do not count.
        name: the metric's name in logs.
    """

    def __init__(
        self,
        codec=None,
        threshold: float = 0.2,
        torso: tuple[int, int] | None = None,
        exclude: Sequence[int] = (),
        name: str = "pck",
    ):
        super().__init__(codec, name)
        if not threshold > 0:
            raise InputError(f"Metric {name!r}: threshold is {threshold}; give a positive share, for example 0.2.")
        if torso is not None and (len(torso) != 2 or torso[0] == torso[1]):
            raise InputError(f"Metric {name!r}: torso is {torso}; give the indices of two different joints, or None.")
        self.threshold = float(threshold)
        self.torso = None if torso is None else tuple(torso)
        self.exclude = tuple(exclude)
        self.correct = self._counter("correct")
        self.counted = self._counter("counted")

    def update_state(self, target, heatmaps, sample_weight=None):
        """Count a batch: target ``(batch, joints, 4)``, heatmaps ``(batch, height, width, joints)``."""
        points, _, target_points, weights, lengths = self._people(target, heatmaps, sample_weight)
        if self.torso is not None:
            lengths = torso_length(target_points, weights, self.torso)
        correct, counted = correct_joints(points, target_points, weights, lengths, self.threshold, self.exclude)
        self.correct.assign_add(_count(correct))
        self.counted.assign_add(_count(counted))

    def result(self):
        """The share so far, 0..1."""
        return _share(self.correct, self.counted)

    def get_config(self) -> dict:
        """The arguments that make this metric again."""
        config = {"threshold": self.threshold, "torso": self.torso, "exclude": self.exclude}
        return {**super().get_config(), **config}


@keras.saving.register_keras_serializable("keras_mrpose")
class PCKh(PCK):
    """Share of labelled joints whose error is at most ``threshold`` of the head size, the target's normalizer column.

    Args:
        codec: reads joints from heatmaps; `GaussianCodec()` if None.
        threshold: share of the head size (0.6 x diagonal of the head box).
        exclude: indices of joints that do not count; the default is MPII's pelvis and thorax.
        name: the metric's name in logs.
    """

    def __init__(
        self,
        codec=None,
        threshold: float = 0.5,
        exclude: Sequence[int] = PELVIS_AND_THORAX,
        name: str = "pckh",
    ):
        super().__init__(codec, threshold, torso=None, exclude=exclude, name=name)

    def get_config(self) -> dict:
        """The arguments that make this metric again."""
        config = super().get_config()
        del config["torso"]
        return config


@keras.saving.register_keras_serializable("keras_mrpose")
class OKSAP(_PoseMetric):
    """COCO's average precision, mean over OKS thresholds 0.50, 0.55 .. 0.95, for people whose boxes are given.

    Each crop is one detection that is compared with the one person it was cropped for, ranked by `person_score`; people
    without labelled joints are left out. It is not the AP of the COCO server: no person is missed by a detector, no
    detection is suppressed or given to somebody else, boxes carry no score, and joints are compared in the
    heatmap.

    Args:
        sigmas: OKS constant of each joint (`Skeleton.sigmas`).
        codec: reads joints from heatmaps; `GaussianCodec()` if None.
        bins: the ranking is as fine as 1 / bins; scores outside 0..1 go to the nearest end.
        name: the metric's name in logs.
    """

    def __init__(self, sigmas: Sequence[float], codec=None, bins: int = 4096, name: str = "oks_ap"):
        super().__init__(codec, name)
        if not all(sigma > 0 for sigma in sigmas):
            raise InputError(f"Metric {name!r}: sigmas are {tuple(sigmas)}; give a positive one for each joint.")
        self.sigmas = tuple(float(sigma) for sigma in sigmas)
        self.bins = int(bins)
        self.true_positives = self._counter("true_positives", (len(OKS_THRESHOLDS), self.bins))
        self.detections = self._counter("detections", (self.bins,))

    def update_state(self, target, heatmaps, sample_weight=None):
        """Count a batch: target ``(batch, joints, 4)``, heatmaps ``(batch, height, width, joints)``."""
        points, joint_scores, target_points, weights, sqrt_areas = self._people(target, heatmaps, sample_weight)
        joints = weights.shape[-1]
        if len(self.sigmas) != joints:
            raise InputError(
                f"Metric {self.name!r} has {len(self.sigmas)} sigmas for {joints} joints; give one per joint."
            )
        similarity = oks(points, target_points, weights, sqrt_areas, self.sigmas)
        score = ops.clip(person_score(joint_scores), 0.0, 1.0)
        bin_index = ops.minimum(ops.cast(score * self.bins, "int32"), self.bins - 1)
        labelled = ops.any(weights > 0, axis=-1)
        in_bin = ops.one_hot(bin_index, self.bins, dtype="float32") * ops.cast(labelled, "float32")[:, None]
        hit = ops.cast(similarity >= ops.convert_to_tensor(OKS_THRESHOLDS, "float32")[:, None], "float32")
        # sums of ones, exact in float32 for one batch
        self.true_positives.assign_add(ops.cast(ops.matmul(hit, in_bin), "int"))
        self.detections.assign_add(ops.cast(ops.sum(in_bin, axis=0), "int"))

    def result(self):
        """The average precision so far, 0..1."""
        true_positives = ops.convert_to_tensor(self.true_positives)
        return ops.mean(average_precision(true_positives, ops.convert_to_tensor(self.detections)))

    def get_config(self) -> dict:
        """The arguments that make this metric again."""
        return {**super().get_config(), "sigmas": self.sigmas, "bins": self.bins}

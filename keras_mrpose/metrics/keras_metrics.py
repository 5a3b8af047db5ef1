"""PCK, PCKh and OKS-AP as Keras metrics that only count.

The metrics keep integer counters (exact far beyond the 2^24 where float32 starts to swallow ones) of a fixed size,
which add up over batches and replicas in any order.

They are called as ``metric(target, heatmaps)`` with the target tensor ``(batch, joints, 4)``: x, y, weight and
reference length in heatmap pixels; a joint is labelled where its weight is positive, also when it lies outside the
heatmap.
A sample counts where its ``sample_weight`` is positive and is left out where it is 0: it is never counted in part.

A metric made in the scope of a `tf.distribute` strategy has a counter on each replica: update it in ``strategy.run``,
as `fit` and `evaluate` do. Outside, TensorFlow deals each sum out to the replicas in equal parts, which for whole
numbers are rounded down: people would be lost silently.
"""

from __future__ import annotations

from collections.abc import Sequence

import keras
from keras import ops

from keras_mrpose.codecs import GaussianCodec
from keras_mrpose.errors import InputError, lookup
from keras_mrpose.metrics.functional import (
    OKS_THRESHOLDS,
    PELVIS_AND_THORAX,
    average_precision,
    correct_joints,
    count,
    oks,
    person_score,
    share,
    torso_length,
)
from keras_mrpose.skeletons import Skeleton

REFERENCE_LENGTH = "reference_length"


class _PoseMetric(keras.metrics.Metric):
    """Base class of the metrics: a codec that decodes the heatmaps, and integer counters.

    Without a codec a metric takes that of the network that it is compiled with (`PoseModel.compile`), and
    `GaussianCodec()` without one. `divides_by` is what the target's fourth column has to be, empty if it is not read or
    may be anything.

    ``dtype`` is fixed: positions are float32 and counters integers under every precision policy.
    """

    divides_by = ""

    def __init__(self, codec, name: str, source: int | None):
        super().__init__(name=name, dtype="float32")
        self.codec_given = codec is not None
        self.codec = GaussianCodec() if codec is None else codec
        self.source = source

    def _counter(self, name, shape=()):
        # "int" is int64 on TensorFlow and int32 on JAX. On a GPU TensorFlow keeps int32 variables on the host.
        return self.add_variable(shape, "zeros", dtype="int", aggregation="sum", name=name)

    def _people(self, target, heatmaps, sample_weight):
        """Points, joint scores, target points, weights (0 where a sample does not count), lengths ``(batch,)``."""
        columns = (4, 5) if self.source is None else (5,)
        if len(target.shape) != 3 or target.shape[-1] not in columns or len(heatmaps.shape) != 4:
            raise InputError(
                f"Metric {self.name!r} got a target of shape {tuple(target.shape)} and heatmaps of shape "
                f"{tuple(heatmaps.shape)}; give (batch, joints, {columns[0]}) and (batch, height, width, joints)."
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
        if self.source is not None:
            weights = ops.where(target[..., 4] == self.source, weights, 0.0)
        points, scores = self.codec.decode(ops.cast(heatmaps, "float32"))
        return points, scores, target[..., :2], weights, ops.max(target[..., 3], axis=-1)

    def get_config(self) -> dict:
        """Arguments that recreate this metric."""
        codec = keras.saving.serialize_keras_object(self.codec) if self.codec_given else None
        config = {"codec": codec, "name": self.name}
        return config | ({} if self.source is None else {"source": self.source})

    @classmethod
    def from_config(cls, config: dict):
        """Metric from what `get_config` returned."""
        return cls(**{**config, "codec": keras.saving.deserialize_keras_object(config["codec"])})


@keras.saving.register_keras_serializable("keras_mrpose")
class PCK(_PoseMetric):
    """Share of labelled joints whose error is at most ``threshold`` of the person's torso.

    Source: Tran et al. 2021 (right hip to left shoulder, 0.2); the measure is Yang and Ramanan's.

    Args:
        codec: decodes the heatmaps; None takes the network's.
        threshold: share of the torso.
        torso: indices of right hip and left shoulder (`Skeleton.torso`), always to be given: the torso is measured on
            the target, and people without both joints are left out. ``"reference_length"`` divides by the target's
            fourth column instead, which is no torso in any of our loaders (COCO's is sqrt(area)).
        exclude: indices of joints that do not count.
        name: the metric's name in logs.
        source: count people of this source only, of targets ``(batch, joints, 5)``; None is everybody.

    Raises:
        InputError: no torso, or an impossible threshold.
    """

    def __init__(
        self,
        codec=None,
        threshold: float = 0.2,
        torso: tuple[int, int] | str | None = None,
        exclude: Sequence[int] = (),
        name: str = "pck",
        source: int | None = None,
    ):
        super().__init__(codec, name, source)
        if not threshold > 0:
            raise InputError(f"Metric {name!r}: threshold is {threshold}; give a positive share, for example 0.2.")
        if torso is None:
            raise InputError(
                f"Metric {name!r} has no torso to divide by; give torso=skeleton.torso, the indices of right hip and "
                "left shoulder (a skeleton without them has no PCK)."
            )
        if torso != REFERENCE_LENGTH and (isinstance(torso, str) or len(torso) != 2 or torso[0] == torso[1]):
            raise InputError(
                f"Metric {name!r}: torso is {torso}; give the indices of two different joints, or {REFERENCE_LENGTH!r}."
            )
        self.threshold = float(threshold)
        self.torso = torso if isinstance(torso, str) else tuple(torso)
        self.exclude = tuple(exclude)
        self.correct = self._counter("correct")
        self.counted = self._counter("counted")

    def update_state(self, target, heatmaps, sample_weight=None):
        """Count a batch: target ``(batch, joints, 4)``, heatmaps ``(batch, height, width, joints)``."""
        points, _, target_points, weights, lengths = self._people(target, heatmaps, sample_weight)
        if self.torso != REFERENCE_LENGTH:
            lengths = torso_length(target_points, weights, self.torso)
        correct, counted = correct_joints(points, target_points, weights, lengths, self.threshold, self.exclude)
        self.correct.assign_add(count(correct))
        self.counted.assign_add(count(counted))

    def result(self):
        """Share so far, 0..1."""
        return share(self.correct, self.counted)

    def get_config(self) -> dict:
        """Arguments that recreate this metric."""
        config = {"threshold": self.threshold, "torso": self.torso, "exclude": self.exclude}
        return {**super().get_config(), **config}

    @classmethod
    def from_config(cls, config: dict):
        """Metric from what `get_config` returned, or did before a torso had to be given."""
        if "torso" in config and config["torso"] is None:
            config = {**config, "torso": REFERENCE_LENGTH}
        return super().from_config(config)


@keras.saving.register_keras_serializable("keras_mrpose")
class PCKh(PCK):
    """Share of labelled joints whose error is at most ``threshold`` of the head size, the target's fourth column.

    As published, the mean leaves out pelvis and thorax, joints 6 and 7 in MPII's order; for another skeleton give
    ``exclude=()``.

    Args:
        codec: decodes the heatmaps; None takes the network's.
        threshold: share of the head size (0.6 x diagonal of the head box).
        exclude: indices of joints that do not count; the default is MPII's pelvis and thorax.
        name: the metric's name in logs.
        source: as in `PCK`.
    """

    divides_by = "head size"

    def __init__(
        self,
        codec=None,
        threshold: float = 0.5,
        exclude: Sequence[int] = PELVIS_AND_THORAX,
        name: str = "pckh",
        source: int | None = None,
    ):
        super().__init__(codec, threshold, torso=REFERENCE_LENGTH, exclude=exclude, name=name, source=source)

    def get_config(self) -> dict:
        """Arguments that recreate this metric."""
        config = super().get_config()
        del config["torso"]
        return config


@keras.saving.register_keras_serializable("keras_mrpose")
class OKSAP(_PoseMetric):
    """COCO's average precision, mean over OKS thresholds 0.50, 0.55 .. 0.95, for people whose boxes are given.

    What it is: the exact AP of crops, each of which is the one detection of the one person it was cropped for, ranked
    by `person_score`; people without labelled joints are left out. Only the ranking is rounded: people whose scores
    fall in one bin enter together, as if its misses were ranked first, so the value is never above the exact one.
    For the 1354 people of 538 COCO images it is 0.00009 below the 0.3896 of `pycocotools`, both with the same joints
    (tests/metrics/test_metrics.py, `test_oks_ap_of_538_images_is_the_exact_one_up_to_the_bins`).

    What it is not: the AP of the COCO server, which `keras_mrpose.evaluation` gives. Here no person is missed by a
    detector, no detection is suppressed or given to somebody else, boxes carry no score, there is no flip test, and
    the area is the target's, also where a crop shows only a part of the person.

    Args:
        sigmas: OKS constant of each joint (`Skeleton.sigmas`).
        codec: decodes the heatmaps; None takes the network's.
        bins: the ranking is as fine as 1 / bins; scores outside 0..1 go to the nearest end.
        name: the metric's name in logs.
        source: as in `PCK`.
        exclude: indices of joints that count neither in the similarity nor in a person's score, such as those of the
            network that the data set does not label.
    """

    divides_by = "square root of the area"

    def __init__(
        self,
        sigmas: Sequence[float],
        codec=None,
        bins: int = 4096,
        name: str = "oks_ap",
        source: int | None = None,
        exclude: Sequence[int] = (),
    ):
        super().__init__(codec, name, source)
        self.exclude = tuple(exclude)
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
        if self.exclude:
            kept = [joint for joint in range(joints) if joint not in self.exclude]
            points, joint_scores, target_points, weights = (
                ops.take(values, kept, axis=1) for values in (points, joint_scores, target_points, weights)
            )
            sigmas = [self.sigmas[joint] for joint in kept]
        else:
            sigmas = self.sigmas
        similarity = oks(points, target_points, weights, sqrt_areas, sigmas)
        score = ops.clip(person_score(joint_scores), 0.0, 1.0)
        bin_index = ops.minimum(ops.cast(score * self.bins, "int32"), self.bins - 1)
        labelled = ops.any(weights > 0, axis=-1)
        in_bin = ops.one_hot(bin_index, self.bins, dtype="float32") * ops.cast(labelled, "float32")[:, None]
        hit = ops.cast(similarity >= ops.convert_to_tensor(OKS_THRESHOLDS, "float32")[:, None], "float32")
        # sums of ones, exact in float32 for one batch
        self.true_positives.assign_add(ops.cast(ops.matmul(hit, in_bin), "int"))
        self.detections.assign_add(ops.cast(ops.sum(in_bin, axis=0), "int"))

    def result(self):
        """Average precision so far, 0..1."""
        true_positives = ops.convert_to_tensor(self.true_positives)
        return ops.mean(average_precision(true_positives, ops.convert_to_tensor(self.detections)))

    def get_config(self) -> dict:
        """Arguments that recreate this metric."""
        config = {"sigmas": self.sigmas, "bins": self.bins}
        return {**super().get_config(), **config} | ({"exclude": self.exclude} if self.exclude else {})


def metric(name: str, skeleton: Skeleton, codec=None, /, **options) -> _PoseMetric:
    """The metric of a name as the data sets' protocols have it for a skeleton.

    Args:
        name: ``"pck"`` (0.2 of the torso), ``"pckh"`` (without pelvis and thorax) or ``"oks_ap"``.
        skeleton: of the targets.
        codec: decodes the heatmaps; None takes the network's.
        options: others of the metric; they go before those of the skeleton.

    Raises:
        InputError: another name, or no torso in the skeleton, which PCK divides by.
    """
    return _METRICS[lookup("metric", name, _METRICS)](skeleton, codec=codec, **options)


def _pck(skeleton: Skeleton, **options) -> PCK:
    return PCK(**{"torso": skeleton.torso, **options})


def _pckh(skeleton: Skeleton, **options) -> PCKh:
    uncounted = [joint for joint, own in enumerate(skeleton.joints) if own in ("pelvis", "thorax")]
    return PCKh(**{"exclude": uncounted, **options})


def _oks_ap(skeleton: Skeleton, **options) -> OKSAP:
    return OKSAP(**{"sigmas": skeleton.sigmas, **options})


_METRICS = {"pck": _pck, "pckh": _pckh, "oks_ap": _oks_ap}
METRIC_NAMES = tuple(_METRICS)  # which are also the metrics' names in logs

"""PCKh of MPII as published: a joint is correct if it is off by at most half of the head size."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from keras_mrpose.data.mpii import head_sizes, read_mat
from keras_mrpose.data.people import People
from keras_mrpose.errors import InputError
from keras_mrpose.skeletons import MPII

THRESHOLD = 50  # hundredths of the head size
HUNDREDTHS = np.arange(THRESHOLD + 1)
NOT_COUNTED = ("pelvis", "thorax")  # in the published means
GROUPS = {
    "Head": ("head_top",),
    **{
        name.capitalize(): (f"left_{name}", f"right_{name}")
        for name in ("shoulder", "elbow", "wrist", "hip", "knee", "ankle")
    },
}


@dataclass(frozen=True, eq=False)
class Truth:
    """Annotated joints and head sizes of people, checked here.

    Attributes:
        joints: ``(people, 16, 2)`` x, y in image pixels from 0.
        labelled: ``(people, 16)`` bool; the others are not counted.
        heads: ``(people,)`` head sizes in pixels, 0.6 x the diagonal of the head box.

    Raises:
        InputError: tables of other shapes, a head size that is not positive, or a labelled joint that is not finite.
    """

    joints: np.ndarray
    labelled: np.ndarray
    heads: np.ndarray

    def __post_init__(self) -> None:
        shapes = tuple(np.shape(table) for table in (self.joints, self.labelled, self.heads))
        people, joints = len(self.heads), MPII.num_joints
        if shapes != ((people, joints, 2), (people, joints), (people,)):
            raise InputError(
                f"The truth has joints of shape {shapes[0]}, labelled {shapes[1]} and heads {shapes[2]}; "
                f"give (people, {joints}, 2), (people, {joints}) and (people,)."
            )
        unknown = ~np.isfinite(self.joints).all(axis=-1) & self.labelled
        for bad, what in (
            (~(np.isfinite(self.heads) & (self.heads > 0)), "a head size that is not a positive number"),
            (unknown.any(axis=-1), "a labelled joint that is not a finite number"),
        ):
            if bad.any():
                raise InputError(f"The truth of person {np.argmax(bad)} has {what}; fix the record or leave it out.")


@dataclass(frozen=True, eq=False)
class PCKhResult:
    """PCKh in percent, 0..100, over the labelled joints; None where there are none.

    Attributes:
        groups: at 0.5, by published name (Head ... Ankle): the plain mean of left and right; Head is the head top only.
        mean: at 0.5, right joints / labelled joints of all but pelvis and thorax, the published Mean.
        unweighted_mean: at 0.5, the plain mean of these 14 joints' numbers.
        mean_at_10_hundredths: `mean` at the threshold 0.10.
        mean_at_11_hundredths: `mean` at 0.11. This is what is published as "Mean@0.1": the eleventh step of the curve
            was read for the tenth.
        joints: at 0.5, by joint name; pelvis and thorax too.
        hits: ``(16,)`` right joints at 0.5.
        labels: ``(16,)`` labelled joints.
        thresholds: ``(51,)`` 0, 0.01 ... 0.5.
        curve: ``(51,)`` `mean` at each of them.
        area: under the curve (trapezoids), in percent of what a network without error reaches.
    """

    groups: dict[str, float | None]
    mean: float
    unweighted_mean: float
    mean_at_10_hundredths: float
    mean_at_11_hundredths: float
    joints: dict[str, float | None]
    hits: np.ndarray
    labels: np.ndarray
    thresholds: np.ndarray
    curve: np.ndarray
    area: float

    def to_dict(self) -> dict:
        """The same numbers as shares, 0..1, ready for JSON."""

        def share(percent: float | None) -> float | None:
            return None if percent is None else percent / 100

        return {
            "mean": share(self.mean),
            "groups": {name: share(percent) for name, percent in self.groups.items()},
            "unweighted_mean": share(self.unweighted_mean),
            "mean_at_0.10": share(self.mean_at_10_hundredths),
            "mean_at_0.11": share(self.mean_at_11_hundredths),
            "joints": {
                name: {"pckh": share(percent), "hits": int(hits), "labels": int(labels)}
                for (name, percent), hits, labels in zip(self.joints.items(), self.hits, self.labels, strict=True)
            },
            "thresholds": self.thresholds.tolist(),
            "curve": (self.curve / 100).tolist(),
            "area": share(self.area),
        }


def read_truth(file: str | Path) -> Truth:
    """Read the published ``gt_valid.mat``: ``jnt_missing``, ``pos_gt_src`` (from 1) and ``headboxes_src``.

    Its joints have more digits than those of ``valid.json``, which are rounded to 0.0001 pixels.

    Raises:
        InputError: a missing or unreadable file, or a wrong table in it, named.
    """
    found = read_mat(file, jnt_missing=(MPII.num_joints, None), pos_gt_src=(MPII.num_joints, 2, None))
    heads = head_sizes(file)
    joints, missing = found["pos_gt_src"].transpose(2, 0, 1) - 1, found["jnt_missing"].T
    if not len(joints) == len(missing) == len(heads):
        raise InputError(
            f"{file} has {len(joints)} people in pos_gt_src, {len(missing)} in jnt_missing and {len(heads)} in "
            "headboxes_src; give the published file."
        )
    return Truth(joints, missing == 0, heads)


def truth_of(people: People) -> Truth:
    """Truth from people with MPII's joints, whose reference_length is the head size.

    Raises:
        InputError: another skeleton.
    """
    if people.skeleton.joints != MPII.joints:
        raise InputError(f"{people.source} has the joints of {people.skeleton.name}; PCKh needs MPII's 16 joints.")
    return Truth(people.keypoints[..., :2], people.keypoints[..., 2] > 0, people.reference_length)


def read_predictions(file: str | Path) -> np.ndarray:
    """Read a published ``preds`` table: ``(people, 16, 2)`` x, y in image pixels from 0 (in the file, from 1).

    Raises:
        InputError: a missing or unreadable file, or a wrong table in it, named.
    """
    return read_mat(file, preds=(None, MPII.num_joints, 2))["preds"] - 1


def pckh(predictions: np.ndarray, truth: Truth) -> PCKhResult:
    """Score predictions by the published evaluation, in double precision.

    Args:
        predictions: ``(people, 16, 2)`` x, y in image pixels from 0, in the order of the truth; a third number, such
            as a score, is not looked at.
        truth: the same people.

    Raises:
        InputError: predictions of another shape or not finite, or no labelled joint.
    """
    predictions, shape = np.asarray(predictions, np.float64), truth.labelled.shape
    if predictions.shape not in ((*shape, 2), (*shape, 3)):
        raise InputError(
            f"The predictions have shape {predictions.shape}, expected {(*shape, 2)}: give the joints of "
            "each person of the truth, in its order."
        )
    if not np.isfinite(predictions).all():
        raise InputError(
            f"The prediction of person {np.argwhere(~np.isfinite(predictions))[0, 0]} is not finite; predict it again."
        )
    counted = np.array([name not in NOT_COUNTED for name in MPII.joints])
    labels = truth.labelled.sum(axis=0)
    if not labels[counted].any():
        raise InputError("The truth has no labelled joint that PCKh counts; give annotated people.")
    error = np.linalg.norm(predictions[..., :2] - truth.joints, axis=-1) / truth.heads[:, None]
    right = [(truth.labelled & (error <= threshold)).sum(axis=0) for threshold in HUNDREDTHS / 100]
    hits = np.array(right)  # (51, 16)
    share = 100 * hits[THRESHOLD] / np.where(labels, labels, np.nan)
    joints = {name: None if np.isnan(value) else float(value) for name, value in zip(MPII.joints, share, strict=True)}
    curve = 100 * hits[:, counted].sum(axis=1) / labels[counted].sum()
    return PCKhResult(
        groups={name: _mean([joints[joint] for joint in members]) for name, members in GROUPS.items()},
        mean=float(curve[THRESHOLD]),
        unweighted_mean=float(np.nanmean(share[counted])),
        mean_at_10_hundredths=float(curve[10]),
        mean_at_11_hundredths=float(curve[11]),
        joints=joints,
        hits=hits[THRESHOLD],
        labels=labels,
        thresholds=HUNDREDTHS / 100,
        curve=curve,
        area=float(np.trapezoid(curve) / THRESHOLD),
    )


def _mean(values: list[float | None]) -> float | None:
    return None if None in values else sum(values) / len(values)

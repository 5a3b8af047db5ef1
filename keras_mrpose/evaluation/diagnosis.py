"""What is wrong with the joints that are wrong: jitter, inversion, swap or miss.

Every labelled joint of a person who has a prediction is exactly one of five:

- good: at most g from where it is annotated;
- jitter: near it, at most `NEAR` x g away;
- inversion: else, near the person's own mirrored joint (left for right);
- swap: else, near this joint or the mirrored one of another annotated person of the image;
- miss: near none of them.

g is a distance in image pixels that each joint of each person has of its own. Where OKS measures, it is where the
joint's similarity exp(-d^2 / (2 (2 sigma)^2 area)) is 0.85 (`good_distances_oks`), where PCK measures, the threshold
times the torso or the head size (`good_distances_pck`). `NEAR` = sqrt(ln 0.5 / ln 0.85), about 2.065, so that near
means a similarity of at least 0.5. What a point is near to is asked with the g of the joint that it might be, and only
of labelled joints with a g; the borders belong to the nearer class.

Source: Ronchi and Perona, "Benchmarking and Error Diagnosis in Multi-Instance Pose Estimation", 2017: classes, 0.85,
0.5, and the OKS of 0.1 from which a prediction is somebody's. Here, other than there, PCK and PCKh have the same rule
with their own g; the classes are asked in the order above, whatever joint is nearest; `matching` goes by falling score
alone, without a bound on the number of predictions; a fixed joint lies exactly on its annotation, also a jitter; and
errors of scores and of the background are not looked for.

Plain NumPy in float64, which needs no network.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tensorflow as tf
from rich.table import Column, Table

from keras_mrpose.data.people import People
from keras_mrpose.errors import InputError
from keras_mrpose.evaluation.matching import checked_predictions, groups
from keras_mrpose.visualization import curves

CLASSES = tuple(curves.CLASS_COLOURS)
GOOD, JITTER, INVERSION, SWAP, MISS = range(len(CLASSES))
GOOD_SIMILARITY, NEAR_SIMILARITY = 0.85, 0.5
NEAR_RATIO = math.sqrt(math.log(NEAR_SIMILARITY) / math.log(GOOD_SIMILARITY))
SIZES = ("small", "medium", "large")
MEDIUM = (32**2, 96**2)  # square pixels, both included: cocodataset.org, keypoint evaluation


# --- distances ----------------------------------------------------------------------------------------------------


def tolerances_oks(areas, sigmas: Sequence[float]) -> np.ndarray:
    """Where the similarity of a joint to its annotation is 0.85.

    Args:
        areas: ``(people,)`` in square image pixels (`People.areas`).
        sigmas: ``(joints,)`` the OKS constants (`Skeleton.sigmas`).

    Returns:
        ``(people, joints)`` in image pixels; NaN for people whose area is 0 or NaN.

    Raises:
        InputError: a negative or infinite area, or a sigma that is not positive.
    """
    lengths = np.sqrt(_positive(areas, "areas"))
    sigmas = np.asarray(sigmas, np.float64)
    if sigmas.ndim != 1 or not (np.isfinite(sigmas) & (sigmas > 0)).all():
        raise InputError(f"The sigmas of the diagnosis are {sigmas.tolist()}; give a positive number for each joint.")
    return lengths[:, None] * (2 * sigmas * math.sqrt(-2 * math.log(GOOD_SIMILARITY)))


def tolerances_pck(lengths, threshold: float, joints: int) -> np.ndarray:
    """How far off PCK and PCKh let a joint be.

    Args:
        lengths: ``(people,)`` torso or head size in image pixels; 0 or NaN for people who do not count.
        threshold: share of the length, as in the metric.
        joints: their number.

    Returns:
        ``(people, joints)`` in image pixels; NaN for people who do not count.

    Raises:
        InputError: a negative or infinite length, or a threshold that is not positive.
    """
    if not 0 < threshold < math.inf:
        raise InputError(f"The threshold of the diagnosis is {threshold}; give a positive share, for example 0.2.")
    return np.repeat(threshold * _positive(lengths, "lengths")[:, None], joints, axis=1)


def _positive(values, name: str) -> np.ndarray:
    """``(people,)`` float64, NaN for 0."""
    values = np.asarray(values, np.float64)
    if values.ndim != 1 or (values < 0).any() or np.isinf(values).any():
        raise InputError(
            f"The diagnosis got {name} of shape {values.shape} with values that are negative or infinite, or not one "
            "for each person; give positive numbers, 0 for people who do not count."
        )
    return np.where(values > 0, values, np.nan)


# --- classes ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Diagnosis:
    """The class of each joint, and what they were told from.

    Attributes:
        classes: ``(n, joints)`` int8, index in `CLASSES`; -1 where nothing was counted: unlabelled joints, joints
            without a good distance, and predictions of nobody.
        found: ``(n, joints, 2 or 3)`` the predictions.
        rows: ``(n,)`` row of `people` of each prediction, or -1.
        people: the annotations.
    """

    classes: np.ndarray
    found: np.ndarray
    rows: np.ndarray
    people: People

    @property
    def by_joint(self) -> np.ndarray:
        """``(joints, 5)`` how many joints are of each class."""
        return _counts(self.classes)

    @property
    def by_size(self) -> np.ndarray:
        """``(3, 5)`` how many joints of people of each of `SIZES` (by `People.areas`) are of each class."""
        known = self.rows >= 0
        areas = self.people.areas[self.rows[known]]
        sizes = (areas >= MEDIUM[0]).astype(int) + (areas > MEDIUM[1])
        return np.array([_counts(self.classes[known][sizes == size]).sum(axis=0) for size in range(len(SIZES))])

    def mended(self, name: str) -> np.ndarray:
        """The predictions with the joints of a class put where they are annotated; all others stay as they are.

        Args:
            name: one of `CLASSES`.

        Returns:
            ``(n, joints, 2 or 3)``, a copy; scores stay.

        Raises:
            InputError: an unknown class.
        """
        _known([name])
        mended = self.found.copy()
        person, joint = np.nonzero(self.classes == CLASSES.index(name))
        mended[person, joint, :2] = self.people.keypoints[self.rows[person], joint, :2]
        return mended

    def to_dict(self, gains: Mapping[str, float] | None = None) -> dict:
        """What there is to report, ready for JSON.

        Args:
            gains: for classes of `CLASSES`, how many points (hundredths) of AP or PCK more there are when it is
                fixed.

        Returns:
            people: how many have a counted joint; all: count (of joints) and the share 0..1 of each class; joints: the
            same by joint name; sizes: the same by size; gains: as given, or None. None stands for shares of nothing and
            for gains that are not finite.

        Raises:
            InputError: gains of an unknown class.
        """
        _known(gains or ())
        by_joint = self.by_joint
        return {
            "people": int((self.classes >= 0).any(axis=1).sum()),
            "all": _shares(by_joint.sum(axis=0)),
            "joints": dict(zip(self.people.skeleton.joints, map(_shares, by_joint), strict=True)),
            "sizes": dict(zip(SIZES, map(_shares, self.by_size), strict=True)),
            "gains": gains and {name: float(gain) if math.isfinite(gain) else None for name, gain in gains.items()},
        }


def diagnose(found, rows, people: People, good) -> Diagnosis:
    """Class every labelled joint of the people who have a prediction.

    Args:
        found: ``(n, joints, 2 or 3)`` predictions: x, y in image pixels, score.
        rows: ``(n,)`` the row of `people` that each is a prediction of, a person at most once. -1 is nobody, such as
            a detector's false alarm: none of its joints is counted.
        people: all annotated people of the images.
        good: ``(people, joints)`` g in image pixels. A joint whose g is 0 or NaN is not counted, and nothing is near
            it.

    Raises:
        InputError: shapes that do not fit the people and their skeleton, predictions that are not finite, rows that
            there are not or that are there twice, or a negative or infinite g.
    """
    found, rows, good = _checked(found, rows, people, good)
    truth = people.keypoints[..., :2]
    good = np.where((people.keypoints[..., 2] > 0) & (good > 0), good, -1)  # no distance is as small as -1
    reach = NEAR_RATIO * good
    known = rows >= 0
    points, own = found[known, :, :2], rows[known]
    mirror = np.array(people.skeleton.flip_indices)
    error = _distances(points, truth[own])
    inverted = _distances(points, truth[own][:, mirror]) <= reach[own][:, mirror]
    classes = np.full(found.shape[:2], -1, np.int8)
    classes[known] = np.select(
        [
            good[own] < 0,
            error <= good[own],
            error <= reach[own],
            inverted,  # a joint without a partner is its own mirrored one, and would be a jitter
            _near_anybody(points, own, people.image_index, truth, reach, mirror),  # the own joints are asked already
        ],
        [-1, GOOD, JITTER, INVERSION, SWAP],
        MISS,
    )
    return Diagnosis(classes, found, rows, people)


def _near_anybody(points, own, image_index, truth, reach, mirror) -> np.ndarray:
    """``(n, joints)``: near this joint or the mirrored one of a person of the image, the own one too."""
    near = np.zeros(points.shape[:2], bool)
    persons_of = groups(image_index)
    for image, predictions in groups(image_index[own]).items():
        persons = persons_of[image]
        here = points[predictions, None]
        at = (_distances(here, truth[persons][:, j]) <= reach[persons][:, j] for j in (slice(None), mirror))
        near[predictions] = np.logical_or(*at).any(axis=1)
    return near


def _distances(points, others) -> np.ndarray:
    return np.hypot(points[..., 0] - others[..., 0], points[..., 1] - others[..., 1])


def _counts(classes) -> np.ndarray:
    return (classes[..., None] == np.arange(len(CLASSES))).sum(axis=0)


def _shares(counts) -> dict:
    total = int(counts.sum())
    return {"count": total} | {
        name: count / total if total else None for name, count in zip(CLASSES, counts.tolist(), strict=True)
    }


def _known(names) -> None:
    unknown = set(names) - set(CLASSES)
    if unknown:
        raise InputError(f"There is no class {', '.join(map(repr, sorted(unknown)))}; give {', '.join(CLASSES)}.")


def _checked(found, rows, people, good) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    found, rows, good = checked_predictions(found, people), np.asarray(rows), np.asarray(good, np.float64)
    if rows.shape != found.shape[:1] or (rows.size and rows.dtype.kind not in "iu"):
        raise InputError(
            f"The diagnosis got rows of shape {rows.shape} ({rows.dtype}) for {len(found)} predictions; give the "
            "number of a person for each, or -1."
        )
    rows = rows.astype(np.int64)
    if ((rows < -1) | (rows >= len(people))).any():
        raise InputError(f"A row of the predictions is none of the {len(people)} people of {people.source}, nor -1.")
    persons, times = np.unique(rows[rows >= 0], return_counts=True)
    if (times > 1).any():
        raise InputError(
            f"{people.source}: record {people.ids[persons[times.argmax()]]} has {times.max()} predictions; give each "
            "person one, and row -1 to the others."
        )
    if good.shape != people.keypoints.shape[:2] or (good < 0).any() or np.isinf(good).any():
        raise InputError(
            f"The good distances have shape {good.shape} or are negative or infinite; give "
            f"{people.keypoints.shape[:2]}, one for each joint of each person, 0 for joints that do not count."
        )
    return found, rows, good


# --- reports ------------------------------------------------------------------------------------------------------


def table(diagnosis: dict, metric_name: str) -> Table:
    """The classes in percent, by joint, by size and of all.

    Args:
        diagnosis: of `Diagnosis.to_dict`.
        metric_name: what the gains are points of, for example ``"AP"``.
    """
    title = f"{diagnosis['all']['count']} joints of {diagnosis['people']} people, percent"
    drawn = Table(Column("joint", no_wrap=True), title=title)
    for heading in (*CLASSES, "count"):
        drawn.add_column(heading, justify="right")
    for part in (diagnosis["joints"], diagnosis["sizes"], {"all": diagnosis["all"]}):
        for name, shares in part.items():
            percent = ("-" if shares[c] is None else f"{100 * shares[c]:.1f}" for c in CLASSES)
            drawn.add_row(name.replace("_", " "), *percent, str(shares["count"]))
        drawn.add_section()
    if diagnosis["gains"]:
        gains = (diagnosis["gains"].get(name) for name in CLASSES)
        drawn.add_row(f"{metric_name} if fixed", *("" if gain is None else f"{gain:+.1f}" for gain in gains), "")
    return drawn


def write_summaries(folder: str | Path, diagnosis: dict, metric_name: str, step: int = 0) -> None:
    """Show TensorBoard the share of each class, the gains, and the image of `charts.diagnosis`.

    The scalars are ``diagnosis/CLASS`` (0..1) and ``diagnosis/gain/CLASS`` (points); what is None is not written.

    Args:
        folder: of the logs; it is made if it is missing.
        diagnosis: of `Diagnosis.to_dict`.
        metric_name: what the gains are points of, for example ``"AP"``.
        step: where they stand on TensorBoard's axis, for example the epoch.
    """
    shares = {name: diagnosis["all"][name] for name in CLASSES}
    gains = {f"gain/{name}": gain for name, gain in (diagnosis["gains"] or {}).items()}
    writer = tf.summary.create_file_writer(str(folder))
    with writer.as_default(step=step):
        for name, value in (shares | gains).items():
            if value is not None:
                unit = f"points of {metric_name}" if name in gains else "share of the labelled joints"
                tf.summary.scalar(f"diagnosis/{name}", value, description=unit)
        tf.summary.image("diagnosis/joints", curves.diagnosis(diagnosis, metric_name)[None])
    writer.close()

"""Error diagnosis: is a joint that is off a jitter, an inversion, a swap or a miss?

Every labelled joint of a person who has a prediction is exactly one of five:

- good: within its tolerance of where it is annotated;
- jitter: near it, within `NEAR_RATIO` x tolerance;
- inversion: else, near the person's own mirrored joint (left for right);
- swap: else, near this joint or the mirrored one of another annotated person of the image;
- miss: near none of them.

The tolerance is a distance in image pixels that each joint of each person has of its own. For OKS it is where the
joint's similarity exp(-d^2 / (2 (2 sigma)^2 area)) is 0.85 (`tolerances_oks`), for PCK and PCKh the threshold times the
torso or the head size (`tolerances_pck`). `NEAR_RATIO` = sqrt(ln 0.5 / ln 0.85), about 2.065, so that near means a
similarity of at least 0.5. Nearness to a joint goes by that joint's tolerance, and only labelled joints with a
tolerance are looked at; the borders belong to the nearer class.

Source: Ronchi and Perona, "Benchmarking and Error Diagnosis in Multi-Instance Pose Estimation", 2017: classes, 0.85,
0.5, and the OKS of 0.1 from which a prediction is somebody's. Here, other than there, PCK and PCKh have the same rule
with their own tolerances; the classes are tried in the order above, whatever joint is nearest; `match` goes by falling
score alone, without a bound on the number of predictions; a corrected joint lies exactly on its annotation, also a
jitter; and errors of scores and of the background are not looked for.

Plain NumPy in float64; no network is needed.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from keras_mrpose.data.people import People
from keras_mrpose.errors import InputError
from keras_mrpose.visualization import curves

CLASSES = tuple(curves.CLASS_COLOURS)
GOOD, JITTER, INVERSION, SWAP, MISS = range(len(CLASSES))
GOOD_SIMILARITY, NEAR_SIMILARITY = 0.85, 0.5
MIN_OKS = 0.1  # from which a prediction is somebody's
NEAR_RATIO = math.sqrt(math.log(NEAR_SIMILARITY) / math.log(GOOD_SIMILARITY))
SIZES = ("small", "medium", "large")
MEDIUM = (32**2, 96**2)  # square pixels, both included: cocodataset.org, keypoint evaluation


# --- tolerances ---------------------------------------------------------------------------------------------------


def tolerances_oks(areas, sigmas: Sequence[float]) -> np.ndarray:
    """Tolerances where a joint's similarity to its annotation is 0.85.

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
    """Tolerances of PCK and PCKh: the threshold times the torso or head size.

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
    """Error class of each joint, with the predictions and annotations that it comes from.

    Attributes:
        classes: ``(n, joints)`` int8, index in `CLASSES`; -1 where nothing was counted: unlabelled joints, joints
            without a tolerance, and predictions of nobody.
        keypoints: ``(n, joints, 2 or 3)`` the predictions.
        rows: ``(n,)`` row of `people` of each prediction, or -1.
        people: the annotations.
    """

    classes: np.ndarray
    keypoints: np.ndarray
    rows: np.ndarray
    people: People

    @property
    def by_joint(self) -> np.ndarray:
        """Counts ``(joints, 5)`` of each class by joint."""
        return _counts(self.classes)

    @property
    def by_size(self) -> np.ndarray:
        """Counts ``(3, 5)`` of each class by size of the person: `SIZES`, by `People.areas`."""
        known = self.rows >= 0
        areas = self.people.areas[self.rows[known]]
        sizes = (areas >= MEDIUM[0]).astype(int) + (areas > MEDIUM[1])
        return np.array([_counts(self.classes[known][sizes == size]).sum(axis=0) for size in range(len(SIZES))])

    def corrected(self, name: str) -> np.ndarray:
        """Predictions with the joints of one class moved to their annotations; all others stay.

        Args:
            name: one of `CLASSES`.

        Returns:
            ``(n, joints, 2 or 3)``, a copy; scores stay.

        Raises:
            InputError: an unknown class.
        """
        _known([name])
        keypoints = self.keypoints.copy()
        person, joint = np.nonzero(self.classes == CLASSES.index(name))
        keypoints[person, joint, :2] = self.people.keypoints[self.rows[person], joint, :2]
        return keypoints

    def to_dict(self, gains: Mapping[str, float] | None = None) -> dict:
        """Report of shares and gains, ready for JSON.

        Args:
            gains: for classes of `CLASSES`, how many points (hundredths) of AP or PCK correcting it gains.

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


def diagnose(keypoints, rows, people: People, tolerance) -> Diagnosis:
    """Class every labelled joint of the people who have a prediction.

    Args:
        keypoints: ``(n, joints, 2 or 3)`` predictions: x, y in image pixels, score.
        rows: ``(n,)`` the row of `people` that each is a prediction of, a person at most once. -1 is nobody, such as
            a detector's false alarm: none of its joints is counted.
        people: all annotated people of the images.
        tolerance: ``(people, joints)`` in image pixels. A joint whose tolerance is 0 or NaN is not counted, and nothing
            is near it.

    Raises:
        InputError: shapes that do not fit the people and their skeleton, predictions that are not finite, rows that
            there are not or that are there twice, or a negative or infinite tolerance.
    """
    keypoints, rows, tolerance = _checked(keypoints, rows, people, tolerance)
    truth = people.keypoints[..., :2]
    tolerance = np.where((people.keypoints[..., 2] > 0) & (tolerance > 0), tolerance, -1)  # no distance is as small
    near = NEAR_RATIO * tolerance
    known = rows >= 0
    points, own = keypoints[known, :, :2], rows[known]
    mirror = np.array(people.skeleton.flip_indices)
    error = _distances(points, truth[own])
    inverted = _distances(points, truth[own][:, mirror]) <= near[own][:, mirror]
    classes = np.full(keypoints.shape[:2], -1, np.int8)
    classes[known] = np.select(
        [
            tolerance[own] < 0,
            error <= tolerance[own],
            error <= near[own],
            inverted,  # a joint without a partner is its own mirrored one, and would be a jitter
            _near_anybody(points, own, people.image_index, truth, near, mirror),  # the own joints are classed already
        ],
        [-1, GOOD, JITTER, INVERSION, SWAP],
        MISS,
    )
    return Diagnosis(classes, keypoints, rows, people)


def _near_anybody(points, own, image_index, truth, near, mirror) -> np.ndarray:
    """Which ``(n, joints)`` are near this joint or the mirrored one of anybody in the image, the own person too."""
    found = np.zeros(points.shape[:2], bool)
    persons_of = groups(image_index)
    for image, predictions in groups(image_index[own]).items():
        persons = persons_of[image]
        here = points[predictions, None]
        at = (_distances(here, truth[persons][:, j]) <= near[persons][:, j] for j in (slice(None), mirror))
        found[predictions] = np.logical_or(*at).any(axis=1)
    return found


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


def _checked(keypoints, rows, people, tolerance) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    keypoints, rows = checked_predictions(keypoints, people), np.asarray(rows)
    tolerance = np.asarray(tolerance, np.float64)
    if rows.shape != keypoints.shape[:1] or (rows.size and rows.dtype.kind not in "iu"):
        raise InputError(
            f"The diagnosis got rows of shape {rows.shape} ({rows.dtype}) for {len(keypoints)} predictions; give the "
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
    if tolerance.shape != people.keypoints.shape[:2] or (tolerance < 0).any() or np.isinf(tolerance).any():
        raise InputError(
            f"The tolerances have shape {tolerance.shape} or are negative or infinite; give "
            f"{people.keypoints.shape[:2]}, one for each joint of each person, 0 for joints that do not count."
        )
    return keypoints, rows, tolerance


# --- matching -----------------------------------------------------------------------------------------------------


def match(keypoints, image_ids, scores, people: People, sigmas: Sequence[float]) -> np.ndarray:
    """Annotated person of each prediction made in a detector's boxes, by greedy matching.

    In each image the prediction of the highest score comes first (of equal ones the first) and takes the person of the
    highest OKS who is not taken yet, if that is at least 0.1. OKS is the mean similarity over the person's labelled
    joints, with the person's area; people without one are nobody's.

    Args:
        keypoints: ``(n, joints, 2 or 3)`` x, y in image pixels, score.
        image_ids: ``(n,)`` the data set's numbers; images that `people` does not list have nobody.
        scores: ``(n,)``.
        people: all annotated people of the images.
        sigmas: ``(joints,)``.

    Returns:
        ``(n,)`` rows of `people`, -1 for nobody.

    Raises:
        InputError: shapes that do not fit each other or the skeleton, or numbers that are not finite.
    """
    keypoints = checked_predictions(keypoints, people)
    sigmas = np.asarray(sigmas, np.float64)
    image_ids, scores = np.asarray(image_ids), np.asarray(scores, np.float64)
    for name, values, count in (
        ("image_ids", image_ids, len(keypoints)),
        ("scores", scores, len(keypoints)),
        ("sigmas", sigmas, people.skeleton.num_joints),
    ):
        if values.shape != (count,) or not np.isfinite(values).all():
            raise InputError(f"The matching got {name} of shape {values.shape}; give {count} finite numbers.")
    labelled = people.keypoints[..., 2] > 0
    tolerance = 2 * np.square(2 * sigmas) * (people.areas + np.spacing(1))[:, None]  # areas of 0 accept the exact joint
    persons_of = groups(people.image_ids[people.image_index])
    rows = np.full(len(keypoints), -1, np.int64)
    for image, predictions in groups(image_ids).items():
        persons = persons_of.get(image, np.zeros(0, np.int64))
        persons = persons[labelled[persons].any(axis=1)]
        offset = keypoints[predictions, None, :, :2] - people.keypoints[persons, :, :2]
        similarity = np.exp(-np.square(offset).sum(axis=-1) / tolerance[persons])
        oks = (similarity * labelled[persons]).sum(axis=-1) / labelled[persons].sum(axis=-1)
        for place in np.argsort(-scores[predictions], kind="stable"):
            if persons.size and oks[place].max() >= MIN_OKS:
                best = oks[place].argmax()
                rows[predictions[place]] = persons[best]
                oks[:, best] = -1
    return rows


def groups(values) -> dict[int, np.ndarray]:
    """Indices of each value, in order."""
    order = np.argsort(values, kind="stable")
    known, starts = np.unique(values[order], return_index=True)
    return dict(zip(known.tolist(), np.split(order, starts[1:]), strict=False))  # of nothing, one empty group


def checked_predictions(keypoints, people: People) -> np.ndarray:
    """Predictions as ``(n, joints, 2 or 3)`` float64 for the people's joints, or an `InputError`."""
    keypoints, skeleton = np.asarray(keypoints, np.float64), people.skeleton
    if keypoints.ndim != 3 or keypoints.shape[1] != skeleton.num_joints or keypoints.shape[2] not in (2, 3):
        raise InputError(
            f"The predictions have shape {keypoints.shape}, but {people.source} has {skeleton.num_joints} joints "
            f"({skeleton.name}); give (n, {skeleton.num_joints}, 2 or 3): x, y, score."
        )
    finite = np.isfinite(keypoints).all(axis=(1, 2))
    if not finite.all():
        raise InputError(f"Prediction {int(finite.argmin())} has a number that is not finite; leave it out.")
    return keypoints

"""Whose predictions are those made in a detector's boxes: each takes the annotated person that it fits best.

Plain NumPy in float64.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from keras_mrpose.data.people import People
from keras_mrpose.errors import InputError

MIN_OKS = 0.1  # Ronchi and Perona 2017


def match(keypoints, image_ids, scores, people: People, sigmas: Sequence[float]) -> np.ndarray:
    """Whose predictions are those made in a detector's boxes.

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
    """For each value, the places where it stands, in order."""
    order = np.argsort(values, kind="stable")
    known, starts = np.unique(values[order], return_index=True)
    return dict(zip(known.tolist(), np.split(order, starts[1:]), strict=False))  # of nothing, one empty group


def checked_predictions(found, people: People) -> np.ndarray:
    """Predictions as ``(n, joints, 2 or 3)`` float64 for the people's joints, or an `InputError`."""
    found, skeleton = np.asarray(found, np.float64), people.skeleton
    if found.ndim != 3 or found.shape[1] != skeleton.num_joints or found.shape[2] not in (2, 3):
        raise InputError(
            f"The predictions have shape {found.shape}, but {people.source} has {skeleton.num_joints} joints "
            f"({skeleton.name}); give (n, {skeleton.num_joints}, 2 or 3): x, y, score."
        )
    finite = np.isfinite(found).all(axis=(1, 2))
    if not finite.all():
        raise InputError(f"Prediction {int(finite.argmin())} has a number that is not finite; leave it out.")
    return found

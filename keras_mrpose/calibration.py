"""Confidence: the height of a heatmap's peak turned into the probability that the keypoint is right.

Right is what the data set's protocol calls so: within 0.2 of the torso (PCK), within half of the head size (PCKh), or
with a keypoint similarity of at least 0.5 (OKS, one keypoint alone). The map from score to probability rises and is
linear between a few knots, so that it is a table of numbers that any decoder can interpolate.

A network may fire on a chair, too: then every keypoint is "right" nowhere. So a second map of the same kind tells how
likely somebody is there at all, from the mean height of a crop's peaks.

It is fitted on people that the network was not trained on, by isotonic regression (the pool-adjacent-violators
algorithm; Zadrozny and Elkan, KDD 2002) on bins of equally many keypoints, and measured on other people by the expected
calibration error (Naeini et al., AAAI 2015; Guo et al., ICML 2017).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from keras_mrpose.errors import InputError

BINS = 15  # of the reliability diagram and of the expected calibration error (Guo et al.)
KNOTS = 24  # of a fitted map: about 100 keypoints each for 200 people of LSP
MIN_KEYPOINTS = 200


@dataclass(frozen=True)
class Calibration:
    """A rising map from scores to probabilities, linear between knots and constant beyond them.

    Args:
        scores: of the knots, rising.
        probabilities: of the knots, not falling, 0..1.
        criterion: what they are the probability of, for people, such as ``"within 0.2 of the torso (PCK@0.2)"``.
        person: of a keypoint calibration, the map from the mean height of all peaks of a crop to the probability that
            a person is in its box, if boxes with and without one are equally likely; None if it was not fitted.
    """

    scores: tuple[float, ...]
    probabilities: tuple[float, ...]
    criterion: str
    person: Calibration | None = None

    def __post_init__(self) -> None:
        scores, probabilities = (np.asarray(values, np.float64) for values in (self.scores, self.probabilities))
        object.__setattr__(self, "scores", tuple(scores.tolist()))
        object.__setattr__(self, "probabilities", tuple(probabilities.tolist()))
        rising = scores.ndim == 1 and len(scores) > 0 and (np.diff(scores) > 0).all() and np.isfinite(scores).all()
        shares = probabilities.shape == scores.shape and ((probabilities >= 0) & (probabilities <= 1)).all()
        if not (rising and shares and (np.diff(probabilities) >= 0).all()):
            raise InputError(
                f"A calibration has the scores {self.scores} and the probabilities {self.probabilities}; give rising "
                "scores, and for each a probability from 0 to 1 that is not below the one before."
            )

    def __call__(self, scores) -> np.ndarray:
        """Probabilities of scores, of any shape, float64."""
        return np.interp(np.asarray(scores, np.float64), self.scores, self.probabilities)

    def person_scores(self, heights) -> np.ndarray | None:
        """Probabilities ``(people,)`` that boxes hold a person, of heights ``(people, joints)``; None if not fitted."""
        return None if self.person is None else self.person(np.mean(heights, axis=-1))

    def to_dict(self) -> dict:
        """Numbers, lists, a string, and of the person's map the same again, for JSON."""
        values = {"scores": list(self.scores), "probabilities": list(self.probabilities), "criterion": self.criterion}
        return values if self.person is None else {**values, "person": self.person.to_dict()}

    @classmethod
    def from_dict(cls, values: dict) -> Calibration:
        """The inverse of `to_dict`."""
        person = values.get("person")
        return cls(**{**values, "person": None if person is None else cls.from_dict(person)})


# For networks whose own was not fitted: as of the network of the package, on boxes of COCO with and without a person.
# Heatmaps are trained towards peaks of 1, so that heights of different networks mean much the same.
DEFAULT_PERSON = Calibration((0.05, 0.12, 0.2, 0.3, 0.5), (0.02, 0.2, 0.5, 0.8, 0.98), "a person in the box")


@dataclass(frozen=True, eq=False)
class Reliability:
    """How probabilities compare with shares, for a reliability diagram.

    Attributes:
        confidence: ``(bins,)`` mean predicted probability of the keypoints in each bin, NaN where there are none.
        accuracy: ``(bins,)`` share of them that are right, NaN where there are none.
        counts: ``(bins,)`` how many there are.
        error: expected calibration error: mean distance of the two, weighted by the counts.
    """

    confidence: np.ndarray
    accuracy: np.ndarray
    counts: np.ndarray
    error: float


def fit(scores, right, criterion: str, knots: int = KNOTS) -> Calibration:
    """The calibration that fits these keypoints.

    Args:
        scores: ``(keypoints,)`` heights of peaks.
        right: ``(keypoints,)`` whether each was found right.
        criterion: see `Calibration`.
        knots: at most so many; bins of equally many keypoints, of which falling ones are pooled.

    Raises:
        InputError: fewer than 200 keypoints, or a score that is not finite.
    """
    scores, right = _checked(scores, right)
    if len(scores) < MIN_KEYPOINTS:
        raise InputError(f"There are {len(scores)} labelled keypoints to fit confidence on; give at least 200.")
    order = np.argsort(scores, kind="stable")
    bins = np.array_split(order, min(knots, len(scores) // 8))
    blocks = []  # [score, share, count], shares rising
    for rows in bins:
        blocks.append([scores[rows].mean(), right[rows].mean(), len(rows)])
        while len(blocks) > 1 and (blocks[-2][1] >= blocks[-1][1] or blocks[-2][0] >= blocks[-1][0]):
            (s1, p1, n1), (s2, p2, n2) = blocks.pop(-2), blocks.pop(-1)
            blocks.append([(s1 * n1 + s2 * n2) / (n1 + n2), (p1 * n1 + p2 * n2) / (n1 + n2), n1 + n2])
    return Calibration([block[0] for block in blocks], [block[1] for block in blocks], criterion)


def reliability(probabilities, right, bins: int = BINS) -> Reliability:
    """Predicted probabilities against shares of right keypoints, in bins of equal width.

    Args:
        probabilities: ``(keypoints,)`` 0..1.
        right: ``(keypoints,)`` whether each was found right.
        bins: how many.

    Raises:
        InputError: no keypoints, or a probability outside 0..1.
    """
    probabilities, right = _checked(probabilities, right)
    if not len(right) or probabilities.min() < 0 or probabilities.max() > 1:
        raise InputError("Reliability needs keypoints with probabilities from 0 to 1.")
    rows = np.minimum((probabilities * bins).astype(int), bins - 1)
    counts = np.bincount(rows, minlength=bins)
    with np.errstate(invalid="ignore"):
        confidence = np.bincount(rows, probabilities, bins) / counts
        accuracy = np.bincount(rows, right, bins) / counts
    error = np.nansum(counts * np.abs(confidence - accuracy)) / counts.sum()
    return Reliability(confidence, accuracy, counts, float(error))


def _checked(scores, right) -> tuple[np.ndarray, np.ndarray]:
    scores, right = np.asarray(scores, np.float64), np.asarray(right, np.float64)
    if scores.ndim != 1 or scores.shape != right.shape:
        raise InputError(f"There are scores of shape {scores.shape} for {right.shape} keypoints; give one for each.")
    if not np.isfinite(scores).all():
        raise InputError("A score of a keypoint is not a finite number; predict again.")
    return scores, right

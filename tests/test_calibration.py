"""Confidence as a probability: the fit against shares worked out by hand, its error against plain loops."""

import json

import numpy as np
import pytest

from keras_mrpose.calibration import Calibration, fit, reliability
from keras_mrpose.errors import InputError


def test_between_knots_it_is_linear_and_beyond_them_constant():
    calibration = Calibration((0.2, 0.6), (0.1, 0.9), "close")
    np.testing.assert_allclose(calibration([[0.0, 0.2], [0.3, 0.4], [0.6, 2.0]]), [[0.1, 0.1], [0.3, 0.5], [0.9, 0.9]])
    assert Calibration.from_dict(json.loads(json.dumps(calibration.to_dict()))) == calibration


@pytest.mark.parametrize(
    ("scores", "probabilities"),
    [
        ((), ()),
        ((0.1, 0.1), (0.2, 0.3)),
        ((0.2, 0.1), (0.2, 0.3)),
        ((0.1, 0.2), (0.3, 0.2)),
        ((0.1, 0.2), (0.3, 1.2)),
        ((0.1, 0.2), (0.3,)),
        ((0.1, float("nan")), (0.3, 0.4)),
        ((0.1, 0.2), (0.3, float("nan"))),
    ],
)
def test_what_is_no_rising_map_is_refused(scores, probabilities):
    with pytest.raises(InputError, match="give rising scores"):
        Calibration(scores, probabilities, "close")


def test_a_fit_gives_the_shares():
    """Four scores of 100 keypoints each, right in 10, 40, 30 and 90 of them: the two in the middle are pooled to 35."""
    scores = np.repeat([0.1, 0.2, 0.3, 0.4], 100)
    right = np.concatenate([np.arange(100) < count for count in (10, 40, 30, 90)])
    order = np.random.default_rng(0).permutation(400)
    found = fit(scores[order], right[order], "close", knots=4)
    np.testing.assert_allclose(found.scores, [0.1, 0.25, 0.4])
    np.testing.assert_allclose(found.probabilities, [0.1, 0.35, 0.9])
    assert found.criterion == "close"


def test_a_fit_makes_probabilities_of_scores():
    """Scores whose probability of being right is their square: other people's error is below 0.02, unfitted 0.17."""
    rng = np.random.default_rng(1)
    scores = rng.uniform(0, 1, 40000)
    right = rng.uniform(size=40000) < scores**2
    calibration = fit(scores[:20000], right[:20000], "close")
    assert reliability(calibration(scores[20000:]), right[20000:]).error < 0.02
    assert reliability(scores[20000:], right[20000:]).error == pytest.approx(1 / 2 - 1 / 3, abs=0.01)


def test_the_error_is_that_of_plain_loops():
    rng = np.random.default_rng(2)
    probabilities, right = rng.uniform(size=500), rng.uniform(size=500) < 0.4
    probabilities[:2] = 0, 1
    found = reliability(probabilities, right, bins=7)
    error = 0
    for index in range(7):
        inside = [i for i, p in enumerate(probabilities) if min(int(p * 7), 6) == index]
        confidence, accuracy = np.mean(probabilities[inside]), np.mean(right[inside])
        assert (found.confidence[index], found.accuracy[index]) == pytest.approx((confidence, accuracy))
        assert found.counts[index] == len(inside)
        error += len(inside) / 500 * abs(confidence - accuracy)
    assert found.error == pytest.approx(error)


def test_equal_scores_are_one_knot():
    found = fit(np.full(300, 0.5), np.arange(300) < 75, "close")
    assert (found.scores, found.probabilities) == ((0.5,), (0.25,))


@pytest.mark.parametrize(
    ("scores", "right", "words"),
    [
        (np.zeros(199), np.zeros(199), "199 labelled keypoints"),
        (np.zeros(300), np.zeros(299), r"shape \(300,\) for \(299,\)"),
        (np.full(300, np.nan), np.zeros(300), "not a finite number"),
    ],
)
def test_what_cannot_be_fitted_is_told(scores, right, words):
    with pytest.raises(InputError, match=words):
        fit(scores, right, "close")


@pytest.mark.parametrize("probabilities", [(), (0.5, 1.1), (-0.1, 0.2)])
def test_reliability_needs_probabilities(probabilities):
    with pytest.raises(InputError, match="probabilities from 0 to 1"):
        reliability(probabilities, np.zeros(len(probabilities)))


def test_a_person_goes_by_the_mean_height():
    """Means 0.25 and 0.5 of four peaks, on a line from (0, 0) to (0.5, 0.8); and through JSON."""
    person = Calibration((0.0, 0.5), (0.0, 0.8), "a person in the box")
    calibration = Calibration((0.0, 1.0), (0.1, 0.9), "close", person)
    heights = [[0.1, 0.2, 0.3, 0.4], [0.9, 0.1, 0.9, 0.1]]
    np.testing.assert_allclose(calibration.person_scores(heights), [0.4, 0.8], rtol=1e-12)
    assert Calibration.from_dict(json.loads(json.dumps(calibration.to_dict()))) == calibration
    assert Calibration((0.0,), (0.1,), "close").person_scores(heights) is None

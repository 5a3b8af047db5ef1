"""Parity: what two networks' outputs differ by, against hand-made cases and NumPy's own correlation."""

import numpy as np
import pytest

from keras_mrpose.errors import InputError
from keras_mrpose.export.parity import parity

SHAPE = (5, 24, 18, 3)  # crops, height, width, joints


@pytest.fixture
def case():
    """Points, scores and heatmaps of an original, and of another that differs by noise."""
    rng = np.random.default_rng(0)
    points = rng.uniform(0, 70, (5, 3, 2))
    scores = rng.uniform(0.31, 1, (5, 3))
    heatmaps = rng.uniform(0, 1, SHAPE).astype(np.float32)
    return points, points + rng.normal(0, 2, points.shape), scores, heatmaps, heatmaps + rng.normal(0, 0.1, SHAPE)


def test_equal_outputs(case):
    points, _, scores, heatmaps, _ = case
    found = parity(points, points, scores, heatmaps, heatmaps)
    assert found.correlation == pytest.approx(1, abs=1e-12) and found.correlation_least == pytest.approx(1, abs=1e-12)
    assert (found.crops, found.joints, found.same_peak, found.largest) == (5, 15, 1, 0)
    assert (found.shift_median, found.shift_95, found.shift_worst) == (0, 0, 0)


def test_numbers_are_those_of_numpy(case):
    """Of the confident joints alone; the largest difference is that of all cells."""
    points, other_points, scores, heatmaps, other = case
    scores[1, 2] = scores[3, 0] = 0.29
    other_points[1, 2] += 1000
    other[3, :, :, 0] = 7
    found = parity(points, other_points, scores, heatmaps, other)
    confident = [(crop, joint) for crop in range(5) for joint in range(3) if scores[crop, joint] >= 0.3]
    correlations = [np.corrcoef(heatmaps[c, ..., j].ravel(), other[c, ..., j].ravel())[0, 1] for c, j in confident]
    peaks = [heatmaps[c, ..., j].argmax() == other[c, ..., j].argmax() for c, j in confident]
    shifts = sorted(np.hypot(*(points[c, j] - other_points[c, j])) for c, j in confident)
    assert found.joints == len(confident) == 13
    assert found.correlation == pytest.approx(np.mean(correlations), abs=1e-6)  # heatmaps are float32
    assert found.correlation_least == pytest.approx(min(correlations), abs=1e-6)
    assert found.same_peak == np.mean(peaks) and 0 < found.same_peak < 1
    assert found.shift_median == pytest.approx(shifts[6]) and found.shift_worst == pytest.approx(shifts[-1])
    assert found.shift_95 == pytest.approx(shifts[11] + 0.4 * (shifts[12] - shifts[11]))  # 0.95 x 12 = 11.4
    assert found.largest == pytest.approx(np.abs(heatmaps - other).max())


def test_by_hand():
    """One map turned upside down, one constant, one whose peak is elsewhere."""
    original, other = np.zeros((1, 4, 5, 3)), np.zeros((1, 4, 5, 3))
    original[0, 1, 2] = 1
    other[0, 1, 2, 0] = -1
    other[0, :, :, 1] = 0.5
    other[0, 3, 0, 2] = 1
    points = np.zeros((1, 3, 2))
    moved = points + np.array([[3, 4], [0, 0], [5, 12]])
    found = parity(points, moved, np.ones((1, 3)), original, other)
    # two single cells of twenty: (0 - 1/20) / (1 - 1/20)
    assert found.correlation == pytest.approx((-1 + 0 - 1 / 19) / 3)
    assert found.correlation_least == pytest.approx(-1)
    assert (found.same_peak, found.largest) == (0, 2)
    assert (found.shift_median, found.shift_worst) == (5, 13)


def test_joints_alone(case):
    points, other_points, scores, *_ = case
    found = parity(points, other_points, scores)
    assert found.shift_worst == pytest.approx(np.linalg.norm(points - other_points, axis=-1).max())
    assert [found.correlation, found.correlation_least, found.same_peak, found.largest] == [None] * 4


def test_how_sure_is_an_option(case):
    points, other_points, scores, *_ = case
    scores[:] = 0.2
    scores[2, 1] = 0.1
    assert parity(points, other_points, scores, confident=0.2).joints == 14


@pytest.mark.parametrize("broken", ["original", "export"])
def test_a_broken_network_is_not_alike(case, broken):
    """NaN stays NaN, which is over every budget."""
    points, other_points, scores, heatmaps, other = case
    (heatmaps if broken == "original" else other)[0, 0, 0, 0] = np.nan
    found = parity(points, other_points, scores, heatmaps, other)
    assert not found.correlation > 0 and not found.correlation_least > 0


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"scores": np.full((5, 3), 0.29)}, r"confident of no joint of these 5 crops \(no score of 0.3\)"),
        ({"exported_points": np.zeros((5, 4, 2))}, r"makes \(5, 4, 2\) of what the original makes \(5, 3, 2\)"),
        ({"exported_heatmaps": np.zeros((5, 24, 17, 3))}, r"makes \(5, 24, 17, 3\) of what"),
    ],
)
def test_mistakes(case, change, words):
    names = ("points", "exported_points", "scores", "heatmaps", "exported_heatmaps")
    with pytest.raises(InputError, match=words):
        parity(**(dict(zip(names, case, strict=True)) | change))

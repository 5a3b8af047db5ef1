"""The image of a diagnosis, bar by bar."""

import numpy as np
import pytest
from matplotlib.colors import to_rgb

from keras_mrpose.visualization import curves

NAMES = tuple(curves.CLASS_COLOURS)
COLOURS = np.round(255 * np.array([to_rgb(colour) for colour in curves.CLASS_COLOURS.values()])).astype(np.uint8)


def shares(count, *values):
    return {"count": count, **dict(zip(NAMES, values, strict=True))}


@pytest.fixture
def values():
    return {
        "people": 7,
        "all": shares(12, 0.5, 0.25, 0.125, 0.0625, 0.0625),
        "joints": {"nose": shares(10, 0.1, 0.2, 0.3, 0.0, 0.4), "left_hand": shares(0, *[None] * 5)},
        "sizes": {},
        "gains": {"jitter": 2.5, "miss": None},
    }


def widths(picture):
    """For each bar, from the top down, how many pixels each class has in a line below its numbers."""
    counts = np.stack([(picture == colour).all(axis=-1).sum(axis=1) for colour in COLOURS], axis=1)
    filled = np.flatnonzero(counts.sum(axis=1) > 0.5 * picture.shape[1])
    bars = np.split(filled, np.flatnonzero(np.diff(filled) > 1) + 1)
    return [counts[bar[-4]] for bar in bars]


def test_bars_are_as_wide_as_the_shares(values):
    """2 pixels: the white edges between pieces."""
    picture = curves.diagnosis_chart(values)
    assert picture.dtype == np.uint8 and picture.ndim == 3 and picture.shape[2] == 3
    first, second = widths(picture)  # the joint without labels has no bar
    for found, bar in ((first, values["all"]), (second, values["joints"]["nose"])):
        wanted = np.array([bar[name] for name in NAMES])
        np.testing.assert_allclose(found, wanted * found.sum(), atol=2.5)


def test_more_joints_make_a_higher_picture_and_gains_are_in_it(values):
    picture = curves.diagnosis_chart(values)
    more = values | {"joints": {f"joint_{number}": values["all"] for number in range(17)}}
    assert curves.diagnosis_chart(more).shape[0] > picture.shape[0]
    assert not np.array_equal(picture, curves.diagnosis_chart(values | {"gains": None}))
    assert not np.array_equal(picture, curves.diagnosis_chart(values, "PCK"))

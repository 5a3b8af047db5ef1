"""The record table: what it accepts, what it refuses and how it says so."""

import dataclasses

import numpy as np
import pytest

from keras_mrpose.data.people import People, concatenate
from keras_mrpose.errors import InputError
from keras_mrpose.skeletons import Skeleton

THREE = Skeleton("three", ("nose", "left_eye", "right_eye"), ((1, 2),))


def fields(**changes):
    """Four people in two images."""
    keypoints = np.arange(36.0).reshape(4, 3, 3)
    keypoints[..., 2] = [2, 1, 0]
    return {
        "source": "made up",
        "skeleton": THREE,
        "image_paths": ["a.jpg", "b.jpg"],
        "image_ids": [10, 20],
        "image_index": [0, 1, 1, 0],
        "ids": [1, 2, 3, 4],
        "boxes": np.tile([5.0, 6.0, 30.0, 40.0], (4, 1)),
        "keypoints": keypoints,
        "reference_length": [30.0, 31.0, 32.0, 33.0],
        "areas": [900.0, 961.0, 1024.0, 1089.0],
        **changes,
    }


def changed(name, place, value):
    given = np.array(fields()[name], np.float64)
    given[place] = value
    return {name: given}


def test_lists_become_arrays_and_boxes_score_one():
    people = People(**fields())
    assert len(people) == 4
    np.testing.assert_array_equal(people.scores, np.ones(4))
    np.testing.assert_array_equal(people.paths(), ["a.jpg", "b.jpg", "b.jpg", "a.jpg"])
    for name in ("boxes", "keypoints", "reference_length", "areas", "scores"):
        assert getattr(people, name).dtype == np.float64
    for name in ("image_index", "image_ids", "ids"):
        assert getattr(people, name).dtype == np.int64


@pytest.mark.parametrize("rows", [[3, 1], np.array([False, True, False, True]), slice(1, None, 2)], ids=str)
def test_take_keeps_records_whole(rows):
    people = People(**fields(scores=[0.1, 0.2, 0.3, 0.4]))
    some = people.take(rows)
    wanted = np.arange(4)[rows]
    assert len(some) == 2
    np.testing.assert_array_equal(some.paths(), people.paths()[wanted])
    for name in ("ids", "boxes", "keypoints", "reference_length", "areas", "scores", "image_index"):
        np.testing.assert_array_equal(getattr(some, name), getattr(people, name)[wanted])
    assert (some.source, some.skeleton) == (people.source, people.skeleton)


def test_sizes_of_images_stay_with_them():
    """Zeros where nobody said."""
    one, other = People(**fields()), People(**fields(image_sizes=[(4, 3), (6, 5)]))
    np.testing.assert_array_equal(one.image_sizes, np.zeros((2, 2)))
    np.testing.assert_array_equal(other.take([3]).image_sizes, [(4, 3), (6, 5)])
    np.testing.assert_array_equal(concatenate([other, one]).image_sizes, [(4, 3), (6, 5), (0, 0), (0, 0)])


def test_nobody_is_a_table_too():
    nothing = dict.fromkeys(("image_index", "ids", "boxes", "keypoints", "reference_length", "areas"), ())
    people = People(**fields(**nothing))
    assert (len(people), people.boxes.shape, people.keypoints.shape) == (0, (0, 4), (0, 3, 3))
    assert len(People(**fields()).take([])) == 0
    assert people.require_images() is people


@pytest.mark.parametrize(
    ("image_ids", "paths", "ids", "rows"),
    [
        ([20], ["b.jpg"], [2, 3], [0, 0]),
        ([30, 10], ["c.jpg", "a.jpg"], [1, 4], [1, 1]),  # the table's order, and an image of nobody
        ([10, 10, 99], ["a.jpg"], [1, 4], [0, 0]),  # asked for twice, or not there
        ([20, 30, 10], ["c.jpg", "b.jpg", "a.jpg"], [1, 2, 3, 4], [2, 1, 1, 2]),
        ([], [], [], []),
    ],
)
def test_of_images_keeps_whole_images(image_ids, paths, ids, rows):
    images = {"image_paths": ["c.jpg", "b.jpg", "a.jpg"], "image_ids": [30, 20, 10], "image_index": [2, 1, 1, 2]}
    images["image_sizes"] = [(9, 3), (9, 2), (9, 1)]
    people = People(**fields(**images, scores=[0.1, 0.2, 0.3, 0.4]))
    some = people.of_images(image_ids)
    assert (some.image_paths.tolist(), some.ids.tolist(), some.image_index.tolist()) == (paths, ids, rows)
    np.testing.assert_array_equal(some.image_sizes[:, 1], some.image_ids // 10)
    kept = [people.ids.tolist().index(number) for number in ids]
    np.testing.assert_array_equal(some.image_ids[some.image_index], people.image_ids[people.image_index][kept])
    for name in ("boxes", "keypoints", "reference_length", "areas", "scores"):
        np.testing.assert_array_equal(getattr(some, name), getattr(people, name)[kept])
    assert (some.source, some.skeleton) == (people.source, people.skeleton)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"boxes": np.ones((4, 3))}, r"boxes has shape \(4, 3\), expected \(4, 4\)"),
        ({"boxes": ()}, r"boxes has shape \(0,\)"),
        ({"boxes": [[1, 2, 3, 4]] * 3 + [[1, 2]]}, "boxes is not a table of float64"),
        ({"keypoints": np.ones((4, 17, 3))}, r"keypoints has shape \(4, 17, 3\), expected \(4, 3, 3\)"),
        ({"reference_length": [1.0] * 3}, "reference_length has shape"),
        ({"image_ids": [10]}, "image_ids has shape"),
        ({"areas": ["big"] * 4}, "areas is not a table of float64"),
        ({"image_index": [0, 1, 2, 0]}, "record 3 has an image_index outside the 2 images"),
        ({"image_index": [0, -1, 1, 0]}, "record 2 has an image_index outside"),
        (changed("boxes", (1, 0), np.nan), "record 2 has a value in boxes that is not a finite number"),
        (changed("keypoints", (3, 2, 1), np.inf), "record 4 has a value in keypoints that is not a finite number"),
        (changed("areas", 0, np.nan), "record 1 has a value in areas"),
        (
            changed("boxes", (2, slice(2, 4)), 0),
            r"record 3 has a box of zero or negative size \(box \[5.0, 6.0, 0.0, 0.0\]",
        ),
        (changed("boxes", (0, 3), -1), "record 1 has a box of zero or negative size"),
        (changed("keypoints", (1, 0, 2), 3), "record 2 has a joint flag other than 0, 1 or 2"),
        (changed("keypoints", (1, 0, 2), 0.5), "record 2 has a joint flag"),
        (
            changed("reference_length", slice(1, 3), 0),
            r"record 2 has a reference_length .* not positive .*\(2 of 4 are like this\)",
        ),
    ],
)
def test_wrong_values_are_refused(change, message):
    with pytest.raises(InputError, match=message) as caught:
        People(**fields(**change))
    assert str(caught.value).startswith("made up: ")


def test_a_line_is_a_box():
    """One side of a cleaned COCO box may be zero: the other still sets the crop."""
    assert len(People(**fields(**changed("boxes", (0, 2), 0)))) == 4


def test_missing_images_are_counted_and_the_first_named(tmp_path):
    files = [tmp_path / name for name in ("a.jpg", "b.jpg", "c.jpg")]
    files[0].touch()
    people = People(**fields(image_paths=[str(file) for file in files], image_ids=[1, 2, 3]))
    with pytest.raises(InputError, match=r"image .*b\.jpg is missing \(1 of 2 are\)"):
        people.require_images()
    files[1].touch()
    assert people.require_images() is people  # nobody needs c.jpg
    files[0].unlink()
    files[0].mkdir()
    with pytest.raises(InputError, match=r"a\.jpg is missing"):
        people.require_images()


def test_the_table_is_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        People(**fields()).ids = [1]


def test_a_table_in_one_line():
    people = People(**fields(source="/data/annotations/a.json"))
    assert repr(people) == "<People a.json: 4 in 2 images, 3 joints (three)>"
    assert repr(people.take([0, 3])) == "<People a.json: 2 in 1 images, 3 joints (three)>"

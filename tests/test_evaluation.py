"""Evaluation: exact PCK against a float64 loop, a perfect network scores 1, and `result.json` says how it was made."""

import dataclasses
import json
import math

import dots
import numpy as np
import pytest
from PIL import Image

from keras_mrpose.data.people import People
from keras_mrpose.errors import InputError
from keras_mrpose.evaluation import evaluate
from keras_mrpose.evaluation import pck as evaluation
from keras_mrpose.predictor import Predictor, read_picture
from keras_mrpose.skeletons import Skeleton

SIZES = ((150, 110), (90, 240), (130, 200))  # of the pictures: height, width
PLACES = ((0, 55, 75), (1, 60, 45), (1, 180, 45), (2, 70, 60), (2, 150, 75))  # picture, x and y of a person's middle


@pytest.fixture(scope="module")
def people(tmp_path_factory):
    """Five people of dots in three pictures; hip and shoulder about 40 pixels apart."""
    folder = tmp_path_factory.mktemp("dots")
    rng = np.random.default_rng(0)
    image = np.array([place[0] for place in PLACES])
    middles = np.array([place[1:] for place in PLACES])
    points = middles[:, None] + [[-10, 18], [12, -16], [0, -25]] + rng.uniform(-5, 5, (5, 3, 2))
    for number, size in enumerate(SIZES):
        Image.fromarray(dots.picture(size, points[image == number])).save(folder / f"{number}.png")
    return People(
        source=str(folder / "truth.json"),
        skeleton=dots.DOTS,
        image_paths=[str(folder / f"{number}.png") for number in range(3)],
        image_ids=range(3),
        image_index=image,
        ids=range(5),
        boxes=np.concatenate([middles - (25, 35), np.broadcast_to((50, 70), (5, 2))], axis=1),
        keypoints=np.concatenate([points, np.full((5, 3, 1), 2)], axis=-1),
        normalizer=np.full(5, 50),
        areas=np.full(5, 2500),
    )


@pytest.fixture(scope="module")
def predictor():
    return Predictor(dots.network(), batch_size=2)


def changed(people, **columns):
    return People(**{**vars(people), **columns})


@pytest.fixture(scope="module")
def noisy(people):
    """The same pictures with annotations that are up to 15 pixels off in x and y, and some missing.

    Two have noses, of whom one has no hip and does not count; the last has neither hip nor shoulder.
    """
    keypoints = people.keypoints.copy()
    keypoints[..., :2] += np.random.default_rng(1).uniform(-15, 15, (5, 3, 2))
    keypoints[:, 2, 2] = [2, 0, 1, 0, 0]
    keypoints[2, 0, 2] = keypoints[4, 0, 2] = 0
    keypoints[3, 1, 2] = 1  # hidden, yet labelled
    keypoints[4, 1, 2] = 0
    return changed(people, keypoints=keypoints)


def test_a_perfect_network_scores_one(people, predictor):
    """Errors of 3/8 and 1/4 heatmap pixels are 2.8 picture pixels here; 0.2 torsos are about 8."""
    result = evaluate(predictor, people)
    assert (result.mean, result.people, result.skipped) == (1.0, 5, 0)
    assert result.pck == {"right_hip": 1.0, "left_shoulder": 1.0, "nose": 1.0}
    assert np.linalg.norm(result.predictions[..., :2] - people.keypoints[..., :2], axis=-1).max() < 2.8


@pytest.mark.parametrize("threshold", [0.1, 0.2, 0.5])
def test_pck_against_a_float64_loop(noisy, predictor, threshold):
    result = evaluate(predictor, noisy, threshold)
    right, total, skipped = {}, {}, 0
    for person in range(5):
        joints = noisy.keypoints[person].tolist()
        if not (joints[0][2] and joints[1][2]):
            skipped += 1
            continue
        torso = math.dist(joints[0][:2], joints[1][:2])
        for name, (x, y, v), found in zip(dots.DOTS.joints, joints, result.predictions[person], strict=True):
            if v:
                total[name] = total.get(name, 0) + 1
                right[name] = right.get(name, 0) + (math.dist((x, y), found[:2]) <= threshold * torso)
    assert skipped == result.skipped == 2
    assert result.pck == {name: right[name] / total[name] for name in dots.DOTS.joints}
    assert result.mean == sum(right.values()) / sum(total.values())
    assert (result.people, result.threshold) == (5, threshold)
    if threshold == 0.2:
        assert 0 < result.mean < 1  # the case is not idle


def test_predictions_are_those_of_the_predictor(people, predictor):
    """The pipeline crops in float32, the predictor's matrices are float64: 1e-5 of a crop's 96 pixels."""
    found = evaluation.predict_people(predictor, people)
    assert found.shape == (5, 3, 3) and found.dtype == np.float64
    for person, path in enumerate(people.paths()):
        alone = predictor(read_picture(path), people.boxes[person : person + 1])[0]
        np.testing.assert_allclose(found[person], alone, atol=1e-3)


def test_flip_test_is_told_and_done(people, predictor):
    direct = Predictor(predictor.model, flip_test=False)
    with_flip, without = evaluate(predictor, people), evaluate(direct, people)
    assert (with_flip.protocol["flip_test"], without.protocol["flip_test"]) == (True, False)
    assert np.abs(with_flip.predictions - without.predictions).max() > 1e-3


def strict(path):
    """Parsed JSON; NaN and Infinity, which are none, fail."""

    def refuse(constant):
        raise AssertionError(f"{constant} is not JSON")

    return json.loads(path.read_text(), parse_constant=refuse)


def test_result_file(noisy, predictor, tmp_path):
    """With nobody's nose labelled, its share is null."""
    result = evaluate(predictor, changed(noisy, keypoints=noisy.keypoints * [[1], [1], [0]]))
    result.save(tmp_path / "new" / "result.json")
    content = strict(tmp_path / "new" / "result.json")
    assert set(content) == {"PCK@0.2", "people", "people_without_torso", "protocol"}
    assert content["PCK@0.2"] == {"mean": result.mean, **result.pck}
    assert content["PCK@0.2"]["nose"] is None
    assert (content["people"], content["people_without_torso"]) == (5, 2)
    protocol = content["protocol"]
    assert protocol == result.protocol
    assert protocol["data"].endswith("/truth.json") and protocol["data"].count("/") == 1  # no path of this machine
    gaussian = {"sigma": 1.0, "flip_shift": True, "published_border": True}
    assert protocol["codec"] == {"name": "GaussianCodec", **gaussian}
    assert (protocol["model"], protocol["input_size"], protocol["boxes"]) == ("dots", [96, 64], "annotated")
    assert (protocol["flip_test"], protocol["normalizer"]) == (True, "right hip to left shoulder")
    assert set(protocol["versions"]) == {"keras", "tensorflow", "numpy", "python"}


def test_hash_tells_data_apart(people, noisy, predictor):
    hashes = {
        evaluation.protocol(predictor, table)["data_sha256"]
        for table in (people, noisy, changed(people, boxes=people.boxes + 1), people.take(slice(4)))
    }
    assert len(hashes) == 4
    again = changed(people)
    assert evaluation.protocol(predictor, again) == evaluation.protocol(predictor, people)


# --- wrong --------------------------------------------------------------------------------------------------------


def test_other_joints_are_refused(people, predictor):
    four = Skeleton("four", (*dots.DOTS.joints, "left_hand"))
    table = changed(people, skeleton=four, keypoints=np.zeros((5, 4, 3)))
    with pytest.raises(InputError, match=r"has 4 joints \(four\), the network makes 3 \(dots\)"):
        evaluate(predictor, table)


def test_people_without_a_torso_are_refused(people, predictor):
    plain = Skeleton("plain", ("red", "green", "blue"))
    other = Predictor(dots.network(skeleton=plain))
    with pytest.raises(InputError, match="Skeleton plain has no right hip and left shoulder"):
        evaluate(other, changed(people, skeleton=plain))
    nobody = changed(people, keypoints=people.keypoints * (1, 1, 0))
    with pytest.raises(InputError, match="has nobody with right hip and left shoulder labelled"):
        evaluate(predictor, nobody)


@pytest.mark.parametrize("threshold", [0.0, -0.2, math.nan])
def test_a_threshold_that_is_none_is_refused(people, predictor, threshold):
    with pytest.raises(InputError, match=r"threshold is .*; give a positive share"):
        evaluate(predictor, people, threshold)


def test_a_broken_image_is_named(people, predictor, tmp_path):
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"not a picture")
    with pytest.raises(InputError, match=rf"The image {broken} cannot be read"):
        evaluate(predictor, changed(people, image_paths=[*people.image_paths[:2], str(broken)]))


def test_result_cannot_be_changed(people, predictor):
    with pytest.raises(dataclasses.FrozenInstanceError):
        evaluate(predictor, people).mean = 1.0

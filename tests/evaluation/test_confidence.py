"""Which keypoints are right, against plain loops; a calibration that is fitted, saved, and used in predictions."""

import dataclasses
import json
import math
from pathlib import Path

import dots
import dotted
import keras
import numpy as np
import pytest

from keras_mrpose.calibration import Calibration
from keras_mrpose.data.people import People
from keras_mrpose.errors import InputError
from keras_mrpose.evaluation import confidence
from keras_mrpose.evaluation.evaluate import settings_of
from keras_mrpose.evaluation.predictions import predict
from keras_mrpose.predict.predictor import Predictor
from keras_mrpose.skeletons import COCO


@pytest.fixture(scope="module")
def people(tmp_path_factory):
    """24 people whose annotations are off by up to some pixels; a third of the joints are hidden, some unlabelled."""
    table = dotted.folder(tmp_path_factory.mktemp("dots"), "val2017", 24, noise=6.0)
    keypoints = table.keypoints.copy()
    keypoints[:, ::3, 2] = 1
    keypoints[::5, 2, 2] = 0
    return People(**{**vars(table), "keypoints": keypoints})


@pytest.fixture(scope="module")
def predictor():
    return Predictor(dotted.network(), flip_test=False)


@pytest.mark.parametrize("protocol", ["ap", "pck", "pckh"])
def test_right_is_what_the_protocol_says(people, predictor, protocol):
    """In double precision, keypoint by keypoint: areas are 3000, heads 20 pixels."""
    table = People(**{**vars(people), "protocol": protocol, "reference_length": np.full(len(people), 20.0)})
    found = confidence.find_labelled(predictor, table)
    keypoints = predict(predictor, table).read(settings_of(predictor))
    hip, shoulder = COCO.torso
    wanted = []
    for person, annotated in zip(keypoints, table.keypoints, strict=True):
        torso = math.dist(annotated[hip, :2], annotated[shoulder, :2])
        for joint, ((x, y, score), (a, b, v)) in enumerate(zip(person, annotated, strict=True)):
            distance = math.dist((x, y), (a, b))
            right = {
                "ap": math.exp(-(distance**2) / (2 * 3000 * (2 * COCO.sigmas[joint]) ** 2)) >= 0.5,
                "pck": distance <= 0.2 * torso,
                "pckh": distance <= 10,
            }[protocol]
            if v:
                wanted.append((score, right, v == 2))
    scores, right, visible = map(np.array, zip(*wanted, strict=True))
    np.testing.assert_array_equal(found.scores, scores)
    np.testing.assert_array_equal(found.right, right.astype(bool))
    np.testing.assert_array_equal(found.visible, visible.astype(bool))
    assert 0.1 < right.mean() < 0.95  # both kinds are there


def test_a_check_tells_visible_from_hidden(people, predictor):
    found = confidence.find_labelled(predictor, people)
    report = confidence.check_calibration(found, Calibration((0.0, 1.0), (0.5, 0.5), "close"))
    assert report["keypoints"] == len(found.right) == report["visible"]["keypoints"] + report["hidden"]["keypoints"]
    assert report["error"] == pytest.approx(abs(0.5 - found.right.mean()))
    assert report["hidden"]["right"] == pytest.approx(found.right[~found.visible].mean())
    assert report["bins"] == [
        {"confidence": 0.5, "right": pytest.approx(found.right.mean()), "count": len(found.right)}
    ]


def test_a_fitted_network_predicts_probabilities(people, predictor, tmp_path):
    """The share of right keypoints among these, which all have about one score; saved and loaded with the network."""
    found = confidence.find_labelled(predictor, people)
    fitted = confidence.fit_calibration([found])
    assert fitted(found.scores).mean() == pytest.approx(found.right.mean(), abs=0.02)
    assert confidence.check_calibration(found, fitted)["error"] < 0.05
    model = dots.network()
    model.calibration = Calibration((0.0, 1.0), (0.0, 0.5), "close")
    model.save(tmp_path / "dots.keras")
    assert keras.models.load_model(tmp_path / "dots.keras").calibration == model.calibration
    image = dots.picture((140, 100), [[(30, 90), (60, 40), (50, 20)]])
    box = [[0, 0, 100, 140]]
    calibrated, plain = (Predictor(source)(image, box) for source in (tmp_path / "dots.keras", dots.network()))
    np.testing.assert_array_equal(calibrated[..., :2], plain[..., :2])
    np.testing.assert_allclose(calibrated[..., 2], plain[..., 2] / 2, atol=1e-6)


def test_a_training_takes_the_calibration_away():
    """It was fitted to other weights; who predicts with the network notices."""
    model = dots.network()
    predictor, fitted = Predictor(model), Calibration((0.0, 1.0), (0.0, 0.5), "close")
    model.calibration = fitted
    assert predictor.calibration is fitted
    model.compile(metrics=[])
    model.fit(np.ones((2, *predictor.input_size, 3)), np.ones((2, 3, 4)), verbose=0)
    assert model.calibration is predictor.calibration is None


def test_nothing_to_fit_to(people, predictor):
    nobody = People(**{**vars(people), "keypoints": people.keypoints * (1, 1, 0)})
    with pytest.raises(InputError, match="no labelled keypoint that the network knows"):
        confidence.find_labelled(predictor, nobody)


def test_background_is_where_nobody_is(people):
    """No box overlaps an annotated one, crowds and people without keypoints included, and all lie in their image."""
    file = Path(people.source)
    content = json.loads(file.read_text())
    crowd = {"id": 999, "image_id": 0, "category_id": 1, "iscrowd": 1, "num_keypoints": 0, "bbox": [0, 0, 230, 20]}
    file.write_text(json.dumps({**content, "annotations": [*content["annotations"], crowd]}))
    try:
        found = confidence.background_boxes(people)
    finally:
        file.write_text(json.dumps(content))
    assert len(found) > 5 and not found.keypoints.any()
    np.testing.assert_array_equal(found.image_sizes, people.image_sizes)  # which decide how an image is turned
    assert (found.image_sizes == (230, 140)).all()
    for row, (x, y, w, h) in zip(found.image_index, found.boxes, strict=True):
        number = people.image_ids[row]
        assert x >= 0 and y >= 0 and x + w <= 230 and y + h <= 140
        for record in [*content["annotations"], crowd]:
            if record["image_id"] == number:
                a, b, c, d = record["bbox"]
                assert max(x, a) >= min(x + w, a + c) or max(y, b) >= min(y + h, b + d)


def test_who_is_there_goes_by_the_mean_height_of_all_joints(people, predictor, monkeypatch):
    """The network sees dots in people's boxes and black elsewhere; both count as much, whatever their numbers."""
    found = confidence.find_labelled(predictor, people)
    heights = predict(predictor, people).read(settings_of(predictor))[..., 2]
    np.testing.assert_allclose(found.people, heights.mean(axis=1), rtol=1e-6)
    assert found.background.max() < found.people.min()
    monkeypatch.setattr(confidence, "MIN_BACKGROUND", 1)
    made = dataclasses.replace(found, people=np.repeat([0.1, 0.9], [30, 90]), background=np.repeat([0.1, 0.9], [27, 3]))
    person = confidence.fit_calibration([made]).person
    # of the 120 people a quarter is low, of the background nine tenths, repeated to 120: 30 of 138, 90 of 102
    np.testing.assert_allclose(person([0.1, 0.9]), [30 / 138, 90 / 102], atol=0.03)
    calibration = confidence.fit_calibration([made])
    assert confidence.check_calibration(made, calibration)["person"] == {
        "people": {"boxes": 120, "called a person": 90},
        "background": {"boxes": 30, "called a person": 3},
    }
    monkeypatch.undo()
    assert confidence.fit_calibration([made]).person is None  # 30 are too few

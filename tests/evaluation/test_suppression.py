"""Scores and selection of people against the published ones, and sums done by hand."""

import json
import math

import numpy as np
import plain_loops
import pytest

from keras_mrpose.errors import InputError
from keras_mrpose.evaluation import suppression as selection
from keras_mrpose.skeletons import COCO, MPII


@pytest.fixture(scope="module")
def golden(shared):
    return dict(np.load(shared / "golden" / "coco_eval.npz"))


def selected(golden, **options):
    areas, box_scores = golden["boxes"][:, 4:].T
    return selection.rescore_and_nms(golden["preds"], golden["image_id"], areas, box_scores, **options)


def test_official_rule_is_the_default_and_no_suppression_the_published_no_nms(golden):
    for options, name in (({}, "official"), ({"suppression": "none"}, "no_nms")):
        rows, scores = selected(golden, **options)
        np.testing.assert_array_equal(rows, golden[f"kept_{name}"])
        np.testing.assert_allclose(scores, golden[f"score_{name}"], rtol=0, atol=1e-6)


def test_areas_are_those_of_the_published_windows(shared):
    """Golden scale: window sides in 200 px, float32, so an area is good to 2e-7 of it; and box ratios within that."""
    golden = json.loads((shared / "golden" / "coco_db.json").read_text())
    boxes = {(box["image_id"], box["score"]): box["bbox"] for box in golden["detections_in"] if box["category_id"] == 1}
    for run in golden["detection_runs"]:
        kept = [boxes[key] for key in zip(run["image_id"], run["score"], strict=True)]
        wanted = 40000 * np.prod(run["scale"], axis=1)
        np.testing.assert_allclose(selection.window_areas(kept, run["image_size_wh"][::-1]), wanted, rtol=1e-6)


# --- against plain loops -------------------------------------------------------------------------------------------


def crowd(count=60, joints=17, seed=3):
    """People in nine images, half of them found again a little off, scores equal, joints uncertain or at 0.2."""
    rng = np.random.default_rng(seed)
    points = rng.uniform(0, 400, (count, 1, 2)) + rng.normal(0, 60, (count, joints, 2))
    points[count // 2 :] = points[: count // 2] + rng.normal(0, 6, (count // 2, joints, 2))
    confidences = rng.uniform(-0.1, 1, (count, joints))
    confidences[rng.random((count, joints)) < 0.1] = 0.2
    box_scores = rng.uniform(0.1, 1, count)
    confidences[::10], box_scores[::10] = 0.5, 0.75  # rows 0 and 30, 10 and 40, 20 and 50 are of one image
    image_ids = np.tile(rng.integers(0, 9, count // 2), 2)
    return np.dstack([points, confidences]), image_ids, rng.uniform(5e3, 5e4, count), box_scores


@pytest.mark.parametrize("suppression", ["hard", "soft"])
@pytest.mark.parametrize("skeleton", [COCO, MPII], ids=lambda skeleton: skeleton.name)
def test_selection_person_by_person_and_joint_by_joint(skeleton, suppression):
    given = crowd(joints=skeleton.num_joints)
    np.testing.assert_allclose(
        selection.rescore(given[0], given[3]), plain_loops.rescored(given[0], given[3]), rtol=1e-12
    )
    for thresholds in ({"oks_threshold": 0.5, "joint_threshold": 0.4}, {}):
        options = {"suppression": suppression, "sigmas": skeleton.sigmas, **thresholds}
        rows, scores = selection.rescore_and_nms(*given, **options)
        wanted_rows, wanted_scores = plain_loops.select(*given, **options)
        np.testing.assert_array_equal(rows, wanted_rows)
        np.testing.assert_allclose(scores, wanted_scores, rtol=1e-12)
        assert len(rows) < 60 or suppression == "soft"


# --- scores and selection by hand ---------------------------------------------------------------------------------


def person(x=0.0, scores=0.5):
    """All joints at one place, with these scores."""
    points = np.zeros((17, 3))
    points[:, 0], points[:, 2] = x, scores
    return points


def test_score_is_the_box_times_the_mean_of_sure_joints():
    scores = np.full((3, 17), -0.5)
    scores[0, :4] = 0.25, 0.5, 0.2, 0.9  # 0.2 is not above 0.2
    scores[1, :2] = 0.1, 0.2
    scores[2, :] = 1.5
    people = np.stack([person(scores=row) for row in scores])
    wanted = [0.8 * (0.25 + 0.5 + 0.9) / 3, 0, 0.6 * 1.5]
    np.testing.assert_allclose(selection.rescore(people, [0.8, 0.9, 0.6]), wanted, rtol=1e-15)
    np.testing.assert_allclose(selection.rescore(people, [1, 1, 1], joint_threshold=0.5), [0.9, 0, 1.5], rtol=1e-15)


def test_images_do_not_suppress_each_other_and_stay_in_the_order_of_the_people():
    people = np.stack([person(x) for x in (0, 0, 100, 0, 100)])
    rows, scores = selection.rescore_and_nms(people, [9, 4, 9, 9, 4], np.full(5, 50.0), [0.2, 0.3, 0.9, 0.4, 0.6])
    assert rows.tolist() == [2, 3, 4, 1]  # row 0 is the worse twin of row 3
    np.testing.assert_allclose(scores, [0.45, 0.2, 0.3, 0.15])


def test_of_equal_scores_the_later_row_comes_first_as_published():
    people = np.stack([person(x) for x in (0, 0, 900, 1800)])
    for suppression, wanted in (("hard", [3, 2, 1]), ("none", [3, 2, 1, 0]), ("soft", [3, 2, 1, 0])):
        assert selection.rescore_and_nms(people, [1] * 4, [9.0] * 4, [0.5] * 4, suppression)[0].tolist() == wanted


def test_soft_suppression_lowers_the_twin_by_bodlas_factor():
    people = np.stack([person(x) for x in (0, 0, 1e6)])
    rows, scores = selection.rescore_and_nms(people, [1, 1, 1], [50.0] * 3, [0.8, 1.0, 0.5], "soft", oks_threshold=0.7)
    assert rows.tolist() == [1, 2, 0]
    np.testing.assert_allclose(scores, [0.5, 0.25, 0.4 * math.exp(-1 / 0.7)], rtol=1e-12)


def test_areas_decide_who_is_a_twin():
    people = np.stack([person(0), person(5)])
    for area, count in ((100.0, 2), (100_000.0, 1)):
        assert len(selection.rescore_and_nms(people, [1, 1], [area, area], [0.5, 0.6])[0]) == count


def test_nobody():
    rows, scores = selection.rescore_and_nms(np.zeros((0, 17, 3)), [], [], [])
    assert rows.tolist() == scores.tolist() == []
    assert rows.dtype.kind == "i"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"suppression": "softly"}, "suppression 'softly'; give one of hard, soft, none"),
        ({"keypoints": np.zeros((3, 16, 3))}, r"keypoints of shape \(3, 16, 3\)"),
        ({"sigmas": MPII.sigmas}, r"keypoints of shape \(3, 17, 3\); give \(people, 16, 3\): x, y, score"),
        ({"areas": [1, 2]}, r"areas of shape \(2,\) for 3 people"),
        ({"image_ids": 1}, r"image_ids of shape \(\) for 3 people"),
        ({"box_scores": [1, np.nan, 1]}, "box_scores of person 1 that are not finite"),
        ({"keypoints": np.full((3, 17, 3), np.inf)}, "keypoints of person 0 that are not finite"),
    ],
)
def test_mistakes_are_told(change, message):
    given = {"keypoints": np.zeros((3, 17, 3)), "image_ids": [1, 1, 2], "areas": [1, 1, 1], "box_scores": [1, 1, 1]}
    with pytest.raises(InputError, match=message):
        selection.rescore_and_nms(**(given | change))

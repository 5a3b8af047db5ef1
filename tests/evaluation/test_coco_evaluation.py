"""COCO's protocol against the published selection and ten numbers, the documented fixture, and sums done by hand."""

import json
import math

import numpy as np
import pytest

from keras_mrpose.data import coco as coco_data
from keras_mrpose.errors import InputError
from keras_mrpose.evaluation import coco, suppression
from keras_mrpose.skeletons import COCO

VARIANTS = ("official", "oks0.5", "no_nms", "vis0")


@pytest.fixture(scope="module")
def golden(shared):
    return dict(np.load(shared / "golden" / "coco_eval.npz"))


def facts(shared, name):
    return json.loads((shared / "golden" / name).read_text())


def selected(golden, **options):
    areas, box_scores = golden["boxes"][:, 4:].T
    return suppression.rescore_and_nms(golden["preds"], golden["image_id"], areas, box_scores, **options)


def options_of(variant):
    return {"oks_threshold": variant["oks_thre"], "joint_threshold": variant["in_vis_thre"]}


# --- published ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", VARIANTS)
def test_selection_and_numbers_are_the_published_ones(golden, shared, name):
    """Rows exact; scores 1e-6 as in the golden README (published: float32, here float64); numbers 1e-6."""
    variant = facts(shared, "coco_eval.json")[name]
    rows, scores = selected(golden, **options_of(variant))
    np.testing.assert_array_equal(rows, golden[f"kept_{name}"])
    np.testing.assert_allclose(scores, golden[f"score_{name}"], rtol=0, atol=1e-6)
    assert (len(rows), len(golden["preds"])) == (variant["kept"], variant["predictions"])
    results = coco.results_json(golden["preds"][rows], golden["image_id"][rows], scores)
    numbers = coco.average_precision(shared / "golden" / "coco_eval_gt_538.json", results)
    assert list(numbers) == list(variant["stats"])
    assert numbers == pytest.approx(variant["stats"], rel=0, abs=1e-6)


@pytest.mark.parametrize("name", ["official", *(pytest.param(name, marks=pytest.mark.slow) for name in VARIANTS[1:])])
def test_the_faster_evaluation_is_the_same_to_the_last_digit(golden, shared, name):
    pytest.importorskip("faster_coco_eval")
    rows, scores = selected(golden, **options_of(facts(shared, "coco_eval.json")[name]))
    results = coco.results_json(golden["preds"][rows], golden["image_id"][rows], scores)
    truth = shared / "golden" / "coco_eval_gt_538.json"
    for some in (None, sorted(set(golden["image_id"].tolist()))[::3]):
        kept = [one for one in results if some is None or one["image_id"] in some]
        wanted = coco.average_precision(truth, kept, some)
        assert coco.average_precision(truth, kept, some, faster=True) == wanted


def test_the_faster_evaluation_says_what_to_install(monkeypatch):
    monkeypatch.setattr(coco, "FasterCOCOeval", None)
    with pytest.raises(InputError, match="pip install faster-coco-eval"):
        coco.run_cocoeval({"images": [], "annotations": []}, [], faster=True)


def test_documented_fixture_to_every_digit(shared, capsys):
    fixture = facts(shared, "coco_eval_fixture.json")
    truth, results = shared / "golden" / fixture["gt"], facts(shared, fixture["dt"])
    before = json.dumps(results)
    assert coco.average_precision(truth, results) == fixture["documented"]
    assert (len(results), len(facts(shared, fixture["gt"])["annotations"])) == (
        fixture["detections"],
        fixture["gt_annotations"],
    )
    assert json.dumps(results) == before
    assert capsys.readouterr().out == ""


# --- results ------------------------------------------------------------------------------------------------------


def test_records_hold_every_joint_and_survive_the_file(tmp_path):
    people = np.random.default_rng(0).uniform(-5, 300, (2, 17, 3))
    people[1, 3, 2] = 0.01  # uncertain ones too
    results = coco.results_json(people, np.array([7, 2**53 + 1]), np.array([0.5, 0.25]))
    file = tmp_path / "new" / "results.json"
    coco.save_results(results, file)
    read = json.loads(file.read_text())
    assert read == results
    assert [set(record) for record in read] == [{"image_id", "category_id", "keypoints", "score"}] * 2
    assert [(r["image_id"], r["category_id"], r["score"]) for r in read] == [(7, 1, 0.5), (2**53 + 1, 1, 0.25)]
    np.testing.assert_array_equal(np.reshape([r["keypoints"] for r in read], (2, 17, 3)), people)


def result(**changes):
    record = {"image_id": 3, "category_id": 1, "keypoints": [1.0, 2, 0.5] * 17, "score": 0.5, **changes}
    return {field: value for field, value in record.items() if value is not ...}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image_id": ...}, "image_id None, expected a whole number"),
        ({"image_id": "3"}, "image_id '3', expected a whole number"),
        ({"image_id": [3]}, r"image_id \[3\], expected a whole number"),
        ({"image_id": True}, "image_id True, expected a whole number"),
        ({"image_id": 4}, "image_id 4, expected one of the annotated images"),
        ({"category_id": 2}, "category_id 2, expected 1"),
        ({"category_id": ...}, "category_id None"),
        ({"keypoints": [1.0] * 50}, r"keypoints \[1.0, .*, expected a list of 51 finite numbers"),
        ({"keypoints": [[1.0, 2.0, 0.5]] * 17}, "keypoints"),
        ({"keypoints": [None] * 51}, "keypoints"),
        ({"keypoints": [math.nan] * 51}, "keypoints"),
        ({"keypoints": [10**400] * 51}, "keypoints"),
        ({"keypoints": ...}, "keypoints None"),
        ({"score": ...}, "score None, expected a finite number"),
        ({"score": math.inf}, "score inf"),
        ({"score": False}, "score False"),
    ],
)
def test_wrong_records_are_named(change, message):
    with pytest.raises(InputError, match=f"^file: record 1 has {message}") as caught:
        coco.check_results([result(), result(**change)], "file", image_ids=[3, 5])
    assert "\n" not in str(caught.value)


def test_what_is_no_list_of_records_is_named(tmp_path):
    with pytest.raises(InputError, match="file: this is a dict, expected a list"):
        coco.check_results({}, "file")
    with pytest.raises(InputError, match="file: record 0 is a str, expected one with image_id"):
        coco.check_results(["one"], "file")
    with pytest.raises(InputError, match="record 1 has bbox None, expected 4 finite numbers, as the first has"):
        coco.check_results([result(bbox=[1, 2, 3, 4]), result()], "file")
    coco.check_results([result(image_id=4), result(bbox="any", more=1)])
    with pytest.raises(InputError, match=r"results\.json: record 0 has score nan"):
        coco.save_results([result(score=math.nan)], tmp_path / "results.json")
    assert not list(tmp_path.iterdir())


# --- comparison by hand -------------------------------------------------------------------------------------------


def truth(tmp_path, *people):
    """An annotation file of image 3 (and an empty image 5), a medium-sized person for each dict of changes."""
    images = [{"id": number, "file_name": f"{number}.jpg", "width": 400, "height": 300} for number in (5, 3)]
    standard = {"image_id": 3, "category_id": 1, "iscrowd": 0, "area": 5000.0, "bbox": [10.0, 10.0, 90.0, 80.0]}
    joints = [number for j in range(17) for number in (10.0 + 5 * j, 20.0 + 3 * j, 2)]
    people = [
        {"id": place + 1, "keypoints": joints, "num_keypoints": 17, **standard, **changes}
        for place, changes in enumerate(people)
    ]
    file = tmp_path / "person_keypoints_drawn.json"
    file.write_text(json.dumps({"images": images, "annotations": people}))
    return file, joints


def test_perfect_and_empty_results(tmp_path):
    file, joints = truth(tmp_path, {})
    perfect = coco.average_precision(file, [result(keypoints=joints)])
    assert perfect == pytest.approx(dict.fromkeys(coco.NUMBERS, 1.0) | {"APL": -1, "ARL": -1})
    nothing = coco.average_precision(file, [])
    assert nothing == dict.fromkeys(coco.NUMBERS, 0.0) | {"APL": -1, "ARL": -1}
    assert coco.joint_oks(coco.run_cocoeval(coco_data.ground_truth(file), [])) == (dict.fromkeys(COCO.joints), 0, 1)


def test_no_person_at_all_is_minus_one_and_results_have_to_be_of_the_images(tmp_path):
    file, _ = truth(tmp_path)
    for results in ([], [result()]):
        assert coco.average_precision(file, results) == dict.fromkeys(coco.NUMBERS, -1.0)
    with pytest.raises(InputError, match="record 0 has image_id 4, expected one of the annotated images"):
        coco.average_precision(file, [result(image_id=4)])


def test_boxes_of_results_count_as_in_pycocotools(tmp_path):
    """A better scored wrong person costs APM half (it comes first), unless its box says that it is a large one."""
    file, joints = truth(tmp_path, {})
    right, wrong = result(keypoints=joints), result(keypoints=[n + 150 for n in joints], score=0.9)
    assert coco.average_precision(file, [right, wrong])["APM"] == pytest.approx(0.5)
    boxed = [right | {"bbox": [0, 0, 80, 50]}, wrong | {"bbox": [0, 0, 300, 200]}]
    numbers = coco.average_precision(file, boxed)
    assert (numbers["APM"], numbers["AP"]) == pytest.approx((1, 0.5))


def test_joints_are_measured_in_the_people_who_were_found(tmp_path):
    """The wrist off by d = sigma * sqrt(8 area): similarity 1/e. The left ankle is not labelled in the first person."""
    joints, crowd = np.reshape(truth(tmp_path)[1], (17, 3)), {"iscrowd": 1, "num_keypoints": 0, "keypoints": [0] * 51}
    first, second, lost = (joints + np.array(shift) for shift in ((0, 0, 0), (200, 0, 0), (0, 200, 0)))
    first[15] = 0
    people = [
        {"keypoints": first.ravel().tolist(), "num_keypoints": 16},
        {"keypoints": second.ravel().tolist(), "area": 20000.0},
        {"keypoints": lost.ravel().tolist()},
        crowd,
    ]
    file, _ = truth(tmp_path, *people)
    found = np.stack([joints, second])
    found[0, 15] = 0  # exactly where it would be, were it labelled
    for number, area in enumerate((5000.0, 20000.0)):
        found[number, 9, 1] += COCO.sigmas[9] * math.sqrt(8 * area)
    results = coco.results_json(found, [3, 3], [0.5, 0.4])
    measured, matched, annotated = coco.joint_oks(
        coco.run_cocoeval(coco_data.ground_truth(file), [*results, result(image_id=5)])
    )
    assert measured == pytest.approx(dict.fromkeys(COCO.joints, 1.0) | {"left_wrist": 1 / math.e})
    assert (matched, annotated) == (2, 3)
    assert coco.joint_oks(coco.run_cocoeval(coco_data.ground_truth(file), results[:1]))[0]["left_ankle"] is None


def test_joints_of_the_real_results(golden, shared):
    """Found people are those of AR50: both count a person once, the recall out of all that are not ignored."""
    file = shared / "golden" / "coco_eval_gt_538.json"
    rows, scores = selected(golden)
    results = coco.results_json(golden["preds"][rows], golden["image_id"][rows], scores)
    measured, found, annotated = coco.joint_oks(coco.run_cocoeval(coco_data.ground_truth(file), results))
    people = coco_data.ground_truth(file)["annotations"]
    assert annotated == sum(not one["iscrowd"] and one["num_keypoints"] > 0 for one in people)
    assert found / annotated == pytest.approx(facts(shared, "coco_eval.json")["official"]["stats"]["AR50"])
    assert all(0.5 < value < 1 for value in measured.values())

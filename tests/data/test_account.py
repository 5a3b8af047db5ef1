"""Who counts, and why others do not: loader and evaluation agree on every record, and say so once."""

import json
import logging

import numpy as np
import pytest

from keras_mrpose import data
from keras_mrpose.data import coco
from keras_mrpose.data.people import concatenate
from keras_mrpose.errors import InputError
from keras_mrpose.evaluation.coco import average_precision, results_json
from keras_mrpose.evaluation.provenance import of_data
from keras_mrpose.skeletons import COCO

CATEGORY = {"id": 1, "name": "person", "keypoints": list(COCO.joints)}
WIDTH, HEIGHT = 200, 120


def person(number, **changes):
    """Seventeen joints in a box of 60x80 pixels, one for each number; changed."""
    joints = np.random.default_rng(number).uniform((70, 22), (128, 98), (17, 2)).round(1)
    record = {
        "id": number,
        "image_id": 1 + number % 2,
        "category_id": 1,
        "iscrowd": 0,
        "num_keypoints": 17,
        "area": 3000.0,
        "bbox": [69, 20, 60, 80],
        "keypoints": [value for x, y in joints.tolist() for value in (x, y, 2)],
    }
    return {name: value for name, value in {**record, **changes}.items() if value is not ...}


def folder(root, *people, categories=(CATEGORY,), split="val2017"):
    images = [{"id": n, "file_name": f"{n}.jpg", "width": WIDTH, "height": HEIGHT} for n in (1, 2)]
    content = {"images": images, "annotations": list(people), "categories": list(categories)}
    file = root / "annotations" / f"person_keypoints_{split}.json"
    file.parent.mkdir(exist_ok=True)
    file.write_text(json.dumps(content))
    return file


# change of a record -> why it is left out; None: it counts
RECORDS = {
    "as it should be": ({}, None),
    "no keypoints": ({"keypoints": ...}, "without keypoints"),
    "null": ({"keypoints": None, "num_keypoints": ...}, "without keypoints"),
    "an empty list": ({"keypoints": []}, "without keypoints"),
    "a box only": ({"keypoints": ..., "area": ..., "num_keypoints": ...}, "without keypoints"),
    "no flag": ({"keypoints": [50, 50, 0] * 17}, "without a labelled joint"),
    "a crowd": ({"iscrowd": 1}, "crowd"),
    "a crowd of nothing": ({"iscrowd": 1, "keypoints": ..., "bbox": ..., "area": ...}, "crowd"),
    "one pixel": ({"bbox": [80, 50, 1, 1]}, "box smaller than 2 px"),
    "elsewhere": ({"bbox": [WIDTH, 20, 60, 80]}, "box outside the image"),
    "a dog": ({"category_id": 7}, "of another category"),
    "no iscrowd": ({"iscrowd": ...}, None),
    "no count": ({"num_keypoints": ...}, None),
    "a count of 0": ({"num_keypoints": 0}, None),
    "a fraction": ({"num_keypoints": 17.0}, None),
    "a text": ({"num_keypoints": "17"}, None),
    "area 0": ({"area": 0}, None),
    "a negative area": ({"area": -5.5}, None),
    "no area": ({"area": ...}, None),
    "no number": ({"area": float("nan")}, None),
    "joints as texts": ({"keypoints": [str(value) for value in person(3)["keypoints"]]}, None),
    "joints as triples": ({"keypoints": np.reshape(person(3)["keypoints"], (17, 3)).tolist()}, None),
    "id 0": ({"id": 0}, None),
    "an id twice": ({"id": 1}, None),
}


@pytest.mark.parametrize("name", RECORDS)
def test_loader_and_evaluation_agree_on_who_counts(name, tmp_path):
    """Everybody who counts is found exactly: AP 1 of as many people as the loader has, by pycocotools' own count."""
    change, reason = RECORDS[name]
    file = folder(tmp_path, person(1), person(2), person(3, **change))
    people = coco.load(tmp_path, require_images=False)
    assert people.left_out == ({reason: 1} if reason else {}) and len(people) == 3 - (reason is not None)
    truth = coco.ground_truth(file)["annotations"]
    counted = [one for one in truth if not one["iscrowd"] and one["num_keypoints"]]
    assert len(counted) == len(people) and all(one["id"] > 0 for one in truth)
    assert len({one["id"] for one in truth}) == len(truth)
    assert sorted(one["area"] for one in counted) == sorted(people.areas.tolist())
    results = results_json(people.keypoints, people.image_ids[people.image_index], np.ones(len(people)))
    assert average_precision(file, results)["AP"] == pytest.approx(1)
    assert average_precision(file, results[:-1])["AR"] == pytest.approx(1 - 1 / len(people))


@pytest.mark.parametrize("area", [0, -1, ..., None, float("nan"), "large"])
def test_without_an_area_the_boxs_is_taken(area, tmp_path):
    folder(tmp_path, person(1), person(2, area=area))
    people = coco.load(tmp_path, require_images=False)
    assert dict(zip(people.ids.tolist(), people.areas.tolist(), strict=True)) == {1: 3000, 2: 60 * 80}
    np.testing.assert_allclose(people.reference_length**2, people.areas)
    (remark,) = people.remarks
    assert "1 of 2 areas are missing or not positive; the box's is taken" in remark


def test_counts_that_disagree_are_one_remark(tmp_path):
    folder(tmp_path, person(1, num_keypoints=0), person(2, num_keypoints=17.0), person(3, num_keypoints="none"))
    (remark,) = coco.load(tmp_path, require_images=False).remarks
    assert "2 of 3 num_keypoints are not the number of labelled joints" in remark


def test_the_account_is_printed_once_and_kept_in_every_part(tmp_path, caplog):
    folder(tmp_path, *(person(n) for n in range(1, 5)), person(5, iscrowd=1), person(6, area=0), split="train2017")
    with caplog.at_level(logging.INFO, "keras_mrpose"):
        one, other = data.load_splits(tmp_path, ("train[:1]", "train[1:]"), require_images=False)
    said = [record.message for record in caplog.records]
    assert said[0] == "person_keypoints_train2017.json: 5 people; left out: 1 crowd"
    assert len(said) == 2 and "1 of 5 areas" in said[1] and caplog.records[1].levelno == logging.WARNING
    assert one.left_out == other.left_out == {"crowd": 1} and len(one) + len(other) == 5
    assert concatenate([one, other]).left_out == {"crowd": 1}  # of one file
    assert concatenate([one, one.take(slice(1))]).take([0]).left_out == {"crowd": 1}
    caplog.clear()
    data.read(tmp_path, "train", require_images=False)
    assert not caplog.records


def test_the_account_is_in_a_result(tmp_path):
    file = folder(tmp_path, person(1), person(2, iscrowd=1), person(3, area=0))
    found = of_data(coco.load(tmp_path, require_images=False))
    assert found["left_out"] == {"crowd": 1} and found["people"] == 2
    assert found["remarks"][0].startswith(f"annotations/{file.name}: 1 of 2 areas")


def test_files_put_together_have_both_accounts(tmp_path):
    folder(tmp_path, person(1), person(2, iscrowd=1), split="train2017")
    folder(tmp_path, person(1), person(2, iscrowd=1), person(3, keypoints=[]))
    people = data.load(tmp_path, "train+val", require_images=False)
    assert people.left_out == {"crowd": 2, "without keypoints": 1}


def test_nobody_left_is_an_error_with_the_account(tmp_path):
    scale = np.tile([WIDTH, HEIGHT, 1], 17)
    people = [
        person(n, bbox=[0.3, 0.2, 0.3, 0.6], keypoints=(np.array(person(n)["keypoints"]) / scale).tolist(), area=0.1)
        for n in range(1, 5)
    ]
    file = folder(tmp_path, *people)
    with pytest.raises(InputError, match="nobody who is not left out: 4 box smaller than 2 px") as caught:
        data.load(tmp_path, "val")
    assert str(caught.value).startswith(str(file))
    assert "4 of 4 boxes and the joints of 4 of 4 people lie inside 0..1" in str(caught.value)
    assert "multiply them by its width and height" in str(caught.value)


# --- categories and names of joints -------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [0, 1, 7, -3])
def test_the_only_category_may_have_any_id(number, tmp_path):
    file = folder(tmp_path, person(1, category_id=number), categories=[{**CATEGORY, "id": number, "name": "climber"}])
    assert len(coco.load(tmp_path, require_images=False)) == 1
    truth = coco.ground_truth(file)
    assert {one["category_id"] for one in truth["annotations"]} == {1} == {one["id"] for one in truth["categories"]}


@pytest.mark.parametrize(
    "categories",
    [
        [{"id": 0, "name": "people", "supercategory": "none"}, {**CATEGORY, "id": 5}],  # as Roboflow writes it
        [{**CATEGORY, "id": 2, "name": "dog"}, {**CATEGORY, "id": 5, "name": "Person"}],
        [{"id": 2, "name": "dog"}, {"id": 5, "name": "person"}, {"id": 6, "name": "wall"}],
        [],
    ],
)
def test_of_several_categories_people_are_found(categories, tmp_path):
    others = [person(3, category_id=2)] if len(categories) == 2 and categories[0]["name"] == "dog" else []
    folder(tmp_path, person(1, category_id=5), person(2, category_id=5), *others, categories=categories)
    people = coco.load(tmp_path, require_images=False)
    assert sorted(people.ids) == [1, 2] and people.left_out == ({"of another category": 1} if others else {})


def test_categories_that_could_all_be_people_are_named(tmp_path):
    categories = [{**CATEGORY, "id": n, "name": name} for n, name in ((2, "cat"), (3, "dog"))]
    folder(tmp_path, person(1, category_id=2), person(2, category_id=3), categories=categories)
    with pytest.raises(InputError, match=r"categories cat, dog have keypoints, .* name the one to be used person"):
        coco.load(tmp_path)
    folder(tmp_path, person(1, category_id=3), person(2, category_id=3), categories=categories)
    assert len(coco.load(tmp_path, require_images=False)) == 2  # the only one that has people


def test_a_category_that_nobody_has_is_named(tmp_path):
    folder(tmp_path, person(1, category_id=0), person(2, category_id=0))
    with pytest.raises(InputError, match=r"2 of another category.* have the category_id 0, but people are 1"):
        data.load(tmp_path, "val")


def test_joints_without_names(tmp_path):
    """COCO's 17 are taken and said; of others the names are asked for, and how to give them is shown."""
    bare = [{"id": 0, "name": "person"}]
    folder(tmp_path, person(1, category_id=0), categories=bare)
    people = coco.load(tmp_path, require_images=False)
    assert people.skeleton is COCO and "names no joints; COCO's 17 are taken" in people.remarks[0]
    assert coco.load(tmp_path, require_images=False, skeleton=COCO).remarks == ()
    folder(tmp_path, *(person(n, category_id=0, keypoints=[80, 50, 2] * 5) for n in (1, 2)), categories=bare)
    with pytest.raises(
        InputError, match=r"5 joints, which are not named; give a skeleton file \(skeleton=FILE\)"
    ) as no:
        coco.load(tmp_path)
    assert '"keypoints": ["nose", "left_eye", ...]' in str(no.value)

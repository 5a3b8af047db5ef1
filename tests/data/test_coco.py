"""COCO annotations: the published selection, in the published order, and one sentence for what is wrong."""

import json

import numpy as np
import pytest

from keras_mrpose import data, geometry
from keras_mrpose.data import coco
from keras_mrpose.errors import InputError


@pytest.fixture(scope="module")
def golden(shared):
    return json.loads((shared / "golden" / "coco_db.json").read_text())


def annotations(**changes):
    """A file's content: one image of 100x80 and one person, changed."""
    person = {
        "id": 7,
        "image_id": 3,
        "category_id": 1,
        "iscrowd": 0,
        "area": 500.0,
        "bbox": [10.0, 20.0, 30.0, 40.0],
        "keypoints": [11, 22, 2] + [15, 25, 1] + [0, 0, 0] * 15,
    }
    person = {key: value for key, value in {**person, **changes}.items() if value is not ...}
    image = {"id": 3, "file_name": "three.jpg", "width": 100, "height": 80}
    return {"images": [image], "annotations": [person]}


def write(root, content, split="val2017", images="val2017"):
    (root / "annotations").mkdir(exist_ok=True)
    (root / images).mkdir(parents=True, exist_ok=True)
    (root / images / "three.jpg").touch()
    file = root / "annotations" / f"person_keypoints_{split}.json"
    file.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
    return file


# --- published ----------------------------------------------------------------------------------------------------


def compare(people, records, size_wh):
    """Boxes, order, joints; and that the crop windows are the published ones (golden scale: float32, 200 px)."""
    assert people.ids.tolist() == [record["ann_id"] for record in records]
    assert people.image_ids[people.image_index].tolist() == [record["image_id"] for record in records]
    np.testing.assert_allclose(people.boxes, [record["clean_bbox"] for record in records], rtol=0, atol=1e-9)
    np.testing.assert_array_equal(people.keypoints[..., 2] > 0, [record["vis"] for record in records])
    labelled = people.keypoints[..., 2] > 0
    joints = np.array([record["joints_xy"] for record in records])
    np.testing.assert_array_equal(people.keypoints[..., :2][labelled], joints[labelled])
    centre, width = geometry.crop_window(people.boxes, size_wh[::-1])
    np.testing.assert_allclose(centre, [record["center"] for record in records], rtol=1e-6)
    np.testing.assert_allclose(width, [200 * record["scale"][0] for record in records], rtol=1e-6)


def test_real_records_are_the_published_ones(golden, shared):
    content = json.loads((shared / "golden" / golden["annotation_file"]).read_text())
    people = coco.parse(content, "golden", shared)
    assert len(people) == len(golden["records"]) == 174
    compare(people, golden["records"], golden["image_size_wh"])
    area = {annotation["id"]: annotation["area"] for annotation in content["annotations"]}
    np.testing.assert_array_equal(people.areas, [area[number] for number in people.ids])
    np.testing.assert_allclose(people.reference_length**2, people.areas)
    flags = {annotation["id"]: annotation["keypoints"][2::3] for annotation in content["annotations"]}
    np.testing.assert_array_equal(people.keypoints[..., 2], [flags[number] for number in people.ids])


@pytest.mark.parametrize("size_wh", [(192, 256), (256, 256)], ids=["192x256", "256x256"])
def test_difficult_boxes_are_the_published_ones(golden, size_wh):
    """All but the two whose boxes measure one pixel, published with scale 0, which no crop can have, and one of whom
    only coordinates are there, no flag; and somebody whose area is 0 is not left out."""
    records = golden[f"edge_records_{size_wh[0]}x{size_wh[1]}"]
    points = [record["ann_id"] for record in records if record["scale"] == [0, 0]]
    assert points == [472, 437]
    people = coco.parse(golden["edge_annotations"], "golden", "images")
    assert people.areas[people.ids == 451] == 40 * 40
    compare(
        people.take(people.ids != 451),
        [record for record in records if record["ann_id"] not in (*points, 388)],
        size_wh,
    )
    boxes = {"box smaller than 2 px": 2, "box outside the image": 2}
    assert people.left_out == {"crowd": 1, "without a labelled joint": 2, **boxes}


def test_real_folder(shared):
    for split, count in (("train", 143), ("val", 174)):
        people = data.load(shared / "data" / "coco", split)
        assert len(people) == count
        assert people.paths()[0].startswith(str(shared / "data" / "coco" / f"{split}2017"))


@pytest.mark.parametrize("run", range(4))
def test_detected_boxes_are_the_published_ones(golden, shared, run):
    """Golden README: centre 1e-4 px, scale (float32, 200 px) 1e-6 relative to sides up to 4."""
    wanted = golden["detection_runs"][run]
    images = json.loads((shared / "golden" / golden["annotation_file"]).read_text())["images"]
    people = coco.parse_detections(
        golden["detections_in"], "boxes", images, "images", shared, wanted["score_threshold"]
    )
    assert len(people) == wanted["count"]
    assert people.image_ids[people.image_index].tolist() == wanted["image_id"]
    np.testing.assert_allclose(people.scores, wanted["score"], rtol=1e-12)
    height, width = wanted["image_size_wh"][::-1]
    centre, side = geometry.crop_window(people.boxes, (height, width))
    np.testing.assert_allclose(centre, wanted["center"], rtol=0, atol=1e-4)
    scale = np.stack([side, side * height / width], axis=1) / 200
    np.testing.assert_allclose(scale, wanted["scale"], rtol=0, atol=1e-6)


def test_detected_boxes_of_a_real_folder(shared):
    root = shared / "data" / "coco"
    file = root / "person_detection_results" / "COCO_val2017_detections_AP_H_56_person.json"
    people = coco.load_detections(file, root)
    records = json.loads(file.read_text())
    assert len(people) == len(records) == 118
    assert people.boxes.tolist() == [record["bbox"] for record in records]
    assert people.source == str(file)
    assert people.paths()[0] == str(root / "val2017" / f"{records[0]['image_id']:012d}.jpg")
    assert not people.keypoints.any()


def test_real_annotations_reach_pycocotools_as_they_are(shared):
    file = shared / "data" / "coco" / "annotations" / "person_keypoints_val2017.json"
    content, truth = json.loads(file.read_text()), coco.ground_truth(file)
    assert truth["annotations"] == content["annotations"]
    assert any(annotation["iscrowd"] for annotation in truth["annotations"])
    assert truth["images"] == content["images"]


# --- made up ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("images", ["val2017", "images/val2017"])
def test_both_image_layouts_and_names_of_the_split(images, tmp_path):
    write(tmp_path, annotations(), images=images)
    for split in ("val", "val2017"):
        people = data.load(tmp_path, split)
        assert people.paths().tolist() == [str(tmp_path / images / "three.jpg")]
        assert people.boxes.tolist() == [[10, 20, 29, 39]]
        assert people.keypoints[0, :3].tolist() == [[11, 22, 2], [15, 25, 1], [0, 0, 0]]


@pytest.mark.parametrize(
    ("change", "kept"),
    [
        ({}, True),
        ({"iscrowd": 1}, False),
        ({"iscrowd": 1, "keypoints": []}, False),  # not even looked at
        ({"category_id": 2}, True),  # the only one
        ({"area": 0}, True),
        ({"keypoints": [0] * 51}, False),
        ({"keypoints": [5, 5, 0] * 17}, False),  # unlike the published loader: flags count, as in AP
        ({"keypoints": ...}, False),
        ({"keypoints": []}, False),
        ({"bbox": [100, 20, 30, 40]}, False),
        ({"bbox": [99, 79, 30, 40]}, False),
        ({"bbox": [99, 70, 30, 40]}, True),
        ({"bbox": [10, 20, -5, 40]}, True),  # one side is left, and sets the crop
        ({"bbox": [10, 20, 1, 1]}, False),
    ],
)
def test_who_is_kept(change, kept):
    assert len(coco.parse(annotations(**change), "file", "images")) == kept


def test_order_is_that_of_the_images_then_of_the_annotations():
    content = annotations()
    image, person = content["images"][0], content["annotations"][0]
    content["images"] = [{**image, "id": number} for number in (9, 4, 6)]
    content["annotations"] = [
        {**person, "id": place, "image_id": number} for place, number in enumerate((6, 4, 9, 6, 9))
    ]
    people = coco.parse(content, "file", "images")
    assert people.ids.tolist() == [2, 4, 1, 0, 3]
    assert people.image_index.tolist() == [0, 0, 1, 2, 2]


def test_nobody_is_an_empty_table(tmp_path):
    content = annotations()
    content["annotations"] = []
    write(tmp_path, content)
    assert len(data.load(tmp_path, "val")) == 0


def test_thousands_of_people_in_any_order_of_the_fields(tmp_path):
    """Read piece by piece, a file gives what `parse` gives of its content; outlines, crowds and blanks included."""
    rng, count = np.random.default_rng(0), 5000
    images = [{"id": 3 * n, "file_name": f"{n}.jpg", "width": 640, "height": 480} for n in range(count // 3)]
    flags = rng.integers(0, 3, (count, 17, 1))
    joints = np.concatenate([rng.uniform(0, 480, (count, 17, 2)).round(2) * (flags > 0), flags], axis=-1)
    people = [
        {
            "id": n + 1,
            "image_id": 3 * int(rng.integers(count // 3)),
            "category_id": 1 + (n % 50 == 0),
            "iscrowd": int(n % 31 == 0),
            "area": float(rng.uniform(1, 90000)),
            "bbox": rng.uniform(-20, 500, 4).round(2).tolist(),
            "keypoints": joints[n].ravel().tolist() if n % 7 else [0] * 51,
            "segmentation": [rng.uniform(0, 480, 20).tolist()],
        }
        for n in range(count)
    ]
    whole = coco.parse({"images": images, "annotations": people}, "file", tmp_path / "val2017")
    kept = [one for one in people if one["category_id"] == 1 and not one["iscrowd"] and any(one["keypoints"])]
    in_image = {image["id"]: row for row, image in enumerate(images)}
    kept.sort(key=lambda person: in_image[person["image_id"]])
    assert 3000 < len(whole) <= len(kept)
    whose = {number: row for row, number in enumerate(whole.ids.tolist())}
    assert [one["id"] for one in kept if one["id"] in whose] == whole.ids.tolist()  # a few boxes are outside
    assert [people[number - 1]["image_id"] for number in whose] == whole.image_ids[whole.image_index].tolist()
    np.testing.assert_array_equal(whole.keypoints, joints[whole.ids - 1])
    for content in ({"images": images, "annotations": people}, {"annotations": people, "info": {}, "images": images}):
        write(tmp_path, content)
        read = coco.load(tmp_path, require_images=False)
        for name in (
            "image_paths",
            "image_ids",
            "image_index",
            "ids",
            "boxes",
            "keypoints",
            "reference_length",
            "areas",
        ):
            np.testing.assert_array_equal(getattr(read, name), getattr(whole, name))


def detection(**changes):
    record = {"image_id": 3, "category_id": 1, "bbox": [10.0, 20.0, 30.0, 40.0], "score": 0.5, **changes}
    return {key: value for key, value in record.items() if value is not ...}


def write_boxes(root, content):
    file = root / "boxes.json"
    file.write_text(json.dumps(content))
    return file


@pytest.mark.parametrize(
    ("change", "kept"),
    [
        ({}, True),
        ({"score": 0.3}, True),  # exactly the threshold
        ({"score": 0.2999}, False),
        ({"category_id": 2}, False),
        ({"category_id": 2, "bbox": ...}, False),  # not even looked at
        ({"bbox": [-500, -500, 2000, 1]}, True),  # not cut at the border
        ({"bbox": [5, 6, 0, 40]}, True),
    ],
)
def test_which_detected_boxes_are_kept(change, kept, tmp_path):
    write(tmp_path, annotations())
    file = write_boxes(tmp_path, [detection(category_id=7), detection(**change)])
    people = coco.load_detections(file, tmp_path, score_threshold=0.3)
    assert len(people) == kept
    if kept:
        record = detection(**change)
        assert people.boxes.tolist() == [record["bbox"]]
        assert people.scores.tolist() == [record["score"]]
        assert people.areas.tolist() == [record["bbox"][2] * record["bbox"][3]]
        assert people.ids.tolist() == [1]
        assert people.paths().tolist() == [str(tmp_path / "val2017" / "three.jpg")]


@pytest.mark.parametrize("split", ["test2017", "test-dev2017"])
def test_test_images_have_no_annotations(split, tmp_path):
    write(tmp_path, annotations(), images="test2017")
    file = tmp_path / "annotations" / f"image_info_{split}.json"
    with pytest.raises(InputError, match=rf"image_info_{split}\.json is not there"):
        coco.load_detections(write_boxes(tmp_path, []), tmp_path, split)
    file.write_text(json.dumps({"images": annotations()["images"]}))
    people = coco.load_detections(write_boxes(tmp_path, [detection()]), tmp_path, split)
    assert people.paths().tolist() == [str(tmp_path / "test2017" / "three.jpg")]


# --- wrong --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"keypoints": [1, 2, 2] * 14 + [1]}, "keypoints .*, expected 17 joints of x, y, v: 51 finite numbers"),
        ({"keypoints": ["a"] * 51}, "keypoints"),
        ({"keypoints": [float("nan"), 1, 2] * 17}, "keypoints"),
        ({"keypoints": [1, 2, 3] * 17}, "joint flag other than 0, 1 or 2"),
        ({"bbox": [1, 2, 3]}, r"bbox \[1, 2, 3\], expected 4 finite number"),
        ({"bbox": [float("nan"), 2, 30, 40]}, "bbox"),
        ({"bbox": [1, 2, float("inf"), 40]}, "bbox"),
        ({"bbox": ...}, "bbox None"),
        ({"image_id": 99}, "image_id 99, which is not among the file's images"),
        ({"image_id": ...}, "image_id None, expected int"),
        ({"category_id": ...}, "category_id None"),
        ({"image_id": 10**30}, "image_id 1000+, expected int"),
        ({"id": 2**63}, r"annotation 9223372036854775808 has id 9223372036854775808, expected int"),
    ],
)
def test_wrong_fields_are_named(change, message, tmp_path):
    file = write(tmp_path, annotations(**change))
    with pytest.raises(InputError, match=message) as caught:
        coco.load(tmp_path)
    said = str(caught.value)
    assert said.startswith(f"{file}: ")
    assert f"annotation {change.get('id', 7)} " in said or "record 7" in said
    assert "\n" not in said


@pytest.mark.parametrize("field", ["id", "file_name", "width", "height"])
def test_wrong_images_are_named(field, tmp_path):
    content = annotations()
    del content["images"][0][field]
    write(tmp_path, content)
    with pytest.raises(InputError, match=f"image 0 has {field} None, expected"):
        coco.load(tmp_path)


def test_annotations_that_are_no_records_are_named(tmp_path):
    content = annotations()
    content["annotations"] = [content["annotations"][0], "person"]
    write(tmp_path, content)
    with pytest.raises(InputError, match="annotation 1 has id None"):
        coco.load(tmp_path)
    del content["annotations"][0]["id"]
    write(tmp_path, content)
    with pytest.raises(InputError, match="annotation 0 has id None"):
        coco.load(tmp_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "cannot be read as JSON"),
        (b'{"images": [', "cannot be read as JSON"),
        (b"\xff\xfe\xfa", "cannot be read as JSON"),
        ([], "has no list 'images'"),
        ({"images": []}, "has no list 'annotations'"),
        ({"images": {}, "annotations": []}, "has no list 'images'"),
    ],
)
def test_wrong_files_are_named(content, message, tmp_path):
    file = write(tmp_path, content)
    with pytest.raises(InputError, match=message) as caught:
        coco.load(tmp_path)
    assert str(file) in str(caught.value)


def test_the_annotation_file_of_a_split(tmp_path):
    """Where `load` reads it, whether it is there or not."""
    file = write(tmp_path, annotations())
    assert coco.annotation_file(tmp_path) == coco.annotation_file(str(tmp_path), "val2017") == file
    assert coco.load(tmp_path).source == str(file)
    assert coco.annotation_file(tmp_path, "train").name == "person_keypoints_train2017.json"
    assert coco.annotation_file(tmp_path, "mine") == tmp_path / "annotations" / "person_keypoints_mine.json"


def test_missing_file_image_split_and_folder_are_named(tmp_path):
    with pytest.raises(InputError, match=r"holds none of joints\.mat .*, annot/ .* or annotations/"):
        data.load(tmp_path, "val")
    with pytest.raises(InputError, match="nowhere is not there"):
        data.load(tmp_path / "nowhere", "val")
    write(tmp_path, annotations())
    with pytest.raises(InputError, match=r"person_keypoints_test\.json is not there"):
        data.load(tmp_path, "test")
    (tmp_path / "val2017" / "three.jpg").unlink()
    with pytest.raises(InputError, match=r"image .*three\.jpg is missing \(1 of 1 are\)"):
        data.load(tmp_path, "val")
    assert data.load(tmp_path, "val", require_images=False).paths()[0].endswith("three.jpg")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image_id": ...}, "record 1 has image_id None, expected int"),
        (
            {"image_id": 4},
            r"record 1 has image_id 4, which is not among the images of .*val2017\.json",
        ),
        ({"category_id": "1"}, "record 1 has category_id '1', expected int"),
        ({"bbox": [1, 2, 3]}, r"record 1 has bbox \[1, 2, 3\], expected 4 finite number"),
        ({"bbox": [1, 2, 3, float("nan")]}, "record 1 has bbox"),
        ({"bbox": [1, 2, -3, 4]}, "record 1 has a box of zero or negative size"),
        ({"bbox": [1, 2, 0, 0]}, "record 1 has a box of zero or negative size"),
        ({"score": ...}, "record 1 has score None, expected 1 finite number"),
        ({"score": float("nan")}, "record 1 has score nan"),
    ],
)
def test_wrong_detections_are_named(change, message, tmp_path):
    write(tmp_path, annotations())
    file = write_boxes(tmp_path, [detection(), detection(**change)])
    with pytest.raises(InputError, match=message) as caught:
        coco.load_detections(file, tmp_path)
    assert str(caught.value).startswith(f"{file}: ")
    assert "\n" not in str(caught.value)


def test_wrong_detection_files_are_named(tmp_path):
    write(tmp_path, annotations())
    assert len(coco.load_detections(write_boxes(tmp_path, []), tmp_path)) == 0
    for content, message in (({"boxes": []}, "holds no list"), (["box"], "record 0 has image_id None")):
        with pytest.raises(InputError, match=rf"boxes\.json.* {message}"):
            coco.load_detections(write_boxes(tmp_path, content), tmp_path)
    with pytest.raises(InputError, match=r"nowhere\.json is not there; give the file of a person detector's boxes"):
        coco.load_detections(tmp_path / "nowhere.json", tmp_path)
    (tmp_path / "val2017" / "three.jpg").unlink()
    with pytest.raises(InputError, match=r"image .*three\.jpg is missing"):
        coco.load_detections(write_boxes(tmp_path, [detection()]), tmp_path)
    assert len(coco.load_detections(tmp_path / "boxes.json", tmp_path, require_images=False)) == 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"bbox": [1, 2]}, r"annotation 2 has bbox \[1, 2\]"),
        ({"image_id": 8}, "annotation 2 has image_id 8, which is not among the file's images"),
        ({"keypoints": [1, 2, 2] * 16}, "annotation 2 has keypoints .* expected 17 joints"),
    ],
)
def test_what_pycocotools_would_get_wrong_is_named(change, message, tmp_path):
    """By the loader in the same words, before a training."""
    first = annotations(id=1, num_keypoints=2)
    first["annotations"] += annotations(id=9, category_id=5, keypoints=[])["annotations"]  # looked at by nobody
    second = annotations(**{"id": 2, "num_keypoints": 2, **change})["annotations"]
    file = write(tmp_path, first | {"annotations": first["annotations"] + second})
    with pytest.raises(InputError, match=message) as caught:
        coco.ground_truth(file)
    assert str(caught.value).startswith(f"{file}: ")
    with pytest.raises(InputError, match=message):
        coco.load(tmp_path)
    write(tmp_path, first)
    assert coco.ground_truth(file)["annotations"] == first["annotations"][:1]

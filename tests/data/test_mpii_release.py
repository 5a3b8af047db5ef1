"""MPII's release file: written here as MATLAB would, against the published JSON, and with all that is irregular."""

import json
import math

import numpy as np
import pytest
from scipy.io import savemat

from keras_mrpose import data
from keras_mrpose.data import mpii
from keras_mrpose.errors import InputError
from keras_mrpose.skeletons import MPII

EMPTY = np.zeros((0, 0))


def structs(*records):
    """A MATLAB struct array; all its elements have the same fields, which are empty where a record lacks them."""
    names = list(dict.fromkeys(name for record in records for name in record))
    array = np.empty((1, len(records)), [(name, object) for name in names])
    for place, record in enumerate(records):
        for name in names:
            array[name][0, place] = record.get(name, EMPTY)
    return array


def cells(values):
    array = np.empty((len(values), 1), object)
    array[:, 0] = values
    return array


def point(joint, x=30, y=40, **more):
    return {"x": x, "y": y, "id": joint, **more}


def without(record, *fields):
    return {name: value for name, value in record.items() if name not in fields}


def rect(*points, **changes):
    """A person whose head box measures 50 pixels from corner to corner."""
    points = points or (point(0, is_visible="1"),)
    return {
        **{"x1": 10, "y1": 20, "x2": 40, "y2": 60, "scale": 1.25, "objpos": structs({"x": 70, "y": 80.5})},
        **{"annopoints": structs({"point": structs(*points)}), **changes},
    }


def image(name, *people):
    return {"image": structs({"name": name}), "annorect": structs(*people) if people else EMPTY}


def release(folder, images, train=None, single=None, **changes):
    """A folder with the file and the images; returns it."""
    (folder / "images").mkdir(exist_ok=True)
    for one in images:
        (folder / "images" / one["image"]["name"].item()).touch()
    content = {
        "annolist": structs(*images),
        "img_train": np.array([train or [1] * len(images)], np.uint8),
        "single_person": cells([EMPTY if single is None else single[i] for i in range(len(images))]),
        "version": "12",
    }
    savemat(folder / mpii.RELEASE_FILE, {"RELEASE": structs({**content, **changes})})
    return folder


# --- the same people as the JSON ----------------------------------------------------------------------------------


def test_people_are_those_of_the_published_json(shared, tmp_path):
    """Equal to the last bit, but the head size: here it goes through a box whose corners are 8 x 0.6 / 200 apart."""
    folder = shared / "data" / "mpii"
    images = []
    for record in json.loads((folder / "annot" / "train.json").read_text()):
        points = [
            point(joint, *position, is_visible="1")
            for joint, (position, labelled) in enumerate(zip(record["joints"], record["joints_vis"], strict=True))
            if labelled
        ]
        diagonal = 25 * record["scale"] / 0.6
        x, y = record["center"]
        head = {"x1": 100, "y1": 200, "x2": 100 + 0.6 * diagonal, "y2": 200 + 0.8 * diagonal}
        person = rect(*points, scale=record["scale"], objpos=structs({"x": x, "y": y}), **head)
        images.append(image(record["image"], person))
    found, wanted = data.load(release(tmp_path, images), "train"), data.load(folder, "train")
    assert len(found) == 5
    np.testing.assert_array_equal(found.boxes, wanted.boxes)
    np.testing.assert_array_equal(found.keypoints, wanted.keypoints)
    np.testing.assert_array_equal(found.areas, wanted.areas)
    np.testing.assert_allclose(found.reference_length, wanted.reference_length, rtol=1e-13)
    assert [path.rsplit("/", 1)[1] for path in found.paths()] == [path.rsplit("/", 1)[1] for path in wanted.paths()]


def test_a_person_by_hand(tmp_path):
    """Centre 15 x 1.25 pixels lower, side 200 x 1.25 before padding, all from 0; head 0.6 x 50."""
    people = data.load(release(tmp_path, [image("a.jpg", rect(point(15, 31.5, 47, is_visible="1")))]), "train")
    assert people.boxes.tolist() == [[69 - 125, 79.5 + 18.75 - 125, 250, 250]]
    assert people.reference_length.tolist() == pytest.approx([30])
    assert people.keypoints[0, 15].tolist() == [30.5, 46, 2]
    assert people.skeleton is MPII
    assert people.areas.tolist() == [250**2]


# --- irregular ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("visible", "v"),
    [
        *(("1", 2), ("0", 1), (1, 2), (0, 1), (np.uint8(1), 2), (np.uint8(0), 1), (np.array([[False]]), 1)),
        *((EMPTY, 2), (np.array([[1.0]]), 2)),
    ],
)
def test_hidden_joints_are_told(visible, v, tmp_path):
    people = data.load(release(tmp_path, [image("a.jpg", rect(point(3, is_visible=visible)))]), "train")
    assert people.keypoints[0, :, 2].tolist() == [0, 0, 0, v, *[0] * 12]


def test_a_joint_of_which_nothing_is_known_is_visible(tmp_path):
    people = data.load(release(tmp_path, [image("a.jpg", rect(point(9), point(8)))]), "train")
    assert people.keypoints[0, :, 2].tolist() == [0] * 8 + [2, 2] + [0] * 6


@pytest.mark.parametrize("kind", [np.uint8, np.int16, np.int32, np.float32, np.float64])
def test_numbers_of_all_kinds(kind, tmp_path):
    """A whole number of 8 bits must not wrap around where 1 is taken away."""
    person = rect(point(kind(2), kind(0), kind(200)), x1=kind(240), y1=kind(20), x2=kind(210), y2=kind(60))
    person["objpos"] = structs({"x": kind(0), "y": kind(250)})
    people = data.load(release(tmp_path, [image("a.jpg", {**person, "scale": kind(3)})]), "train")
    assert people.keypoints[0, 2].tolist() == [-1, 199, 2]
    assert people.boxes.tolist() == [[-1 - 300, 249 + 45 - 300, 600, 600]]
    assert people.reference_length.tolist() == pytest.approx([30])


@pytest.mark.parametrize("field", ["annopoints", "scale", "objpos", "x1", "y2"])
@pytest.mark.parametrize("alone", [True, False])
def test_people_who_lack_something_are_left_out(field, alone, tmp_path):
    """The field is missing of the whole array, or empty in one of its elements."""
    person = without(rect(), field)
    people = data.read(release(tmp_path, [image("a.jpg", *[person] * 2, *[rect()] * (not alone))]), "train")
    assert people.left_out == {"without joints, centre, scale or head box": 2}
    assert people.ids.tolist() == ([] if alone else [1003])
    assert len(people.paths()) == 1 - alone


@pytest.mark.parametrize(
    "change",
    [
        {"annopoints": structs({"point": EMPTY})},
        {"annopoints": structs({"other": 1})},
        {"objpos": structs({"x": 3, "y": EMPTY})},
        {"objpos": structs({"x": 3})},
    ],
)
def test_people_with_an_empty_inside_are_left_out(change, tmp_path):
    people = data.load(release(tmp_path, [image("a.jpg", rect(**change), rect())]), "train")
    assert people.ids.tolist() == [1002]


def test_images_without_people_and_of_the_test_set(tmp_path):
    """They need no image file either. Numbers count from 1 over all images."""
    images = [image("a.jpg"), image("b.jpg", rect(), rect()), image("c.jpg", rect()), image("d.jpg", rect())]
    folder = release(tmp_path, images, train=[1, 1, 0, 1])
    for name in "ac":
        (folder / "images" / f"{name}.jpg").unlink()
    people = data.load(folder, "train")
    assert people.ids.tolist() == [2001, 2002, 4001]
    assert people.image_ids.tolist() == [2, 4]
    assert people.image_index.tolist() == [0, 0, 1]
    assert [path.rsplit("/", 1)[1] for path in people.image_paths] == ["b.jpg", "d.jpg"]
    assert len(data.load(release(tmp_path, images, train=[0] * 4), "train")) == 0


def test_people_who_stand_apart(tmp_path):
    single = [EMPTY, np.array([[1], [3]], np.uint8), 2]
    images = [image("a.jpg", rect()), image("b.jpg", *[rect()] * 3), image("c.jpg", rect(), rect())]
    folder = release(tmp_path, images, single=single)
    assert data.load(folder, "separated").ids.tolist() == [2001, 2003, 3002]
    assert data.load(folder, "train").ids.tolist() == [1001, 2001, 2002, 2003, 3001, 3002]


def test_one_image_with_two_people_who_stand_apart(tmp_path):
    """MATLAB's cell of one element is no list of two."""
    folder = release(tmp_path, [image("a.jpg", rect(), rect())], single=[np.array([1, 2])])
    assert data.load(folder, "separated").ids.tolist() == [1001, 1002]


# --- folders ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("place", [".", "annot", "mpii_human_pose_v1_u12_2"])
def test_places_of_the_file(place, tmp_path):
    release(tmp_path, [image("a.jpg", rect())])
    (tmp_path / place).mkdir(exist_ok=True)
    (tmp_path / mpii.RELEASE_FILE).rename(tmp_path / place / mpii.RELEASE_FILE)
    assert data.load(tmp_path, "train").paths().tolist() == [str(tmp_path / "images" / "a.jpg")]


def test_the_published_json_goes_before_the_release(tmp_path):
    folder = release(tmp_path, [image("a.jpg", rect())])
    (folder / "annot").mkdir()
    (folder / "annot" / "train.json").write_text("[]")
    assert len(data.load(folder, "train")) == 0
    assert len(mpii.load_release(folder)) == 1


def test_images_may_be_missing_where_nobody_needs_them(tmp_path):
    folder = release(tmp_path, [image("a.jpg", rect())])
    (folder / "images" / "a.jpg").unlink()
    with pytest.raises(InputError, match=r"mpii_human_pose_v1_u12_1\.mat: image .*a\.jpg is missing \(1 of 1 are\)"):
        data.load(folder, "train")
    assert data.load(folder, "train", require_images=False).ids.tolist() == [1001]


# --- wrong --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("person", "message"),
    [
        (rect(point(16)), r"point\(1\) has x 30\.0, y 40\.0, id 16\.0; expected two numbers and an id from 0 to 15"),
        (rect(point(0), point(1.5)), r"point\(2\) has x .*, id 1\.5; expected"),
        (rect(point(EMPTY)), r"point\(1\) has x .*, id None; expected"),
        (rect(point(4, x=EMPTY)), r"point\(1\) has x None, y 40"),
        (rect(point(4, y="low")), r"point\(1\) has y \['low'\], expected one number"),
        (rect(scale=np.ones((1, 2))), r"has scale \[1\.0, 1\.0\], expected one number"),
        (rect(scale=structs({"x": 1})), r"has scale .*, expected one number"),
    ],
)
def test_wrong_fields_are_named(person, message, tmp_path):
    place = r"u12_1\.mat: RELEASE\.annolist\(2\)\.annorect\(1\)"
    with pytest.raises(InputError, match=rf"{place}(\.annopoints\.)?.*{message}"):
        data.load(release(tmp_path, [image("a.jpg"), image("b.jpg", person)]), "train")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"scale": 0}, "record 1001 has a box of zero or negative size"),
        ({"scale": -1}, "record 1001 has a box of zero or negative size"),
        ({"scale": math.nan}, "record 1001 has a value in boxes that is not a finite number"),
        ({"x2": 10, "y2": 20}, "record 1001 has a reference_length .* that is not positive"),
    ],
)
def test_people_who_cannot_be_are_named(change, message, tmp_path):
    with pytest.raises(InputError, match=rf"u12_1\.mat: {message}"):
        data.load(release(tmp_path, [image("a.jpg", rect(**change))]), "train")


@pytest.mark.parametrize("nameless", [EMPTY, structs({"name": EMPTY}), structs({"path": "a.jpg"})])
def test_an_image_without_name_is_named(nameless, tmp_path):
    images = structs({"image": nameless, "annorect": structs(rect())})
    folder = release(tmp_path, [image("a.jpg")], annolist=images)
    with pytest.raises(InputError, match=r"RELEASE\.annolist\(1\) has image names \[\], expected one"):
        data.load(folder, "train")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"img_train": np.ones((1, 3))}, "RELEASE has 2 annolist, 3 img_train, 2 single_person, expected as many"),
        ({"single_person": EMPTY}, "RELEASE has 2 annolist, 2 img_train, 0 single_person, expected as many"),
        ({"annolist": EMPTY, "img_train": EMPTY, "single_person": EMPTY}, "RELEASE has 0 annolist"),
    ],
)
def test_wrong_releases_are_named(change, message, tmp_path):
    folder = release(tmp_path, [image("a.jpg", rect()), image("b.jpg", rect())], **change)
    with pytest.raises(InputError, match=message):
        data.load(folder, "train")


@pytest.mark.parametrize("content", [{"other": 1}, {"RELEASE": 7.0}, {"RELEASE": EMPTY}])
def test_files_of_another_kind_are_named(content, tmp_path):
    savemat(tmp_path / mpii.RELEASE_FILE, content)
    with pytest.raises(InputError, match=r"u12_1\.mat: RELEASE has 0 annolist, .*; give MPII's mpii_human"):
        data.load(tmp_path, "train")


def test_missing_files_and_splits_are_named(tmp_path):
    with pytest.raises(InputError, match=rf"{tmp_path.name} has no mpii_human_pose_v1_u12_1\.mat"):
        mpii.load_release(tmp_path)
    (tmp_path / mpii.RELEASE_FILE).write_bytes(b"nothing")
    with pytest.raises(InputError, match=r"u12_1\.mat cannot be read as a MATLAB file"):
        data.load(tmp_path, "train")
    with pytest.raises(InputError, match=r"has no split 'val'; give one of train, separated, or use the published"):
        data.load(release(tmp_path, [image("a.jpg", rect())]), "val")

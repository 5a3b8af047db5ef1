"""`Pose`: an array of keypoints that prints short, and is drawn, saved and written down."""

import json
import sys

import numpy as np
import pytest
from PIL import Image

from keras_mrpose.errors import InputError
from keras_mrpose.evaluation.coco import average_precision, check_results
from keras_mrpose.predict.results import Pose, nobody, row_fields
from keras_mrpose.skeletons import COCO, Skeleton
from keras_mrpose.visualization import skeletons as visualize
from keras_mrpose.visualization.skeletons import FACE, LEFT, MIDDLE, PEOPLE, RIGHT

FOUR = Skeleton(
    "four", ("nose", "left_eye", "left_hand", "right_hand"), flip_pairs=((2, 3),), edges=((0, 1), (0, 2), (0, 3))
)
POINTS = np.array(
    [
        [[60, 20, 0.9], [75, 20, 0.3], [100, 80, 0.8], [20, 80, 0.29]],
        [[160, 30, 0.9], [170, 30, 0.9], [190, 90, 0.9], [130, 90, 0.9]],
    ]
)
BOXES = np.array([[10, 10, 100, 80], [120, 20, 75, 75.0]])


def some(people=2, **about):
    image = np.full((120, 200, 3), 90, np.uint8)
    about = {"image": image, "source": "a.jpg", **about}
    return Pose(POINTS[:people].copy(), BOXES[:people], np.array([0.4, 0.95])[:people], FOUR, **about)


# --- as an array ------------------------------------------------------------------------------------------------------


def test_it_is_its_keypoints():
    pose = some()
    assert (pose.shape, pose.dtype, len(pose)) == ((2, 4, 3), np.float64, 2)
    np.testing.assert_array_equal(np.asarray(pose), POINTS)
    np.testing.assert_array_equal(pose[1, :, :2], POINTS[1, :, :2])
    np.testing.assert_array_equal(pose[..., 2], pose.scores)
    np.testing.assert_array_equal(list(pose), POINTS)
    np.testing.assert_array_equal(pose - 1, POINTS - 1)
    np.testing.assert_array_equal(2 * pose, 2 * POINTS)
    np.testing.assert_array_equal(pose - pose, 0 * POINTS)
    np.testing.assert_array_equal(np.sqrt(pose), np.sqrt(POINTS))
    np.testing.assert_array_equal(np.concatenate([pose, pose]), np.concatenate([POINTS, POINTS]))
    np.testing.assert_allclose(np.mean(pose, axis=0), POINTS.mean(axis=0))
    np.testing.assert_array_equal(pose == POINTS, np.ones((2, 4, 3), bool))
    assert np.asarray(pose, np.float32).dtype == np.float32
    copied = np.array(pose)
    copied[:] = 0
    assert pose[0, 0, 0] == 60
    assert pose.names == FOUR.joints


def test_it_prints_short():
    assert repr(some()) == "Pose(a.jpg: 2 people: 3 of 4 joints (0.40), 4 of 4 joints (0.95))"
    assert repr(some(1, source="")) == "Pose(1 person: 3 of 4 joints (0.40))"
    assert repr(nobody(FOUR, source="a.jpg")) == "Pose(a.jpg: nobody found)"
    assert repr(some().take([0, 1, 1, 1, 1])).count("joints") == 4 and repr(some().take([0] * 9)).endswith(", ...)")


def test_some_of_the_people():
    pose = some(track_ids=np.array([7, 3]))
    one = pose.above(0.5)
    np.testing.assert_array_equal(one.keypoints, POINTS[1:])
    np.testing.assert_array_equal(one.boxes, BOXES[1:])
    assert (one.person_scores.tolist(), one.track_ids.tolist(), one.source) == ([0.95], [3], "a.jpg")
    assert one.image is pose.image
    assert pose.take([1, 0]).track_ids.tolist() == [3, 7]
    assert pose.take(slice(0, 0)).shape == (0, 4, 3)
    assert len(pose.above(0.4)) == 2 and len(pose.above(0.96)) == 0
    assert nobody(FOUR).above().shape == (0, 4, 3)


# --- as records -------------------------------------------------------------------------------------------------------


def test_a_dictionary():
    pose = some(track_ids=np.array([7, 3]), frame=5)
    content = json.loads(json.dumps(pose.to_dict()))
    assert list(content) == ["image", "frame", "people"]
    assert (content["image"], content["frame"]) == ("a.jpg", 5)
    assert content["people"][0] == {
        "track_id": 7,
        "box": [10, 10, 100, 80],
        "score": 0.4,
        "keypoints": {
            "nose": [60, 20, 0.9],
            "left_eye": [75, 20, 0.3],
            "left_hand": [100, 80, 0.8],
            "right_hand": [20, 80, 0.29],
        },
    }
    assert json.loads(json.dumps(nobody(FOUR).to_dict())) == {"image": "", "people": []}
    assert list(some().to_dict()["people"][0]) == ["box", "score", "keypoints"]


def test_rows():
    rows = some().rows()
    assert len(rows) == 8 and list(rows[0]) == row_fields(frames=False)
    assert rows[5] == {
        "image": "a.jpg", "person": 1, "person_score": 0.95, "joint": "left_eye", "x": 170, "y": 30, "score": 0.9
    }  # fmt: skip
    tracked = some(track_ids=np.array([7, 3]), frame=5).rows()
    assert list(tracked[0]) == row_fields(frames=True)
    assert [row["person"] for row in tracked] == [7] * 4 + [3] * 4 and tracked[0]["frame"] == 5
    assert nobody(FOUR).rows() == []


def test_a_dataframe():
    pandas = pytest.importorskip("pandas", reason="needs pandas, which is nobody's dependency")
    table = some().to_dataframe()
    assert isinstance(table, pandas.DataFrame) and table.shape == (8, 7) and table["x"].sum() == POINTS[..., 0].sum()
    assert list(nobody(FOUR).to_dataframe()) == row_fields(frames=False)


def test_a_dataframe_without_pandas(monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(InputError, match=r"^A dataframe takes pandas, which is not installed: pip install pandas\.$"):
        some().to_dataframe()


def test_perfect_predictions_have_an_ap_of_one(tmp_path):
    """COCO's own evaluation of annotated joints as predictions of two images; a joint off by a person's size is not."""
    rng = np.random.default_rng(0)
    annotations, results, worse = [], [], []
    for image_id in (7, 3):
        points = rng.uniform(20, 200, (2, 17, 2)).round(2)
        for person in points:
            number = len(annotations) + 1
            annotations.append(
                {"id": number, "image_id": image_id, "category_id": 1, "iscrowd": 0, "num_keypoints": 17,
                 "area": 20000.0, "bbox": [20, 20, 180, 180],
                 "keypoints": np.concatenate([person, np.full((17, 1), 2)], axis=1).ravel().tolist()}
            )  # fmt: skip
        keypoints = np.concatenate([points, rng.uniform(0.5, 1, (2, 17, 1))], axis=2)
        pose = Pose(keypoints, np.tile([20.0, 20, 180, 180], (2, 1)), np.array([0.9, 0.8]), COCO)
        results += pose.to_coco(image_id)
        pose.keypoints[0, :, 0] += 140
        worse += pose.to_coco(image_id)
    images = [{"id": number, "file_name": f"{number}.jpg", "width": 300, "height": 240} for number in (3, 7)]
    (tmp_path / "truth.json").write_text(
        json.dumps({"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "person"}]})
    )
    results = json.loads(json.dumps(results))
    check_results(results, image_ids=(3, 7))
    assert average_precision(tmp_path / "truth.json", results)["AP"] == pytest.approx(1)
    assert average_precision(tmp_path / "truth.json", worse)["AP"] < 0.6


# --- drawings ---------------------------------------------------------------------------------------------------------


def pixel(image, x, y):
    return tuple(image[int(y), int(x)].tolist())


def colours(image):
    """Of all pixels."""
    return set(map(tuple, image.reshape(-1, 3).tolist()))


def test_one_person_is_drawn_by_sides():
    pose = some(1)
    drawn = pose.draw()
    assert pixel(drawn, 100, 80) == LEFT and pixel(drawn, 60, 20) == MIDDLE
    assert pixel(drawn, 80, 50) == LEFT  # nose to left hand
    assert pixel(drawn, 20, 80) == (90, 90, 90)  # the right hand is uncertain: a ring
    assert RIGHT in colours(drawn)
    assert (pose.image == 90).all()
    np.testing.assert_array_equal(drawn, visualize.draw_skeleton(pose.image, pose, FOUR, threshold=0.3))
    assert pixel(pose.draw(threshold=0.2), 20, 80) == RIGHT
    np.testing.assert_array_equal(nobody(FOUR, image=pose.image).draw(), pose.image)


def test_several_people_have_a_colour_and_a_number_each():
    drawn = some().draw()
    for person in (0, 1):
        for joint in (2, 0):
            assert pixel(drawn, *POINTS[person, joint, :2]) == PEOPLE[person]
    tracked = some(track_ids=np.array([12, 3])).draw()
    assert pixel(tracked, 100, 80) == PEOPLE[2] and pixel(tracked, 190, 90) == PEOPLE[3]
    label = np.array_equal(drawn[8:30, 145:175], tracked[8:30, 145:175])
    assert not label  # 1 and 3 above the nose of the second
    np.testing.assert_array_equal(
        some().draw(numbers=False), visualize.draw_skeleton(some().image, POINTS, FOUR, threshold=0.3)
    )
    alone = some(1, track_ids=np.array([3])).draw(numbers=True)
    assert pixel(alone, 100, 80) == PEOPLE[3] and LEFT not in colours(alone)


def test_boxes_are_drawn():
    for pose, first in ((some(), PEOPLE[0]), (some(1), MIDDLE)):
        drawn, plain = pose.draw(boxes=True), pose.draw()
        assert pixel(drawn, 10, 60) == first and pixel(plain, 10, 60) == (90, 90, 90)  # the left side
        assert pixel(drawn, 30, 90) == first  # the bottom
    assert pixel(drawn, 30, 60) == pixel(plain, 30, 60)  # not filled


def test_lines_in_the_face_are_thin():
    """All but ears, eyes, mouth and nose have the whole width."""
    assert {"nose", "eye", "ear"} <= FACE
    points = np.zeros((1, 17, 3))
    places = {"left_shoulder": (60, 300), "right_shoulder": (540, 300), "left_eye": (60, 50), "nose": (540, 50)}
    for name, place in places.items():
        points[0, COCO.joints.index(name)] = (*place, 1)
    points[0, [j for j, name in enumerate(COCO.joints) if name not in places]] = np.nan
    drawn = visualize.draw_skeleton(np.full((350, 600, 3), 90, np.uint8), points, COCO, threshold=0.2)
    column = (drawn[:, 300] != 90).any(axis=1)
    face, shoulders = column[:150].sum(), column[150:].sum()
    assert 1 <= face <= 0.75 * shoulders


def test_labels_stay_in_the_image():
    points = POINTS.copy()
    points[..., 1] -= 20
    drawn = Pose(points, BOXES, np.ones(2), FOUR, image=np.full((120, 200, 3), 90, np.uint8)).draw()
    assert (drawn[:3, 50:70] != 90).any()
    with pytest.raises(InputError, match=r"keypoints have shape \(2, 3, 3\); give \(people, 4, 3\)"):
        visualize.draw_people(drawn, points[:, :3], FOUR)


def test_an_image_that_was_not_kept():
    with pytest.raises(InputError, match=r"image of Pose\(a\.jpg: 2 people.*\) was not kept"):
        some(image=None).draw()


# --- files ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".png", ".PNG", ".jpg", ".JPEG", ".webp"])
def test_saved_drawings(suffix, tmp_path):
    pose = some()
    pose.save(tmp_path / f"drawn{suffix}", quality=95, boxes=True)
    saved, drawn = np.asarray(Image.open(tmp_path / f"drawn{suffix}")), pose.draw(boxes=True)
    assert saved.shape == drawn.shape
    assert np.abs(saved.astype(int) - drawn).mean() < (0.001 if suffix.lower() == ".png" else 4)


def test_quality(tmp_path):
    for quality in (20, 95):
        some().save(tmp_path / f"{quality}.jpg", quality=quality)
    assert (tmp_path / "20.jpg").stat().st_size < 0.6 * (tmp_path / "95.jpg").stat().st_size


def test_saved_records(tmp_path):
    some(image=None).save(str(tmp_path / "a.json"))
    assert json.loads((tmp_path / "a.json").read_text()) == some().to_dict()


@pytest.mark.parametrize("name", ["a.joints", "a", "gone/a.jpg", "gone/a.json"])
def test_files_that_cannot_be_written(name, tmp_path):
    with pytest.raises(InputError, match=r"cannot be written \(.*\)") as caught:
        some().save(tmp_path / name)
    assert str(tmp_path / name) in str(caught.value) and "\n" not in str(caught.value)
